"""Hashes are numbered as they come, and those with the same key are told apart."""

import numpy as np
import pytest

from seqmill.inputs import hash_index
from seqmill.inputs.hash_index import HashIndex


def hashes(numbers):
    """A hash of 32 bytes of each number."""
    return np.random.default_rng(0).integers(256, size=(1_000, 32), dtype=np.uint8)[numbers]


KEYS = {
    "as it is": hash_index.first_bytes,
    "four keys": lambda found: (found[:, 0] % 4).astype(np.uint64),
    "one key": lambda found: np.zeros(len(found), np.uint64),
}


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
@pytest.mark.parametrize("size", [1, 7, 100, 3_000])
def test_numbers_are_those_of_a_dictionary(key, size):
    given = np.random.default_rng(size).integers(400, size=3_000)
    index, numbers, new, expected = HashIndex(key), [], [], {}
    for start in range(0, len(given), size):
        own, rows = index.add(hashes(given[start : start + size]))
        numbers += own.tolist()
        new += (start + rows).tolist()
    wanted = [expected.setdefault(number, len(expected)) for number in given.tolist()]
    assert numbers == wanted
    assert new == np.unique(wanted, return_index=True)[1].tolist()
    assert np.array_equal(index.hashes, hashes(list(expected)))


def test_nothing_is_numbered_where_nothing_is_given():
    index = HashIndex()
    numbers, rows = index.add(hashes([]))
    assert (len(numbers), len(rows), len(index.hashes)) == (0, 0, 0)
