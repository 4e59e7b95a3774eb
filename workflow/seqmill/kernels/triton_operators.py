"""The memory-bound steps as Triton kernels: each reads its operands once and writes its result once.

The normalisations are in `triton_norms.py`.

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
from seqmill.kernels.triton_norms import add_norm, launch, layer_norm, norm_rotate, rms_norm

GELU_BLOCK, GATE_BLOCK = 2048, 1024
MEAN_ROWS, MEAN_COLUMNS = 64, 64


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
def _gelu_of(values):
    # The normal distribution's upper tail at |x| by the error function of Abramowitz and Stegun 7.1.26, good to 1.5e-7:
    # at half precision as good as tl.erf, with which the kernel would be a third slower than the memory allows.
    t = 1.0 / (1.0 + 0.23164189 * tl.abs(values))
    series = 0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429)))
    tail = 0.5 * t * series * tl.exp(-0.5 * values * values)
    return tl.where(values > 0, values - values * tail, values * tail)


@triton.jit
def _gelu(x, count, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    values = tl.load(x + at, mask=at < count, other=0.0).to(tl.float32)
    tl.store(x + at, _gelu_of(values), mask=at < count)


@triton.jit
def _gate(x, width, ACTIVATION: tl.constexpr, BLOCK: tl.constexpr):
    columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = columns < width
    at = x + tl.program_id(0).to(tl.int64) * 2 * width + columns
    values = tl.load(at, mask=inside, other=0.0).to(tl.float32)
    factors = tl.load(at + width, mask=inside, other=0.0).to(tl.float32)
    if ACTIVATION == "gelu":
        values = _gelu_of(values)
    elif ACTIVATION == "gelu_tanh":
        # (1 + tanh(z)) / 2 is the logistic function of 2 z; here 2 sqrt(2 / pi).
        values = values * tl.sigmoid(1.5957691216057308 * (values + 0.044715 * values * values * values))
    else:
        tl.static_assert(ACTIVATION == "silu")
        values = values * tl.sigmoid(values)
    tl.store(at, values * factors, mask=inside)


@triton.jit
def _mean(
    states,
    begins,
    ends,
    out,
    width,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    sequence = tl.program_id(0).to(tl.int64)
    begin = tl.load(begins + sequence).to(tl.int64)
    end = tl.load(ends + sequence).to(tl.int64)
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


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """As `operators.rotate`, in place."""
    rows, _, heads, head_dim = x.shape
    _rotate[(rows,)](x, cos, sin, heads * head_dim, head_dim // 2, **launch(heads * head_dim))
    return x


def gelu(x: torch.Tensor) -> torch.Tensor:
    """As `operators.gelu`, in place, and in float32 the very same."""
    if x.dtype == torch.float32:
        return operators.gelu(x)
    _gelu[(triton.cdiv(x.numel(), GELU_BLOCK),)](x, x.numel(), GELU_BLOCK, num_warps=4)
    return x


def gate(x: torch.Tensor, activation: str) -> torch.Tensor:
    """As `operators.gate`, in place: a view of x's first half; in float32 the very same as that."""
    if x.dtype == torch.float32:
        return operators.gate(x, activation)
    rows, width = len(x), x.shape[1] // 2
    _gate[(rows, triton.cdiv(width, GATE_BLOCK))](x, width, activation, GATE_BLOCK, num_warps=4)
    return x[:, :width]


def mean(states: torch.Tensor, begins: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
    """As `operators.mean`; the order of the sum depends on the sequence's length alone."""
    count, width = len(begins), states.shape[1]
    out = torch.empty(count, width, dtype=torch.float32, device=states.device)
    grid = (count, triton.cdiv(width, MEAN_COLUMNS))
    _mean[grid](states, begins, ends, out, width, MEAN_ROWS, MEAN_COLUMNS)
    return out


FUSED = Operators(layer_norm, add_norm, rms_norm, rotate, norm_rotate, gelu, gate, mean)


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
    angles, inner = random(tokens, head_dim // 2), heads * head_dim
    norm, rms = nn.LayerNorm(width, dtype=dtype), nn.RMSNorm(width, 1e-6, dtype=dtype)
    inner_norms = [nn.LayerNorm(inner, bias=False, dtype=dtype) for _ in range(2)]
    x, qkv = random(tokens, width).to(dtype), random(tokens, 3, heads, head_dim).to(dtype)
    examples = {
        "layer_norm": [(x, norm, random(width))],
        "add_norm": [(x, x.flip(0), x[0], norm)],
        "rms_norm": [(x.float(), rms)],
        "rotate": [(qkv, angles.cos(), angles.sin())],
        "norm_rotate": [(qkv, *inner_norms, angles.cos(), angles.sin())],
        "gelu": [(x,)],
        "gate": [(torch.cat((x, x.flip(0)), dim=1), activation) for activation in operators.ACTIVATIONS],
        "mean": [(x, torch.tensor([1, 6], dtype=torch.int32), torch.tensor([4, tokens - 1], dtype=torch.int32))],
    }
    for step in steps:
        for arguments in examples[step]:
            # Copies, to the GPU first: some steps overwrite what they are given.
            moved = [_copied(argument, device) for argument in arguments]
            own = [_copied(argument, torch.device("cpu")) for argument in arguments]
            with torch.inference_mode():
                check_result(step, getattr(FUSED, step)(*moved), getattr(operators.EAGER, step)(*own))
    return FUSED


def _copied(argument: object, device: torch.device) -> object:
    copied = copy.deepcopy(argument)
    return copied.to(device) if isinstance(argument, torch.Tensor | nn.Module) else copied
