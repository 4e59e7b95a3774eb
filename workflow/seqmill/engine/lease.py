"""The lock that keeps other shards off this process's GPU."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from seqmill import locks
from seqmill.engine import device
from seqmill.errors import UserError

LOCKS = Path("/tmp")


@contextmanager
def lease(requested: str) -> Iterator[torch.device]:
    """Yield a device no other seqmill process of this user computes on, and keep it until the block ends.

    "auto" takes any free GPU that CUDA_VISIBLE_DEVICES shows, or the CPU where there is none; "cuda" insists on a
    GPU, "cuda:1" on that one. The lock is a file per GPU UUID, held through the kernel: it is free again however this
    process ends. When all are taken it waits. A job's only GPU under SLURM is taken without a lock, as whether jobs
    share GPUs is for SLURM to decide.

    Raises:
        UserError: no such GPU, or a name that is not a device.
    """
    if requested == "cpu" or (requested == "auto" and not torch.cuda.is_available()):
        yield torch.device("cpu")
        return
    candidates = _candidates(requested)
    if "SLURM_JOB_ID" in os.environ and torch.cuda.device_count() == 1:
        lock, index = None, candidates[0]
    else:
        files = {index: _lock_file(device.uuid(torch.device("cuda", index))) for index in candidates}
        waiting = f"all {len(files)} GPUs are taken by other seqmill jobs: waiting for one"
        index, lock = locks.acquire_any(files, waiting)
    try:
        yield torch.device("cuda", index)
    finally:
        if lock is not None:
            lock.release()


def _lock_file(name: str) -> Path:
    """A lock file that all of this user's processes on this machine share, whatever their TMPDIR."""
    folder = LOCKS / f"seqmill-gpus-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot create the GPU lock files ({error})") from None
    return folder / f"{name}.lock"


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
