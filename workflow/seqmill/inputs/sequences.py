"""The sequences of one shard in memory, longest first."""

import hashlib
from collections.abc import Sequence
from functools import cached_property

import numpy as np

from seqmill.inputs.fasta import Record


class Sequences:
    """The sequences of one shard in the order of computing: longest first.

    Attributes:
        ids: names, in the file's order.
        rows: (N,) int64, the file's row of each sequence in the order of computing.
        letters: (total,) uint8, end to end in the order of computing.
        offsets: (N + 1,) int64, where each begins in `letters`.
    """

    def __init__(self, records: Sequence[Record]):
        self.ids = [record.id for record in records]
        lengths = np.array([len(record.sequence) for record in records], dtype=np.int64)
        self.rows = np.argsort(-lengths, kind="stable")
        letters = b"".join(records[row].sequence for row in self.rows.tolist())
        self.letters = np.frombuffer(letters, dtype=np.uint8)
        self.offsets = np.concatenate([[0], np.cumsum(lengths[self.rows])])

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def lengths(self) -> np.ndarray:
        """(N,) int64, letters per sequence in the file's order."""
        return self.in_file_order(np.diff(self.offsets))

    def in_file_order(self, values: np.ndarray) -> np.ndarray:
        """(N,) values that are in the order of computing, in the file's order."""
        reordered = np.empty_like(values)
        reordered[self.rows] = values
        return reordered

    def share(self, done: int) -> float:
        """Share of the letters that the first `done` sequences in the order of computing have."""
        return float(self.offsets[done] / self.offsets[-1]) if self.offsets[-1] else 0.0

    def digest(self) -> str:
        """SHA-256 over ids and residues in order, hexadecimal."""
        digest = hashlib.sha256("\n".join(self.ids).encode())
        digest.update(self.lengths.tobytes())
        digest.update(self.letters)
        return digest.hexdigest()
