"""What the GPU itself can do: the ceilings that rates are measured against."""

import time

import torch
from common import ROOT  # noqa: F401 -- puts seqmill on the path

from seqmill.kernels.timing import gpu_seconds

GPU = torch.device("cuda")


def matmul(duration: float, size: int = 8192) -> float:
    """FLOP/s of a square bfloat16 matrix product on random data, kept up for `duration` seconds.

    After a few seconds a GPU runs at the clock its power limit allows, which is what long jobs get.
    """
    a, b = (torch.randn(size, size, device=GPU).bfloat16() for _ in range(2))
    out = torch.empty_like(a)
    once = gpu_seconds(lambda: torch.mm(a, b, out=out), 3)
    return 2 * size**3 / gpu_seconds(lambda: torch.mm(a, b, out=out), max(int(duration / once), 3))


def copy(size: int = 2**31) -> float:
    """Bytes read and written per second by a copy within the GPU's memory."""
    source = torch.empty(size, dtype=torch.uint8, device=GPU)
    target = torch.empty_like(source)
    return 2 * size / gpu_seconds(lambda: target.copy_(source), 20)


def to_host(size: int = 2**28) -> float:
    """Bytes per second from the GPU into pinned memory."""
    source = torch.empty(size, dtype=torch.uint8, device=GPU)
    target = torch.empty(size, dtype=torch.uint8, pin_memory=True)
    return size / gpu_seconds(lambda: target.copy_(source, non_blocking=True), 10)


def all_ceilings() -> dict[str, float]:
    """All of them, by name; first the matrix product for a moment, while the GPU is cool."""
    time.sleep(1)
    found = {
        "matmul_first_50ms_TFLOP/s": matmul(0.05) / 1e12,
        "matmul_sustained_TFLOP/s": matmul(3.0) / 1e12,
        "copy_TB/s": copy() / 1e12,
        "device_to_host_GB/s": to_host() / 1e9,
    }
    torch.cuda.empty_cache()
    return {name: round(value, 2) for name, value in found.items()}
