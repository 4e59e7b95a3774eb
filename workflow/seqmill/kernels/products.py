"""Matrix products that add to what is there."""

import torch


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
