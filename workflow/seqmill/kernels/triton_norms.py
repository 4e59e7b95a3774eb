"""The normalisations as Triton kernels, a row per program; rows are read once and written once."""

import torch
import triton
import triton.language as tl
from torch import nn


@triton.jit
def _layer_norm(x, weight, bias, shift, out, width, eps, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64) * width
    columns = tl.arange(0, BLOCK)
    inside = columns < width
    values = tl.load(x + row + columns, mask=inside, other=0.0).to(tl.float32)
    # Without a shift this is not compiled.
    if shift is not None:
        values += tl.load(shift + columns, mask=inside, other=0.0)
    result = _normalised(values, weight, bias, columns, inside, width, eps)
    tl.store(out + row + columns, result, mask=inside)


@triton.jit
def _normalised(values, weight, bias, columns, inside, width, eps):
    centred = tl.where(inside, values - tl.sum(values, 0) / width, 0.0)
    scaled = centred * tl.rsqrt(tl.sum(centred * centred, 0) / width + eps)
    result = scaled * tl.load(weight + columns, mask=inside, other=0.0).to(tl.float32)
    if bias is not None:
        result += tl.load(bias + columns, mask=inside, other=0.0).to(tl.float32)
    return result


@triton.jit
def _add_norm(x, y, added, weight, bias, width, eps, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64) * width
    columns = tl.arange(0, BLOCK)
    inside = columns < width
    values = tl.load(x + row + columns, mask=inside, other=0.0).to(tl.float32)
    values += tl.load(y + row + columns, mask=inside, other=0.0).to(tl.float32)
    values += tl.load(added + columns, mask=inside, other=0.0).to(tl.float32)
    result = _normalised(values, weight, bias, columns, inside, width, eps)
    tl.store(x + row + columns, result, mask=inside)


@triton.jit
def _rms_norm(x, weight, out, width, eps, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64) * width
    columns = tl.arange(0, BLOCK)
    inside = columns < width
    values = tl.load(x + row + columns, mask=inside, other=0.0).to(tl.float32)
    scaled = values * tl.rsqrt(tl.sum(values * values, 0) / width + eps)
    gain = tl.load(weight + columns, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + row + columns, scaled * gain, mask=inside)


@triton.jit
def _norm_rotate(
    x,
    query_weight,
    query_bias,
    query_eps,
    key_weight,
    key_bias,
    key_eps,
    cos,
    sin,
    pairs,
    HALF: tl.constexpr,
    BLOCK: tl.constexpr,
):
    # A pair is a number of a head's first half and its partner in the second; a row of queries has `pairs` of them.
    row = tl.program_id(0).to(tl.int64)
    pair = tl.arange(0, BLOCK)
    inside = pair < pairs
    frequency = pair % HALF
    c = tl.load(cos + row * HALF + frequency)
    s = tl.load(sin + row * HALF + frequency)
    first = pair // HALF * (2 * HALF) + frequency
    queries = x + row * 6 * pairs
    _normalise_and_turn(queries, query_weight, query_bias, query_eps, c, s, first, inside, pairs, HALF)
    _normalise_and_turn(queries + 2 * pairs, key_weight, key_bias, key_eps, c, s, first, inside, pairs, HALF)


@triton.jit
def _normalise_and_turn(at, weight, bias, eps, c, s, first, inside, pairs, HALF: tl.constexpr):
    second = first + HALF
    a = tl.load(at + first, mask=inside, other=0.0).to(tl.float32)
    b = tl.load(at + second, mask=inside, other=0.0).to(tl.float32)
    average = tl.sum(a + b, 0) / (2 * pairs)
    a = tl.where(inside, a - average, 0.0)
    b = tl.where(inside, b - average, 0.0)
    factor = tl.rsqrt(tl.sum(a * a + b * b, 0) / (2 * pairs) + eps)
    a = a * factor * tl.load(weight + first, mask=inside, other=0.0).to(tl.float32)
    b = b * factor * tl.load(weight + second, mask=inside, other=0.0).to(tl.float32)
    if bias is not None:
        a += tl.load(bias + first, mask=inside, other=0.0).to(tl.float32)
        b += tl.load(bias + second, mask=inside, other=0.0).to(tl.float32)
    tl.store(at + first, a * c - b * s, mask=inside)
    tl.store(at + second, b * c + a * s, mask=inside)


def launch(width: int) -> dict[str, int]:
    """Launch parameters of a kernel that takes a row of so many numbers, or pairs of numbers, per program."""
    block = triton.next_power_of_2(width)
    return {"BLOCK": block, "num_warps": min(max(block // 1024, 1), 16)}


def layer_norm(x: torch.Tensor, norm: nn.LayerNorm, shift: torch.Tensor | None = None) -> torch.Tensor:
    """As `operators.layer_norm`."""
    rows, width = x.shape
    out = torch.empty_like(x)
    _layer_norm[(rows,)](x, norm.weight, norm.bias, shift, out, width, norm.eps, **launch(width))
    return out


def add_norm(x: torch.Tensor, y: torch.Tensor, bias: torch.Tensor, norm: nn.LayerNorm) -> torch.Tensor:
    """As `operators.add_norm`, in place."""
    rows, width = x.shape
    _add_norm[(rows,)](x, y, bias, norm.weight, norm.bias, width, norm.eps, **launch(width))
    return x


def rms_norm(x: torch.Tensor, norm: nn.RMSNorm) -> torch.Tensor:
    """As `operators.rms_norm`."""
    rows, width = x.shape
    out = torch.empty_like(x, dtype=norm.weight.dtype)
    _rms_norm[(rows,)](x, norm.weight, out, width, norm.eps, **launch(width))
    return out


def norm_rotate(
    x: torch.Tensor, query_norm: nn.LayerNorm, key_norm: nn.LayerNorm, cos: torch.Tensor, sin: torch.Tensor
) -> torch.Tensor:
    """As `operators.norm_rotate`, in place."""
    rows, _, heads, head_dim = x.shape
    pairs = heads * head_dim // 2
    norms = (part for norm in (query_norm, key_norm) for part in (norm.weight, norm.bias, norm.eps))
    _norm_rotate[(rows,)](x, *norms, cos, sin, pairs, head_dim // 2, **launch(pairs))
    return x
