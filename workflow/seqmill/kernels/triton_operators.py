"""The memory-bound steps as Triton kernels: each reads its operands once and writes its result once.

On an H200 they run near the memory's limit, and they compile in seconds, once per machine.
"""

import copy
from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import nn

from seqmill.kernels import operators
from seqmill.kernels.interface import check_result
from seqmill.kernels.operators import Operators

GELU_BLOCK = 2048
MEAN_ROWS, MEAN_COLUMNS = 64, 64


@triton.jit
def _layer_norm(x, weight, bias, shift, out, width, eps, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64) * width
    columns = tl.arange(0, BLOCK)
    inside = columns < width
    values = tl.load(x + row + columns, mask=inside, other=0.0).to(tl.float32)
    # Without a shift this is not compiled.
    if shift is not None:
        values += tl.load(shift + columns, mask=inside, other=0.0)
    centred = tl.where(inside, values - tl.sum(values, 0) / width, 0.0)
    scaled = centred * tl.rsqrt(tl.sum(centred * centred, 0) / width + eps)
    gain = tl.load(weight + columns, mask=inside, other=0.0).to(tl.float32)
    offset = tl.load(bias + columns, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + row + columns, scaled * gain + offset, mask=inside)


@triton.jit
def _rotate(x, cos, sin, width, HALF: tl.constexpr, BLOCK: tl.constexpr):
    # A pair is a number of a head's first half and its partner in the second; a row has `width` of them.
    row = tl.program_id(0).to(tl.int64)
    pair = tl.arange(0, BLOCK)
    inside = pair < width
    frequency = pair % HALF
    first = x + row * 3 * width + pair // HALF * (2 * HALF) + frequency
    c = tl.load(cos + row * HALF + frequency)
    s = tl.load(sin + row * HALF + frequency)
    a = tl.load(first, mask=inside, other=0.0).to(tl.float32)
    b = tl.load(first + HALF, mask=inside, other=0.0).to(tl.float32)
    tl.store(first, a * c - b * s, mask=inside)
    tl.store(first + HALF, b * c + a * s, mask=inside)


@triton.jit
def _gelu(x, count, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    values = tl.load(x + at, mask=at < count, other=0.0).to(tl.float32)
    # The normal distribution's upper tail at |x| by the error function of Abramowitz and Stegun 7.1.26, good to 1.5e-7:
    # at half precision as good as tl.erf, with which the kernel would be a third slower than the memory allows.
    t = 1.0 / (1.0 + 0.23164189 * tl.abs(values))
    series = 0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429)))
    tail = 0.5 * t * series * tl.exp(-0.5 * values * values)
    tl.store(x + at, tl.where(values > 0, values - values * tail, values * tail), mask=at < count)


@triton.jit
def _mean(
    states,
    cu_seqlens,
    out,
    width,
    LEADING: tl.constexpr,
    TRAILING: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    sequence = tl.program_id(0).to(tl.int64)
    begin = tl.load(cu_seqlens + sequence).to(tl.int64) + LEADING
    end = tl.load(cu_seqlens + sequence + 1).to(tl.int64) - TRAILING
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    start = begin
    while start < end:
        rows = start + tl.arange(0, ROWS)
        inside = (rows[:, None] < end) & (columns[None, :] < width)
        total += tl.load(states + rows[:, None] * width + columns[None, :], mask=inside, other=0.0).to(tl.float32)
        start += ROWS
    mean = tl.sum(total, 0) / (end - begin).to(tl.float32)
    tl.store(out + sequence * width + columns, mean, mask=columns < width)


def _block(width: int) -> dict[str, int]:
    """Launch parameters of a kernel that takes a row per program."""
    block = triton.next_power_of_2(width)
    return {"BLOCK": block, "num_warps": min(max(block // 1024, 1), 16)}


def layer_norm(x: torch.Tensor, norm: nn.LayerNorm, shift: torch.Tensor | None = None) -> torch.Tensor:
    """As `operators.layer_norm`."""
    rows, width = x.shape
    out = torch.empty_like(x)
    _layer_norm[(rows,)](x, norm.weight, norm.bias, shift, out, width, norm.eps, **_block(width))
    return out


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """As `operators.rotate`, in place."""
    rows, _, heads, head_dim = x.shape
    _rotate[(rows,)](x, cos, sin, heads * head_dim, head_dim // 2, **_block(heads * head_dim))
    return x


def gelu(x: torch.Tensor) -> torch.Tensor:
    """As `operators.gelu`, in place, and in float32 the very same."""
    if x.dtype == torch.float32:
        return operators.gelu(x)
    _gelu[(triton.cdiv(x.numel(), GELU_BLOCK),)](x, x.numel(), GELU_BLOCK, num_warps=4)
    return x


def mean(states: torch.Tensor, cu_seqlens: torch.Tensor, leading: int, trailing: int) -> torch.Tensor:
    """As `operators.mean`; the order of the sum depends on the sequence's length alone."""
    count, width = len(cu_seqlens) - 1, states.shape[1]
    out = torch.empty(count, width, dtype=torch.float32, device=states.device)
    grid = (count, triton.cdiv(width, MEAN_COLUMNS))
    _mean[grid](states, cu_seqlens, out, width, leading, trailing, MEAN_ROWS, MEAN_COLUMNS)
    return out


FUSED = Operators(layer_norm, rotate, gelu, mean)


def fused(
    steps: Sequence[str], device: torch.device, dtype: torch.dtype, width: int, heads: int, head_dim: int
) -> Operators:
    """The kernels, those of `steps` compiled for a model's sizes and compared with PyTorch's operators on the CPU.

    Raises:
        NotAvailable: a kernel computes something else here; other exceptions: it cannot be compiled.
    """
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    tokens = 16
    angles, norm = random(tokens, head_dim // 2), nn.LayerNorm(width, dtype=dtype)
    examples = {
        "layer_norm": (random(tokens, width).to(dtype), norm, random(width)),
        "rotate": (random(tokens, 3, heads, head_dim).to(dtype), angles.cos(), angles.sin()),
        "gelu": (random(tokens, width).to(dtype),),
        "mean": (random(tokens, width).to(dtype), torch.tensor([0, 5, tokens], dtype=torch.int32), 1, 1),
    }
    for step in steps:
        # Copies to the GPU first: some steps overwrite what they are given.
        moved = [_moved(argument, device) for argument in examples[step]]
        with torch.inference_mode():
            found = getattr(FUSED, step)(*moved)
            expected = getattr(operators.EAGER, step)(*examples[step])
        check_result(step, found, expected)
    return FUSED


def _moved(argument: object, device: torch.device) -> object:
    return argument if isinstance(argument, int) else copy.deepcopy(argument).to(device)
