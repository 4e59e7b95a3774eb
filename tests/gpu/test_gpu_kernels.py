"""The kernels at real sizes on a CUDA GPU: every attention kernel with every bias that it has, and the fused steps."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import nn

from seqmill.kernels import attention, biases, operators, sdpa
from seqmill.kernels.needs import AttentionNeeds
from seqmill.kernels.packing import Packing

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"),
]

CUDA = torch.device("cuda")
HALVES = {torch.bfloat16: 6e-3, torch.float16: 1e-3}
# Heads, their size and the bias of DNABERT, ProtT5, Ankh's two, ESM-C's two, and of few and large heads with ALiBi.
SHAPES = [
    *((12, 64, "alibi"), (32, 128, "distance table"), (12, 64, "distance table"), (16, 64, "distance table")),
    *((15, 64, None), (18, 64, None), (3, 128, "alibi")),
]
# Longer than a table's reach and a tile on both sides; whole tiles; shorter than one.
LENGTHS = [1700, 512, 350, 128, 110, 3]


def kernel_names() -> list[str]:
    return [name for name in attention.NAMES if name != "flash-attn" or attention.installed_flash_attn()]


def example(kind: str | None, heads: int) -> biases.Bias | None:
    """As families have it: T5's table reaches to 91, and tells before from behind."""
    if kind != "distance table":
        return biases.example(kind, heads, CUDA)
    generator = torch.Generator().manual_seed(0)
    return biases.DistanceTable(3 * torch.randn((heads, 2 * 91 + 1), generator=generator).to(CUDA))


def packed(lengths: list[int]) -> Packing:
    starts = torch.tensor([0, *np.cumsum(lengths)], dtype=torch.int32, device=CUDA)
    return Packing(starts, max(lengths), np.array(lengths))


def plain(qkv: torch.Tensor, lengths: list[int], scale: float, bias: biases.Bias | None) -> Iterator[torch.Tensor]:
    """softmax(q k scale + bias) v in float64, a sequence at a time."""
    for part in qkv.double().split(lengths):
        q, k, v = part.unbind(1)
        places = torch.arange(len(part), device=CUDA)
        scores = torch.einsum("qhd,khd->hqk", q, k) * scale
        if bias is not None:
            scores += bias.dense(places, places)
        yield torch.einsum("hqk,khd->qhd", scores.softmax(-1), v)


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize(("heads", "head_dim", "kind"), SHAPES)
@pytest.mark.parametrize("name", kernel_names())
def test_attention_agrees_with_plain_attention(name, heads, head_dim, kind, dtype):
    kernel = sdpa.KERNEL if name == "sdpa" else attention._flash(name, CUDA, dtype)
    if kind not in kernel.biases:
        pytest.skip(f"{kernel.version} has no such bias")
    torch.manual_seed(0)
    qkv = torch.randn(sum(LENGTHS), 3, heads, head_dim, device=CUDA).to(dtype)
    # As T5, whose scores are not scaled, and whose queries are small for that.
    scale = 1.0 if kind == "distance table" else head_dim**-0.5
    if scale == 1.0:
        qkv[:, 0] *= head_dim**-0.5
    bias = example(kind, heads)
    found = kernel.attend(*qkv.unbind(1), packed(LENGTHS), scale, bias)
    assert found.dtype == dtype
    for own, expected in zip(found.split(LENGTHS), plain(qkv, LENGTHS, scale, bias), strict=True):
        # Every head by itself: a wrong slope of one would hide among the others.
        error = (own.double() - expected).norm(dim=(0, 2)) / expected.norm(dim=(0, 2))
        assert error.max() < HALVES[dtype], (len(own), error)


@pytest.mark.parametrize("kind", ["alibi", "distance table"])
def test_standard_attention_with_a_bias_in_float32(kind):
    torch.manual_seed(0)
    qkv, bias = torch.randn(sum(LENGTHS), 3, 12, 64, device=CUDA), example(kind, 12)
    found = sdpa.attend(*qkv.unbind(1), packed(LENGTHS), None, bias)
    expected = torch.cat(list(plain(qkv, LENGTHS, 0.125, bias)))
    assert (found.double() - expected).norm() / expected.norm() < 5e-6


