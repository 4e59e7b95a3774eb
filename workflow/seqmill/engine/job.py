"""One shard on one device: from a FASTA to a folder with embeddings, or with the diagnosis of what ran out."""

import logging
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from seqmill.engine import device as devices
from seqmill.engine import finished, oom, report, tuning
from seqmill.engine.assembly import Assembly
from seqmill.engine.batching import PackedBatches, loader
from seqmill.engine.lease import lease
from seqmill.engine.pipeline import NotFinite, Pipeline
from seqmill.engine.report import Clock
from seqmill.engine.reuse import Reuse
from seqmill.engine.task import Task, read_sequences, treatment_of
from seqmill.engine.trials import Trials
from seqmill.engine.tuning import Choice
from seqmill.errors import EXIT_OUT_OF_MEMORY, UserError, is_oom
from seqmill.inputs.given import Given
from seqmill.inputs.sequences import Sequences
from seqmill.inputs.shard_file import ShardFile
from seqmill.inputs.windows import Treatment
from seqmill.models.family import Tokens
from seqmill.models.loading import load
from seqmill.models.source import Source
from seqmill.models.weights import Weights
from seqmill.outputs import meta
from seqmill.outputs.layout import check_space
from seqmill.outputs.names import EMBEDDINGS, INDEX, META, OOM
from seqmill.outputs.partial import Partial, State, folder_for
from seqmill.progress import Progress
from seqmill.settings import Settings

log = logging.getLogger(__name__)


