"""The device that this process computes on, and the CPUs beside it: what they are and what they can do."""

import os

import torch

from seqmill.kernels.timing import gpu_seconds
from seqmill.units import GIB


def cpu_count() -> int:
    """CPUs this process may use: its affinity, or what SLURM granted if that is less."""
    granted = os.environ.get("SLURM_CPUS_PER_TASK", "")
    return min(len(os.sched_getaffinity(0)), int(granted) if granted.isdecimal() else 1 << 20)


def default_workers() -> int:
    """DataLoader workers: this GPU's share of the CPUs, at most 8."""
    return min(cpu_count() // max(torch.cuda.device_count(), 1), 8)


def describe(device: torch.device) -> str:
    """The device's name and memory."""
    if device.type != "cuda":
        return f"CPU, {torch.get_num_threads()} threads"
    properties = torch.cuda.get_device_properties(device)
    return (
        f"{properties.name}, {properties.total_memory / GIB:.0f} GiB, capability {properties.major}.{properties.minor}"
    )


def uuid(device: torch.device) -> str | None:
    """The identifier of this GPU among those of the machine; None for the CPU."""
    return f"GPU-{torch.cuda.get_device_properties(device).uuid}" if device.type == "cuda" else None


def matmul_flops(device: torch.device, dtype: torch.dtype) -> float | None:
    """Operations per second of a large matrix product on this GPU: the ceiling that utilisation is measured against.

    None on the CPU. Takes some milliseconds and 100 MiB, which are given back.
    """
    if device.type != "cuda":
        return None
    size, warm_up, repeats = 4096, 30, 30
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    # An idle GPU takes a few milliseconds to raise its clock.
    taken = gpu_seconds(lambda: torch.mm(a, b), repeats, warm_up)
    a = b = None
    torch.cuda.empty_cache()
    return 2 * size**3 / taken