@pytest.mark.parametrize("kind", ["alibi", "distance table"])
def test_a_long_sequence_needs_little_memory(kind):
    """A dense bias of 12 heads would take 19 GB."""
    qkv, bias = torch.randn(20_000, 3, 12, 64, device=CUDA).unbind(1), example(kind, 12)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    assert sdpa.attend(*qkv, packed([20_000]), None, bias).isfinite().all()
    assert torch.cuda.max_memory_allocated() - before < 2**30


@pytest.mark.parametrize("kind", ["alibi", "distance table"])
def test_neighbours_change_no_bit(kind):
    kernel, bias = attention._flash("triton", CUDA, torch.bfloat16), example(kind, 12)
    qkv = torch.randn(900, 3, 12, 64, device=CUDA).bfloat16()
    alone = kernel.attend(*qkv[500:].unbind(1), packed([400]), None, bias)
    assert torch.equal(kernel.attend(*qkv.unbind(1), packed([500, 400]), None, bias)[500:], alone)


@pytest.mark.parametrize(("heads", "head_dim", "kind"), [shape for shape in SHAPES if shape[2]])
def test_auto_finds_a_fast_kernel_for_a_bias(heads, head_dim, kind):
    kernel = attention.choose("auto", AttentionNeeds(heads, head_dim, bias=kind), CUDA, torch.bfloat16)
    assert kernel.name != "sdpa"
    assert kind in kernel.biases
    own = attention.choose("triton", AttentionNeeds(heads, head_dim, bias=kind), CUDA, torch.bfloat16)
    needs = AttentionNeeds(heads, head_dim, bias=kind)
    assert attention.faster(own, sdpa.KERNEL, needs, CUDA, torch.bfloat16, 350) == own


def random_norm(kind: type, width: int, dtype: torch.dtype, **how) -> nn.Module:
    norm = kind(width, **how)
    for parameter in norm.parameters():
        parameter.data.normal_()
    return norm.to(CUDA, dtype).requires_grad_(False)


def steps(width: int, heads: int, head_dim: int, dtype: torch.dtype) -> Iterator[tuple]:
    """Steps with arguments of some 2,000 tokens."""

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, device=CUDA)

    inner = heads * head_dim
    norms = [random_norm(nn.LayerNorm, inner, dtype, bias=False) for _ in range(2)]
    angles, plain_norm = 100 * random(2001, head_dim // 2), random_norm(nn.LayerNorm, width, dtype, bias=False)
    x, y = random(2, 2001, width).to(dtype)
    yield "layer_norm", x, random_norm(nn.LayerNorm, width, dtype), random(width)
    yield "layer_norm", x, plain_norm
    yield "add_norm", x, y, random(width).to(dtype), random_norm(nn.LayerNorm, width, dtype, eps=1e-12)
    yield "rms_norm", 1000 * random(2001, width), random_norm(nn.RMSNorm, width, dtype, eps=1e-6)
    yield "norm_rotate", random(2001, 3, heads, head_dim).to(dtype), *norms, angles.cos(), angles.sin()
    for activation in operators.ACTIVATIONS:
        yield "gate", 3 * random(2001, 8 * width).to(dtype), activation


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize(
    ("width", "heads", "head_dim"), [(768, 12, 64), (1024, 32, 128), (960, 15, 64), (2560, 40, 64)]
)
def test_fused_steps_agree_with_float32(width, heads, head_dim, dtype):
    from seqmill.kernels import triton_operators

    names = operators.Operators._fields
    fused = triton_operators.fused(names, CUDA, dtype, width, heads, head_dim)
    torch.manual_seed(0)
    for step, *arguments in steps(width, heads, head_dim, dtype):
        exact = [copied(argument, torch.float32) for argument in arguments]
        expected = getattr(operators.EAGER, step)(*exact)
        for way in (fused, operators.EAGER):
            found = getattr(way, step)(*(copied(argument) for argument in arguments))
            assert found.dtype == dtype
            error = (found.float() - expected).norm() / expected.norm()
            assert error < HALVES[dtype], (step, error)


def copied(argument: object, dtype: torch.dtype | None = None) -> object:
    """A copy: some steps overwrite what they are given."""
    if isinstance(argument, torch.Tensor):
        return argument.to(dtype or argument.dtype, copy=True)
    if isinstance(argument, nn.Module) and dtype is not None:
        kind = type(argument)
        how = {} if kind is nn.RMSNorm else {"bias": argument.bias is not None}
        norm = kind(argument.normalized_shape, argument.eps, **how).to(CUDA, dtype).requires_grad_(False)
        norm.load_state_dict(argument.state_dict())
        return norm
    return argument
