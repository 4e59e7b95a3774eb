"""One shard on one device: from a FASTA to a folder with embeddings, or with the diagnosis of what ran out."""

import datetime
import hashlib
import importlib.metadata
import json
import logging
import math
import platform
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from seqmill import __version__, attention, checksums, gpu, memory, model, oom
from seqmill.batches import PackedBatches, Sequences, loader
from seqmill.errors import EXIT_OUT_OF_MEMORY, UserError, first_line
from seqmill.fasta import read_proteins
from seqmill.files import write_json
from seqmill.partial import Partial, folder_for
from seqmill.pipeline import NotFinite, Pipeline, Rows
from seqmill.pooling import dataset_names
from seqmill.progress import Progress
from seqmill.store import check_room
from seqmill.weights import Weights

log = logging.getLogger(__name__)

# On an H200 (benchmarks/results): what compiling the kernels costs in seconds, 3 where they were not compiled before and
# 0.6 where they come from Triton's cache, and which share of the time they then save.
COMPILE_SECONDS = 1.5
COMPILE_GAIN = 0.35
# Tokens of the batch from which the time of the whole shard is predicted.
SAMPLE_TOKENS = 8_192
# Share of the steady state from which on a GPU that stands idle is told.
TOLD_SHARE = 0.1
# Trying batch sizes may take this share of a shard's tokens.
TRIED_SHARE = 0.02


