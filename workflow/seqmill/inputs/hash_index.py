"""The numbers of hashes, in the order in which they first came."""

from collections.abc import Callable

import numpy as np

# Of a new run of keys, and of the one before it: runs that are not twice as large are put together.
GROWTH = 2


def first_bytes(hashes: np.ndarray) -> np.ndarray:
    """(N,) uint64, the first 8 bytes of hashes, (N, 32)."""
    return np.ascontiguousarray(hashes[:, :8]).view(np.uint64)[:, 0]


class HashIndex:
    """The number of each of some hashes of 32 bytes, 48 bytes of memory each.

    Hashes are looked up by a key; those whose keys are the same are compared.

    Args:
        key: (N, 32) uint8 to the keys, (N,) uint64.
    """

    def __init__(self, key: Callable[[np.ndarray], np.ndarray] = first_bytes):
        self._key = key
        self._count = 0
        self._hashes = np.empty((0, 32), np.uint8)
        # Sorted keys, no key in two of them, and the numbers of the hashes that came first with each.
        self._runs: list[tuple[np.ndarray, np.ndarray]] = []
        # Hashes whose key was an other one's before.
        self._others: dict[bytes, int] = {}

    @property
    def hashes(self) -> np.ndarray:
        """(numbers,) uint8 of 32, in the order of their numbers."""
        return self._hashes[: self._count]

    def add(self, hashes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Number hashes, (N, 32) uint8.

        Returns:
            (N,) int64, the number of each; and the rows of those that are new here, each once, in their order.
        """
        keys = self._key(hashes)
        _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
        again = np.flatnonzero(first[inverse] != np.arange(len(keys)))
        if not np.array_equal(hashes[first[inverse[again]]], hashes[again]):
            whole = np.ascontiguousarray(hashes).view("V32")[:, 0]
            _, first, inverse = np.unique(whole, return_index=True, return_inverse=True)
        numbers = self._of_keys(keys[first])
        is_taken = numbers >= 0
        self._compare(numbers, hashes[first])
        new = np.flatnonzero(numbers < 0)
        new = new[np.argsort(first[new])]
        numbers[new] = np.arange(self._count, self._count + len(new))
        rows = first[new]
        self._append(keys[rows], hashes[rows], is_taken[new])
        return numbers[inverse], rows

    def _of_keys(self, keys: np.ndarray) -> np.ndarray:
        """The numbers of the hashes that came first with some keys; -1 for those that none has."""
        numbers = np.full(len(keys), -1, np.int64)
        for known, their_numbers in self._runs:
            at = np.minimum(np.searchsorted(known, keys), len(known) - 1)
            hits = known[at] == keys
            numbers[hits] = their_numbers[at[hits]]
        return numbers

    def _compare(self, numbers: np.ndarray, hashes: np.ndarray) -> None:
        """Correct the numbers of hashes whose keys are other hashes', too; -1 for those that have none."""
        found = np.flatnonzero(numbers >= 0)
        for row in found[(self._hashes[numbers[found]] != hashes[found]).any(axis=1)].tolist():
            numbers[row] = self._others.get(hashes[row].tobytes(), -1)

    def _append(self, keys: np.ndarray, hashes: np.ndarray, is_taken: np.ndarray) -> None:
        """Give new hashes the next numbers; of some the keys are taken."""
        if not len(keys):
            return
        begin, self._count = self._count, self._count + len(keys)
        if self._count > len(self._hashes):
            # In place, where the memory behind is free.
            self._hashes.resize((max(self._count, len(self._hashes) * 5 // 4), 32), refcheck=False)
        self._hashes[begin : self._count] = hashes
        keys, first = np.unique(keys, return_index=True)
        keys, first = keys[~is_taken[first]], first[~is_taken[first]]
        is_other = np.ones(len(hashes), bool)
        is_other[first] = False
        self._others.update((hashes[row].tobytes(), begin + row) for row in np.flatnonzero(is_other).tolist())
        if len(keys):
            self._add_run(keys, begin + first)

    def _add_run(self, keys: np.ndarray, numbers: np.ndarray) -> None:
        while self._runs and len(self._runs[-1][0]) < GROWTH * len(keys):
            more_keys, more_numbers = self._runs.pop()
            keys = np.concatenate([more_keys, keys])
            # Stable sorts merge what is sorted in parts.
            order = np.argsort(keys, kind="stable")
            keys, numbers = keys[order], np.concatenate([more_numbers, numbers])[order]
        self._runs.append((keys, numbers))
