"""Seqmill's own kernels, compiled while the weights of the model are on their way."""

from concurrent.futures import ThreadPoolExecutor, wait

import torch

from seqmill.kernels import attention
from seqmill.kernels.interface import Kernel
from seqmill.kernels.operators import Operators
from seqmill.models.family import Config

# Kernels compile independently: five of them one after the other took an H100's host 4.2 s, at once 2.2.
THREADS = 8


class Compilation:
    """The kernels of one model, each compiled and tried out on a thread of its own from now on.

    Args:
        dtype: what the model computes in.
        own_attention: whether attention's kernel is wanted, too.
    """

    def __init__(self, config: Config, device: torch.device, dtype: torch.dtype, own_attention: bool):
        # What is the current device is a thread's own matter.
        pool = ThreadPoolExecutor(THREADS, "compile", lambda: torch.cuda.set_device(device))
        needs = config.attention
        self._steps = [
            pool.submit(_try_step, step, device, dtype, config.width, needs.heads, needs.head_dim)
            for step in config.operators
        ]
        self._attention = pool.submit(attention.tried, "triton", needs, device, dtype) if own_attention else None
        pool.shutdown(wait=False)

    def operators(self) -> Operators:
        """The steps between matrix products and attention, once everything is compiled.

        Raises:
            Exception: one of them cannot be compiled, or computes something else here.
        """
        # All of it, whatever fails: later the process forks, which no thread may be in the middle of something for.
        wait([*self._steps, *([self._attention] if self._attention else [])])
        return [step.result() for step in self._steps][-1]

    def attention(self) -> Kernel | None:
        """Attention's kernel, once it is compiled; None where it is not wanted.

        Raises:
            Exception: see `attention.tried`.
        """
        return self._attention.result() if self._attention else None


def _try_step(step: str, device: torch.device, dtype: torch.dtype, *sizes: int) -> Operators:
    # Only here: Triton comes with PyTorch for NVIDIA GPUs under Linux, and with no other.
    from seqmill.kernels import triton_operators

    return triton_operators.fused((step,), device, dtype, *sizes)
