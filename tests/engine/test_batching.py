"""Packing: every residue at its place, positions that restart, batches within their size."""

import itertools
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch

from seqmill.engine.batching import PackedBatches, loader, plan
from seqmill.inputs.fasta import Record
from seqmill.inputs.sequences import Sequences
from seqmill.models.esm2.config import TOKENS, tokenizer

TOKENIZER = tokenizer()


def batches_of(letters: list[str], max_tokens: int, fill: bool, first: int = 0) -> PackedBatches:
    sequences = Sequences([Record(str(n), text.encode(), None, 0) for n, text in enumerate(letters)])
    return PackedBatches(sequences, TOKENIZER.tokens(sequences), TOKENIZER, max_tokens, fill, first)


def decode(batch) -> list[str]:
    return [TOKENS[token] for token in batch.token_ids.tolist()]


def test_pack_lays_sequences_end_to_end_and_fills_up():
    batch = batches_of(["LA", "AAAAAAAAAA", "MKV"], 12, fill=True)[1]
    assert decode(batch) == ["<cls>", "M", "K", "V", "<eos>", "<cls>", "L", "A", "<eos>", "<pad>", "<pad>", "<pad>"]
    assert batch.positions().tolist() == [0, 1, 2, 3, 4, 0, 1, 2, 3, 0, 1, 2]
    assert batch.cu_seqlens.tolist() == [0, 5, 9]
    assert batch.content().tolist() == [1, 2, 3, 6, 7]
    assert batch.kept.tolist() == [[0, 5], [1, 6], [4, 8], [5, 9]]
    assert (batch.index, batch.rows.tolist(), batch.longest) == (1, [2, 0], 5)


def test_every_letter_has_its_token():
    for letter in "ACDEFGHIKLMNPQRSTVWYXBUZO":
        assert TOKENS[TOKENIZER.table[ord(letter)]] == letter
    assert TOKENS[TOKENIZER.table[ord("J")]] == "<unk>"


@pytest.mark.parametrize("max_tokens", [1, 10, 17, 100, 10_000])
def test_plan_keeps_to_the_batch_size_and_loses_nothing(max_tokens):
    tokens = np.sort(np.random.default_rng(0).integers(3, 60, 200))[::-1]
    bounds = plan(tokens, max_tokens)
    assert bounds[0] == 0
    assert bounds[-1] == 200
    assert (np.diff(bounds) > 0).all()
    for start, stop in itertools.pairwise(bounds):
        # Only a sequence alone may be longer, and a batch ends only when the next one would.
        assert tokens[start:stop].sum() <= max_tokens or stop == start + 1
        assert stop == 200 or tokens[start : stop + 1].sum() > max_tokens


def test_plan_of_nothing_is_empty():
    assert len(plan(np.array([], dtype=np.int64), 100)) == 1


def test_batches_cover_the_file_longest_first():
    letters = ["A" * 5, "C" * 50, "D" * 20, "E" * 50, "F"]
    batches = batches_of(letters, 60, fill=True)
    assert [batch.rows.tolist() for batch in batches] == [[1], [3], [2, 0, 4]]
    assert [len(batch.token_ids) for batch in batches] == [60, 60, 60]
    for batch in batches:
        starts = batch.cu_seqlens.tolist()
        for row, start, length in zip(batch.rows, starts, batch.content_counts, strict=False):
            assert "".join(decode(batch)[start + 1 : start + 1 + length]) == letters[row]


def test_a_sequence_beyond_the_batch_size_makes_a_batch_of_its_own():
    batches = batches_of(["A" * 100, "C" * 10], 30, fill=True)
    assert [len(batch.token_counts) for batch in batches] == [1, 1]
    assert [len(batch.token_ids) for batch in batches] == [128, 30]
    assert batches.packing_efficiency() == pytest.approx(114 / 158)


def test_without_filling_batches_are_as_long_as_needed():
    batches = batches_of(["A" * 100, "C" * 10], 30, fill=False)
    assert [len(batch.token_ids) for batch in batches] == [102, 12]
    assert batches.packing_efficiency() == 1


def test_workers_deliver_the_same_batches_in_order():
    random = np.random.default_rng(1)
    letters = ["ACDEFGHIKLMNPQRSTVWY"[n % 20] * int(length) for n, length in enumerate(random.integers(1, 80, 60))]
    batches = batches_of(letters, 200, fill=True)
    alone = list(batches)
    for workers in (0, 2):
        together = list(loader(batches, workers, pin_memory=False))
        assert len(together) == len(alone)
        for a, b in zip(alone, together, strict=True):
            assert a.index == b.index
            assert torch.equal(a.token_ids, b.token_ids)
            assert np.array_equal(a.rows, b.rows)


def test_what_is_left_of_a_shard_is_batched_as_in_the_whole():
    letters = ["A" * length for length in (50, 40, 30, 20, 10)]
    whole, rest = batches_of(letters, 80, fill=True), batches_of(letters, 80, fill=True, first=1)
    assert [batch.rows.tolist() for batch in whole] == [[0], [1, 2], [3, 4]]
    assert [batch.rows.tolist() for batch in rest] == [[1, 2], [3, 4]]
    for index in range(2):
        assert torch.equal(rest[index].token_ids, whole[index + 1].token_ids)
        assert rest[index].token_counts.tolist() == whole[index + 1].token_counts.tolist()


PARENT_IS_KILLED = """
import os, signal, time
from functools import partial
from seqmill.engine import batching
from test_batching import batches_of

def killed_first(end, parent, worker):
    print("a worker", flush=True)
    os.kill(parent, signal.SIGKILL)
    while os.getppid() == parent:
        time.sleep(0.01)
    end(parent, worker)

batching._end_without = partial(killed_first, batching._end_without)
list(batching.loader(batches_of(["LA"], 12, fill=True), 1, pin_memory=False))
"""


def test_a_worker_whose_parent_is_killed_before_it_begins_ends():
    path = os.pathsep.join(entry for entry in sys.path if entry)
    command = [sys.executable, "-c", PARENT_IS_KILLED]
    # Its end is the end of its output, which a worker that stays has open.
    ended = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": path}, stdout=subprocess.PIPE, text=True, timeout=60
    )
    assert (ended.returncode, ended.stdout) == (-signal.SIGKILL, "a worker\n")
