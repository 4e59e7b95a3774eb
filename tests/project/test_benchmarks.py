"""What in the benchmarks can be wrong without a GPU to show it: how the peers get their sequences, and random models."""

import gzip
import itertools
import json
import math

import neighbors
import numpy as np
import pytest
import rates
import torch
from common import by_length, read_nucleotides, total
from families import cut
from family_peers import virnucpro_batches
from padded_dnabert import PaddedDNABERT, slopes
from peer_batches import ESM_LETTERS, T5_LETTERS, Padded, packed_batches, padded_batches
from random_model import dnabert_shapes

from seqmill.inputs.fasta import Record
from seqmill.models.esm2.config import tokenizer
from seqmill.planning.rates import FILE

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


def test_virnucpro_batches_keep_to_their_bases_and_the_order_of_the_file():
    batches = virnucpro_batches(PROTEINS, 200)
    assert list(itertools.chain(*batches)) == PROTEINS
    assert all(total(batch) <= 200 for batch in batches)
    assert all(total([*batch, after[0]]) > 200 for batch, after in itertools.pairwise(batches))


def test_packed_batches_hold_every_sequence_longest_first():
    batches = list(packed_batches(PROTEINS, ESM_LETTERS, 200))
    lengths = [length for batch in batches for length in batch.cu_seqlens.diff().tolist()]
    assert lengths == [len(record.sequence) + 2 for record in by_length(PROTEINS)]
    assert all(len(batch.ids) == len(batch.positions) <= 200 for batch in batches)


def test_letters_of_the_peers_are_those_of_the_models():
    own = tokenizer()
    letters = bytes(range(ord("A"), ord("Z") + 1))
    assert ESM_LETTERS(letters).tolist() == [0, *own.table[np.frombuffer(letters, np.uint8)], 2]
    assert ESM_LETTERS.padding == own.padding
    assert T5_LETTERS(b"ALGWCXUZOB").tolist() == [3, 4, 5, 21, 22, 23, 23, 23, 23, 23, 1]


@torch.inference_mode()
def test_the_padded_dnabert_gives_a_sequence_the_same_beside_a_longer_one():
    torch.manual_seed(0)
    model = PaddedDNABERT(layers=2, width=96, heads=6, inner=160).eval()
    rows = [np.array([1, *range(5, 5 + length), 2]) for length in (3, 40)]
    alone, both = (Padded.of(some, 3) for some in (rows[:1], rows))
    expected, found = (batch.mean(model(batch.ids, batch.mask), 0, 0)[0] for batch in (alone, both))
    torch.testing.assert_close(found, expected)


def test_slopes_of_heads_that_are_no_power_of_two_come_from_between():
    expected = [2.0**-k for k in range(1, 9)] + [2.0**-0.5, 2.0**-1.5, 2.0**-2.5, 2.0**-3.5]
    torch.testing.assert_close(slopes(12), torch.tensor(expected))


def test_the_tensors_of_a_random_dnabert_are_as_many_as_the_published_ones():
    sizes = {"hidden_size": 768, "intermediate_size": 3072, "vocab_size": 4096, "type_vocab_size": 2}
    shapes = dnabert_shapes(sizes | {"num_hidden_layers": 12})
    assert len(shapes) == 138
    assert sum(map(math.prod, shapes.values())) == 117_068_544


def test_the_search_of_neighbours_is_compared_with_brute_force(tmp_path):
    row = neighbors.measure(tmp_path, 300, 16, 3, torch.device("cpu"))
    assert (row["rows"], row["as_brute_force"]) == (900, "100 of 100")


def test_short_records_are_cut_from_long_ones():
    pieces = cut([Record("contig", b"A" * 4 + b"C" * 4 + b"GG", None, 0)], 4)
    assert [(piece.id, piece.sequence) for piece in pieces] == [("contig:0", b"AAAA"), ("contig:4", b"CCCC")]


def test_nucleotides_are_read_from_lines_and_raised_to_upper_case(tmp_path):
    path = tmp_path / "soft.fna.gz"
    path.write_bytes(gzip.compress(b">one first\r\nACgt\r\nnn\n>two\nAC\n"))
    assert [(r.id, r.sequence) for r in read_nucleotides(path)] == [("one", b"ACGTNN"), ("two", b"AC")]


def test_the_start_of_a_job_is_that_of_the_newest_measurement_with_compiled_kernels():
    def row(model, seconds, **more):
        found = {"version": "ours", "kernels": "cached", "model": model, "first_batch_after_s": seconds, "read_s": 0.5}
        return {**found, **more}

    old = {"rows": [row("8M", 99.0), row("650M", 99.0)]}
    new = {"rows": [row(model, 4.5 + rates.weights_gb(model)) for model in ("8M", "650M", "3B")]}
    new["rows"] += [row("8M", 30.0, kernels="compiled anew"), row("8M", 20.0, version="theirs")]
    assert rates.start([], [old, new]) == {"base_s": 4.0, "per_GB_s": 1.0}
    engine = [{"model": "8M", "wall_s": 12.0, "steady_s": 2.0}, {"model": "650M", "wall_s": 12.0, "steady_s": 2.0}]
    assert rates.start(engine, []) == {"base_s": 10.0, "per_GB_s": 0.0}


def test_the_rates_of_plans_are_those_of_the_results():
    """`python benchmarks/rates.py` writes them."""
    assert json.loads(FILE.read_text()) == rates.content(rates.read(rates.RESULTS))
