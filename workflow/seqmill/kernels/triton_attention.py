"""FlashAttention-2 as a Triton kernel, in tiles that fit proteins."""

import math

import torch
import triton
import triton.language as tl

from seqmill.kernels.interface import Bias, Kernel
from seqmill.kernels.packing import Packing


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


# Otherwise every batch whose number of blocks happens to be a multiple of 16 would compile a kernel of its own.
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


def attention_tile(padded: int) -> tuple[int, int, int]:
    """Queries and keys of a tile, and how many tiles of keys are on their way at once, for a head of `padded` numbers."""
    return 64, 64 if padded <= 64 else 32, 3


def attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    packing: Packing,
    scale: float | None = None,
    bias: Bias | None = None,
) -> torch.Tensor:
    """FlashAttention-2 (Dao 2023, arXiv:2307.08691); see `interface.Attend`.

    The kernels of flash-attn and PyTorch take tiles of 128 queries, of which a protein of 300 residues fills the last
    one by a third.
    """
    _, heads, head_dim = query.shape
    out = torch.empty(query.shape, dtype=query.dtype, device=query.device)
    padded = max(triton.next_power_of_2(head_dim), 16)
    rows, columns, stages = attention_tile(padded)
    blocks = triton.cdiv(packing.max_seqlen, rows)
    _attend[(len(packing.token_counts) * heads * blocks,)](
        query,
        key,
        value,
        out,
        packing.cu_seqlens,
        (head_dim**-0.5 if scale is None else scale) * math.log2(math.e),
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


KERNEL = Kernel("triton", "seqmill's Triton kernel", attend)
