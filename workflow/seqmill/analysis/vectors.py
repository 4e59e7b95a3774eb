"""The vectors of one dataset of a result, a block at a time."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from seqmill.errors import UserError
from seqmill.outputs.choice import chosen
from seqmill.outputs.datasets import Dataset
from seqmill.outputs.embedding_file import EmbeddingFile
from seqmill.outputs.names import INDEX
from seqmill.outputs.opening import find, opened
from seqmill.outputs.token_means import runs, token_means


class Vectors:
    """A vector per sequence, as stored; where only states per token are stored, their mean. Use as a context manager.

    Args:
        path: a folder of results, or its embeddings.h5.
        pooling: the representation; None is `mean` if that is stored, else the first other.
        layer: one that is stored; None is the last of them.

    Attributes:
        path: the file.
        dataset: which of its datasets.
        attributes: of the whole file.

    Raises:
        UserError: there is no result, or it has no such dataset.
    """

    def __init__(self, path: str | os.PathLike[str], pooling: str | None = None, layer: int | None = None):
        self.path = find(Path(path)) if Path(path).is_dir() else Path(path)
        self._file = opened(self.path)
        self.attributes = self._file.attributes
        try:
            if not (stored := poolable(self._file)):
                raise UserError(f"{self.path}: holds no vectors; embed with pooling mean")
            self.dataset = chosen(stored, pooling, layer, self.path)
        except UserError:
            self.close()
            raise

    def __enter__(self) -> "Vectors":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._file.__exit__()

    def __len__(self) -> int:
        return len(self._file.lengths)

    @property
    def width(self) -> int:
        return self.dataset.width

    def read(self, first: int, last: int) -> np.ndarray:
        """(last - first, width) float32, the vectors of some rows of the result.

        Raises:
            UserError: the file was cut off, or holds a vector that is not finite.
        """
        if self.dataset.is_per_token:
            values = token_means(self._file, self.dataset, np.arange(first, last))
        else:
            values = self._file.read(self.dataset, first, last).astype(np.float32, copy=False)
        # Of what is not finite the sum is not finite either.
        if not np.isfinite(sums := values.sum(axis=1, dtype=np.float64)).all():
            row = first + int(np.flatnonzero(~np.isfinite(sums))[0])
            raise UserError(f"{self.path}: the {self.dataset.name} of row {row:,} is not finite; embed it again")
        return values

    def take(self, rows: np.ndarray) -> np.ndarray:
        """(R, width) float32, the vectors of `rows`, any and in any order."""
        parts = [self.read(int(run[0]), int(run[-1]) + 1) for run in runs(rows)]
        return np.concatenate(parts) if len(parts) > 1 else parts[0] if parts else np.empty((0, self.width), np.float32)

    def records(self, columns: Sequence[str]) -> pa.Table:
        """What is known of each sequence, in the order of the rows: some columns of index.parquet, those that it has.

        Without an index there are id and length.

        Raises:
            UserError: index.parquet belongs to other embeddings.
        """
        ids, path = pa.array(self._file.ids(), pa.large_string()), self.path.with_name(INDEX)
        if not path.exists():
            return pa.table({"id": ids, "length": self._file.lengths})
        schema = parquet.read_schema(path)
        table = parquet.read_table(path, columns=[name for name in columns if name in schema.names])
        # More text than 2 GiB, and in one piece, as rows are taken in any order.
        kept = [(f.name, pa.large_string() if pa.types.is_string(f.type) else f.type) for f in table.schema]
        table = table.cast(pa.schema(kept)).combine_chunks()
        if not table["id"].combine_chunks().equals(ids):
            raise UserError(f"{path}: lists other sequences than {self.path}; put the two files of one result together")
        return table


def poolable(file: EmbeddingFile) -> list[Dataset]:
    """The datasets that give a vector per sequence; the states per token only where there is no other."""
    computed = [dataset for dataset in file.datasets if dataset.is_computed]
    return [dataset for dataset in computed if not dataset.is_per_token] or computed
