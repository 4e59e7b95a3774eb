"""The out-of-memory report: what happened, and what would help."""

import datetime
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from seqmill.engine import memory
from seqmill.engine.memory import Fit
from seqmill.engine.pipeline import Pipeline
from seqmill.engine.tuning import Choice, recorded
from seqmill.errors import first_line
from seqmill.files import write_json
from seqmill.inputs.sequences import Sequences
from seqmill.models.weights import Weights
from seqmill.outputs.names import OOM
from seqmill.outputs.partial import State
from seqmill.units import GIB

UNITS = {"bytes": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
# Less than this held by others is the driver's own, not another process.
OTHERS_BYTES = GIB


def requested_bytes(error: BaseException) -> int | None:
    """How much the failed allocation asked for, read from PyTorch's message."""
    found = re.search(r"[Tt]ried to allocate ([\d.]+) (bytes|KiB|MiB|GiB|TiB)", str(error))
    if found:
        return int(float(found[1]) * UNITS[found[2]])
    found = re.search(r"you tried to allocate (\d+) bytes", str(error))
    return int(found[1]) if found else None


@dataclass(frozen=True)
class Usage:
    """The GPU's memory at the moment it ran out, in bytes; on the CPU all are zero.

    Attributes:
        usable_bytes: what this process can have in all, with its memory fraction and what others left.
        allowed_bytes: what it could have were it alone.
    """

    peak_allocated_bytes: int = 0
    peak_reserved_bytes: int = 0
    fragmentation_bytes: int = 0
    usable_bytes: int = 0
    allowed_bytes: int = 0
    total_bytes: int = 0
    free_bytes: int = 0
    used_by_others_bytes: int = 0
    alloc_retries: int = 0
    ooms: int = 0


def read_usage(device: torch.device) -> Usage:
    """Read the counters. Call before anything is freed or the cache is emptied."""
    if device.type != "cuda":
        return Usage()
    stats = torch.cuda.memory_stats(device)
    free, total = memory.free_bytes(device), torch.cuda.get_device_properties(device).total_memory
    reserved = torch.cuda.memory_reserved(device)
    return Usage(
        peak_allocated_bytes=torch.cuda.max_memory_allocated(device),
        peak_reserved_bytes=torch.cuda.max_memory_reserved(device),
        fragmentation_bytes=reserved - torch.cuda.memory_allocated(device),
        usable_bytes=memory.usable_bytes(device),
        allowed_bytes=memory.allowed_bytes(device),
        total_bytes=total,
        free_bytes=free,
        used_by_others_bytes=max(total - free - reserved - memory.CONTEXT_BYTES, 0),
        alloc_retries=stats.get("num_alloc_retries", 0),
        ooms=stats.get("num_ooms", 0),
    )


@dataclass(frozen=True)
class Work:
    """What was being computed when memory ran out; the batch's fields are None before the first batch.

    Attributes:
        batch_size: the most tokens in a batch.
        longest_sequence, longest_tokens: letters and tokens of the longest sequence in the failed batch.
        completed_share: of the shard's letters, what is finished and saved for the next run.
        earlier: batch sizes that ran out of memory before.
    """

    shard: str
    model: str
    dtype: str
    attention: str | None
    model_bytes: int
    batch_size: int | None = None
    sequences_in_batch: int | None = None
    longest_sequence: int | None = None
    longest_tokens: int | None = None
    batches_completed: int = 0
    completed_share: float = 0.0
    earlier: list[int | None] = field(default_factory=list)


def describe_work(
    shard: str,
    weights: Weights,
    model_bytes: int,
    choices: Mapping[str, Choice],
    sequences: Sequences,
    state: State | None,
    pipeline: Pipeline | None,
) -> Work:
    """What was being computed, from what there is of it: `state` and `pipeline` are None where memory ran out earlier."""
    values = {name: recorded(choice.value) for name, choice in choices.items()}
    batch = pipeline.current if pipeline else None
    return Work(
        shard=shard,
        model=weights.name,
        dtype=values["dtype"],
        attention=values.get("attention"),
        model_bytes=model_bytes,
        batch_size=values.get("batch_size"),
        sequences_in_batch=len(batch.rows) if batch else None,
        longest_sequence=int(sequences.lengths[batch.rows].max()) if batch else None,
        longest_tokens=batch.longest if batch else None,
        batches_completed=pipeline.timing.batches if pipeline else 0,
        completed_share=round(sequences.share(state.done), 4) if state else 0.0,
        earlier=[earlier["batch_size"] for earlier in state.ooms] if state else [],
    )


def recommend_batch_size(work: Work, usage: Usage, fit: Fit | None) -> tuple[int | None, str]:
    """A batch size in tokens that fits, or None where none can, and how it was found."""
    if work.batch_size is None or work.longest_tokens is None:
        return None, (
            f"memory ran out before the first batch, so no batch size can help: the weights alone take "
            f"{work.model_bytes / GIB:.2f} GiB in {work.dtype}, and this process can have {usage.usable_bytes / GIB:.2f} GiB"
        )
    if fit is None:
        return None, "no peaks were measured on this device"
    largest = fit.largest(usage.usable_bytes)
    basis = (
        f"{fit.basis}: {fit.static_bytes / GIB:.2f} GiB + {fit.bytes_per_token / 2**10:.1f} KiB per token, within "
        f"{memory.USABLE_SHARE:.0%} of the {usage.usable_bytes / GIB:.2f} GiB this process can have"
    )
    needed = work.longest_tokens
    if work.batch_size <= needed or fit.peak(needed) > usage.usable_bytes:
        return None, f"{basis} allow {largest:,} tokens, but one sequence alone has {needed:,}"
    if largest < needed:
        return needed, f"{basis} allow {largest:,} tokens; the longest sequence alone fits without that margin"
    # If the fit promises more than what just failed, memory is fragmented or was taken meanwhile.
    if largest >= work.batch_size:
        largest = max(int(0.75 * work.batch_size) // memory.BATCH_MULTIPLE * memory.BATCH_MULTIPLE, needed)
        basis = f"three quarters of the size that failed, because {basis} would have allowed it"
    return largest, basis


def advise(work: Work, usage: Usage, recommended: int | None, expandable_segments: bool) -> list[str]:
    """What to do, most useful first."""
    advice = []
    if recommended is not None:
        advice.append(f"set performance.batch_size to {recommended} and run the same command again")
    if usage.used_by_others_bytes > OTHERS_BYTES and usage.usable_bytes < usage.allowed_bytes - OTHERS_BYTES:
        advice.append(
            f"another process holds {usage.used_by_others_bytes / GIB:.1f} GiB of this GPU: wait for it, or use another GPU"
        )
    if not expandable_segments and usage.fragmentation_bytes > 0.1 * max(usage.usable_bytes, 1):
        advice.append(
            f"set performance.expandable_segments to true: {usage.fragmentation_bytes / GIB:.1f} GiB are reserved but unused"
        )
    if work.dtype == "float32":
        advice.append("set model.dtype to bfloat16 (float16 before Ampere): it halves the memory")
    if recommended is None and work.longest_sequence is not None:
        advice.append(
            "set sequences.long to window, which embeds long sequences piece by piece (this changes their embeddings), "
            f"remove the sequence of {work.longest_sequence:,} letters, or use a GPU with more memory"
        )
    if recommended is None:
        advice.append("use a smaller model, or a GPU with more memory")
    return advice


def report(
    work: Work,
    usage: Usage,
    fit: Fit | None,
    error: BaseException,
    device: torch.device,
    allocator: str,
    versions: dict[str, str],
) -> dict[str, Any]:
    """The content of `oom.json`, see workflow/schemas/oom.schema.json."""
    recommended, basis = recommend_batch_size(work, usage, fit)
    cuda = device.type == "cuda"
    return {
        "status": "oom",
        **{name: value for name, value in asdict(work).items() if name != "longest_tokens"},
        "requested_bytes": requested_bytes(error),
        "peak_allocated_bytes": usage.peak_allocated_bytes,
        "peak_reserved_bytes": usage.peak_reserved_bytes,
        "fragmentation_bytes": usage.fragmentation_bytes,
        "device": {
            "name": torch.cuda.get_device_name(device) if cuda else "cpu",
            "capability": "{}.{}".format(*torch.cuda.get_device_capability(device)) if cuda else None,
            "total_bytes": usage.total_bytes,
            "free_bytes": usage.free_bytes,
            "used_by_others_bytes": usage.used_by_others_bytes,
        },
        "allocator": {"conf": allocator, "alloc_retries": usage.alloc_retries, "ooms": usage.ooms},
        "recommended_batch_size": recommended,
        "recommendation_basis": basis,
        "recommendations": advise(work, usage, recommended, "expandable_segments:True" in allocator),
        "message": first_line(error),
        "versions": versions,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def write(folder: Path, content: dict[str, Any]) -> Path:
    """Write `oom.json` into a shard's folder and return its path."""
    path = folder / OOM
    write_json(path, content)
    return path


def describe(content: dict[str, Any]) -> str:
    """The report for people: what ran out, and what to do."""
    device, batch = content["device"], content["sequences_in_batch"]
    doing = (
        f"a batch of {batch:,} sequences (longest {content['longest_sequence']:,} letters, batch size {content['batch_size']:,} tokens)"
        if batch
        else "preparing the first batch"
    )
    lines = [
        f"out of memory on {device['name']} in {doing}, after {content['batches_completed']:,} batches",
        f"  model {content['model_bytes'] / GIB:.2f} GiB, peak {content['peak_allocated_bytes'] / GIB:.2f} GiB allocated and "
        f"{content['peak_reserved_bytes'] / GIB:.2f} GiB reserved, {device['free_bytes'] / GIB:.2f} of "
        f"{device['total_bytes'] / GIB:.2f} GiB free, {device['used_by_others_bytes'] / GIB:.2f} GiB held by others",
        f"  {content['recommendation_basis']}",
        *(f"  -> {advice}" for advice in content["recommendations"]),
    ]
    return "\n".join(lines)
