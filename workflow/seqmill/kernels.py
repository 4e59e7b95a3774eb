"""The memory-bound steps as Triton kernels: each reads its operands once and writes its result once.

On an H200 they run near the memory's limit, and they compile in seconds, once per machine.
"""

import copy
import math

import torch
import triton
import triton.language as tl
from torch import nn

from seqmill import operators
from seqmill.attention import NotAvailable, Packing
from seqmill.operators import Operators

GELU_BLOCK = 2048
MEAN_ROWS, MEAN_COLUMNS = 64, 64


@triton.jit
def _layer_norm(x, shift, weight, bias, out, width, eps, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64) * width
    columns = tl.arange(0, BLOCK)
    inside = columns < width
    values = tl.load(x + row + columns, mask=inside, other=0.0).to(tl.float32)
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
def _add_keys(
    q, keys, values, left, scale, highest, total, out, HEAD: tl.constexpr, COLUMNS: tl.constexpr, ALL: tl.constexpr
):
    # One step of the online softmax (Milakov and Gimelshein 2018): the next COLUMNS keys, of which `left` are there.
    wide = tl.arange(0, q.shape[1])[None, :] < HEAD
    inside = tl.arange(0, COLUMNS) < left
    if ALL and q.shape[1] == HEAD:
        k = tl.load(keys)
        v = tl.load(values)
    else:
        k = tl.load(keys, mask=wide & inside[:, None], other=0.0)
        v = tl.load(values, mask=wide & inside[:, None], other=0.0)
    scores = tl.dot(q, k.T) * scale
    if not ALL:
        scores = tl.where(inside[None, :], scores, float("-inf"))
    new = tl.maximum(highest, tl.max(scores, 1))
    weights = tl.exp2(scores - new[:, None])
    shrink = tl.exp2(highest - new)
    out = tl.dot(weights.to(q.dtype), v, out * shrink[:, None])
    return new, total * shrink + tl.sum(weights, 1), out


# Not a new kernel for every batch whose number of blocks happens to be a multiple of 16.
@triton.jit(do_not_specialize=["blocks"])
def _attend(
    query,
    key,
    value,
    out,
    cu_seqlens,
    scale,
    stride,
    heads,
    blocks,
    HEAD: tl.constexpr,
    PADDED: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    STAGES: tl.constexpr,
):
    # A program has ROWS queries of one head of one sequence, and passes over the sequence's keys.
    block = tl.program_id(0) % blocks
    head = tl.program_id(0) // blocks % heads
    sequence = tl.program_id(0) // blocks // heads
    begin = tl.load(cu_seqlens + sequence).to(tl.int64)
    length = (tl.load(cu_seqlens + sequence + 1) - begin).to(tl.int32)
    if block * ROWS < length:
        rows = block * ROWS + tl.arange(0, ROWS)
        columns = tl.arange(0, PADDED)
        inside = (rows[:, None] < length) & (columns[None, :] < HEAD)
        rows = (begin + rows)[:, None]
        q = tl.load(query + rows * stride + head * HEAD + columns[None, :], mask=inside, other=0.0)
        first = begin * stride + head * HEAD + tl.arange(0, COLUMNS)[:, None] * stride + columns[None, :]
        keys, values = key + first, value + first
        highest = tl.full((ROWS,), float("-inf"), tl.float32)
        total = tl.zeros((ROWS,), tl.float32)
        sums = tl.zeros((ROWS, PADDED), tl.float32)
        whole = length // COLUMNS * COLUMNS
        for start in tl.range(0, whole, COLUMNS, num_stages=STAGES):
            at = tl.cast(start, tl.int64) * stride
            highest, total, sums = _add_keys(
                q, keys + at, values + at, COLUMNS, scale, highest, total, sums, HEAD, COLUMNS, True
            )
        if whole < length:
            at = tl.cast(whole, tl.int64) * stride
            highest, total, sums = _add_keys(
                q, keys + at, values + at, length - whole, scale, highest, total, sums, HEAD, COLUMNS, False
            )
        to = out + (rows * heads + head) * HEAD + columns[None, :]
        tl.store(to, sums / total[:, None], mask=inside)


