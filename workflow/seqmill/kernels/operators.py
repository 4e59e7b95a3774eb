"""The memory-bound steps between matrix products and attention, in PyTorch's own (eager) operators.

`triton_operators.py` has the same steps as Triton kernels; a model takes either.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from seqmill.kernels.interface import Kernel


class Operators(NamedTuple):
    """One way to compute the steps; the arguments are those of the functions of this module."""

    layer_norm: Callable[..., torch.Tensor]
    add_norm: Callable[[torch.Tensor, torch.Tensor, torch.Tensor, nn.LayerNorm], torch.Tensor]
    rms_norm: Callable[[torch.Tensor, nn.RMSNorm], torch.Tensor]
    rotate: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
    norm_rotate: Callable[[torch.Tensor, nn.LayerNorm, nn.LayerNorm, torch.Tensor, torch.Tensor], torch.Tensor]
    gelu: Callable[[torch.Tensor], torch.Tensor]
    gate: Callable[[torch.Tensor, str], torch.Tensor]
    mean: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


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
        norm: with or without a bias.
        shift: (D,) float32, a constant that the residual stream lacks.
    """
    if shift is not None:
        x = (x + shift).to(x.dtype)
    return F.layer_norm(x, norm.normalized_shape, norm.weight, norm.bias, norm.eps)


def add_norm(x: torch.Tensor, y: torch.Tensor, bias: torch.Tensor, norm: nn.LayerNorm) -> torch.Tensor:
    """Layer normalisation of x + y + bias, in float32 within, as post-norm layers end: (T, D) in x's dtype.

    May overwrite x.

    Args:
        y: (T, D), what a matrix product gave without its bias.
        bias: (D,), that bias.
    """
    return _normalised(x.float() + y + bias, norm).to(x.dtype)


def rms_norm(x: torch.Tensor, norm: nn.RMSNorm) -> torch.Tensor:
    """Root mean square normalisation (Zhang and Sennrich 2019), in float32 within: (T, D) to (T, D).

    Args:
        x: float32 or half precision, whatever the weight's dtype.

    Returns:
        In the dtype of the weight, which is what the matrix product behind it takes.
    """
    return F.rms_norm(x.float(), norm.normalized_shape, norm.weight.float(), norm.eps).to(norm.weight.dtype)


def _normalised(x: torch.Tensor, norm: nn.LayerNorm) -> torch.Tensor:
    """Layer normalisation of float32 by weights of any dtype."""
    bias = None if norm.bias is None else norm.bias.float()
    return F.layer_norm(x, norm.normalized_shape, norm.weight.float(), bias, norm.eps)


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotary position embedding (Su et al. 2021) in float32, halves paired as in `EsmModel`. May overwrite x.

    Args:
        x: (T, 3, heads, head_dim), queries, keys and values; the values stay as they are.
        cos, sin: (T, head_dim / 2), float32.
    """
    x[:, :2] = _turned(x[:, :2].float(), cos, sin)
    return x


def norm_rotate(
    x: torch.Tensor, query_norm: nn.LayerNorm, key_norm: nn.LayerNorm, cos: torch.Tensor, sin: torch.Tensor
) -> torch.Tensor:
    """Layer normalisation of queries and of keys over all their heads at once, then `rotate`. May overwrite x.

    In float32 within, with no rounding between the two.

    Args:
        x, cos, sin: as those of `rotate`.
        query_norm, key_norm: over heads x head_dim numbers, with or without a bias.
    """
    normed = (_normalised(x[:, i].flatten(-2).float(), norm) for i, norm in enumerate((query_norm, key_norm)))
    x[:, :2] = _turned(torch.stack(tuple(normed), dim=1).unflatten(-1, x.shape[-2:]), cos, sin)
    return x


def _turned(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Queries and keys (T, 2, heads, head_dim) in float32, each turned by its position's angles."""
    cos, sin = cos[:, None, None], sin[:, None, None]
    first, second = x.chunk(2, dim=-1)
    turned = torch.addcmul(first * cos, second, sin, value=-1), torch.addcmul(second * cos, first, sin)
    return torch.cat(turned, dim=-1)


def gelu(x: torch.Tensor) -> torch.Tensor:
    """GELU in its exact form, with the error function. May overwrite x."""
    return F.gelu(x)


# Of gated feed-forwards (Shazeer 2020, arXiv:2002.05202); GELU in its exact form and as T5 approximates it.
ACTIVATIONS = {"gelu": F.gelu, "gelu_tanh": partial(F.gelu, approximate="tanh"), "silu": F.silu}


def gate(x: torch.Tensor, activation: str) -> torch.Tensor:
    """The first half of each row through an activation, times the second half: (T, 2F) to (T, F). May overwrite x.

    Args:
        activation: a name in `ACTIVATIONS`.

    Returns:
        Perhaps a view of x, with a row stride of 2F, which matrix products take as it is.
    """
    first, second = x.chunk(2, dim=-1)
    return ACTIVATIONS[activation](first).mul_(second)


def mean(states: torch.Tensor, begins: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
    """Mean of some stretches of rows: (T, D) to (S, D), float32.

    The sum runs over the rows in their order, so it depends neither on neighbours nor on chance.

    Args:
        begins, ends: (S,) int32, ascending and not overlapping.
    """
    return _reduced(states, begins, ends, "sum") / (ends - begins).unsqueeze(1)


def maximum(states: torch.Tensor, begins: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
    """Largest value in each column of some stretches of rows; shapes as for `mean`."""
    return _reduced(states, begins, ends, "max")


def mean_and_variance(states: torch.Tensor, begins: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
    """Mean and variance of some stretches of rows, side by side: (T, D) to (S, 2 D), float32.

    The variance is the mean of the squared distances from the mean, computed in two passes.
    """
    means = mean(states, begins, ends)
    slots = torch.arange(len(states), device=states.device, dtype=begins.dtype)
    own = (torch.searchsorted(begins, slots, right=True) - 1).clamp_(min=0)
    distances = states.float().sub_(means[own]) if states.dtype != torch.float32 else states - means[own]
    return torch.cat((means, mean(distances.square_(), begins, ends)), dim=1)


def _reduced(states: torch.Tensor, begins: torch.Tensor, ends: torch.Tensor, how: str) -> torch.Tensor:
    """Reduce some stretches of rows, in their order: (T, D) to (S, D), float32."""
    # Segments in turn: a stretch, and what lies between it and the next.
    bounds = torch.stack((begins, ends), dim=1).flatten().long()
    return torch.segment_reduce(states.float(), how, offsets=bounds, axis=0, unsafe=True)[::2]


EAGER = Operators(layer_norm, add_norm, rms_norm, rotate, norm_rotate, gelu, gate, mean)
