"""GPU memory: how much there is, how much a batch takes, and how large a batch may be."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from seqmill.errors import is_oom
from seqmill.units import GIB

log = logging.getLogger(__name__)

BATCH_MULTIPLE = 256
# Pairs of batch sizes to measure, in tokens: larger ones are more accurate, smaller ones for when memory is short.
PROBE_TOKENS = ((4_096, 16_384), (1_024, 4_096), (256, 1_024))
# What a batch may fill of the memory there is: the rest is for rounding in the allocator and for what libraries take.
USABLE_SHARE = 0.9
# Memory this process holds outside PyTorch's allocator: CUDA's context and loaded kernels.
CONTEXT_BYTES = 800 * 2**20
# Reserved but unused memory is returned when it passes this share of the card.
TRIM_SHARE = 0.2


@dataclass(frozen=True)
class Fit:
    """Peak memory as measured: static + slope x tokens in the batch."""

    static_bytes: float
    bytes_per_token: float
    basis: str

    def peak(self, tokens: int) -> float:
        return self.static_bytes + self.bytes_per_token * tokens

    def largest(self, usable_bytes: float) -> int:
        """The largest batch in tokens whose peak stays within USABLE_SHARE of `usable_bytes`; 0 if there is none."""
        tokens = (USABLE_SHARE * usable_bytes - self.static_bytes) / self.bytes_per_token
        return max(int(tokens) // BATCH_MULTIPLE * BATCH_MULTIPLE, 0)


def fit(tokens: Sequence[int], peaks: Sequence[float], basis: str) -> Fit:
    """Straight line through measured peaks (bytes), least squares; the slope is at least one byte per token."""
    slope, static = np.polyfit(np.asarray(tokens, dtype=float), np.asarray(peaks, dtype=float), 1)
    return Fit(float(static), max(float(slope), 1.0), basis)


def measure(run: Callable[[int], None], device: torch.device) -> Fit:
    """Run two small batches and fit what the allocator reserved for them, its rounding and fragmentation included.

    Args:
        run: computes batches of so many tokens, as the pipeline will.

    Raises:
        Exception: one that `is_oom` knows: not even the smallest fit.
    """
    for sizes in PROBE_TOKENS:
        try:
            peaks = [_peak_reserved(run, tokens, device) for tokens in sizes]
        except Exception as error:
            if not is_oom(error) or sizes == PROBE_TOKENS[-1]:
                raise
            log.debug("batches of %s tokens do not fit: measuring smaller ones", sizes)
            continue
        return fit(sizes, peaks, f"peaks measured with batches of {sizes[0]:,} and {sizes[1]:,} tokens")
    raise AssertionError("unreachable")


def _peak_reserved(run: Callable[[int], None], tokens: int, device: torch.device) -> int:
    forget_peaks(device)
    run(tokens)
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_reserved(device)


def forget_peaks(device: torch.device) -> None:
    """Give unused memory back and let peaks count from here."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)


def usable_bytes(device: torch.device) -> int:
    """What this process may hold in all: free memory plus what it has reserved, within its memory fraction."""
    return min(free_bytes(device) + torch.cuda.memory_reserved(device), allowed_bytes(device))


def free_bytes(device: torch.device) -> int:
    """Free GPU memory; 0 if the query itself fails for lack of memory."""
    try:
        return torch.cuda.mem_get_info(device)[0]
    except RuntimeError as error:
        if not is_oom(error):
            raise
        return 0


def allowed_bytes(device: torch.device) -> int:
    """What this process may hold by its memory fraction, however much of it is free."""
    share = getattr(torch.cuda, "get_per_process_memory_fraction", lambda _: 1.0)(device)
    return int(share * torch.cuda.get_device_properties(device).total_memory)


def trim(device: torch.device) -> None:
    """Return reserved but unused memory to the GPU when it passes TRIM_SHARE of the card."""
    total = torch.cuda.get_device_properties(device).total_memory
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    if unused > TRIM_SHARE * total:
        torch.cuda.empty_cache()
        log.info("returned %.1f GiB of reserved but unused memory to the GPU", unused / GIB)
