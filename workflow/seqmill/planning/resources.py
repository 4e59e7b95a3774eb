"""What jobs ask of their hosts: shards, GPUs, threads, memory and time, from the model and the input."""

import math
import os
import subprocess
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from seqmill.errors import UserError
from seqmill.inputs.rounds import RECORDS
from seqmill.inputs.windows import Treatment
from seqmill.models import registry
from seqmill.models.family import Family
from seqmill.models.weights import Weights

# Host memory: PyTorch with CUDA and the processes that prepare batches; the weights while they are loaded; the shard in
# memory, a fifth more than the 2 bytes a letter and 650 a sequence that were measured for 50 to 80,000 letters.
BASE_MB = 8_000
WEIGHTS_TIMES = 1.5
LETTER_BYTES, SEQUENCE_BYTES = 2.4, 780
# Time: what an old GPU sustains (T4); an H200 does 500 TFLOP/s. Then the start, and a file system with a queue.
FLOPS_PER_S = 20e12
START_MINUTES = 30
# The layers' matrix products: one multiplication and one addition per parameter and token.
FLOPS_PER_PARAMETER = 2
# Of checkpoints in float32, as nearly all are.
BYTES_PER_PARAMETER = 4


WHOLE = Treatment()


def gpu_count(config: dict[str, Any]) -> int:
    """GPUs the run may use at once: as configured, or those nvidia-smi lists here (without importing torch)."""
    return listed_gpus() if config["performance"]["gpus"] == "auto" else config["performance"]["gpus"]


def listed_gpus() -> int:
    """GPUs of this machine."""
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


def standing_by(shards: int, gpus: int) -> int:
    """Embed jobs beyond one per GPU to start on this machine: they read their shard and wait until a GPU is free.

    So a GPU need not wait while the next job imports its libraries. None where jobs could take GPUs that the run is not
    to use, or where a GPU is taken without a lock, see `engine.lease`.

    Args:
        gpus: that the run may use.
    """
    present = listed_gpus()
    without_lock = present == 1 and "SLURM_JOB_ID" in os.environ
    return max(min(gpus, shards - gpus), 0) if 0 < present <= gpus and not without_lock else 0


def threads_per_shard(cores: int | None, shards: int, at_once: int) -> int:
    """CPU threads of one embed job.

    An equal share of this machine among the jobs that run at once; 8 where a cluster runs the jobs.

    Args:
        at_once: one per GPU, and those that stand by; 0 where there is no GPU, and all run at once.
    """
    return max(cores // min(shards, at_once or shards), 1) if cores else 8


def memory_mb(weights: Path | str, fasta: Path | str, attempt: int = 1) -> int:
    """Host memory in MB for one shard, as much again with every further attempt.

    Args:
        weights: the record written by weights.py.
        fasta: the shard, not compressed.

    Raises:
        FileNotFoundError: record or shard are not there yet.
    """
    return host_mb(_model(weights).loaded_bytes, _lengths(fasta)) * attempt


def host_mb(loaded_bytes: float, lengths: np.ndarray) -> int:
    """Host memory in MB for a shard of sequences of so many letters, and for weights of so many bytes."""
    shard_bytes = LETTER_BYTES * lengths.sum() + SEQUENCE_BYTES * len(lengths)
    return math.ceil(BASE_MB + WEIGHTS_TIMES * loaded_bytes / 1e6 + shard_bytes / 1e6)


def runtime_minutes(weights: Path | str, fasta: Path | str, attempt: int = 1, treatment: Treatment = WHOLE) -> int:
    """Minutes for one shard on an old GPU, as many again with every further attempt. See `memory_mb`.

    Args:
        treatment: what becomes of long sequences.
    """
    model = _model(weights)
    _, cost = model.family.treated(treatment)
    return gpu_minutes(model.parameters, cost(_lengths(fasta)).sum()) * attempt


def gpu_minutes(parameters: float, cost: float) -> int:
    """Minutes for a shard on an old GPU.

    Args:
        parameters: of the model.
        cost: of the shard's sequences by `Family.cost`: attention, which long ones pay more for, counts as the tokens that
            cost as much.
    """
    seconds = cost * parameters * FLOPS_PER_PARAMETER / FLOPS_PER_S
    return math.ceil(START_MINUTES + seconds / 60)


@dataclass(frozen=True)
class _Model:
    """What matters of a model here.

    Attributes:
        parameters: numbers that are loaded: of some checkpoints that is a part.
        file_bytes: of all its weights.
    """

    family: Family
    parameters: float
    file_bytes: int

    @property
    def loaded_bytes(self) -> float:
        return min(self.file_bytes, BYTES_PER_PARAMETER * self.parameters)


def _model(record: Path | str) -> _Model:
    """The model of a record of weights; one without weights where the record is of no use, as embed says why."""
    path = Path(record)
    # FileNotFoundError makes Snakemake ask again when the record exists.
    return _recorded_model(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=8)
def _recorded_model(record: Path, _: int) -> _Model:
    """Read once for all shards of a record that stays the same: the sizes of some models take torch to read."""
    try:
        weights = Weights.load(record)
    except UserError:
        return _Model(registry.FAMILIES[0], 0, 0)
    # Files may be missing: this very run may be about to replace a record of another model.
    files = (Path(weights.folder) / name for name in weights.files)
    size = sum(path.stat().st_size for path in files if path.exists())
    try:
        family, config = registry.recognise(weights)
    except UserError:
        return _Model(registry.FAMILIES[0], size / BYTES_PER_PARAMETER, size)
    return _Model(family, config.parameter_count, size)


def _lengths(fasta: Path | str) -> np.ndarray:
    """(N,) letters of the sequences of a shard, by the table of records beside it.

    Without a table, as of proteins of 300 residues.
    """
    size, path = _size(fasta), Path(fasta)
    records = path.with_name(RECORDS)
    try:
        return _lengths_by_shard(records, records.stat().st_mtime_ns).get(path.stem, np.empty(0))
    except (OSError, ValueError, KeyError):  # embed and check say what is wrong with it; pyarrow raises ValueErrors
        # A header has 66 characters.
        return np.full(size // (300 + 67), 300.0)


@lru_cache(maxsize=8)
def _lengths_by_shard(records: Path, _: int) -> dict[str, np.ndarray]:
    """Of each shard by its number; read once for all shards of a table that stays the same."""
    # Only here: Snakemake, which starts with this module, needs no table to plan a run.
    import pyarrow.compute as pc

    from seqmill.inputs import record_table

    number = records.parent.name
    found: dict[str, list[np.ndarray]] = {name: [] for name in ("shard", "row", "length")}
    for table in record_table.batches(records, [*found, "round"]):
        # Of rounds of samples its own; the one table of a run without samples names no round.
        if "round" in table.column_names:
            table = table.filter(pc.equal(table["round"], int(number)))
        for name, parts in found.items():
            parts.append(table[name].to_numpy())
    shards, rows, lengths = (np.concatenate(parts or [np.empty(0, np.int64)]) for parts in found.values())
    # Of a sequence's records any will do.
    _, firsts = np.unique(shards * 2**32 + rows, return_index=True)
    shards, lengths = shards[firsts], lengths[firsts].astype(float)
    numbers, begins = np.unique(shards, return_index=True)
    return {str(shard): own for shard, own in zip(numbers.tolist(), np.split(lengths, begins[1:]), strict=True)}


def _size(path: Path | str) -> int:
    return Path(path).stat().st_size
