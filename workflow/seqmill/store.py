"""The result file: HDF5 with one dataset per pooling, whose rows are written where they belong in any order."""

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from seqmill.errors import UserError, first_line
from seqmill.files import needs_room

STRINGS = h5py.string_dtype("utf-8")
# What is read or copied at a time.
BLOCK_BYTES = 64 * 2**20


def lay_out(
    path: Path,
    ids: Sequence[str],
    lengths: np.ndarray,
    datasets: Mapping[str, tuple[int, np.dtype]],
    attributes: Mapping[str, Any],
) -> None:
    """Create a result file that is complete but for the values of its datasets.

    Args:
        ids: (N,) names of the rows.
        lengths: (N,) residues of each.
        datasets: name to (width, dtype); names that start with `residues` hold a row per residue.
        attributes: root attributes.
    """
    with h5py.File(path, "w") as file:
        _reserve(path, ids)
        file.create_dataset("ids", data=np.array(ids, dtype=object), dtype=STRINGS)
        file.create_dataset("lengths", data=np.asarray(lengths, dtype=np.int64))
        if any(is_per_residue(name) for name in datasets):
            file.create_dataset("offsets", data=_offsets(lengths))
        for name, (width, dtype) in datasets.items():
            rows = int(np.sum(lengths)) if is_per_residue(name) else len(lengths)
            file.create_dataset(name, (rows, width), dtype, dcpl=_laid_out())
        file.attrs.update(attributes)


class Damaged(Exception):
    """A file is no whole result file."""


@dataclass(frozen=True)
class Extent:
    """Where the values of a dataset stand in the file: `offset` in bytes, then row after row without gaps."""

    offset: int
    shape: tuple[int, int]
    dtype: np.dtype

    @property
    def row_bytes(self) -> int:
        return self.shape[1] * self.dtype.itemsize

    @property
    def end(self) -> int:
        return self.offset + self.shape[0] * self.row_bytes


