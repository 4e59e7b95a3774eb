"""What jobs ask of their hosts: shards, GPUs, threads, memory and time, from the model and the input."""

import math
import os
import subprocess
from pathlib import Path
from typing import Any

from seqmill.errors import UserError
from seqmill.models.weights import Weights

# Host memory: PyTorch with CUDA and the processes that prepare batches; the weights while they are loaded; the shard in
# memory, as many times its size as reading it took at most (short sequences; long ones take less).
BASE_MB = 8_000
WEIGHTS_TIMES = 1.5
SHARD_TIMES = 5
# Time: what an old GPU sustains (T4); an H200 does 500 TFLOP/s. Then the start, and a file system with a queue.
FLOPS_PER_S = 20e12
START_MINUTES = 30
# The layers' matrix products: one multiplication and one addition per parameter and residue. Checkpoints hold float32.
FLOPS_PER_PARAMETER = 2
BYTES_PER_PARAMETER = 4


def gpu_count(config: dict[str, Any]) -> int:
    """GPUs the run may use at once: as configured, or those nvidia-smi lists here (without importing torch)."""
    if config["performance"]["gpus"] != "auto":
        return config["performance"]["gpus"]
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=True, timeout=30).stdout
    except (OSError, subprocess.SubprocessError):
        return 0
    return sum(line.startswith("GPU ") for line in listed.splitlines())


def planned_gpus(config: dict[str, Any], is_main_process: bool) -> int:
    """What `gpu_count` gave in the process that plans the run.

    Jobs read the workflow again, perhaps on a node with other GPUs: what the first process counted holds for all.
    """
    if is_main_process or "SEQMILL_GPUS" not in os.environ:
        os.environ["SEQMILL_GPUS"] = str(gpu_count(config))
    return int(os.environ["SEQMILL_GPUS"])


def shard_count(config: dict[str, Any], gpus: int) -> int:
    """How many shards: as configured, or one per GPU."""
    return max(gpus, 1) if config["shards"] == "auto" else config["shards"]


def threads_per_shard(cores: int | None, shards: int, gpus: int) -> int:
    """CPU threads of one embed job.

    An equal share of this machine among the jobs that run at once, one per GPU, or all where there is none; 8 where
    a cluster runs the jobs.
    """
    at_once = min(shards, gpus or shards)
    return max(cores // at_once, 1) if cores else 8


def memory_mb(weights: Path | str, fasta: Path | str, attempt: int = 1) -> int:
    """Host memory in MB for one shard, as much again with every further attempt.

    Args:
        weights: the record written by weights.py.
        fasta: the shard, not compressed.

    Raises:
        FileNotFoundError: record or shard are not there yet.
    """
    needed = BASE_MB + WEIGHTS_TIMES * _weight_bytes(weights) / 1e6 + SHARD_TIMES * _size(fasta) / 1e6
    return math.ceil(needed) * attempt


def runtime_minutes(weights: Path | str, fasta: Path | str, attempt: int = 1) -> int:
    """Minutes for one shard on an old GPU, as many again with every further attempt. See `memory_mb`."""
    parameters = _weight_bytes(weights) / BYTES_PER_PARAMETER
    # The headers are taken for residues too, a fifth too many where proteins have 300.
    seconds = _size(fasta) * parameters * FLOPS_PER_PARAMETER / FLOPS_PER_S
    return math.ceil(START_MINUTES + seconds / 60) * attempt


def _size(path: Path | str) -> int:
    return Path(path).stat().st_size


def _weight_bytes(record: Path | str) -> int:
    # FileNotFoundError makes Snakemake ask again when the record exists.
    _size(record)
    # Embed reports what is wrong with a record. Files may be missing: this very run may be about to replace a record
    # of another model.
    try:
        weights = Weights.load(Path(record))
    except UserError:
        return 0
    files = (Path(weights.folder) / name for name in weights.files)
    return sum(path.stat().st_size for path in files if path.exists())
