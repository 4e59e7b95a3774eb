"""Standard attention: PyTorch's scaled dot-product attention over groups of similar length."""

import torch
import torch.nn.functional as F

from seqmill.kernels.biases import Alibi, Bias, DistanceTable
from seqmill.kernels.interface import Kernel
from seqmill.kernels.packing import Packing

# How many numbers of a bias are in memory at once, which bounds it whatever the sequences' lengths.
BIAS_NUMBERS = 2**24


def attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    packing: Packing,
    scale: float | None = None,
    bias: Bias | None = None,
) -> torch.Tensor:
    """See `interface.Attend`. Neighbours of similar length run as one dense batch."""
    output = torch.zeros_like(query)
    for span, shape, slots, mask in packing.groups:
        dense = (x[span].unflatten(0, shape) if slots is None else x[slots] for x in (query, key, value))
        q, k, v = (x.transpose(1, 2) for x in dense)
        if bias is None:
            attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale).transpose(1, 2)
        else:
            attended = _biased(q, k, v, mask, scale, bias).transpose(1, 2).to(output.dtype)
            if slots is not None:
                # A bias tells the last query from its repetitions, which stand further behind.
                attended = attended[torch.arange(len(slots))[:, None], slots - slots[:, :1]]
        if slots is None:
            output[span].unflatten(0, shape).copy_(attended)
        else:
            # The slots beyond a sequence's end repeat its last query, so what is written there twice is the same.
            output[slots] = attended
    return output


def _biased(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None, scale: float | None, bias: Bias
) -> torch.Tensor:
    """Attention of a dense batch with a bias, (count, heads, longest, head_dim) float32, some queries at a time.

    In float32 throughout: SDPA takes a mask in the dtype of the queries, and half precision would round the bias.
    """
    q, k, v = q.float(), k.float(), v.float()
    count, heads, longest, _ = q.shape
    places = torch.arange(longest, device=q.device)
    # Where the sequences' ends differ, each has a mask of its own.
    masks = 1 if mask is None else count
    rows = max(BIAS_NUMBERS // (masks * heads * longest), 1)
    attended = torch.empty_like(q)
    for first in range(0, longest, rows):
        some = slice(first, first + rows)
        added = bias.dense(places[some], places)[None]
        if mask is not None:
            added = added.masked_fill(~mask, float("-inf"))
        attended[:, :, some] = F.scaled_dot_product_attention(q[:, :, some], k, v, attn_mask=added, scale=scale)
    return attended


KERNEL = Kernel("sdpa", "PyTorch SDPA", attend, frozenset({None, Alibi.kind, DistanceTable.kind}))
