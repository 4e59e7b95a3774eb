"""Automatic choices: each a value with its reason, from what was asked for and what was measured."""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from seqmill.engine.device import cpu_count, default_workers
from seqmill.engine.memory import BATCH_MULTIPLE, Fit
from seqmill.errors import first_line, is_oom
from seqmill.models.family import Config, flops
from seqmill.settings import Settings
from seqmill.units import GIB

log = logging.getLogger(__name__)

AS_REQUESTED, AS_BEFORE = "as requested", "as before the interruption"
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
# On an H200 (benchmarks/results): what compiling the kernels costs in seconds, 3 where they were not compiled before and
# 0.6 where they come from Triton's cache, and which share of the time they then save.
COMPILE_SECONDS = 1.5
COMPILE_GAIN = 0.35
# What PyTorch's operators between the matrix products take for each number of a hidden state and layer, in operations of
# matrix products: with it, the work of 650M and of 8M is estimated within a factor of two of what it took.
OPERATIONS_BETWEEN = 75_000
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


@dataclass(frozen=True)
class Choice:
    """A setting in force, and why; without a reason where there was nothing to choose."""

    value: Any
    reason: str = ""


def recorded(value: Any) -> Any:
    """A chosen value as files and logs have it."""
    return str(value).removeprefix("torch.") if isinstance(value, torch.dtype) else value


def dtype(
    requested: str, device: torch.device, half: str = "bfloat16", fitting: Mapping[str, Any] | None = None
) -> Choice:
    """The torch.dtype to compute in: the model's `half` on GPUs from Ampere on, float16 on older ones, float32 on the CPU.

    Args:
        fitting: attributes of an earlier result that is reused, whose dtype comes before what suits the device.
    """
    if requested != "auto":
        return Choice(DTYPES[requested], AS_REQUESTED)
    if fitting:
        return Choice(DTYPES[fitting["dtype"]], "auto because the earlier result that is reused has it")
    if device.type != "cuda":
        return Choice(torch.float32, "auto because this runs on the CPU")
    if torch.cuda.get_device_capability(device) >= (8, 0):
        return Choice(DTYPES[half], f"auto because this GPU computes {half} at full rate")
    return Choice(torch.float16, "auto because this GPU has no fast bfloat16")


def workers(requested: int | None) -> Choice:
    """How many processes prepare batches."""
    if requested is not None:
        return Choice(requested, AS_REQUESTED)
    return Choice(default_workers(), f"auto because {cpu_count()} CPUs serve this process")


def without_choice(settings: Settings, device: torch.device, allocator: Choice) -> dict[str, Choice]:
    """The settings in force that depend on nothing that is measured, by name."""
    unused = "" if device.type == "cuda" else "without effect on the CPU"
    return {
        "dataloader_workers": workers(settings.dataloader_workers),
        "pin_memory": Choice(settings.pin_memory, unused),
        "streams": Choice(settings.streams, unused),
        "allocator": replace(allocator, reason=unused),
    }


def compiles(requested: str, reason: str, device: torch.device, work_s: float) -> Choice:
    """Whether to use the fused kernels.

    Args:
        requested: auto, on or off.
        reason: why, where it is not auto.
        work_s: how long the work would take without them, in seconds.
    """
    if requested == "off":
        return Choice(False, reason)
    if device.type != "cuda":
        return Choice(False, "it needs a GPU")
    if requested == "auto" and COMPILE_GAIN * work_s < COMPILE_SECONDS:
        return Choice(False, f"auto because compiling takes longer than it would save in about {work_s:.0f} s of work")
    return Choice(True, reason if requested == "on" else f"auto because there are about {work_s:.0f} s of work")


def compiled(wanted: Choice, take: Callable[[], None]) -> Choice:
    """Whether the fused kernels are used, after taking them where they are wanted.

    Args:
        take: compiles and takes the kernels, or raises any exception where it cannot.
    """
    if not wanted.value:
        return wanted
    try:
        take()
    except Exception as error:  # without a C compiler, a home directory or a known GPU, Triton fails in many ways
        if is_oom(error):
            raise
        log.warning("compilation failed (%s): continuing with PyTorch's operators", first_line(error)[:200])
        return Choice(False, "compilation failed")
    return wanted


def work_seconds(config: Config, token_counts: np.ndarray, layers: int, matmul_flops: float | None) -> float:
    """About how long a GPU takes for a shard in PyTorch's operators.

    Args:
        token_counts: of the shard's sequences.
        layers: how many are computed.
        matmul_flops: what the GPU reaches in matrix products; None on the CPU, where there is nothing to choose.
    """
    if matmul_flops is None:
        return math.inf
    between = OPERATIONS_BETWEEN * float(token_counts.sum()) * config.width * layers
    return (flops(config, token_counts, layers) + between) / matmul_flops


def batch_size(
    requested: int | None,
    reason: str = AS_REQUESTED,
    measured: Fit | None = None,
    usable: int | None = None,
    rates: Callable[[Sequence[int]], dict[int, float]] | None = None,
) -> Choice:
    """The batch size in tokens.

    Args:
        requested: None for auto.
        reason: why, where it is not auto.
        measured, usable: on a GPU the fit of its memory and the bytes there are; None on the CPU.
        rates: the speed with each of some batch sizes, see `best_rates`; None where measuring takes too long for what it
            gains.
    """
    if requested is not None:
        return Choice(requested, reason)
    if measured is None or usable is None:
        return Choice(CPU_TOKENS, "auto because a CPU gains nothing from more")
    largest = max(measured.largest(usable), BATCH_MULTIPLE)
    found = rates([tokens for tokens in TRIED if tokens <= largest]) if rates is not None else {}
    if found:
        best = max(found.values())
        size = min(tokens for tokens in found if found[tokens] >= PLATEAU_SHARE * best)
        why = "as fast as any: " + ", ".join(f"{found[tokens] / best:.0%} at {tokens:,}" for tokens in found)
    elif largest >= PLATEAU_TOKENS:
        size, why = PLATEAU_TOKENS, "that keeps a large GPU busy"
    else:
        size, why = largest, "no more fits"
    need = f"{measured.peak(size) / GIB:.1f} of {usable / GIB:.1f} GiB usable"
    return Choice(size, f"auto because {why}; it needs {need}")


def best_rates(sizes: Sequence[int], rate: Callable[[int], float]) -> dict[int, float]:
    """The best of TRIES measurements for each batch size that fits; in turns, because a GPU slows down while it warms up.

    Args:
        rate: measures the speed with a batch size once, 0 if that does not fit after all.
    """
    tried = [{tokens: rate(tokens) for tokens in sizes} for _ in range(TRIES)]
    best = {tokens: max(rates[tokens] for rates in tried) for tokens in sizes}
    return {tokens: found for tokens, found in best.items() if found > 0}
