"""What an embed job asks of its host, from the model and the shard: memory and time. Imports no torch."""

import math
from pathlib import Path

from seqmill.errors import UserError
from seqmill.weights import Weights

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


def memory_mb(weights: Path | str, fasta: Path | str, attempt: int = 1) -> int:
    """Host memory in MB for one shard, as much again with every further attempt.

    Args:
        weights: the record by weights.py of where the model lies.
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
    # FileNotFoundError tells Snakemake to ask again when the record is there.
    _size(record)
    # What is wrong with a record is for embed to say. Files may be gone: this very run may be about to replace a
    # record of another model.
    try:
        weights = Weights.load(Path(record))
    except UserError:
        return 0
    files = (Path(weights.folder) / name for name in weights.files)
    return sum(path.stat().st_size for path in files if path.exists())
