"""What this machine's CPUs can do, measured in a second: the ceilings of `rates.Speed` where there is no GPU."""

import os
import statistics
import time
from collections.abc import Callable

import numpy as np

SIZE, COPIED_NUMBERS = 1024, 2**24
SECONDS = 0.7


def measured(clock: Callable[[], float] = time.perf_counter) -> tuple[float, float]:
    """Operations per second of float32 matrix products on all CPUs, and bytes read and written per second by a copy."""
    a, b = (np.random.default_rng(seed).random((SIZE, SIZE), np.float32) for seed in range(2))
    out, source = np.empty_like(a), np.zeros(COPIED_NUMBERS, np.float32)
    target = np.empty_like(source)
    product = _seconds(lambda: np.matmul(a, b, out=out), SECONDS, clock)
    copy = _seconds(lambda: np.copyto(target, source), SECONDS / 3, clock)
    return 2 * SIZE**3 / product, 2 * source.nbytes / copy


def _seconds(work: Callable[[], object], duration: float, clock: Callable[[], float]) -> float:
    """The median of some repetitions, after one that touches the memory first."""
    work()
    taken, end = [], time.perf_counter() + duration
    while time.perf_counter() < end or len(taken) < 3:
        begun = clock()
        work()
        taken.append(clock() - begun)
    return statistics.median(taken)


def cpus() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0))
