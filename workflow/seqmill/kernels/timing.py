"""How long work takes on a GPU, by events on its stream."""

from collections.abc import Callable

import torch


def gpu_seconds(run: Callable[[], object], repeats: int, warm_up: int = 1) -> float:
    """Mean seconds of one call of `run` on the current stream, after `warm_up` calls that do not count."""
    for _ in range(warm_up):
        run()
    start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(repeats):
        run()
    stop.record()
    stop.synchronize()
    return start.elapsed_time(stop) / 1e3 / repeats
