"""One shard on one device: from a FASTA to a folder with embeddings, or with the diagnosis of what ran out."""

import datetime
import hashlib
import importlib.metadata
import json
import logging
import platform
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from seqmill import __version__, gpu, memory, model, oom
from seqmill.batches import PackedBatches, Sequences, loader
from seqmill.errors import EXIT_OUT_OF_MEMORY, UserError, first_line
from seqmill.fasta import read_proteins
from seqmill.files import write_json
from seqmill.pipeline import NotFinite, Pipeline, Rows
from seqmill.pooling import dataset_names
from seqmill.progress import Progress
from seqmill.store import EmbeddingWriter
from seqmill.weights import Weights

log = logging.getLogger(__name__)

# ESM-2 650M on an H200 (benchmarks/results): what compiling costs in seconds, which share of the time it then saves,
# and which share of the measured rate of matrix products eager code reaches.
COMPILE_SECONDS = 12
COMPILE_GAIN = 0.16
EAGER_UTILISATION = 0.45


@dataclass(frozen=True)
class Settings:
    """How to embed. The first group can change bytes of the result, the second only speed and memory.

    Attributes:
        batch_size: tokens, or None for auto.
        workers: DataLoader processes, or None for this GPU's share of the CPUs.
        compile: "auto", "on" or "off".
    """

    dtype: str = "auto"
    layers: tuple[int, ...] = (-1,)
    pooling: tuple[str, ...] = ("mean",)

    batch_size: int | None = None
    workers: int | None = None
    pin_memory: bool = False
    streams: int = 3
    attention: str = "auto"
    compile: str = "auto"
    device: str = "auto"


@dataclass
class Clock:
    """Seconds each part of the start took, and when the last one ended."""

    parts: dict[str, float]
    last: float

    def mark(self, part: str) -> None:
        now = time.perf_counter()
        self.parts[part] = round(now - self.last, 3)
        self.last = now


