"""The memory-bound steps between matrix products and attention, in PyTorch's own (eager) operators.

`triton_operators.py` has the same steps as Triton kernels; a model takes either.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from seqmill.kernels.interface import Kernel


class Operators(NamedTuple):
    """One way to compute the steps; the arguments are those of the functions of this module."""

    layer_norm: Callable[..., torch.Tensor]
    rotate: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
    gelu: Callable[[torch.Tensor], torch.Tensor]
    mean: Callable[[torch.Tensor, torch.Tensor, int, int], torch.Tensor]


class Kernels(NamedTuple):
    """What a model computes with besides matrix products; exchanged as one value.

    Attributes:
        attention: what computes attention.
        operators: the steps between it and the matrix products.
    """

    attention: Kernel
    operators: Operators


def layer_norm(x: torch.Tensor, norm: nn.LayerNorm, shift: torch.Tensor | None = None) -> torch.Tensor:
    """Layer normalisation of x + shift, in float32 within: (T, D) to (T, D).

    Args:
        shift: (D,) float32, a constant that the residual stream lacks.
    """
    if shift is not None:
        x = (x + shift).to(x.dtype)
    return F.layer_norm(x, norm.normalized_shape, norm.weight, norm.bias, norm.eps)


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotary position embedding (Su et al. 2021) in float32, halves paired as in `EsmModel`. May overwrite x.

    Args:
        x: (T, 3, heads, head_dim), queries, keys and values; the values stay as they are.
        cos, sin: (T, head_dim / 2), float32.
    """
    cos, sin = cos[:, None, None], sin[:, None, None]
    first, second = x[:, :2].float().chunk(2, dim=-1)
    turned = torch.addcmul(first * cos, second, sin, value=-1), torch.addcmul(second * cos, first, sin)
    x[:, :2] = torch.cat(turned, dim=-1)
    return x


def gelu(x: torch.Tensor) -> torch.Tensor:
    """GELU in its exact form, with the error function. May overwrite x."""
    return F.gelu(x)


def mean(states: torch.Tensor, cu_seqlens: torch.Tensor, leading: int, trailing: int) -> torch.Tensor:
    """Mean of each sequence's rows but its first `leading` and last `trailing` ones: (T, D) to (S, D), float32.

    The sum runs over the rows in their order, so it depends neither on neighbours nor on chance.
    """
    begins, ends = cu_seqlens[:-1].long(), cu_seqlens[1:].long()
    # Segments in turn: leading tokens, content, trailing tokens; every second of three is wanted.
    bounds = torch.stack((begins, begins + leading, ends - trailing), dim=1).flatten()
    bounds = torch.cat((bounds, ends[-1:]))
    sums = torch.segment_reduce(states.float(), "sum", offsets=bounds, axis=0, unsafe=True)
    return sums[1::3] / (ends - begins - leading - trailing).unsqueeze(1)


EAGER = Operators(layer_norm, rotate, gelu, mean)