class EmbeddingFile:
    """A result file, finished or with rows still to be written. Use as a context manager.

    Values bypass HDF5: through h5py each access holds Python's lock, which stalls the thread that feeds the GPU, and
    rows in no order take a call each.

    Attributes:
        lengths: (N,) int64, residues per sequence.
        offsets: (N + 1,) int64, where each sequence begins in a dataset with a row per residue.
        extents: dataset name to where its values stand.
        attributes: root attributes.

    Raises:
        FileNotFoundError: there is none.
        Damaged: it is no whole result file.
    """

    def __init__(self, path: Path, writable: bool = False):
        self.path = path
        try:
            with h5py.File(path) as file:
                self.lengths = file["lengths"][:]
                self.extents = {name: _extent(file[name]) for name in file if name not in ("ids", "lengths", "offsets")}
                self.attributes = dict(file.attrs)
        except FileNotFoundError:
            raise
        except Exception as error:  # h5py has one for every way in which a file can be damaged
            raise Damaged(first_line(error)) from None
        self.offsets = _offsets(self.lengths)
        self.descriptor = os.open(path, os.O_RDWR if writable else os.O_RDONLY)

    def __enter__(self) -> "EmbeddingFile":
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.descriptor)

    def ids(self) -> np.ndarray:
        """(N,) str."""
        with h5py.File(self.path) as file:
            return file["ids"].asstr()[:]

    def write(self, rows: np.ndarray, values: Mapping[str, np.ndarray]) -> None:
        """Write the values of sequences `rows`.

        Args:
            rows: (S,) row numbers.
            values: per dataset (S, width), or (sum of the rows' lengths, width) where it is per residue.

        Raises:
            UserError: the disk is full.
        """
        at = np.concatenate([[0], np.cumsum(self.lengths[rows])])
        for start, stop in _runs(rows):
            for name, value in values.items():
                if is_per_residue(name):
                    self._write(name, self.offsets[rows[start]], value[at[start] : at[stop]])
                else:
                    self._write(name, rows[start], value[start:stop])

    def _write(self, name: str, row: int, values: np.ndarray) -> None:
        extent = self.extents[name]
        position = extent.offset + int(row) * extent.row_bytes
        left = memoryview(np.ascontiguousarray(values, extent.dtype)).cast("B")
        while left:
            with needs_room(self.path.parent):
                written = os.pwrite(self.descriptor, left, position)
            position, left = position + written, left[written:]

    def sync(self) -> None:
        """Wait until what was written is on the disk."""
        os.fsync(self.descriptor)

    def values(self, name: str) -> np.ndarray:
        """A dataset's values, mapped from the file and not read."""
        extent = self.extents[name]
        if 0 in extent.shape:
            return np.empty(extent.shape, extent.dtype)
        return np.memmap(self.path, extent.dtype, "r", extent.offset, extent.shape)

    def blocks(self, name: str, rows: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Sequences `rows` and their values in ascending order, about BLOCK_BYTES at a time."""
        values, rows = self.values(name), np.sort(rows)
        starts = self.offsets if is_per_residue(name) else np.arange(len(self.lengths) + 1)
        for first, last in _runs(rows):
            run = rows[first:last]
            for start, stop in cut(self.sequence_bytes(name, run)):
                part = run[start:stop]
                yield part, values[starts[part[0]] : starts[part[-1] + 1]]

    def sequence_bytes(self, name: str, rows: np.ndarray) -> np.ndarray:
        """(S,) int64, what the values of each of the sequences `rows` take in a dataset."""
        lengths = self.lengths[rows] if is_per_residue(name) else np.ones_like(rows)
        return lengths * self.extents[name].row_bytes


def _reserve(path: Path, ids: Sequence[str]) -> None:
    """Take the room for what HDF5 writes itself before it does: on a full disk it can crash the process."""
    size = sum(len(name.encode()) + 64 for name in ids) + 24 * len(ids) + 2**16
    with path.open("rb+") as file:
        os.posix_fallocate(file.fileno(), 0, size)


def _offsets(lengths: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])


def _laid_out() -> h5py.h5p.PropDCID:
    """Contiguous, its place in the file known from the start, and no fill values: each row is written once."""
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_layout(h5py.h5d.CONTIGUOUS)
    properties.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    properties.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    return properties


def _extent(dataset: h5py.Dataset) -> Extent:
    """None has an offset where it holds nothing."""
    return Extent(dataset.id.get_offset() or 0, dataset.shape, dataset.dtype)


def check_room(folder: Path, lengths: np.ndarray, datasets: Mapping[str, tuple[int, np.dtype]]) -> None:
    """Compare the space that the values of sequences need with what is free, before any work is done for them.

    Raises:
        UserError: too little is free.
    """
    rows = {True: int(np.sum(lengths)), False: len(lengths)}
    needed = sum(rows[is_per_residue(name)] * width * dtype.itemsize for name, (width, dtype) in datasets.items())
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"{folder}: the embeddings need {needed / 1e9:.1f} GB, but the disk has {free / 1e9:.1f} GB free; make room, or "
            "store less (pooling mean, fewer layers)"
        )


def is_per_residue(dataset: str) -> bool:
    return dataset.startswith("residues")


def cut(sizes: np.ndarray) -> Iterator[tuple[int, int]]:
    """(start, stop) of stretches of about BLOCK_BYTES, or one entry that is larger; `sizes` in bytes."""
    ends = np.cumsum(sizes)
    start = 0
    while start < len(sizes):
        done = ends[start - 1] if start else 0
        stop = max(int(np.searchsorted(ends, done + BLOCK_BYTES, side="right")), start + 1)
        yield start, stop
        start = stop


def _runs(rows: np.ndarray) -> list[tuple[int, int]]:
    """(start, stop) of stretches in which row numbers ascend by one: [4, 5, 2] gives [(0, 2), (2, 3)]."""
    breaks = (np.flatnonzero(np.diff(rows) != 1) + 1).tolist()
    return list(zip([0, *breaks], [*breaks, len(rows)], strict=True)) if len(rows) else []
