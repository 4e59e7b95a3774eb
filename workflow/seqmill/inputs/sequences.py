"""The distinct sequences of one file in memory, longest first."""

import hashlib
import itertools
from collections.abc import Container, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from seqmill.inputs.record import Record
from seqmill.inputs.shard_file import Shard


class Sequences:
    """The records of one file; each distinct sequence is computed once, in the order of computing: longest first.

    Of N records, D have a sequence of their own; in a shard of the workflow all have.

    Args:
        elsewhere: hashes of sequences that need not be computed, which come before the others in the order of computing.
        path: the file, for messages; None where there is none.

    Attributes:
        ids, descriptions, renamed_from: of the records, see `Record`, in the file's order.
        replaced: (N,) int64, letters of each record that were replaced.
        places: (N,) int64, where the sequence of each record stands in the order of computing.
        rows: (D,) int64, the file's row of the first record with each sequence, in the order of computing.
        known: how many sequences need not be computed.
        copies: (D,) int64, how many records have each sequence, in the order of computing.
        letters: (total,) uint8, the distinct sequences end to end in the order of computing.
        offsets: (D + 1,) int64, where each begins in `letters`.
    """

    def __init__(self, records: Sequence[Record], elsewhere: Container[str] = (), path: Path | None = None):
        self.path = path
        self.ids = [record.id for record in records]
        self.descriptions = [record.description for record in records]
        self.renamed_from = [record.renamed_from for record in records]
        self.replaced = np.array([record.replaced for record in records], dtype=np.int64)
        found: dict[bytes, int] = {}
        numbers = np.array([found.setdefault(record.sequence, len(found)) for record in records], dtype=np.int64)
        distinct = list(found)
        lengths = np.array([len(sequence) for sequence in distinct], dtype=np.int64)
        is_known = np.zeros(len(distinct), dtype=bool)
        if elsewhere:
            is_known[:] = [hashlib.sha256(sequence).hexdigest() in elsewhere for sequence in distinct]
        self.known = int(is_known.sum())
        longest_first = np.lexsort((-lengths, ~is_known))
        self.places = np.argsort(longest_first)[numbers]
        self.copies = np.bincount(self.places, minlength=len(distinct))
        # The rows of the first sequence in the order of computing, then those of the second, and so on.
        self._all_rows = np.argsort(self.places, kind="stable")
        self._begins = np.concatenate([[0], np.cumsum(self.copies)])
        self.rows = self._all_rows[self._begins[:-1]]
        self.letters = np.frombuffer(b"".join(distinct[n] for n in longest_first.tolist()), dtype=np.uint8)
        self.offsets = np.concatenate([[0], np.cumsum(lengths[longest_first])])

    @classmethod
    def of_shard(cls, found: Shard, path: Path | None = None) -> "Sequences":
        """The sequences of a shard, whose file's order is that of computing; `path` as for others."""
        self, count = cls([], path=path), len(found.ids)
        self.ids, self.letters, self.offsets = found
        self.descriptions, self.renamed_from = [""] * count, [None] * count
        self.replaced, self.copies = np.zeros(count, np.int64), np.ones(count, np.int64)
        self.places = self.rows = self._all_rows = np.arange(count)
        self._begins = np.arange(count + 1)
        return self

    def __len__(self) -> int:
        """How many records there are."""
        return len(self.ids)

    @property
    def distinct(self) -> int:
        """How many distinct sequences there are."""
        return len(self.rows)

    @cached_property
    def lengths(self) -> np.ndarray:
        """(N,) int64, letters per record in the file's order."""
        return self.in_file_order(np.diff(self.offsets))

    def in_file_order(self, values: np.ndarray) -> np.ndarray:
        """(D,) values that are in the order of computing, as (N,) in the file's order."""
        return values[self.places]

    def rows_of(self, first: int, last: int) -> np.ndarray:
        """The file's rows of the sequences `first` to `last` in the order of computing, one sequence after the other."""
        return self._all_rows[self._begins[first] : self._begins[last]]

    def hashes(self) -> list[str]:
        """SHA-256 of each distinct sequence, hexadecimal, in the order of computing."""
        bounds = itertools.pairwise(self.offsets.tolist())
        return [hashlib.sha256(self.letters[start:stop]).hexdigest() for start, stop in bounds]

    def share(self, done: int) -> float:
        """Share of the letters that the first `done` sequences in the order of computing have."""
        return float(self.offsets[done] / self.offsets[-1]) if self.offsets[-1] else 0.0

    def digest(self) -> str:
        """SHA-256 over ids and sequences in order, hexadecimal."""
        digest = hashlib.sha256("\n".join(self.ids).encode())
        digest.update(self.lengths.tobytes())
        digest.update(self.letters)
        if self.distinct < len(self):
            # Otherwise the order of computing follows from the lengths.
            digest.update(self.places.tobytes())
        return digest.hexdigest()
