"""What the pictures need of each shard's meta.json, whichever version of seqmill wrote it."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from seqmill.errors import UserError
from seqmill.outputs import meta
from seqmill.outputs.names import META
from seqmill.units import GIB

# The parts of a job in order, as `timings` names what the host's clock took of each, and what they are to people.
STARTING = {
    "import_s": "importing libraries",
    "read_s": "reading the sequences",
    "wait_s": "waiting for the device",
    "device_s": "starting the device",
    "load_s": "loading the model",
    "compile_s": "trying out and compiling kernels",
    "measure_s": "measuring batch sizes",
}
# A job that waited so long for its device stood by.
STOOD_BY_S = 1.0


@dataclass(frozen=True)
class Shard:
    """One finished shard; times in seconds, memory in bytes.

    Attributes:
        name: of its folder; with rounds of samples `round/shard`.
        device: its name and memory, in words.
        place: which of all devices: the GPU's identifier, or the machine where the CPU computed.
        is_gpu: whether it was a GPU.
        started: seconds since 1970; of a job that stood by, when the device was its own.
        parts: name in words and seconds of each part of the job, in order; they add up to its duration.
        waits: what the host's clock or the GPU's say of waiting, where known; not part of the sum.
        memory: weights, peaks and what there is, by the names of meta.json, where known.
        meta: all of meta.json.
    """

    name: str
    device: str
    place: str
    is_gpu: bool
    started: float
    parts: dict[str, float]
    waits: dict[str, float]
    memory: dict[str, int]
    meta: dict[str, Any]

    @property
    def duration(self) -> float:
        return sum(self.parts.values())

    @property
    def steady(self) -> float:
        """Seconds from the first batch to the last row written."""
        return self.meta["timings"].get("steady_s", 0.0)

    @property
    def closing(self) -> float:
        return self.meta["timings"].get("close_s", 0.0)

    @property
    def starting(self) -> float:
        """Seconds before the first batch."""
        return max(self.duration - self.steady - self.closing, 0.0)


def read_all(metas: Sequence[Path]) -> list[Shard]:
    """The shards of some folders, or of the meta.json in them, in their order.

    Raises:
        UserError: one is missing, damaged, or of another version of seqmill.
    """
    folders = [path.parent if path.name == META else path for path in metas]
    return [_read(folder) for folder in folders]


def _read(folder: Path) -> Shard:
    try:
        found = meta.read(folder)
    except meta.Unusable as problem:
        raise UserError(f"{folder}: holds no finished shard ({problem}); give the folders of finished shards") from None
    return of(found, _name(folder))


def of(found: dict[str, Any], name: str) -> Shard:
    """The shard that a meta.json tells of."""
    timings, is_gpu = found["timings"], found["device_uuid"] is not None
    stood_by = _stood_by(timings)
    parts = _parts({name: taken for name, taken in timings.items() if name not in stood_by}, is_gpu)
    return Shard(
        name=name,
        device=found["device"],
        place=found["device_uuid"] or found.get("host") or "CPU",
        is_gpu=is_gpu,
        started=_started(found, sum(parts.values())) + sum(stood_by.values()),
        parts=parts,
        waits=_waits(timings, is_gpu),
        memory=_memory(found),
        meta=found,
    )


def _stood_by(timings: dict[str, float]) -> dict[str, float]:
    """What a job did while others computed on its device: it begins in the pictures when the device was its own."""
    names = ("import_s", "read_s", "wait_s")
    return {name: timings[name] for name in names} if timings.get("wait_s", 0.0) >= STOOD_BY_S else {}


def _name(folder: Path) -> str:
    """With rounds of samples `round/shard`: their folder is the round's number."""
    own, above = folder.resolve().name, folder.resolve().parent.name
    return f"{above}/{own}" if above.isdecimal() and own.isdecimal() else own


def _started(found: dict[str, Any], duration: float) -> float:
    """Earlier versions noted only when the job ended, in whole seconds."""
    if "started" in found:
        return datetime.fromisoformat(found["started"]).timestamp()
    return datetime.fromisoformat(found["created"]).timestamp() - duration


def _parts(timings: dict[str, float], is_gpu: bool) -> dict[str, float]:
    """The parts of a job in words, those that took no time left out."""
    parts = {words: timings.get(name, 0.0) for name, words in STARTING.items()}
    steady = timings.get("steady_s", 0.0)
    parts["preparing the files"] = max(timings.get("embed_s", steady) - steady, 0.0)
    if is_gpu:
        compute, idle = timings.get("compute_s", 0.0), timings.get("gpu_idle_s", 0.0)
        parts["computing"] = compute
        parts["GPU idle between batches"] = idle
        parts["first batch coming, last rows going"] = max(steady - compute - idle, 0.0)
    else:
        reader, writer = timings.get("waited_for_reader_s", 0.0), timings.get("waited_for_writer_s", 0.0)
        parts["computing"] = max(steady - reader - writer, 0.0)
        parts["waiting for the reader"] = reader
        parts["waiting for the writer"] = writer
    parts["closing the files"] = timings.get("close_s", 0.0)
    return {words: taken for words, taken in parts.items() if taken > 0}


def _waits(timings: dict[str, float], is_gpu: bool) -> dict[str, float]:
    names = {
        "gpu_idle_s": "GPU idle",
        "waited_for_reader_s": "host waiting for the reader",
        "waited_for_writer_s": "host waiting for the writer",
    }
    return {words: timings[name] for name, words in names.items() if name in timings and (is_gpu or "GPU" not in words)}


def _memory(found: dict[str, Any]) -> dict[str, int]:
    memory = {name: value for name, value in found["memory"].items() if value is not None}
    # Earlier versions said how much a card has only in words.
    if "device_bytes" not in memory and (size := re.search(r", (\d+) GiB", found["device"])):
        memory["device_bytes"] = int(size[1]) * GIB
    return memory
