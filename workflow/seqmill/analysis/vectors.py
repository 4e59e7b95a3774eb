"""The vectors of one dataset of a result, a block at a time."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from seqmill.errors import UserError
from seqmill.outputs.datasets import Dataset
from seqmill.outputs.embedding_file import EmbeddingFile, cut
from seqmill.outputs.names import INDEX
from seqmill.outputs.opening import find, opened


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
            self.dataset = _chosen(poolable(self._file), pooling, layer, self.path)
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
            values = self._means(first, last)
        else:
            values = self._file.read(self.dataset, first, last).astype(np.float32, copy=False)
        # Of what is not finite the sum is not finite either.
        if not np.isfinite(sums := values.sum(axis=1, dtype=np.float64)).all():
            row = first + int(np.flatnonzero(~np.isfinite(sums))[0])
            raise UserError(f"{self.path}: the {self.dataset.name} of row {row:,} is not finite; embed it again")
        return values

    def take(self, rows: np.ndarray) -> np.ndarray:
        """(R, width) float32, the vectors of `rows`, any and in any order."""
        breaks = np.flatnonzero(np.diff(rows) != 1) + 1
        starts, stops = [0, *breaks.tolist()], [*breaks.tolist(), len(rows)]
        parts = [self.read(int(rows[a]), int(rows[b - 1]) + 1) for a, b in zip(starts, stops, strict=True) if b > a]
        return (
            parts[0] if len(parts) == 1 else np.concatenate(parts) if parts else np.empty((0, self.width), np.float32)
        )

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

    def _means(self, first: int, last: int) -> np.ndarray:
        """The means of the states of each sequence, read in stretches as they may be large."""
        means = np.zeros((last - first, self.width), np.float32)
        rows, offsets = np.arange(first, last), self._file.offsets
        for start, stop in cut(self._file.sequence_bytes(self.dataset.name, rows)):
            places = offsets[first + start : first + stop + 1]
            states = self._file.read(self.dataset, int(places[0]), int(places[-1])).astype(np.float32, copy=False)
            counts = np.diff(places)
            filled = np.flatnonzero(counts)
            sums = np.add.reduceat(states, (places[:-1] - places[0])[filled], axis=0, dtype=np.float64)
            means[start + filled] = sums / counts[filled, None]
        return means


def poolable(file: EmbeddingFile) -> list[Dataset]:
    """The datasets that give a vector per sequence; the states per token only where there is no other."""
    computed = [dataset for dataset in file.datasets if dataset.is_computed]
    return [dataset for dataset in computed if not dataset.is_per_token] or computed


def _chosen(stored: list[Dataset], pooling: str | None, layer: int | None, path: Path) -> Dataset:
    names = sorted({dataset.representation for dataset in stored})
    if not names:
        raise UserError(f"{path}: holds no vectors; embed with pooling mean")
    if pooling is None:
        pooling = "mean" if "mean" in names else names[0]
    own = {dataset.layer: dataset for dataset in stored if dataset.representation == pooling}
    if not own:
        raise UserError(f"{path}: holds no {pooling} per sequence; it has {', '.join(names)}")
    known = sorted(number for number in own if number is not None)
    if layer is None:
        return own[known[-1]] if known else next(iter(own.values()))
    if layer not in own:
        raise UserError(f"{path}: holds no {pooling} of layer {layer}; it has {', '.join(map(str, known)) or 'none'}")
    return own[layer]
