"""GPU memory: how much there is, how much a batch takes, and how large a batch may be."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

log = logging.getLogger(__name__)

# Batch sizes that are tried for speed, and how often; the smallest that comes close to the best is taken. On an H200
# (benchmarks/results) that is 16,384 for the large models and 65,536 for the small ones.
TRIED = (8_192, 16_384, 32_768, 65_536)
TRIES = 3
TRIED_TOKENS = TRIES * sum(TRIED)
PLATEAU_SHARE = 0.98
# Within a few percent of the best for all models, where trying would not pay.
PLATEAU_TOKENS = 32_768
# On a CPU 1,024 to 4,096 tokens were equally fast for the demonstration model.
CPU_TOKENS = 2_048
BATCH_MULTIPLE = 256
# Pairs of batch sizes to measure, in tokens: the larger the truer, the smaller where memory is short.
PROBE_TOKENS = ((4_096, 16_384), (1_024, 4_096), (256, 1_024))
# What a batch may fill of the memory there is: the rest is for rounding in the allocator and for what libraries take.
USABLE_SHARE = 0.9
# Memory this process holds outside PyTorch's allocator: CUDA's context and loaded kernels.
CONTEXT_BYTES = 800 * 2**20
# Reserved but unused memory is returned when it passes this share of the card.
TRIM_SHARE = 0.2
# Allocation failures that PyTorch raises as plain RuntimeErrors.
MESSAGES = (
    "CUDA error: out of memory",
    "Triton Error [CUDA]: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "DefaultCPUAllocator: can't allocate memory",
)
GIB = 2**30


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


def is_oom(error: BaseException) -> bool:
    """Whether an exception means that memory ran out, on the GPU or on the host."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(message in str(error) for message in MESSAGES)


def fit(tokens: Sequence[int], peaks: Sequence[float], basis: str) -> Fit:
    """Straight line through measured peaks (bytes), least squares; the slope is at least one byte a token."""
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
    """What nobody holds; 0 on a card so full that it cannot even be asked, for which a process needs some memory."""
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


def choose_batch_size(
    requested: int | None,
    measured: Fit | None = None,
    usable: int | None = None,
    rate: Callable[[int], float] | None = None,
) -> tuple[int, str]:
    """The batch size in tokens, and why.

    Args:
        requested: from the configuration; None for auto.
        measured, usable: on a GPU the fit of its memory and the bytes there are; None on the CPU.
        rate: measures the speed with a batch size once, 0 if that does not fit after all; None where that takes too long
            for what it gains.
    """
    if requested is not None:
        return requested, "as requested"
    if measured is None or usable is None:
        return CPU_TOKENS, "auto because a CPU gains nothing from more"
    largest = max(measured.largest(usable), BATCH_MULTIPLE)
    rates = _rates([tokens for tokens in TRIED if tokens <= largest], rate) if rate is not None else {}
    if rates:
        best = max(rates.values())
        size = min(tokens for tokens in rates if rates[tokens] >= PLATEAU_SHARE * best)
        reason = "as fast as any: " + ", ".join(f"{rates[tokens] / best:.0%} at {tokens:,}" for tokens in rates)
    elif largest >= PLATEAU_TOKENS:
        size, reason = PLATEAU_TOKENS, "that keeps a large GPU busy"
    else:
        size, reason = largest, "no more fits"
    need = f"{measured.peak(size) / GIB:.1f} of {usable / GIB:.1f} GiB usable"
    return size, f"auto because {reason}; it needs {need}"


def _rates(sizes: Sequence[int], rate: Callable[[int], float]) -> dict[int, float]:
    """The best of TRIES measurements for each batch size that fits; in turns, because a GPU slows down while it warms up."""
    tried = [{tokens: rate(tokens) for tokens in sizes} for _ in range(TRIES)]
    best = {tokens: max(rates[tokens] for rates in tried) for tokens in sizes}
    return {tokens: found for tokens, found in best.items() if found > 0}


def trim(device: torch.device) -> None:
    """Return reserved but unused memory to the GPU when it passes TRIM_SHARE of the card."""
    total = torch.cuda.get_device_properties(device).total_memory
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    if unused > TRIM_SHARE * total:
        torch.cuda.empty_cache()
        log.info("returned %.1f GiB of reserved but unused memory to the GPU", unused / GIB)
