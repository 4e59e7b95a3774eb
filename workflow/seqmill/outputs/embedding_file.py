"""The result file: HDF5 whose rows are written where they belong, in any order, with a checksum per dataset.

A dataset's checksum is the sum, modulo 2**64, of the XXH3 of each sequence's values, seeded with the sequence's row. So
it grows while batches are written in any order, and no file has to be read again when it is complete.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

import h5py
import numpy as np
import xxhash

from seqmill.errors import UserError, first_line
from seqmill.files import read_at, write_at
from seqmill.outputs.datasets import Dataset
from seqmill.outputs.layout import offsets

# What is read or copied at a time.
BLOCK_BYTES = 64 * 2**20
MODULUS = 2**64
# The checksum of all bytes besides the datasets' values is stored under this name: ids, lengths, attributes, HDF5's own.
METADATA = "around"
# Datasets that describe the rows.
OWN = ("ids", "lengths", "offsets")


class Damaged(Exception):
    """A file is not a complete result file."""


@dataclass(frozen=True)
class Extent:
    """Where the values of a dataset are in the file: `offset` in bytes, then row after row without gaps."""

    dataset: Dataset
    offset: int
    rows: int

    @property
    def end(self) -> int:
        return self.offset + self.rows * self.dataset.row_bytes


class EmbeddingFile:
    """A result file, finished or with rows still to be written. Use as a context manager.

    Values bypass HDF5: through h5py each access holds Python's lock, which stalls the thread that feeds the GPU, and
    rows in no order take a call each.

    Attributes:
        lengths: (N,) int64, letters per sequence.
        token_counts: (N,) int64, content tokens per sequence: rows in a dataset that is per token.
        offsets: (N + 1,) int64, where each sequence begins in a dataset that is per token.
        extents: dataset name to what it is and where its values are.
        attributes: root attributes.

    Raises:
        FileNotFoundError: there is none.
        Damaged: it is not a complete result file.
    """

    def __init__(self, path: Path, writable: bool = False):
        self.path = path
        try:
            with h5py.File(path) as file:
                self.lengths = file["lengths"][:]
                # Without datasets per token the offsets are not used.
                self.offsets = file["offsets"][:] if "offsets" in file else offsets(self.lengths)
                self.attributes = dict(file.attrs)
                layers = self.attributes.get("layers", ())
                self.extents = {name: _extent(file[name], name, layers) for name in file if name not in OWN}
        except FileNotFoundError:
            raise
        except Exception as error:  # h5py has one for every way in which a file can be damaged
            raise Damaged(first_line(error)) from None
        self.token_counts = np.diff(self.offsets)
        self.descriptor = os.open(path, os.O_RDWR if writable else os.O_RDONLY)

    def __enter__(self) -> "EmbeddingFile":
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.descriptor)

    @property
    def datasets(self) -> list[Dataset]:
        return [extent.dataset for extent in self.extents.values()]

    def ids(self) -> np.ndarray:
        """(N,) str."""
        # Of thousands of small shards, h5py's own objects would take most of the time.
        file = h5py.h5f.open(os.fsencode(self.path), h5py.h5f.ACC_RDONLY)
        try:
            stored = h5py.h5d.open(file, b"ids")
            found = np.empty(stored.shape, h5py.string_dtype())
            if found.size:
                stored.read(h5py.h5s.ALL, h5py.h5s.ALL, found)
            return np.array([name.decode() for name in found.tolist()], dtype=object)
        finally:
            file.close()

    def starts(self, name: str) -> np.ndarray:
        """(N + 1,) where each sequence begins in a dataset, in rows."""
        return self.offsets if self.extents[name].dataset.is_per_token else self._row_numbers

    @cached_property
    def _row_numbers(self) -> np.ndarray:
        return np.arange(len(self.lengths) + 1)

    def write(self, rows: np.ndarray, values: Mapping[str, np.ndarray]) -> None:
        """Write the values of sequences `rows`.

        Args:
            rows: (S,) row numbers.
            values: per dataset (S, width), or (sum of the rows' content tokens, width) where it is per token.

        Raises:
            UserError: the disk is full.
        """
        for name, value in values.items():
            starts = self.starts(name)
            at = offsets(starts[rows + 1] - starts[rows])
            for first, last in _runs(rows):
                self._write(name, starts[rows[first]], value[at[first] : at[last]])

    def _write(self, name: str, row: int, values: np.ndarray) -> None:
        extent = self.extents[name]
        position = extent.offset + int(row) * extent.dataset.row_bytes
        content = memoryview(np.ascontiguousarray(values, extent.dataset.dtype)).cast("B")
        write_at(self.descriptor, content, position, self.path.parent)

    def sync(self) -> None:
        """Wait until what was written is on the disk."""
        os.fsync(self.descriptor)

    def values(self, name: str) -> np.ndarray:
        """A dataset's values, mapped from the file and not read."""
        extent = self.extents[name]
        shape, dtype = (extent.rows, extent.dataset.width), extent.dataset.dtype
        return np.memmap(self.path, dtype, "r", extent.offset, shape) if 0 not in shape else np.empty(shape, dtype)

    def read(self, dataset: Dataset, first: int, last: int) -> np.ndarray:
        """Some rows of a dataset, through the open file: whatever has its name by now, and from any thread.

        Raises:
            UserError: the file was cut off since it was opened.
        """
        values = np.empty((last - first, dataset.width), dataset.dtype)
        position = self.extents[dataset.name].offset + first * dataset.row_bytes
        if not read_at(self.descriptor, memoryview(values.reshape(-1).view(np.uint8)), position):
            raise UserError(f"{self.path}: ends too early; copy the result again")
        return values

    def blocks(self, name: str, rows: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Sequences `rows` and their values in ascending order, about BLOCK_BYTES at a time."""
        values, rows, starts = self.values(name), np.sort(rows), self.starts(name)
        for first, last in _runs(rows):
            run = rows[first:last]
            for start, stop in cut(self.sequence_bytes(name, run)):
                part = run[start:stop]
                yield part, values[starts[part[0]] : starts[part[-1] + 1]]

    def repeated(
        self, name: str, rows: np.ndarray, copies: np.ndarray, values: np.ndarray
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """The values of some sequences for all rows that have them, about BLOCK_BYTES at a time where they are repeated.

        Args:
            rows: (sum of `copies`,) the rows of the first sequence, then those of the second, and so on.
            copies: (S,) how many rows each sequence has.
            values: of each sequence once; as for `write`.
        """
        if len(rows) == len(copies):
            yield rows, values
            return
        starts = self.starts(name)
        sizes = starts[rows + 1] - starts[rows]
        # Where the values for each row begin in `values`.
        begins = np.repeat(offsets(sizes[offsets(copies)[:-1]])[:-1], copies)
        for start, stop in cut(self.sequence_bytes(name, rows)):
            own = sizes[start:stop]
            block = np.repeat(begins[start:stop] - offsets(own)[:-1], own) + np.arange(own.sum())
            yield rows[start:stop], values[block]

    def sequence_bytes(self, name: str, rows: np.ndarray) -> np.ndarray:
        """(S,) int64, what the values of each of the sequences `rows` take in a dataset."""
        dataset = self.extents[name].dataset
        return dataset.rows(self.token_counts[rows]) * dataset.row_bytes

    def checksum_of(self, name: str, rows: np.ndarray, values: np.ndarray) -> int:
        """Checksum of some sequences' values in one dataset.

        Args:
            rows: (S,) row numbers of the sequences.
            values: as for `write`; in the dataset's dtype, C-contiguous.
        """
        ends = np.cumsum(self.sequence_bytes(name, rows))
        content = memoryview(values.reshape(-1).view(np.uint8))
        total = start = 0
        for row, end in zip(rows.tolist(), ends.tolist(), strict=True):
            total += sequence_checksum(content[start:end], row)
            start = end
        return total % MODULUS

    def checksum(self, name: str, rows: np.ndarray) -> int:
        """Checksum of some sequences' values as stored in the file."""
        return sum(self.checksum_of(name, part, values) for part, values in self.blocks(name, rows)) % MODULUS

    def metadata_checksum(self) -> int:
        """Checksum of all bytes besides the datasets' values."""
        hashed = xxhash.xxh3_64()
        with self.path.open("rb") as handle:
            for extent in sorted(self.extents.values(), key=lambda extent: extent.offset):
                _hash_until(handle, extent.offset, hashed)
                handle.seek(max(extent.end, handle.tell()))
            _hash_until(handle, self.path.stat().st_size, hashed)
        return hashed.intdigest()


def sequence_checksum(content: memoryview, row: int) -> int:
    """What one sequence adds to its dataset's checksum: its values as bytes, and its row in the file."""
    return xxhash.xxh3_64_intdigest(content, row)


def _hash_until(handle: BinaryIO, end: int, hashed: xxhash.xxh3_64) -> None:
    while (left := end - handle.tell()) > 0:
        content = handle.read(min(left, BLOCK_BYTES))
        if not content:
            return
        hashed.update(content)


def _extent(stored: h5py.Dataset, name: str, layers: np.ndarray) -> Extent:
    rows, width = stored.shape
    # A dataset without values has no offset.
    return Extent(Dataset.stored(name, width, stored.dtype, stored.attrs, layers), stored.id.get_offset() or 0, rows)


def cut(sizes: np.ndarray, limit: int | None = None) -> Iterator[tuple[int, int]]:
    """(start, stop) of stretches of at most `limit` bytes, or one entry that is larger; `sizes` in bytes.

    Args:
        limit: about BLOCK_BYTES if left out.
    """
    ends, limit = np.cumsum(sizes), limit or BLOCK_BYTES
    start = 0
    while start < len(sizes):
        done = ends[start - 1] if start else 0
        stop = max(int(np.searchsorted(ends, done + limit, side="right")), start + 1)
        yield start, stop
        start = stop


def _runs(rows: np.ndarray) -> list[tuple[int, int]]:
    """(start, stop) of stretches in which row numbers ascend by one: [4, 5, 2] gives [(0, 2), (2, 3)]."""
    breaks = (np.flatnonzero(np.diff(rows) != 1) + 1).tolist()
    return list(zip([0, *breaks], [*breaks, len(rows)], strict=True)) if len(rows) else []
