"""FlashAttention-2 as a Triton kernel, in tiles that fit proteins."""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
import triton
import triton.language as tl

from seqmill.kernels.biases import Alibi, Bias, DistanceTable
from seqmill.kernels.interface import Kernel
from seqmill.kernels.packing import Packing

LOG2_E = math.log2(math.e)


@triton.jit
def _gather(addresses):
    # As tl.load, but each thread loads what it adds to its own scores: tl.load would hand the numbers out as memory likes
    # it, and the whole softmax would go through shared memory to meet them.
    return tl.inline_asm_elementwise(
        "ld.global.nc.b32 $0, [$1];", "=r,l", [addresses], dtype=tl.float32, is_pure=True, pack=1
    )


@triton.jit
def _add_bias(scores, bias, offset, reach, KIND: tl.constexpr):
    # `offset` is the place of the tile's first key less that of its first query.
    rows = tl.arange(0, scores.shape[0])[:, None]
    columns = tl.arange(0, scores.shape[1])[None, :]
    if KIND == "alibi":
        # In float32, which has these distances exactly: to convert each would take as long as its exponential.
        distances = (offset.to(tl.float32) - rows.to(tl.float32)) + columns.to(tl.float32)
        scores -= tl.abs(distances) * bias
    else:
        tl.static_assert(KIND == "distance table")
        if (offset + scores.shape[1] > -reach) & (offset - scores.shape[0] < reach):
            # Summed in this order, a thread's addresses differ by constants.
            scores += _gather((bias + offset - rows) + columns)
        else:
            # So far from the diagonal that all have the same number.
            scores += tl.load(bias + tl.where(offset > 0, reach, -reach))
    return scores


@triton.jit
def _add_keys(
    q,
    keys,
    values,
    left,
    scale,
    bias,
    offset,
    reach,
    highest,
    total,
    out,
    KIND: tl.constexpr,
    HEAD: tl.constexpr,
    COLUMNS: tl.constexpr,
    ALL: tl.constexpr,
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
    if KIND is not None:
        scores = _add_bias(scores, bias, offset, reach, KIND)
    if not ALL:
        scores = tl.where(inside[None, :], scores, float("-inf"))
    new = tl.maximum(highest, tl.max(scores, 1))
    weights = tl.exp2(scores - new[:, None])
    shrink = tl.exp2(highest - new)
    out = tl.dot(weights.to(q.dtype), v, out * shrink[:, None])
    return new, total * shrink + tl.sum(weights, 1), out


# Otherwise every batch whose number of blocks happens to be a multiple of 16 would compile a kernel of its own.
@triton.jit(do_not_specialize=["blocks", "reach"])
def _attend(
    query,
    key,
    value,
    out,
    cu_seqlens,
    numbers,
    scale,
    stride,
    heads,
    blocks,
    reach,
    KIND: tl.constexpr,
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
        if KIND == "alibi":
            # The head's slope.
            bias = tl.load(numbers + head)
        elif KIND == "distance table":
            # Where the head's number for the distance 0 lies.
            beyond = reach + ROWS + COLUMNS
            bias = numbers + head * (2 * beyond + 1) + beyond
        else:
            bias = numbers
        highest = tl.full((ROWS,), float("-inf"), tl.float32)
        total = tl.zeros((ROWS,), tl.float32)
        sums = tl.zeros((ROWS, PADDED), tl.float32)
        whole = length // COLUMNS * COLUMNS
        for start in tl.range(0, whole, COLUMNS, num_stages=STAGES):
            at = tl.cast(start, tl.int64) * stride
            offset = start - block * ROWS
            highest, total, sums = _add_keys(
                q,
                keys + at,
                values + at,
                COLUMNS,
                scale,
                bias,
                offset,
                reach,
                highest,
                total,
                sums,
                KIND,
                HEAD,
                COLUMNS,
                True,
            )
        if whole < length:
            at = tl.cast(whole, tl.int64) * stride
            offset = whole - block * ROWS
            highest, total, sums = _add_keys(
                q,
                keys + at,
                values + at,
                length - whole,
                scale,
                bias,
                offset,
                reach,
                highest,
                total,
                sums,
                KIND,
                HEAD,
                COLUMNS,
                False,
            )
        to = out + (rows * heads + head) * HEAD + columns[None, :]
        tl.store(to, sums / total[:, None], mask=inside)


class Tile(NamedTuple):
    """How the work is cut up.

    Attributes:
        rows, columns: queries and keys of a tile.
        stages: how many tiles of keys are on their way at once.
        warps: that share a tile.
    """

    rows: int
    columns: int
    stages: int
    warps: int


def attention_tile(padded: int) -> Tile:
    """The tile for heads of `padded` numbers, a power of two from 16 on."""
    if padded <= 64:
        return Tile(64, 64, 3, 4)
    # On an H100 the best of twelve for sequences of 100 to 350 tokens, with a table of distances, too.
    return Tile(64, 32, 3, 4)


def _numbers(bias: Bias | None, tile: Tile) -> tuple[torch.Tensor | None, int | None]:
    """What the kernel reads of a bias, times log2(e), and a table's reach.

    Tables are continued by a tile on each side: in tiles near the diagonal no distance has to be clamped.
    """
    match bias:
        case None:
            return None, None
        case Alibi():
            return bias.slopes * LOG2_E, None
        case DistanceTable():
            beyond = tile.rows + tile.columns
            return F.pad(bias.table * LOG2_E, (beyond, beyond), mode="replicate"), bias.reach


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
    kind = None if bias is None else bias.kind
    tile = attention_tile(padded)
    numbers, reach = _numbers(bias, tile)
    blocks = triton.cdiv(packing.max_seqlen, tile.rows)
    _attend[(len(packing.token_counts) * heads * blocks,)](
        query,
        key,
        value,
        out,
        packing.cu_seqlens,
        numbers,
        (head_dim**-0.5 if scale is None else scale) * LOG2_E,
        query.stride(0),
        heads,
        blocks,
        reach,
        kind,
        head_dim,
        padded,
        tile.rows,
        tile.columns,
        tile.stages,
        num_warps=tile.warps,
    )
    return out


KERNEL = Kernel("triton", "seqmill's Triton kernel", attend, frozenset({None, Alibi.kind, DistanceTable.kind}))
