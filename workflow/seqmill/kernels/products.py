"""Matrix products that write to, or add to, what is there."""

import torch
from torch import nn


def product(layer: nn.Linear, x: torch.Tensor, workspace: torch.Tensor) -> torch.Tensor:
    """What a layer with or without a bias makes of x (T, in), at the beginning of `workspace`: (T, out).

    Args:
        workspace: 1-D, of at least T x out numbers.
    """
    out = workspace[: len(x) * layer.out_features].view(len(x), layer.out_features)
    if layer.bias is None:
        return torch.mm(x, layer.weight.t(), out=out)
    return torch.addmm(layer.bias, x, layer.weight.t(), out=out)


def add_product(stream: torch.Tensor, x: torch.Tensor, weight: torch.Tensor) -> None:
    """Add x @ weight.T to a float32 stream in place, summed in float32 whatever the factors' dtype.

    Half precision never holds the product, so one beyond float16's largest number, 65,504, stays what it is.

    Args:
        stream: (T, D) float32.
        x, weight: (T, K) and (D, K), both of one dtype: float32, float16 or bfloat16. x may have any row stride.
    """
    if x.is_cuda and x.dtype != torch.float32:
        torch.addmm(stream, x, weight.t(), out_dtype=torch.float32, out=stream)
    else:
        # PyTorch has a product of mixed dtypes for GPUs only.
        stream.addmm_(x.float(), weight.float().t())
