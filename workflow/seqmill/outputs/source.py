"""A file that a merge reads from: what is where in it, and its values in the order in which they stand.

Thousands of them are known at once, and one is open.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np

from seqmill.files import read_at
from seqmill.outputs.embedding_file import Damaged, EmbeddingFile, cut, sequence_checksum
from seqmill.outputs.layout import offsets

# What is read at a time. malloc gives blocks of up to 32 MiB again, larger ones are new memory each time.
READ_BYTES = 16 * 2**20
# What is read along between two sequences rather than left out.
GAP_BYTES = 16 * 2**10


class Block(NamedTuple):
    """Some sequences of a file and their values in one dataset.

    Attributes:
        rows: (S,) of the sequences, ascending.
        begins, ends: (S,) where the values of each are in `content`, in bytes.
        content: (bytes,) uint8, whole rows of the dataset; of other sequences, too, where these stand between.
    """

    rows: np.ndarray
    begins: np.ndarray
    ends: np.ndarray
    content: np.ndarray

    def checksum(self) -> int:
        """What its sequences add to the dataset's checksum."""
        content = memoryview(self.content)
        places = zip(self.rows.tolist(), self.begins.tolist(), self.ends.tolist(), strict=True)
        return sum(sequence_checksum(content[begin:end], row) for row, begin, end in places)


class Source:
    """What is to be known of a result file to read from it when its turn comes.

    Attributes:
        path: of the file.
        extents, datasets, attributes: see `EmbeddingFile`.
        count: its sequences.
    """

    def __init__(self, file: EmbeddingFile):
        self.path = file.path
        self.extents, self.datasets, self.attributes = file.extents, file.datasets, file.attributes
        self.count = len(file.lengths)
        # Eight bytes a sequence, where they are needed.
        self._offsets = file.offsets if any(dataset.is_per_token for dataset in file.datasets) else None

    def token_counts(self, rows: np.ndarray) -> np.ndarray:
        """(S,) content tokens of sequences `rows`, where a dataset is per token."""
        return self._offsets[rows + 1] - self._offsets[rows]

    def begins(self, name: str) -> np.ndarray:
        """(N + 1,) where each sequence begins in a dataset, in bytes."""
        dataset = self.extents[name].dataset
        rows = self._offsets if dataset.is_per_token else np.arange(self.count + 1)
        return rows * dataset.row_bytes

    @contextmanager
    def opened(self) -> Iterator[int]:
        """The descriptor of the file while the block runs."""
        descriptor = os.open(self.path, os.O_RDONLY)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def blocks(self, name: str, rows: np.ndarray, is_last: bool = False) -> Iterator[Block]:
        """The values of sequences `rows`, ascending and each once, about READ_BYTES at a time.

        Each part of the file is read once and in order, and the next one is asked for before it is waited for.

        Args:
            is_last: whether nobody is expected to read them again: the kernel may have their room in its cache.

        Raises:
            Damaged: the file ends too early.
        """
        starts = self.begins(name)
        begins, ends = starts[rows], starts[rows + 1]
        gaps = begins[1:] - ends[:-1]
        along = np.concatenate([np.zeros(min(len(rows), 1), np.int64), np.where(gaps > GAP_BYTES, 0, gaps)])
        parts = list(cut(ends - begins + along, READ_BYTES))
        with self.opened() as descriptor:
            for number, part in enumerate(parts):
                for start, stop in parts[number + 1 : number + 2]:
                    size = ends[stop - 1] - begins[start]
                    # Else most of it would be read in vain.
                    if size <= 2 * READ_BYTES:
                        os.posix_fadvise(descriptor, self._offset(name) + begins[start], size, os.POSIX_FADV_WILLNEED)
                own = slice(*part)
                yield self._read(descriptor, self._offset(name), rows[own], begins[own], ends[own])
                if is_last:
                    first, last = self._offset(name) + begins[part[0]], self._offset(name) + ends[part[1] - 1]
                    os.posix_fadvise(descriptor, first, last - first, os.POSIX_FADV_DONTNEED)

    def _offset(self, name: str) -> int:
        return self.extents[name].offset

    def _read(self, descriptor: int, offset: int, rows: np.ndarray, begins: np.ndarray, ends: np.ndarray) -> Block:
        """The values of some sequences in one block, without what stands between those that are far apart."""
        breaks = np.flatnonzero(begins[1:] - ends[:-1] > GAP_BYTES) + 1
        firsts, lasts = begins[[0, *breaks]], ends[[*breaks - 1, -1]]
        # Where each stretch is in the block.
        places = offsets(lasts - firsts)
        content = np.empty(places[-1], np.uint8)
        for first, start, stop in zip(firsts.tolist(), places.tolist(), places[1:].tolist(), strict=False):
            if not read_at(descriptor, memoryview(content[start:stop]), offset + first):
                raise Damaged(f"{self.path.name} ends too early")
        moved = np.repeat(places[:-1] - firsts, np.diff([0, *breaks, len(rows)]))
        return Block(rows, begins + moved, ends + moved, content)
