"""Several threads that write the values of sequences to one file and compute their checksums."""

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait

import numpy as np

from seqmill.outputs.embedding_file import MODULUS, EmbeddingFile, cut
from seqmill.outputs.layout import offsets

# One writes, and the others compute checksums, which takes a fifth of the time, or have begun with the next part.
WRITERS = 4
# What a thread takes at a time.
PART_BYTES = 8 * 2**20


class Writers:
    """Writes values in parts of whole sequences, on as many threads as there are CPUs, up to WRITERS.

    Args:
        file: where the values go.

    Attributes:
        written: bytes in all.
    """

    def __init__(self, file: EmbeddingFile):
        self.file = file
        self.written = 0
        # Linux lets one thread at a time write to a file; those that wait for it in the kernel do so by spinning.
        self._writing = threading.Lock()
        self._pool = ThreadPoolExecutor(min(WRITERS, len(os.sched_getaffinity(0))), "writer")

    def write(self, name: str, rows: np.ndarray, copies: np.ndarray, values: np.ndarray) -> int:
        """Write one dataset's values; returns when all are in the file, or none is being written any longer.

        Args:
            rows, copies, values: as for `EmbeddingFile.repeated`.

        Returns:
            The checksum of all rows.

        Raises:
            UserError: the disk is full.
        """
        return sum(self._write(name, some, block) for some, block in self.file.repeated(name, rows, copies, values))

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown()

    def _write(self, name: str, rows: np.ndarray, values: np.ndarray) -> int:
        self.written += values.nbytes
        if values.nbytes <= PART_BYTES:
            return self._store(name, rows, values)
        # All of them, even where one fails: the caller may close the file then, or use the memory again.
        parts = [self._pool.submit(self._store, name, *part) for part in self._parts(name, rows, values)]
        wait(parts)
        return sum(part.result() for part in parts) % MODULUS

    def _parts(self, name: str, rows: np.ndarray, values: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Rows and values of stretches of whole sequences, of about PART_BYTES."""
        sizes = self.file.sequence_bytes(name, rows)
        begins = offsets(sizes) // self.file.extents[name].dataset.row_bytes
        for start, stop in cut(sizes, PART_BYTES):
            yield rows[start:stop], values[begins[start] : begins[stop]]

    def _store(self, name: str, rows: np.ndarray, values: np.ndarray) -> int:
        # Neither holds Python's own lock while it works.
        with self._writing:
            self.file.write(rows, {name: values})
        return self.file.checksum_of(name, rows, values)
