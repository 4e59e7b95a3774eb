"""Loading a checkpoint into the packed model of its family."""

import torch

from seqmill.kernels import attention
from seqmill.kernels.operators import EAGER, Kernels
from seqmill.models.checkpoint import Checkpoint
from seqmill.models.family import Model
from seqmill.models.source import Source


def load(source: Source, dtype: torch.dtype, device: torch.device, requested_attention: str) -> Model:
    """Load a checkpoint into the packed model of its family on `device`.

    Raises:
        UserError: weights missing or of another shape, or the requested attention kernel does not work.
        torch.OutOfMemoryError: the weights do not fit on the device.
    """
    if device.type == "cpu":
        _settle_mkl()
    kernel = attention.choose(requested_attention, source.config.attention, device, dtype)
    checkpoint = Checkpoint(source.weights, device)
    return source.family.build(source.config, checkpoint, source.tokenizer, Kernels(kernel, EAGER), dtype)


def _settle_mkl() -> None:
    """Use the threaded sine and cosine once and discard the result.

    The first time that MKL shares one of them among threads, a thread's part now and then comes out with errors of
    1e-4 (seen with PyTorch 2.13 on two cores, once in five starts of a busy process; never from the second time on).
    """
    angles = torch.zeros(1 << 15)
    angles.cos(), angles.sin()
