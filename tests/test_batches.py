"""Packing: every residue at its place, positions that restart, batches within the budget."""

import itertools

import numpy as np
import pytest
import torch

from seqmill.batches import PackedBatches, Sequences, loader, pack, plan
from seqmill.esm2 import TOKENS, vocabulary
from seqmill.fasta import Protein

VOCABULARY = vocabulary()


def sequences(*letters: str) -> Sequences:
    return Sequences([Protein(str(n), text.encode(), None, 0) for n, text in enumerate(letters)])


def decode(batch) -> list[str]:
    return [TOKENS[token] for token in batch.tokens.tolist()]


def test_pack_lays_sequences_end_to_end_and_fills_up():
    letters = np.frombuffer(b"MKVLA", dtype=np.uint8)
    batch = pack(7, letters, np.array([3, 2]), np.array([4, 9]), 12, VOCABULARY)
    assert decode(batch) == ["<cls>", "M", "K", "V", "<eos>", "<cls>", "L", "A", "<eos>", "<pad>", "<pad>", "<pad>"]
    assert batch.positions().tolist() == [0, 1, 2, 3, 4, 0, 1, 2, 3, 0, 1, 2]
    assert batch.cu_seqlens.tolist() == [0, 5, 9]
    assert batch.residues().tolist() == [1, 2, 3, 6, 7]
    assert (batch.number, batch.rows.tolist(), batch.longest) == (7, [4, 9], 5)


def test_every_letter_has_its_token():
    for letter in "ACDEFGHIKLMNPQRSTVWYXBUZO":
        assert TOKENS[VOCABULARY.tokens[ord(letter)]] == letter
    assert TOKENS[VOCABULARY.tokens[ord("J")]] == "<unk>"


@pytest.mark.parametrize("budget", [1, 10, 17, 100, 10_000])
def test_plan_keeps_to_the_budget_and_loses_nothing(budget):
    tokens = np.sort(np.random.default_rng(0).integers(3, 60, 200))[::-1]
    bounds = plan(tokens, budget)
    assert bounds[0] == 0
    assert bounds[-1] == 200
    assert (np.diff(bounds) > 0).all()
    for start, stop in itertools.pairwise(bounds):
        # Only a sequence alone may pass the budget, and a batch ends only when the next one would.
        assert tokens[start:stop].sum() <= budget or stop == start + 1
        assert stop == 200 or tokens[start : stop + 1].sum() > budget


def test_plan_of_nothing_is_empty():
    assert len(plan(np.array([], dtype=np.int64), 100)) == 1


def test_batches_cover_the_file_longest_first():
    letters = ["A" * 5, "C" * 50, "D" * 20, "E" * 50, "F"]
    batches = PackedBatches(sequences(*letters), VOCABULARY, 60, fill=True)
    assert [batch.rows.tolist() for batch in batches] == [[1], [3], [2, 0, 4]]
    assert [len(batch.tokens) for batch in batches] == [60, 60, 60]
    for batch in batches:
        starts = batch.cu_seqlens.tolist()
        for row, start, length in zip(batch.rows, starts, batch.lengths, strict=False):
            assert "".join(decode(batch)[start + 1 : start + 1 + length]) == letters[row]


def test_a_sequence_beyond_the_budget_makes_a_batch_of_its_own():
    batches = PackedBatches(sequences("A" * 100, "C" * 10), VOCABULARY, 30, fill=True)
    assert [len(batch.lengths) for batch in batches] == [1, 1]
    assert [len(batch.tokens) for batch in batches] == [128, 30]
    assert batches.packing_efficiency() == pytest.approx(114 / 158)


def test_without_filling_batches_are_as_long_as_needed():
    batches = PackedBatches(sequences("A" * 100, "C" * 10), VOCABULARY, 30, fill=False)
    assert [len(batch.tokens) for batch in batches] == [102, 12]
    assert batches.packing_efficiency() == 1


def test_workers_deliver_the_same_batches_in_order():
    random = np.random.default_rng(1)
    letters = ["ACDEFGHIKLMNPQRSTVWY"[n % 20] * int(length) for n, length in enumerate(random.integers(1, 80, 60))]
    batches = PackedBatches(sequences(*letters), VOCABULARY, 200, fill=True)
    alone = list(batches)
    for workers in (0, 2):
        together = list(loader(batches, workers, pin_memory=False))
        assert len(together) == len(alone)
        for a, b in zip(alone, together, strict=True):
            assert a.number == b.number
            assert torch.equal(a.tokens, b.tokens)
            assert np.array_equal(a.rows, b.rows)
