"""What in the benchmarks can be wrong without a GPU to show it: how the peers get their sequences."""

import itertools

import pytest
from common import by_length, total
from peers import padded_batches

from seqmill.inputs.fasta import Record

PROTEINS = [Record(str(n), b"A" * (1 + 37 * n % 100), None, 0) for n in range(60)]


@pytest.mark.parametrize("tokens", [1, 200, 1_000, 100_000])
def test_padded_batches_keep_to_their_tokens_and_lose_nothing(tokens):
    batches = padded_batches(by_length(PROTEINS), tokens, None)
    assert list(itertools.chain(*batches)) == by_length(PROTEINS)
    for batch in batches:
        padded = len(batch) * (len(batch[0].sequence) + 2)
        assert padded <= tokens or len(batch) == 1


def test_padded_batches_of_a_count_keep_the_order_of_the_file():
    batches = padded_batches(PROTEINS, None, 8)
    assert [len(batch) for batch in batches] == [8] * 7 + [4]
    assert sum(map(total, batches)) == total(PROTEINS)
    assert list(itertools.chain(*batches)) == PROTEINS
