"""A result as Python reads it: vectors, residues and records by id.

import seqmill

with seqmill.open("results") as e:
    e["P0A6F5"]             # the sequence's vector
    e.residues("P0A6F5")    # a row per residue (DNA: token), where they were stored
    e.to_frame()            # all vectors as a DataFrame
    e.index                 # length, description, ... of each sequence
"""

import difflib
import json
import os
import shutil
import weakref
from collections.abc import Iterator
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from seqmill.errors import UserError
from seqmill.outputs.choice import chosen, of_layer
from seqmill.outputs.datasets import TOKEN_STARTS, Dataset
from seqmill.outputs.embedding_file import EmbeddingFile
from seqmill.outputs.names import INDEX
from seqmill.outputs.opening import find, opened, plain

if TYPE_CHECKING:
    import pandas as pd

# Ids that a mistyped one is compared with.
COMPARED = 10_000


def open(path: str | os.PathLike[str]) -> "Embeddings":
    """Open a result; its values are read when they are asked for.

    Args:
        path: a folder of results (of the workflow, of one of its samples, or of `seqmill embed`), or its embeddings.h5.

    Raises:
        UserError: there is no result, or a damaged one.
    """
    path = Path(path)
    return Embeddings(find(path) if path.is_dir() else path)


class Embeddings:
    """The embeddings of N sequences. Use as a context manager, or `close` it; it may be read from several threads.

    What it returns are copies: they stay valid when it is closed.

    Args:
        path: an embeddings.h5.
        temporary: a folder to remove when it is closed or no longer used.

    Attributes:
        path: the file.
        lengths: (N,) int64, letters of each sequence, in the order of the ids.

    Raises:
        UserError: there is no such file, or it is damaged.
    """

    def __init__(self, path: Path, temporary: Path | None = None):
        self.path = path
        self._file: EmbeddingFile | None = opened(path)
        self.lengths: np.ndarray = self._file.lengths
        self._close = weakref.finalize(self, _dispose, self._file, temporary)

    def __enter__(self) -> "Embeddings":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; a temporary result is removed."""
        self._close()
        self._file = None

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[str]:
        return iter(self.ids)

    def __contains__(self, sequence: object) -> bool:
        return sequence in self._rows

    def __getitem__(self, sequence: str) -> np.ndarray:
        """(width,) float32, a sequence's vector by its id: `mean` if that is stored, else the first other; of the last layer.

        Raises:
            KeyError: there is no such sequence; names some with a similar id.
            UserError: only residues are stored.
        """
        return self.vector(sequence)

    def vector(self, sequence: str, name: str | None = None, layer: int | None = None) -> np.ndarray:
        """(width,) float32, one vector of a sequence; `name` and `layer` as for `vectors`."""
        row = self._row(sequence)
        return self._open_file.read(self._pooled(name, layer), row, row + 1)[0]

    def residues(self, sequence: str, layer: int | None = None) -> np.ndarray:
        """(tokens, width) float16 or float32, a row for each residue; of DNA for each token, see `token_starts`.

        Args:
            layer: one that is stored; None is the last of them.

        Raises:
            KeyError: there is no such sequence.
            UserError: residues, or that layer, are not stored.
        """
        stored = [e for e in self._open_file.datasets if e.is_per_token and e.is_computed]
        if not stored:
            raise UserError(
                f"{self.path}: holds no residues; embed with model.pooling [mean, residues] in config.yaml "
                '(pooling=["mean", "residues"] in Python)'
            )
        return self._per_token(sequence, of_layer(stored, layer, self.path))

    def token_starts(self, sequence: str) -> np.ndarray:
        """(tokens,) int32, where in the sequence, counted from 0, the letters of each row of `residues` begin.

        Raises:
            KeyError: there is no such sequence.
            UserError: they are not stored: there are no residues, or each row is one letter.
        """
        stored = [dataset for dataset in self._open_file.datasets if dataset.name == TOKEN_STARTS]
        if not stored:
            raise UserError(
                f"{self.path}: holds no {TOKEN_STARTS}; only residues of models with tokens of several letters do"
            )
        return self._per_token(sequence, stored[0])[:, 0]

    def vectors(self, name: str | None = None, layer: int | None = None) -> np.ndarray:
        """(N, width) float32, a row for each sequence in the order of the ids.

        Args:
            name: a pooling such as mean, or a name of `datasets`; None is mean if that is stored, else the first other.
            layer: one that is stored; None is the last of them.

        Raises:
            UserError: it is not stored.
        """
        return self._open_file.read(self._pooled(name, layer), 0, len(self))

    def to_frame(self, name: str | None = None, layer: int | None = None) -> "pd.DataFrame":
        """The vectors as a DataFrame of N rows, indexed by id; arguments as for `vectors`."""
        import pandas as pd

        return pd.DataFrame(self.vectors(name, layer), index=pd.Index(self.ids, name="id"), copy=False)

    @cached_property
    def ids(self) -> list[str]:
        """The N ids, in the order of the rows."""
        file = self._open_file
        if not self.path.exists() or not os.path.samestat(self.path.stat(), os.fstat(file.descriptor)):
            raise UserError(f"{self.path}: was replaced since it was opened; open it again")
        return file.ids().tolist()

    @property
    def datasets(self) -> list[str]:
        """The names of what is stored: `mean`, or of several layers `mean_layer30`; and so on."""
        return [dataset.name for dataset in self._open_file.datasets]

    @cached_property
    def attributes(self) -> dict[str, Any]:
        """What is known of the whole: model, revision, dtype, layers, pooling, versions and more, in Python's own types."""
        found = {name: plain(value) for name, value in self._open_file.attributes.items()}
        return found | {"versions": json.loads(found.get("versions", "{}"))}

    @cached_property
    def index(self) -> "pd.DataFrame":
        """N rows: id, length, sequence_sha256, duplicate_of, description and more; None where there is nothing to say.

        Only id and length where there is no index.parquet beside the embeddings.

        Raises:
            UserError: index.parquet belongs to other embeddings.
        """
        import pandas as pd

        path = self.path.with_name(INDEX)
        if not path.exists():
            return pd.DataFrame({"id": self.ids, "length": self.lengths})
        table = pd.read_parquet(path)
        if table["id"].tolist() != self.ids:
            raise UserError(f"{path}: lists other sequences than {self.path}; put the two files of one result together")
        for name in {"duplicate_of", "renamed_from"} & set(table.columns):
            table[name] = table[name].astype(object).where(table[name].notna(), None)
        return table

    def __repr__(self) -> str:
        if self._file is None:
            return f"<Embeddings of {len(self):,} sequences, closed: {self.path}>"
        stored = (f"{e.dataset.name} ({e.rows:,} x {e.dataset.width}, {e.dataset.dtype})" for e in self._extents)
        about = f"{self.attributes.get('model')} in {self.attributes.get('dtype')}"
        return f"<Embeddings of {len(self):,} sequences: {', '.join(stored)}; {about}; {self.path}>"

    @property
    def _open_file(self) -> EmbeddingFile:
        if self._file is None:
            raise ValueError(f"{self.path}: these embeddings are closed; open them again")
        return self._file

    @property
    def _extents(self) -> list[Any]:
        return list(self._open_file.extents.values())

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {sequence: row for row, sequence in enumerate(self.ids)}

    def _row(self, sequence: str) -> int:
        if sequence in self._rows:
            return self._rows[sequence]
        wanted = str(sequence)
        # First what is quickly found among millions.
        close = list(islice((other for other in self.ids if wanted and wanted in other), 3))
        close = close or difflib.get_close_matches(wanted, self.ids[:COMPARED], 3)
        advice = f"; did you mean {' or '.join(close)}?" if close else ""
        raise KeyError(f"there is no sequence {wanted} among these {len(self):,}{advice}")

    def _per_token(self, sequence: str, dataset: Dataset) -> np.ndarray:
        row, offsets = self._row(sequence), self._open_file.offsets
        return self._open_file.read(dataset, int(offsets[row]), int(offsets[row + 1]))

    def _pooled(self, name: str | None, layer: int | None) -> Dataset:
        """The dataset with a vector per sequence that is meant."""
        pooled = [dataset for dataset in self._open_file.datasets if dataset.is_computed and not dataset.is_per_token]
        if not pooled:
            raise UserError(
                f"{self.path}: holds residues only; take the mean of `residues(id)`, or embed with pooling mean"
            )
        return chosen(pooled, name, layer, self.path)


def _dispose(file: EmbeddingFile, temporary: Path | None) -> None:
    file.__exit__()
    if temporary is not None:
        shutil.rmtree(temporary, ignore_errors=True)