class Job:
    """Embeds one FASTA file into one folder, on one device.

    Args:
        started: `time.perf_counter()` at the start of the process, for the timings.
        progress: how far this is, for those who watch.
        allocator: the CUDA allocator's configuration in force.

    Attributes:
        settings: what was asked for.
        choices: the settings in force, with reasons where they were chosen automatically; what `meta.json` records.
        recommended: after an out of memory, the batch size in tokens that would fit; None where none would.
    """

    def __init__(
        self,
        fasta: Path | Given | ShardFile,
        folder: Path,
        weights: Weights,
        settings: Settings,
        allocator: str,
        started: float,
        progress: Progress | None = None,
    ):
        self.reuse = Reuse(settings.reuse, folder)
        self.fasta, self.folder, self.weights, self.settings = fasta, folder, weights, self.reuse.fit(settings)
        self.choices = {"allocator": Choice(allocator)}
        self.recommended: int | None = None
        self.partial = Partial(folder_for(folder), settings.keep_partial)
        # For an out-of-memory report.
        self.task: Task | None = None
        self.pipeline: Pipeline | None = None
        self.trials: Trials | None = None
        self.progress = progress or Progress()
        self.clock = Clock(started, self.progress)
        self.clock.mark("import_s")

    def run(self) -> int:
        """Embed the file; returns the exit status: 0, or 3 if memory ran out (see `oom.json`).

        Raises:
            UserError: bad input or settings, or a result that is not finite.
        """
        source = Source.of(self.weights)
        treatment = treatment_of(self.settings, source.family)
        sequences = read_sequences(self.fasta, source, treatment, self.settings, self.reuse.places)
        self.clock.mark("read_s")
        report.warn_of_input(self.fasta, sequences, source, treatment, is_shard=not self.settings.index)
        # Made while the model loads, where that takes time.
        tokens = source.tokenizer.tokens(sequences)
        with self.partial, self.progress, lease(self.settings.device) as device:
            self.clock.mark("wait_s")
            try:
                self._embed(source, sequences, tokens, treatment, device)
            except Exception as error:
                if not is_oom(error):
                    raise
                return self._report_oom(error, sequences, device)
            if self.settings.index:
                report.write_index(self.folder, self.task, self.reuse.origins(sequences))
            # The embeddings come last: they are what makes a finished shard.
            self.partial.publish(self.folder / EMBEDDINGS)
        return 0

    def _clear_folder(self, task: Task) -> None:
        """Remove what an earlier run left, so that results and diagnostics never exist together.

        Raises:
            UserError: it is a finished result of other settings or sequences, and is not to be overwritten.
        """
        if not self.settings.overwrite and (other := finished.differences(self.folder, task)):
            raise UserError(
                f"{self.folder}: holds a finished result of other {', '.join(other)}; give another folder, or --overwrite"
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        for pattern in (EMBEDDINGS, META, INDEX, OOM, ".*.tmp"):
            for path in self.folder.glob(pattern):
                path.unlink()

    def _embed(
        self, source: Source, sequences: Sequences, tokens: Tokens, how: Treatment, device: torch.device
    ) -> None:
        """Everything between the sequences and the complete file."""
        self.choices["dtype"] = tuning.dtype(self.settings.dtype, device, source.config.half, self.settings.fitting)
        self.task = task = Task.resolve(source, sequences, tokens, self.settings, self.choices["dtype"].value, how)
        self._clear_folder(task)
        state = self._load_partial(task)
        settings, reason = self._in_force(state, device)
        check_space(self.partial.folder, task.bytes_to_store(state.done))
        if device.type == "cuda":
            # Here and not with the lease: on a full card this is the first thing to run out of memory.
            torch.cuda.set_device(device)
        matmul_flops = devices.matmul_flops(device, task.dtype)
        self.clock.mark("device_s")
        batches_of = partial(task.batches, fill=device.type == "cuda", first=max(state.done, sequences.known))
        self.trials = Trials(task, device, settings, reason, batches_of, matmul_flops)
        model = load(source, task.dtype, device, settings.attention)
        self.clock.mark("load_s")
        self.pipeline = Pipeline(model, device, task.computed, settings.streams, settings.pin_memory)
        self._choose(settings)
        batches = batches_of(self.choices["batch_size"].value)
        report.announce(task, device, self.choices, batches)
        self._begin(device)
        self.reuse.copy(task, self.partial)
        self._compute(batches, settings.pin_memory)
        content = report.meta_content(
            self.fasta, task, state, self.choices, self.pipeline, batches, self.clock, matmul_flops
        )
        meta.write(self.folder, content)
        report.conclude(task, content)

    def _load_partial(self, task: Task) -> State:
        """Resume the shard after its last finished batch, where an earlier process left one."""
        sequences = task.sequences
        state = self.partial.load(report.identity(task), task.datasets, sequences)
        if state.done:
            done, share = f"{state.done:,} of {sequences.distinct:,} sequences", f"{sequences.share(state.done):.0%}"
            letters = task.source.alphabet.members
            log.info("resuming after %s (%s of the %s), which an earlier run finished", done, share, letters)
        return state

    def _in_force(self, state: State, device: torch.device) -> tuple[Settings, str]:
        """The settings, with what an interrupted run in the same circumstances had chosen; and why they are as they are."""
        if state.done and state.choices and state.choices["for"] == self._circumstances(device):
            # Other batches or kernels would round differently.
            return replace(self.settings, **state.choices["settings"]), tuning.AS_BEFORE
        return self.settings, tuning.AS_REQUESTED

    def _circumstances(self, device: torch.device) -> dict[str, Any]:
        """What automatic choices depend on, besides the shard."""
        asked = {name: getattr(self.settings, name) for name in ("batch_size", "attention", "compile")}
        return {**asked, "device": devices.describe(device)}

    def _choose(self, settings: Settings) -> None:
        """Settle everything that was left to choose."""
        trials = self.trials
        trials.begin(self.pipeline)
        # Known now, for the report of an out of memory; compiled kernels may bring another.
        self.choices["attention"] = trials.attention()
        self.choices["compile"] = trials.compiled()
        self.clock.mark("compile_s")
        self.choices["batch_size"] = trials.batch_size()
        self.choices["compile"], self.choices["attention"] = trials.compile, trials.attention()
        self.clock.mark("measure_s")
        self.choices |= tuning.without_choice(settings, trials.device, self.choices["allocator"])

    def _begin(self, device: torch.device) -> None:
        """Open the partial result for rows."""
        task, version = self.task, self.reuse.kernels(self.choices["attention"].value)
        chosen = {
            "batch_size": self.choices["batch_size"].value,
            "attention": self.pipeline.model.kernels.attention.name,
            "compile": "on" if self.choices["compile"].value else "off",
        }
        self.partial.begin(
            task.sequences.ids,
            task.sequences.lengths,
            task.sequences.in_file_order(task.content_counts),
            task.datasets,
            meta.attributes(self.weights.name, self.weights.revision, version, report.versions(), task.fingerprint),
            {"for": self._circumstances(device), "settings": chosen},
        )

    def _compute(self, batches: PackedBatches, pin_memory: bool) -> None:
        """Run all batches into the partial result's file."""
        task, sequences, timing = self.task, self.task.sequences, self.pipeline.timing
        self.progress.begin(task.costs, sequences.offsets, batches.first, task.source.alphabet.members)
        assembly = Assembly(batches, task.computed)
        prefetched = loader(batches, self.choices["dataloader_workers"].value, pin_memory)
        try:
            self.pipeline.run(
                prefetched,
                lambda result: self.partial.write(*assembly.add(result), task.known),
                lambda batch: self.progress.add(batches.finished(batch.index)),
            )
        except NotFinite as error:
            raise report.not_finite(error, self.fasta, task) from None
        self.clock.mark("embed_s")
        self.partial.flush()
        self.clock.mark("close_s")
        report.warn_of_idle_gpu(timing, self.partial.written)

    def _report_oom(self, error: Exception, sequences: Sequences, device: torch.device) -> int:
        """Write `oom.json` and log it; returns the exit status."""
        # First, before anything is freed.
        usage = oom.read_usage(device)
        model_bytes = self.task.model_bytes if self.task else 0
        work = oom.describe_work(
            self.fasta.stem, self.weights, model_bytes, self.choices, sequences, self.partial.state, self.pipeline
        )
        fit = self.trials.fit if self.trials else None
        content = oom.report(work, usage, fit, error, device, self.choices["allocator"].value, report.versions())
        self.recommended = content["recommended_batch_size"]
        saved = ("batch_size", "recommended_batch_size", "requested_bytes", "peak_reserved_bytes", "message", "created")
        self.partial.record_oom({name: content[name] for name in saved})
        path = oom.write(self.folder, content)
        log.error("%s\nwritten to %s", oom.describe(content), path)
        return EXIT_OUT_OF_MEMORY
