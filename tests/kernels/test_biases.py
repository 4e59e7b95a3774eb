"""Attention with a bias: what biases are, standard attention with them, and in Triton's interpreter the Triton kernel."""

import numpy as np
import pytest
import torch
from interpreter import run

from seqmill.kernels import biases, packing, sdpa
from seqmill.kernels.packing import Packing

CPU = torch.device("cpu")
KINDS = ["alibi", "distance table"]


def packed(lengths: list[int]) -> Packing:
    return Packing(torch.tensor([0, *np.cumsum(lengths)], dtype=torch.int32), max(lengths), np.array(lengths))


@pytest.mark.parametrize(
    ("heads", "expected"),
    [
        (1, [1 / 256]),
        (8, [2.0**-k for k in range(1, 9)]),
        (12, [*(2.0**-k for k in range(1, 9)), *(2.0 ** -(k - 0.5) for k in range(1, 5))]),
        (15, [*(2.0**-k for k in range(1, 9)), *(2.0 ** -(k - 0.5) for k in range(1, 8))]),
        (16, [2.0 ** (-k / 2) for k in range(1, 17)]),
    ],
)
def test_slopes_of_any_number_of_heads(heads, expected):
    found = biases.alibi_slopes(heads)
    assert found.dtype == torch.float32
    assert torch.allclose(found, torch.tensor(expected), rtol=1e-6)


def test_a_table_tells_before_from_behind_and_ends_in_its_last_number():
    bias = biases.DistanceTable(torch.tensor([[1.0, 2.0, 3.0, 4.0, 5.0]]))
    assert bias.reach == 2
    places = torch.arange(4)
    expected = [[3, 4, 5, 5], [2, 3, 4, 5], [1, 2, 3, 4], [1, 1, 2, 3]]
    assert bias.dense(places, places).tolist() == [expected]
    assert bias.dense(places[1:2], places).tolist() == [expected[1:2]]


def test_alibi_falls_with_the_distance_on_both_sides():
    bias = biases.Alibi(torch.tensor([0.5, 2.0]))
    assert bias.dense(torch.tensor([1]), torch.arange(4)).tolist() == [[[-0.5, 0, -0.5, -1]], [[-2, 0, -2, -4]]]


def test_an_example_of_an_unknown_kind_is_an_error():
    assert biases.example(None, 4, CPU) is None
    with pytest.raises(ValueError, match="no attention bias of the kind sinusoid"):
        biases.example("sinusoid", 4, CPU)


def plain(query, key, value, own: Packing, scale: float, bias) -> torch.Tensor:
    """softmax(q k scale + bias) v in float64, a sequence at a time."""
    results = []
    for q, k, v in zip(*(x.double().split(own.token_counts.tolist()) for x in (query, key, value)), strict=True):
        places = torch.arange(len(q))
        scores = torch.einsum("qhd,khd->hqk", q, k) * scale + bias.dense(places, places).double()
        results.append(torch.einsum("hqk,khd->qhd", scores.softmax(-1), v))
    return torch.cat(results)


@pytest.mark.parametrize("waste", [1.0, 2.0])
@pytest.mark.parametrize("limit", [2**24, 500, 1])
@pytest.mark.parametrize("kind", KINDS)
def test_standard_attention_adds_the_bias_some_queries_at_a_time(monkeypatch, kind, limit, waste):
    similar = packing.similar
    monkeypatch.setattr(packing, "similar", lambda tokens, _: similar(tokens, waste))
    monkeypatch.setattr(sdpa, "BIAS_NUMBERS", limit)
    own = packed([41, 40, 40, 23, 1])
    query, key, value = torch.randn(3, 145, 12, 8)
    bias = biases.example(kind, 12, CPU)
    found = sdpa.attend(query, key, value, own, 0.3, bias)
    assert (found.double() - plain(query, key, value, own, 0.3, bias)).abs().max() < 3e-6


def test_standard_attention_takes_the_bias_whole_in_half_precision():
    """In bfloat16, -0.7 x 150 would become -105 or -106."""
    own = packed([300])
    qkv = torch.randn(300, 3, 4, 16).bfloat16().unbind(1)
    bias = biases.DistanceTable(50 * torch.randn(4, 401))
    found = sdpa.attend(*qkv, own, 0.25, bias)
    assert found.dtype == torch.bfloat16
    expected = plain(*qkv, own, 0.25, bias)
    assert (found.double() - expected).norm() / expected.norm() < 3e-3


@pytest.mark.parametrize("kind", KINDS)
def test_no_more_of_the_bias_is_in_memory_than_allowed(monkeypatch, kind):
    bias, sizes = biases.example(kind, 2, CPU), []
    dense = type(bias).dense
    monkeypatch.setattr(type(bias), "dense", lambda *given: sizes.append(dense(*given)) or sizes[-1])
    monkeypatch.setattr(sdpa, "BIAS_NUMBERS", 10_000)
    sdpa.attend(*torch.randn(3, 700, 2, 4), packed([500, 200]), None, bias)
    assert sum(added.shape[1] for added in sizes) == 700
    assert max(added.numel() for added in sizes) <= 10_000


COMPARE = """
import sys, torch
import numpy as np
import triton.language as tl
from seqmill.kernels import biases, sdpa, triton_attention
from seqmill.kernels.packing import Packing

# The interpreter knows no assembler.
triton_attention._gather = lambda addresses: tl.load(addresses)

def error(found, expected):
    return ((found.float() - expected).norm() / expected.norm()).item()

for sizes in sys.argv[1:]:
    heads, head_dim, longest = map(int, sizes.split("x"))
    torch.manual_seed(0)
    # Exactly some tiles, and shorter than one.
    lengths = np.array([longest, 128, 5])
    packing = Packing(torch.tensor([0, *lengths.cumsum()], dtype=torch.int32), longest, lengths)
    # Queries and keys that are small, so that the bias decides; then some padding.
    qkv = torch.randn(longest + 140, 3, heads, head_dim) * torch.tensor([0.3, 0.3, 1.0])[:, None, None]
    halves, own = qkv.half().unbind(1), slice(0, longest + 133)
    table = torch.randn(heads, 2 * 40 + 1)
    for bias, other, scale in (
        (biases.Alibi(biases.alibi_slopes(heads)), biases.Alibi(biases.alibi_slopes(heads).flip(0)), None),
        (biases.DistanceTable(table), biases.DistanceTable(table.flip(1)), 1.0),
    ):
        expected = sdpa.attend(*(x.float() for x in halves), packing, scale, bias)[own]
        found = triton_attention.attend(*halves, packing, scale, bias)[own]
        assert error(found, expected) < 1e-3, (bias.kind, sizes, error(found, expected))
        # What would be seen of heads in another order, or of before taken for behind.
        if heads > 1:
            changed = sdpa.attend(*(x.float() for x in halves), packing, scale, other)[own]
            assert error(changed, expected) > 0.05, bias.kind
"""


@pytest.mark.slow
def test_the_triton_kernel_agrees_with_standard_attention():
    """The longest are longer than the table's reach and a tile on both sides."""
    run(COMPARE, "1x64x330", "3x20x250", "2x128x330", "12x16x100", "15x16x70", TRITON_INTERPRET="1")
