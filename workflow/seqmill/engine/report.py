"""What a job says of itself: the settings at its start, what slowed it down, the index, and the content of meta.json."""

import datetime
import importlib.metadata
import logging
import os
import platform
import resource
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from seqmill import __version__
from seqmill.engine import device as devices
from seqmill.engine.batching import PackedBatches
from seqmill.engine.pipeline import NotFinite, Pipeline, Timing
from seqmill.engine.task import Task
from seqmill.engine.tuning import Choice, recorded
from seqmill.errors import UserError
from seqmill.inputs import outliers
from seqmill.inputs.given import Given
from seqmill.inputs.lookup import called
from seqmill.inputs.sequences import Sequences
from seqmill.inputs.windows import Treatment
from seqmill.models import family
from seqmill.models.source import Source
from seqmill.outputs.names import INDEX
from seqmill.outputs.partial import State
from seqmill.progress import Progress

log = logging.getLogger(__name__)

# Warn when the GPU is idle for more than this share of the steady state.
IDLE_SHARE = 0.1
# What a job does behind each part, for those who watch.
NEXT = {
    "import_s": "reading the sequences",
    "read_s": "waiting for a device",
    "wait_s": "starting the device",
    "device_s": "loading the model",
    "load_s": "trying out kernels",
    "compile_s": "measuring batch sizes",
    "measure_s": "preparing the files",
    "embed_s": "writing",
    "close_s": "writing",
}


@dataclass
class Clock:
    """Seconds each part of a job took, and when the last one ended.

    Attributes:
        last: by `time.perf_counter()`; at first the start of the process.
        started: when that was.
    """

    last: float
    progress: Progress
    parts: dict[str, float] = field(default_factory=dict)
    started: datetime.datetime = field(init=False)

    def __post_init__(self) -> None:
        ago = time.perf_counter() - self.last
        self.started = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=ago)

    def mark(self, part: str) -> None:
        """Note the end of a part, and tell those who watch what comes next."""
        now = time.perf_counter()
        self.parts[part] = round(now - self.last, 3)
        self.last = now
        self.progress.phase = NEXT[part]


