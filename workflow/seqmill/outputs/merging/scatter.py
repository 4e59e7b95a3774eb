"""Values that arrive in the order of the shards, put to their places in a dataset of the merged file.

Long values are written where they belong at once. Short ones would be millions of small writes, so the dataset is cut
into regions as large as the memory: values are appended to the region in which they belong, the first one in memory and
the others in their own place in the file; at the end each region is read, put in order and written again. So what is
read again is never read in small pieces, and nothing at all where everything fits in memory.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from seqmill.files import read_at, write_at
from seqmill.outputs.embedding_file import Extent, cut
from seqmill.outputs.layout import offsets
from seqmill.outputs.merging.ahead import ahead
from seqmill.outputs.source import READ_BYTES

# From this mean size of a sequence's values on they are written one by one.
LONG_BYTES = 64 * 2**10


class Scatter:
    """One dataset of a file that is open for reading and writing, while its values arrive.

    Args:
        path, descriptor: of the file.
        extent: of the dataset.
        starts: (records + 1,) where the values of each record begin in the dataset, in bytes.
        order: (records,) the order in which the records' values will arrive.
        memory: bytes to take at most, or the values of one record.
    """

    def __init__(self, path: Path, descriptor: int, extent: Extent, starts: np.ndarray, order: np.ndarray, memory: int):
        self._path, self._descriptor, self._extent = path, descriptor, extent
        self._starts, self._order = starts, order
        self._are_long = starts[-1] >= LONG_BYTES * len(order)
        sizes = np.diff(starts)
        # The first record of each region, and how much has arrived of it.
        firsts = [first for first, _ in cut(sizes, memory)]
        self._firsts = np.array([*firsts, len(order)])
        self._filled = starts[firsts]
        self._held = np.empty(0 if self._are_long else np.diff(starts[self._firsts]).max(initial=0), np.uint8)

    def add(self, records: np.ndarray, begins: np.ndarray, ends: np.ndarray, content: np.ndarray) -> None:
        """The next records in the order of their arrival.

        Args:
            records: (S,) their numbers.
            begins, ends: (S,) where the values of each are in `content`, in bytes.
        """
        if self._are_long:
            places = zip(self._starts[records].tolist(), begins.tolist(), ends.tolist(), strict=True)
            for place, begin, end in places:
                self._write(place, content[begin:end])
            return
        regions = np.searchsorted(self._firsts, records, side="right") - 1
        together = np.argsort(regions, kind="stable")
        for own in np.split(together, np.flatnonzero(np.diff(regions[together])) + 1):
            if len(own):
                self._append(regions[own[0]], self._gathered(content, begins[own], ends[own]))

    def _append(self, region: int, content: np.ndarray) -> None:
        place = self._filled[region]
        if region == 0:
            self._held[place : place + len(content)] = content
        else:
            self._write(int(place), content)
        self._filled[region] += len(content)

    def finish(self) -> None:
        """Put all regions in order."""
        if self._are_long:
            return
        for region, (first, last) in enumerate(zip(self._firsts[:-1].tolist(), self._firsts[1:].tolist(), strict=True)):
            content = self._held[: self._starts[last] - self._starts[first]]
            if region:
                self._read(int(self._starts[first]), content)
            sizes = np.diff(self._starts[first : last + 1])
            arrived = self._order[(self._order >= first) & (self._order < last)] - first
            begins = np.empty(last - first, np.int64)
            begins[arrived] = offsets(sizes[arrived])[:-1]
            place = int(self._starts[first])
            for part in ahead(self._in_order(content, begins, sizes)):
                self._write(place, part)
                place += len(part)

    def _in_order(self, content: np.ndarray, begins: np.ndarray, sizes: np.ndarray) -> Iterator[np.ndarray]:
        """The values of a region in the order of its records, about READ_BYTES at a time."""
        for start, stop in cut(sizes, READ_BYTES):
            own = slice(start, stop)
            yield self._gathered(content, begins[own], begins[own] + sizes[own])

    def _gathered(self, content: np.ndarray, begins: np.ndarray, ends: np.ndarray) -> np.ndarray:
        """(bytes,) uint8, parts of `content` end to end."""
        dataset = self._extent.dataset
        if dataset.is_per_token:
            view = memoryview(content)
            parts = [view[begin:end] for begin, end in zip(begins.tolist(), ends.tolist(), strict=True)]
            return np.frombuffer(b"".join(parts), np.uint8)
        rows = content.reshape(-1, dataset.row_bytes)
        # With `clip` NumPy does not make a copy first.
        return np.take(rows, begins // dataset.row_bytes, axis=0, mode="clip").reshape(-1)

    def _write(self, place: int, content: np.ndarray) -> None:
        write_at(self._descriptor, memoryview(content), self._extent.offset + place, self._path.parent)

    def _read(self, place: int, content: np.ndarray) -> None:
        # Values of a damaged source, which is reported at the end, never came.
        read_at(self._descriptor, memoryview(content), self._extent.offset + place)
