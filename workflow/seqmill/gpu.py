"""Which device this process computes on, and the lease that keeps other shards off it."""

import itertools
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from seqmill.errors import UserError

log = logging.getLogger(__name__)

POLL_SECONDS = 2
LOCKS = Path("/tmp")


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
    return f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB, capability {properties.major}.{properties.minor}"


def uuid(device: torch.device) -> str | None:
    """What tells this GPU from the others of the machine; None for the CPU."""
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
    for _ in range(warm_up):
        torch.mm(a, b)
    start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(repeats):
        torch.mm(a, b)
    stop.record()
    stop.synchronize()
    del a, b
    torch.cuda.empty_cache()
    return repeats * 2 * size**3 / (start.elapsed_time(stop) / 1e3)


@contextmanager
def lease(requested: str) -> Iterator[torch.device]:
    """Yield a device no other seqmill process of this user computes on, and keep it until the block ends.

    "auto" takes any free GPU that CUDA_VISIBLE_DEVICES shows, or the CPU where there is none; "cuda" insists on a
    GPU, "cuda:1" on that one. The lock is a file per GPU UUID, held through the kernel: it is free again however this
    process ends. When all are taken it waits. A job's only GPU under SLURM is taken without a lock, as whether jobs
    share GPUs is for SLURM to decide.

    Raises:
        UserError: no such GPU, or a name that is no device.
    """
    if requested == "cpu" or (requested == "auto" and not torch.cuda.is_available()):
        yield torch.device("cpu")
        return
    candidates = _candidates(requested)
    if "SLURM_JOB_ID" in os.environ and torch.cuda.device_count() == 1:
        lock, index = None, candidates[0]
    else:
        lock, index = _take({index: _lock(uuid(torch.device("cuda", index))) for index in candidates})
    try:
        yield torch.device("cuda", index)
    finally:
        if lock is not None:
            lock.release()


def _lock(name: str) -> FileLock:
    """A lock that all of this user's processes on this machine share, whatever their TMPDIR."""
    folder = LOCKS / f"seqmill-gpus-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        return FileLock(folder / f"{name}.lock")
    except OSError as error:
        raise UserError(f"{folder}: cannot hold the locks that keep jobs on GPUs of their own ({error})") from None


def _candidates(requested: str) -> list[int]:
    if not torch.cuda.is_available():
        raise UserError(f"device {requested}: PyTorch sees no CUDA GPU here; check nvidia-smi, or use device cpu")
    count = torch.cuda.device_count()
    if requested in ("auto", "cuda"):
        return list(range(count))
    try:
        index = torch.device(requested).index
    except RuntimeError:
        raise UserError(f"device {requested}: is none of auto, cpu, cuda and cuda:N") from None
    if index is None or not requested.startswith("cuda:") or index >= count:
        raise UserError(f"device {requested}: PyTorch sees the GPUs cuda:0 to cuda:{count - 1}")
    return [index]


def _take(locks: dict[int, FileLock]) -> tuple[FileLock, int]:
    for attempt in itertools.count():
        for index, lock in locks.items():
            try:
                lock.acquire(timeout=0)
                return lock, index
            except Timeout:
                continue
            except OSError as error:
                raise UserError(f"{lock.lock_file}: cannot be locked ({error}); remove it") from None
        if attempt == 0:
            log.info("all %d GPUs are taken by other seqmill jobs: waiting for one", len(locks))
        time.sleep(POLL_SECONDS)
    raise AssertionError("unreachable")