def versions() -> dict[str, str]:
    """Versions of what the numbers depend on."""
    found = {"seqmill": __version__, "python": platform.python_version(), "cuda": torch.version.cuda or "none"}
    for package in ("torch", "triton", "flash-attn", "numpy", "h5py"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "none"
    return found


def identity(task: Task) -> dict[str, Any]:
    """What a partial result must agree in to be resumed."""
    return {
        "fingerprint": task.fingerprint["fingerprint"],
        "sequences": task.sequences.digest(),
        "versions": versions(),
    }


def announce(task: Task, device: torch.device, choices: Mapping[str, Choice], batches: PackedBatches) -> None:
    """Log the block at the start that states what is going to run, and why."""
    weights, sequences = task.weights, task.sequences
    revision = f"revision {weights.revision}" if weights.revision else "a folder"
    lines = {
        "model": f"{weights.name} ({revision}, checksum {weights.checksum[:12]})",
        "device": ", ".join(filter(None, [devices.describe(device), devices.uuid(device)])),
        "layers": ", ".join(map(str, task.layers)),
        "pooling": ", ".join(task.pooling),
        "licence": task.source.licence,
        "input": f"{_counted(sequences)}, {sequences.offsets[-1]:,} {task.source.alphabet.members}, {len(batches):,} batches, "
        f"{batches.packing_efficiency():.1%} of their tokens in use",
    }
    for name, choice in choices.items():
        shown = _shown(name, choice.value)
        lines[name] = f"{shown} ({choice.reason})" if choice.reason else shown
    for name, text in lines.items():
        log.info("%-18s %s", name, text)


def _counted(sequences: Sequences) -> str:
    repeats = f" ({sequences.distinct:,} distinct)" if sequences.distinct < len(sequences) else ""
    return f"{len(sequences):,} sequences{repeats}"


def _shown(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:,} tokens" if name == "batch_size" else str(recorded(value))


def warn_of_input(fasta: Path, sequences: Sequences, source: Source, treatment: Treatment, is_shard: bool) -> None:
    """Warn of a file without sequences, and of sequences that take most of the time or are mostly unknown.

    Args:
        is_shard: the latter were named when the shards were made, by better names than shards have.
    """
    if not len(sequences):
        log.warning("%s holds no sequences: the result will be empty", fasta)
    elif not is_shard:
        lengths, letter = np.diff(sequences.offsets), source.family.alphabet.replacement
        unknown = outliers.count(sequences.letters, sequences.offsets, letter)
        costs = source.family.treated(treatment)[1](lengths)
        outliers.warn(lengths, costs, unknown, letter, lambda place: sequences.ids[sequences.rows[place]])


def conclude(task: Task, content: Mapping[str, Any]) -> None:
    """Log what was done, from the content of meta.json."""
    letters = task.source.alphabet.members
    log.info(
        "done: %s %s, %s %s/s", f"{content['residues']:,}", letters, f"{content['residues_per_s'] or 0:,.0f}", letters
    )


def warn_of_idle_gpu(timing: Timing, written: int) -> None:
    """Warn if the GPU was idle between batches, and say what to do about it.

    Args:
        written: bytes of results that this job wrote.
    """
    if timing.gpu_idle_s <= IDLE_SHARE * timing.steady_s:
        return
    if timing.waited_for_writer_s > timing.waited_for_reader_s:
        rate = written / 1e6 / max(timing.writing_s, 1e-3)
        limit = f"the disk, which took {rate:.0f} MB/s; write the results to a faster one"
    else:
        limit = "the reader; give the job more CPUs, or raise performance.dataloader_workers"
    log.warning("the GPU was idle for %.0f of %.0f s: the limit was %s", timing.gpu_idle_s, timing.steady_s, limit)


def not_finite(error: NotFinite, fasta: Path | Given, task: Task) -> UserError:
    """What to raise for a value that is not finite."""
    computed = f"{recorded(task.dtype)}; use dtype bfloat16 or float32"
    advice = f"{error.dtype}, in which it would be stored; use storage float32" if error.dtype else computed
    name = called(task.sequences.ids[error.row], task.sequences.path)
    return UserError(f"{fasta}: the {error.dataset} embedding of {name} is not finite in {advice}")


def write_index(folder: Path, task: Task, origins: Sequence[str | None] | None) -> None:
    """Write `index.parquet`; `origins` as for `index.table`."""
    # Only here: shards have none, and need not wait for pandas.
    from seqmill.outputs import index

    index.write(task.sequences, task.done_to_sequences(), folder / INDEX, origins)


def meta_content(
    fasta: Path | Given,
    task: Task,
    state: State,
    choices: Mapping[str, Choice],
    pipeline: Pipeline,
    batches: PackedBatches,
    clock: Clock,
    matmul_flops: float | None,
) -> dict[str, Any]:
    """The content of `meta.json`, see workflow/schemas/meta.schema.json.

    Args:
        state: of the partial result that is now complete.
        matmul_flops: operations per second that this GPU reaches in matrix products; None on the CPU.
    """
    timing, sequences, device, cuda = pipeline.timing, task.sequences, pipeline.device, pipeline.device.type == "cuda"
    flops = family.flops(task.source.config, batches.token_counts, max(task.layers))
    busy_s = timing.compute_s if cuda else timing.steady_s
    residues = int(task.embedded_letters[batches.first :].sum())
    return {
        "status": "done",
        "fasta": str(fasta),
        "model": asdict(task.weights),
        "settings": {name: recorded(choice.value) for name, choice in choices.items()},
        **task.fingerprint,
        "datasets": [dataset.name for dataset in task.datasets],
        "device": devices.describe(device),
        "device_uuid": devices.uuid(device),
        "versions": versions(),
        "sequences": len(sequences),
        # Only where they are fewer, as in no shard.
        **({"distinct_sequences": sequences.distinct} if sequences.distinct < len(sequences) else {}),
        "residues": int(sequences.lengths.sum()),
        "tokens": int(batches.token_counts.sum()),
        "tokens_squared": int((batches.token_counts**2).sum()),
        "predicted_cost": round(float(task.costs[batches.first :].sum()), 1),
        **({"reused_sequences": sequences.known} if sequences.known else {}),
        "resumed_after": batches.first - sequences.known,
        "out_of_memory": state.ooms,
        "checksums": {name: f"{value:016x}" for name, value in state.checksums.items()},
        "batches": timing.batches,
        "longest_sequence": int(sequences.lengths.max(initial=0)),
        "packing_efficiency": round(batches.packing_efficiency(), 4),
        "timings": {**clock.parts, **{k: round(v, 3) for k, v in asdict(timing).items() if k.endswith("_s")}},
        "residues_per_s": round(residues / timing.steady_s, 1) if residues else None,
        "model_flops_per_s": flops / busy_s if busy_s else None,
        "matmul_flops_per_s": matmul_flops,
        "model_flop_utilisation": round(flops / busy_s / matmul_flops, 4) if busy_s and cuda else None,
        "memory": {
            "model_bytes": task.model_bytes,
            "peak_allocated_bytes": torch.cuda.max_memory_allocated(device) if cuda else None,
            "peak_reserved_bytes": torch.cuda.max_memory_reserved(device) if cuda else None,
            "device_bytes": torch.cuda.get_device_properties(device).total_memory if cuda else None,
            # Linux counts it in KiB.
            "peak_host_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            "host_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        },
        "host": platform.node(),
        "started": clock.started.isoformat(timespec="milliseconds"),
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