@triton.jit
def _mean(states, cu_seqlens, out, width, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    sequence = tl.program_id(0).to(tl.int64)
    begin = tl.load(cu_seqlens + sequence).to(tl.int64) + 1
    end = tl.load(cu_seqlens + sequence + 1).to(tl.int64) - 1
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


def layer_norm(x: torch.Tensor, shift: torch.Tensor, norm: nn.LayerNorm) -> torch.Tensor:
    """As `operators.layer_norm`."""
    rows, width = x.shape
    out = torch.empty_like(x)
    _layer_norm[(rows,)](x, shift, norm.weight, norm.bias, out, width, norm.eps, **_block(width))
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


def mean(states: torch.Tensor, cu_seqlens: torch.Tensor) -> torch.Tensor:
    """As `operators.mean`; the order of the sum depends on the sequence's length alone."""
    count, width = len(cu_seqlens) - 1, states.shape[1]
    out = torch.empty(count, width, dtype=torch.float32, device=states.device)
    _mean[(count, triton.cdiv(width, MEAN_COLUMNS))](states, cu_seqlens, out, width, MEAN_ROWS, MEAN_COLUMNS)
    return out


def attention_tile(padded: int) -> tuple[int, int, int]:
    """Queries and keys of a tile, and how many tiles of keys are on their way at once, for a head of `padded` numbers."""
    return 64, 64 if padded <= 64 else 32, 3


def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, packing: Packing) -> torch.Tensor:
    """FlashAttention-2 (Dao 2023, arXiv:2307.08691) in tiles that fit proteins; see `attention.Attend`.

    The kernels of flash-attn and PyTorch take tiles of 128 queries, of which a protein of 300 residues fills the last
    one by a third.
    """
    _, heads, head_dim = query.shape
    out = torch.empty(query.shape, dtype=query.dtype, device=query.device)
    padded = max(triton.next_power_of_2(head_dim), 16)
    rows, columns, stages = attention_tile(padded)
    blocks = triton.cdiv(packing.max_seqlen, rows)
    _attend[(len(packing.tokens) * heads * blocks,)](
        query,
        key,
        value,
        out,
        packing.cu_seqlens,
        head_dim**-0.5 * math.log2(math.e),
        query.stride(0),
        heads,
        blocks,
        head_dim,
        padded,
        rows,
        columns,
        stages,
        num_warps=4,
    )
    return out


FUSED = Operators(layer_norm, rotate, gelu, mean)


def fused(device: torch.device, dtype: torch.dtype, heads: int, head_dim: int) -> Operators:
    """The kernels, compiled for a model's sizes and compared with PyTorch's operators on the CPU.

    Raises:
        NotAvailable: a kernel computes something else here; other exceptions: it cannot be compiled.
    """
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    tokens, width = 16, heads * head_dim
    angles, norm = random(tokens, head_dim // 2), nn.LayerNorm(width, dtype=dtype)
    examples = {
        "layer_norm": (random(tokens, width).to(dtype), random(width), norm),
        "rotate": (random(tokens, 3, heads, head_dim).to(dtype), angles.cos(), angles.sin()),
        "gelu": (random(tokens, width).to(dtype),),
        "mean": (random(tokens, width).to(dtype), torch.tensor([0, 5, tokens], dtype=torch.int32)),
    }
    for step, arguments in examples.items():
        # Copies to the GPU first: some steps overwrite what they are given.
        moved = [copy.deepcopy(argument).to(device) for argument in arguments]
        with torch.inference_mode():
            found = getattr(FUSED, step)(*moved).float().cpu()
            expected = getattr(operators.PLAIN, step)(*arguments).float()
        error = (found - expected).norm() / expected.norm()
        if not error < 0.02:
            raise NotAvailable(f"{step} computes wrong results on this GPU, relative error {error:.2g}")
    return FUSED