@dataclass(frozen=True)
class Settings:
    """How to embed. The first group can change bytes of the result, the second only speed and memory.

    Attributes:
        batch_size: tokens, or None for auto.
        workers: DataLoader processes, or None for this GPU's share of the CPUs.
        compile: "auto", "on" or "off".
        keep_partial: keep what was needed to go on after an interruption when the shard is finished, too.
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
    keep_partial: bool = False


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
    for package in ("torch", "triton", "flash-attn", "numpy", "h5py"):
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
        done, lengths: how many sequences an earlier process finished; residues of each of the others, longest first.
        recommended: after an out of memory, the batch size in tokens that would fit; None where none would.
    """

    def __init__(self, fasta: Path, folder: Path, weights: Weights, settings: Settings, allocator: str, started: float):
        self.fasta, self.folder, self.weights, self.settings = fasta, folder, weights, settings
        self.chosen: dict[str, Any] = {"allocator": allocator}
        self.reasons: dict[str, str] = {}
        self.fit: memory.Fit | None = None
        self.recommended: int | None = None
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
        self.clock.mark("read_s")
        if not len(self.sequences):
            log.warning("%s holds no sequences: the result will be empty", self.fasta)
        with (
            Partial(folder_for(self.folder), self.settings.keep_partial) as self.partial,
            gpu.lease(self.settings.device) as self.device,
        ):
            self._clear_folder()
            try:
                self._prepare()
                self._embed()
            except Exception as error:
                if not memory.is_oom(error):
                    raise
                return self._report_oom(error)
            # The embeddings come last: they are what makes a finished shard.
            self._write_meta()
            self.partial.publish(self.folder / "embeddings.h5")
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
        config = model.read_config(self.weights)
        dtype, reason = model.choose_dtype(self.settings.dtype, self.device)
        self._choose("dtype", str(dtype).removeprefix("torch."), reason)
        self.layers = model.resolve_layers(self.settings.layers, config.num_hidden_layers)
        self.datasets = dataset_names(self.layers, self.settings.pooling)
        self.types = self._types(config.hidden_size)
        self.asked = self.settings
        self._resume()
        settings = self.settings
        check_room(self.partial.folder, self.lengths, self.types)
        # Known before they are loaded, so that a report can tell where they do not fit.
        self.model_bytes = config.parameter_count * dtype.itemsize
        if self.device.type == "cuda":
            # Here and not with the lease: on a full card this is the first thing to run out of memory.
            torch.cuda.set_device(self.device)
        self.matmul_flops = gpu.matmul_flops(self.device, dtype)
        self.clock.mark("device_s")
        self.model, kernel = model.load(self.weights, config, dtype, self.device, settings.attention)
        reason = "auto because it is the best that works here" if settings.attention == "auto" else self._requested()
        self._choose("attention", kernel.version, reason)
        self.clock.mark("load_s")

        self.pipeline = Pipeline(self.model, self.device, self.datasets, settings.streams, settings.pin_memory)
        self._choose("compile", *self._compile(dtype, config.num_attention_heads, config.head_dim))
        self.clock.mark("compile_s")
        self._choose("batch_size", *self._batch_size())
        self.batches = self._batches(self.chosen["batch_size"])
        self.clock.mark("measure_s")

        workers = gpu.default_workers() if settings.workers is None else settings.workers
        share = f"auto because {gpu.cpu_count()} CPUs serve this process"
        self._choose("dataloader_workers", workers, share if settings.workers is None else "as requested")
        self.chosen |= {"pin_memory": settings.pin_memory, "streams": settings.streams}
        if self.device.type != "cuda":
            self.reasons |= dict.fromkeys(("pin_memory", "streams", "allocator"), "without effect on the CPU")
        self._announce()

    def _resume(self) -> None:
        """Take up what an earlier process finished of this shard, with the settings that it had chosen."""
        identity = {
            "fingerprint": self._fingerprint()["fingerprint"],
            "sequences": self.sequences.digest(),
            "versions": versions(),
        }
        progress = self.partial.load(identity, list(self.datasets), self.sequences.rows)
        self.done = progress.done
        self.lengths = np.diff(self.sequences.offsets[self.done :])
        if not self.done:
            return
        done, share = f"{self.done:,} of {len(self.sequences):,} sequences", f"{self._completed_share():.0%}"
        log.info("going on after %s (%s of the residues), which an earlier run finished", done, share)
        chosen = progress.choices
        if chosen and chosen["for"] == self._circumstances():
            # Other batches or kernels would be other roundings.
            self.settings = replace(self.settings, **chosen["settings"])

    def _completed_share(self) -> float:
        """Share of the residues whose embeddings are written."""
        progress, total = self.partial.progress, self.sequences.offsets[-1]
        return float(self.sequences.offsets[progress.done] / total) if progress and total else 0.0

    def _circumstances(self) -> dict[str, Any]:
        """What automatic choices depend on, besides the shard."""
        asked = {name: getattr(self.asked, name) for name in ("batch_size", "attention", "compile")}
        return {**asked, "device": gpu.describe(self.device)}

    def _types(self, width: int) -> dict[str, tuple[int, np.dtype]]:
        """Width and dtype of each dataset: residues in half precision where they were computed so."""
        half = np.dtype(np.float32 if self.chosen["dtype"] == "float32" else np.float16)
        return {
            name: (width, half if pooling == "residues" else np.dtype(np.float32))
            for name, (_, pooling) in self.datasets.items()
        }

    def _batches(self, budget: int) -> PackedBatches:
        fill = self.device.type == "cuda"
        return PackedBatches(self.sequences, self.model.vocabulary, budget, fill, self.done)

    def _requested(self) -> str:
        """Why a setting that was not chosen now is as it is."""
        return "as requested" if self.settings is self.asked else "as before the interruption"

    def _compile(self, dtype: torch.dtype, heads: int, head_dim: int) -> tuple[bool, str]:
        """Take the fused kernels if asked to, or if compiling them pays; says whether it did, and why."""
        wanted = self.settings.compile
        if wanted == "off":
            return False, self._requested()
        if self.device.type != "cuda":
            return False, "it needs a GPU"
        work_s = self._predicted_seconds()
        if wanted == "auto" and COMPILE_GAIN * work_s < COMPILE_SECONDS:
            return False, f"auto because about {work_s:.0f} s of work are too little to win the compilation back"
        try:
            # Only here: Triton comes with PyTorch for NVIDIA GPUs under Linux, and with no other.
            from seqmill import kernels

            self.model.operators = kernels.fused(self.device, dtype, heads, head_dim)
            if self.settings.attention == "auto" and self.model.kernel.is_flash:
                self._compare_attention(dtype, heads, head_dim)
        except Exception as error:  # without a C compiler, a home directory or a known GPU, Triton fails in many ways
            if memory.is_oom(error):
                raise
            log.warning("compilation failed (%s): going on with PyTorch's operators", first_line(error)[:200])
            return False, "compilation failed"
        pays = "memory is short" if math.isinf(work_s) else f"there are about {work_s:.0f} s of work"
        return True, self._requested() if wanted == "on" else f"auto because {pays}"

    def _compare_attention(self, dtype: torch.dtype, heads: int, head_dim: int) -> None:
        """Take seqmill's own attention kernel if it is faster than the ladder's for sequences like the shard's."""
        try:
            own = attention.choose("triton", self.device, dtype, heads, head_dim)
        except UserError as error:
            log.warning("%s: going on with %s", error, self.model.kernel.version)
            return
        length = int(np.average(self.lengths, weights=self.lengths)) + 2
        found = attention.faster(self.model.kernel, own, self.device, dtype, heads, head_dim, length)
        self.model.kernel = found
        self._choose("attention", found.version, "auto because it is the fastest that works here")

    def _predicted_seconds(self) -> float:
        """How long the shard would take without compiled kernels, from a batch of its middle."""
        if not len(self.lengths):
            return 0.0
        # The better of two: the first one loads kernels.
        rate = max(self._rate(SAMPLE_TOKENS) for _ in range(2))
        # Where so little does not fit, the kernels are wanted for the memory they save.
        return self.lengths.sum() / rate if rate else math.inf

    def _batch_size(self) -> tuple[int, str]:
        """The batch size in tokens, and why."""
        if self.device.type != "cuda":
            return self._reasoned(memory.choose_batch_size(self.settings.batch_size))
        try:
            self.fit = memory.measure(self.pipeline.probe, self.device)
        except Exception as error:
            # A batch size that the user gave may still be smaller than what is measured.
            if not memory.is_oom(error) or self.settings.batch_size is None:
                raise
        usable = memory.usable_bytes(self.device)
        worth_trying = TRIED_SHARE * np.sum(self.lengths + 2) > memory.TRIED_TOKENS
        rate = self._rate if worth_trying else None
        chosen = memory.choose_batch_size(self.settings.batch_size, self.fit, usable, rate)
        memory.forget_peaks(self.device)
        return self._reasoned(chosen)

    def _reasoned(self, chosen: tuple[int, str]) -> tuple[int, str]:
        return chosen if self.settings.batch_size is None else (chosen[0], self._requested())

    def _rate(self, budget: int) -> float:
        """Residues per second on the GPU in a batch of `budget` tokens from the shard's middle; 0 if that does not fit."""
        batches = self._batches(budget)
        batch = batches[len(batches) // 2]
        try:
            return float(batch.lengths.sum()) / self.pipeline.seconds(batch)
        except Exception as error:
            if not memory.is_oom(error):
                raise
            return 0.0

    def _announce(self) -> None:
        """The block at the start that states what is going to run, and why."""
        revision = f"revision {self.weights.revision}" if self.weights.revision else "a folder"
        lines = {
            "model": f"{self.weights.name} ({revision}, checksum {self.weights.checksum[:12]})",
            "device": ", ".join(filter(None, [gpu.describe(self.device), gpu.uuid(self.device)])),
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
        """Run all batches into the partial result's file."""
        chosen = {
            "batch_size": self.chosen["batch_size"],
            "attention": self.model.kernel.name,
            "compile": "on" if self.chosen["compile"] else "off",
        }
        choices = {"for": self._circumstances(), "settings": chosen}
        self.partial.begin(self.sequences.ids, self.sequences.lengths, self.types, self._attributes(), choices)
        with Progress(int(self.lengths.sum())) as progress:

            def write(rows: Rows) -> None:
                self.partial.write(rows.batch.rows, rows.values)

            prefetched = loader(self.batches, self.chosen["dataloader_workers"], self.settings.pin_memory)
            try:
                self.pipeline.run(prefetched, write, lambda batch: progress.add(int(batch.lengths.sum())))
            except NotFinite as error:
                raise UserError(
                    f"{self.fasta}: the {error.dataset} embedding of '{self.sequences.ids[error.row]}' is not finite in "
                    f"{self.chosen['dtype']}; use dtype bfloat16 or float32"
                ) from None
            self.clock.mark("embed_s")
        self.partial.flush()
        self.clock.mark("close_s")
        self._tell_waiting(self.partial.path.stat().st_size)

    def _tell_waiting(self, written: int) -> None:
        """Warn where the GPU stood idle between batches, and say what to do about it."""
        timing = self.pipeline.timing
        if timing.gpu_idle_s <= TOLD_SHARE * timing.steady_s:
            return
        if timing.waited_for_writer_s > timing.waited_for_reader_s:
            limit = (
                f"the disk, which took {written / 1e6 / timing.steady_s:.0f} MB/s; results on a faster one come sooner"
            )
        else:
            limit = "the reader; give the job more CPUs, or raise performance.dataloader_workers"
        log.warning(
            "the GPU stood idle for %.0f of %.0f s: the limit was %s", timing.gpu_idle_s, timing.steady_s, limit
        )

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
        flops = self.model.flops(self.lengths, max(self.layers))
        busy_s = timing.compute_s if cuda else timing.steady_s
        meta = {
            "status": "done",
            "fasta": str(self.fasta),
            "model": asdict(self.weights),
            "settings": self.chosen,
            **self._fingerprint(),
            "datasets": list(self.datasets),
            "device": gpu.describe(self.device),
            "device_uuid": gpu.uuid(self.device),
            "versions": versions(),
            "sequences": len(self.sequences),
            "residues": int(self.sequences.offsets[-1]),
            "resumed_after": self.done,
            "out_of_memory": self.partial.progress.ooms,
            "checksums": {name: f"{value:016x}" for name, value in self.partial.progress.checksums.items()},
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
        write_json(self.folder / "meta.json", checksums.sealed(meta))
        log.info("done: %s residues, %s residues/s", f"{timing.residues:,}", f"{meta['residues_per_s'] or 0:,.0f}")

    def _report_oom(self, error: Exception) -> int:
        """Write `oom.json` and tell people; returns the exit status."""
        usage = oom.read_usage(self.device)
        batch, progress = self.pipeline.current if self.pipeline else None, self.partial.progress
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
            completed_share=round(self._completed_share(), 4),
            earlier=[earlier["batch_size"] for earlier in progress.ooms] if progress else [],
        )
        content = oom.report(work, usage, self.fit, error, self.device, self.chosen["allocator"], versions())
        self.recommended = content["recommended_batch_size"]
        kept = ("batch_size", "recommended_batch_size", "requested_bytes", "peak_reserved_bytes", "message", "created")
        self.partial.record_oom({name: content[name] for name in kept})
        path = oom.write(self.folder, content)
        log.error("%s\nwritten to %s", oom.describe(content), path)
        return EXIT_OUT_OF_MEMORY