def versions() -> dict[str, str]:
    """Versions of what the numbers depend on."""
    found = {"seqmill": __version__, "python": platform.python_version(), "cuda": torch.version.cuda or "none"}
    for package in ("torch", "transformers", "flash-attn", "numpy", "h5py"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "none"
    return found


class Job:
    """Embeds one FASTA file into one folder, on one device.

    Args:
        started: `time.perf_counter()` at the start of the process, for the timings.
        allocator: the CUDA allocator's configuration in force.

    Attributes:
        chosen: the settings really used, name to value; what `meta.json` records.
        reasons: why, where a setting was chosen automatically.
    """

    def __init__(self, fasta: Path, folder: Path, weights: Weights, settings: Settings, allocator: str, started: float):
        self.fasta, self.folder, self.weights, self.settings = fasta, folder, weights, settings
        self.chosen: dict[str, Any] = {"allocator": allocator}
        self.reasons: dict[str, str] = {}
        self.fit: memory.Fit | None = None
        self.pipeline: Pipeline | None = None
        self.model_bytes = 0
        self.clock = Clock({}, started)
        self.clock.mark("import_s")

    def run(self) -> int:
        """Embed the file; returns the exit status: 0, or 3 after an out of memory, told in `oom.json`.

        Raises:
            UserError: bad input or settings, or a result that is not finite.
        """
        self.sequences = Sequences(list(read_proteins(self.fasta)))
        if not len(self.sequences):
            log.warning("%s holds no sequences: the result will be empty", self.fasta)
        self._clear_folder()
        with gpu.lease(self.settings.device) as self.device:
            try:
                self._prepare()
                self._embed()
            except Exception as error:
                if not oom.is_oom(error):
                    raise
                return self._report_oom(error)
            self._write_meta()
        return 0

    def _clear_folder(self) -> None:
        """Remove what an earlier run left, so that results and diagnostics never lie side by side."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for pattern in ("embeddings.h5", "meta.json", "oom.json", ".*.tmp"):
            for path in self.folder.glob(pattern):
                path.unlink()

    def _choose(self, name: str, value: Any, reason: str) -> None:
        self.chosen[name], self.reasons[name] = value, reason

    def _prepare(self) -> None:
        """Load the model, measure it and settle everything that was left to choose."""
        settings = self.settings
        config = model.read_config(self.weights)
        dtype, reason = model.choose_dtype(settings.dtype, self.device)
        self._choose("dtype", str(dtype).removeprefix("torch."), reason)
        self.layers = model.resolve_layers(settings.layers, config.num_hidden_layers)
        self.datasets = dataset_names(self.layers, settings.pooling)
        self.matmul_flops = gpu.matmul_flops(self.device, dtype)
        self.model, kernel = model.load(self.weights, config, dtype, self.device, settings.attention)
        self.model_bytes = sum(p.numel() * p.element_size() for p in self.model.parameters())
        asked = "auto because it is the best that works here" if settings.attention == "auto" else "as requested"
        self._choose("attention", kernel.version, asked)
        self.clock.mark("load_s")

        self.pipeline = Pipeline(self.model, self.device, self.datasets, settings.streams, settings.pin_memory)
        cuda = self.device.type == "cuda"
        if cuda:
            self._measure_memory()
        usable = memory.usable_bytes(self.device) if cuda else None
        self._choose("batch_size", *memory.choose_batch_size(settings.batch_size, self.fit, usable))
        self.batches = PackedBatches(self.sequences, self.model.vocabulary, self.chosen["batch_size"], fill=cuda)
        self.clock.mark("measure_s")

        self._choose("compile", *self._compile(kernel.is_flash))
        self.clock.mark("compile_s")
        workers = gpu.default_workers() if settings.workers is None else settings.workers
        share = f"auto because {gpu.cpu_count()} CPUs serve this process"
        self._choose("dataloader_workers", workers, share if settings.workers is None else "as requested")
        self.chosen |= {"pin_memory": settings.pin_memory, "streams": settings.streams}
        if not cuda:
            self.reasons |= dict.fromkeys(("pin_memory", "streams", "allocator"), "without effect on the CPU")
        self._announce()

    def _measure_memory(self) -> None:
        try:
            self.fit = memory.measure(self.pipeline.probe, self.device)
        except torch.OutOfMemoryError:
            # A batch size that the user gave may still be smaller than what is measured.
            if self.settings.batch_size is None:
                raise

    def _compile(self, flash: bool) -> tuple[bool, str]:
        """Compile the layers if asked to, or if that pays; says whether it did, and why."""
        wanted = self.settings.compile
        if wanted == "off":
            return False, "as requested"
        if self.device.type != "cuda" or not flash:
            return False, "it needs a FlashAttention kernel on a GPU"
        flops = self.model.flops(self.sequences.lengths, max(self.layers))
        eager_s = flops / (EAGER_UTILISATION * self.matmul_flops)
        if wanted == "auto" and COMPILE_GAIN * eager_s < COMPILE_SECONDS:
            return False, f"auto because about {eager_s:.0f} s of work are too little to win the compilation back"
        common = [i for i in range(len(self.batches)) if self.batches.shape(i) == self.batches.budget]
        if not common:
            return False, "no batch has the common shape"
        try:
            self.model.compile_layers()
            # The second, of shorter sequences, makes their number and length variables of the compiled code.
            for number in (common[0], common[-1]):
                self.pipeline.collect(self.pipeline.submit(self.batches[number]))
        except Exception as error:
            if oom.is_oom(error):
                raise
            self.model.compile_layers(False)
            log.warning("compilation failed (%s): going on without", first_line(error)[:200])
            return False, "compilation failed"
        return True, "as requested" if wanted == "on" else f"auto because there are about {eager_s:.0f} s of work"

    def _announce(self) -> None:
        """The block at the start that states what is going to run, and why."""
        revision = f"revision {self.weights.revision}" if self.weights.revision else "a folder"
        lines = {
            "model": f"{self.weights.name} ({revision}, checksum {self.weights.checksum[:12]})",
            "device": gpu.describe(self.device),
            "layers": ", ".join(map(str, self.layers)),
            "pooling": ", ".join(self.settings.pooling),
            "input": f"{len(self.sequences):,} sequences, {self.sequences.offsets[-1]:,} residues, "
            f"{len(self.batches):,} batches, {self.batches.packing_efficiency():.1%} of their tokens in use",
        }
        for name, value in self.chosen.items():
            shown = {True: "on", False: "off"}.get(value, value) if isinstance(value, bool) else value
            shown = f"{value:,} tokens" if name == "batch_size" else shown
            lines[name] = f"{shown} ({self.reasons[name]})" if name in self.reasons else str(shown)
        for name, text in lines.items():
            log.info("%-18s %s", name, text)

    def _embed(self) -> None:
        """Run all batches into `embeddings.h5`."""
        width = self.model.width
        half = np.dtype(np.float32 if self.chosen["dtype"] == "float32" else np.float16)
        types = {
            name: (width, half if pooling == "residues" else np.dtype(np.float32))
            for name, (_, pooling) in self.datasets.items()
        }
        path = self.folder / "embeddings.h5"
        with (
            EmbeddingWriter(path, self.sequences.ids, self.sequences.lengths, types, self._attributes()) as writer,
            Progress(int(self.sequences.offsets[-1])) as progress,
        ):

            def write(rows: Rows) -> None:
                writer.write(rows.batch.rows, rows.values)

            prefetched = loader(self.batches, self.chosen["dataloader_workers"], self.settings.pin_memory)
            try:
                self.pipeline.run(prefetched, write, lambda batch: progress.add(int(batch.lengths.sum())))
            except NotFinite as error:
                raise UserError(
                    f"{self.fasta}: the {error.dataset} embedding of '{self.sequences.ids[error.row]}' is not finite in "
                    f"{self.chosen['dtype']}; use dtype bfloat16 or float32"
                ) from None
        self.clock.mark("embed_s")

    def _fingerprint(self) -> dict[str, Any]:
        """Everything besides the sequences that decides the result's bytes, with a SHA-256 over it."""
        content = {
            "checksum": self.weights.checksum,
            "dtype": self.chosen["dtype"],
            "layers": list(self.layers),
            "pooling": sorted(self.settings.pooling),
            "long": "full",
        }
        digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
        return {**content, "fingerprint": digest}

    def _attributes(self) -> dict[str, Any]:
        """Root attributes of `embeddings.h5`."""
        return {
            "model": self.weights.name,
            "revision": self.weights.revision or "",
            "attention": self.chosen["attention"],
            "versions": json.dumps(versions()),
            **self._fingerprint(),
        }

    def _write_meta(self) -> None:
        """Write `meta.json`, the last file of a finished shard."""
        timing, cuda = self.pipeline.timing, self.device.type == "cuda"
        flops = self.model.flops(self.sequences.lengths, max(self.layers))
        busy_s = timing.compute_s if cuda else timing.steady_s
        meta = {
            "status": "done",
            "fasta": str(self.fasta),
            "model": asdict(self.weights),
            "settings": self.chosen,
            **self._fingerprint(),
            "datasets": list(self.datasets),
            "device": gpu.describe(self.device),
            "versions": versions(),
            "sequences": len(self.sequences),
            "residues": timing.residues,
            "batches": timing.batches,
            "longest_sequence": int(self.sequences.lengths.max(initial=0)),
            "packing_efficiency": round(self.batches.packing_efficiency(), 4),
            "timings": {**self.clock.parts, **{k: round(v, 3) for k, v in asdict(timing).items() if k.endswith("_s")}},
            "residues_per_s": round(timing.residues / timing.steady_s, 1) if timing.residues else None,
            "model_flops_per_s": flops / busy_s if busy_s else None,
            "matmul_flops_per_s": self.matmul_flops,
            "model_flop_utilisation": round(flops / busy_s / self.matmul_flops, 4) if busy_s and cuda else None,
            "memory": {
                "model_bytes": self.model_bytes,
                "peak_allocated_bytes": torch.cuda.max_memory_allocated(self.device) if cuda else None,
                "peak_reserved_bytes": torch.cuda.max_memory_reserved(self.device) if cuda else None,
            },
            "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        }
        write_json(self.folder / "meta.json", meta)
        log.info("done: %s residues, %s residues/s", f"{timing.residues:,}", f"{meta['residues_per_s'] or 0:,.0f}")

    def _report_oom(self, error: Exception) -> int:
        """Write `oom.json` and tell people; returns the exit status."""
        usage = oom.read_usage(self.device)
        batch = self.pipeline.current if self.pipeline else None
        work = oom.Work(
            shard=self.fasta.stem,
            model=self.weights.name,
            dtype=self.chosen["dtype"],
            attention=self.chosen.get("attention"),
            model_bytes=self.model_bytes,
            batch_size=self.chosen.get("batch_size"),
            sequences_in_batch=len(batch.lengths) if batch else None,
            longest_sequence=int(batch.lengths.max()) if batch else None,
            batches_completed=self.pipeline.timing.batches if self.pipeline else 0,
        )
        content = oom.report(work, usage, self.fit, error, self.device, self.chosen["allocator"], versions())
        path = oom.write(self.folder, content)
        log.error("%s\nwritten to %s", oom.describe(content), path)
        return EXIT_OUT_OF_MEMORY
