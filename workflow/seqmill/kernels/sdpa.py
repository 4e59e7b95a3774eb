"""Standard attention: PyTorch's scaled dot-product attention over groups of similar length."""

import torch
import torch.nn.functional as F

from seqmill.kernels.interface import Bias, Kernel
from seqmill.kernels.packing import Packing


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
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale).transpose(1, 2)
        if slots is None:
            output[span].unflatten(0, shape).copy_(attended)
        else:
            # The slots beyond a sequence's end repeat its last query, so what is written there twice is the same.
            output[slots] = attended
    return output


KERNEL = Kernel("sdpa", "PyTorch SDPA", attend)
