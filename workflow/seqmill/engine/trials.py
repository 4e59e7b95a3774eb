"""What a GPU is asked before a shard begins: how fast and how large its own batches can be, and which kernels suit them."""

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict

import numpy as np
import torch

from seqmill.engine import device as devices
from seqmill.engine import memory, report, tuning
from seqmill.engine.batching import PackedBatches
from seqmill.engine.compilation import Compilation
from seqmill.engine.memory import Fit
from seqmill.engine.pipeline import Pipeline
from seqmill.engine.remembered import Remembered
from seqmill.engine.task import Task
from seqmill.engine.tuning import Choice
from seqmill.errors import is_oom
from seqmill.kernels import attention
from seqmill.kernels.interface import Kernel
from seqmill.settings import Settings

log = logging.getLogger(__name__)

# Where not even a batch of so many tokens fits, kernels are wanted for the memory that they save.
FEW_TOKENS = 8_192
# Trying batch sizes may take this share of a shard's tokens.
TRIED_SHARE = 0.02


class Trials:
    """Chooses what depends on the GPU, the model and the shard together.

    Made before the model is loaded: its kernels begin to compile at once. What earlier jobs measured in the same
    circumstances is not measured again.

    Args:
        settings, reason: the settings in force, and why those are that were not chosen automatically.
        batches: a batch size in tokens to the batches of what is left of the shard.
        matmul_flops: what the device reaches in matrix products; None on the CPU.

    Attributes:
        compile: whether seqmill's kernels are used.
        fit: the memory that batches take, once it was measured.
    """

    def __init__(
        self,
        task: Task,
        device: torch.device,
        settings: Settings,
        reason: str,
        batches: Callable[[int], PackedBatches],
        matmul_flops: float | None,
    ):
        self.task, self.device, self.settings, self.reason, self.batches = task, device, settings, reason, batches
        self.token_counts = batches(FEW_TOKENS).token_counts
        self.remembered = Remembered(self._circumstances()) if device.type == "cuda" else None
        work_s = tuning.work_seconds(task.source.config, self.token_counts, max(task.layers), matmul_flops)
        self.compile = tuning.compiles(settings.compile, reason, device, work_s)
        self.compilation = self._compilation() if self.compile.value else None
        self.pipeline: Pipeline | None = None
        self.fit: Fit | None = None

    def begin(self, pipeline: Pipeline) -> None:
        """Take the loaded model."""
        self.pipeline = pipeline

    def compiled(self) -> Choice:
        """Take the kernels that were compiled, if they were wanted."""
        self.compile = tuning.compiled(self.compile, self._take_kernels)
        return self.compile

    def attention(self) -> Choice:
        """The attention kernel in use."""
        kernel = self.pipeline.model.kernels.attention
        if self.settings.attention != "auto":
            return Choice(kernel.version, self.reason)
        best = "fastest" if kernel.name == "triton" else "best"
        return Choice(kernel.version, f"auto because it is the {best} that works here")

    def batch_size(self) -> Choice:
        """The batch size in tokens; where memory is short, kernels are compiled for it after all."""
        requested = self.settings.batch_size
        if self.device.type != "cuda":
            return tuning.batch_size(requested, self.reason)
        try:
            self.fit = self._measured_fit()
        except Exception as error:
            # A batch size that the user gave may still be smaller than what is measured.
            if not is_oom(error) or requested is None:
                raise
        usable = memory.usable_bytes(self.device)
        chosen = tuning.batch_size(requested, self.reason, self.fit, usable, self._rates)
        memory.forget_peaks(self.device)
        return chosen

    def _circumstances(self) -> dict[str, object]:
        """What measurements of speed depend on."""
        counts = self.token_counts
        length = float(np.average(counts, weights=counts)) if len(counts) else 1.0
        return {
            "versions": report.versions(),
            "device": devices.describe(self.device),
            "model": self.task.weights.checksum,
            "dtype": str(self.task.dtype),
            "layers": max(self.task.layers),
            "streams": self.settings.streams,
            "attention": self.settings.attention,
            "tokens of a sequence, about": 2 ** round(math.log2(length)),
        }

    def _compilation(self) -> Compilation:
        needs, half = self.task.source.config.attention, (torch.float16, torch.bfloat16)
        # Where the scores have a bias, seqmill's own kernel is the first choice anyway.
        own = self.settings.attention == "auto" and needs.bias is None and self.task.dtype in half
        own = own and self.remembered.get("attention") in (None, "triton")
        return Compilation(self.task.source.config, self.device, self.task.dtype, own)

    def _take_kernels(self) -> None:
        self.pipeline.model.kernels = self.pipeline.model.kernels._replace(operators=self.compilation.operators())
        present = self.pipeline.model.kernels.attention
        try:
            own = self.compilation.attention()
        except Exception as error:  # as for the other kernels
            if is_oom(error):
                raise
            log.warning(
                "seqmill's attention kernel does not work here (%s): continuing with %s", error, present.version
            )
            return
        if own is not None and present.name != "sdpa":
            self._take_faster(present, own)

    def _take_faster(self, present: Kernel, own: Kernel) -> None:
        """Take seqmill's own attention kernel if it is faster than the one chosen for sequences like the shard's."""
        length = int(np.average(self.token_counts, weights=self.token_counts)) if len(self.token_counts) else 1
        kernels = {present.name: present, own.name: own}

        def faster() -> str:
            return attention.faster(
                present, own, self.pipeline.model.config.attention, self.device, self.task.dtype, length
            ).name

        known = self.remembered.get("attention")
        found = kernels.get(self.remembered.recall("attention", faster), present)
        if known:
            log.info("FlashAttention-2: enabled (%s, the faster one here in an earlier job)", found.version)
        self.pipeline.model.kernels = self.pipeline.model.kernels._replace(attention=found)

    def _measured_fit(self) -> Fit:
        may_compile = self.settings.compile == "auto" and not self.compile.value
        try:
            fit = self._memory()
            if not may_compile or fit.largest(memory.usable_bytes(self.device)) >= FEW_TOKENS:
                return fit
        except Exception as error:
            if not (may_compile and is_oom(error)):
                raise
        self.compile, self.compilation = Choice(True, "auto because memory is short"), self._compilation()
        self.compiled()
        return self._memory()

    def _memory(self) -> Fit:
        """The memory that batches take; measured anew where not even what is remembered leaves room for every size."""
        name = f"memory with {self._kernels()} kernels, {', '.join(map(str, self.task.computed))}"
        known = self.remembered.get(name)
        if known and Fit(**known).largest(memory.usable_bytes(self.device)) >= tuning.TRIED[-1]:
            return Fit(**known)
        fit = memory.measure(self.pipeline.probe, self.device)
        self.remembered.keep(name, asdict(fit))
        return fit

    def _kernels(self) -> str:
        return f"{self.pipeline.model.kernels.attention.name} {'compiled' if self.compile.value else 'not compiled'}"

    def _rates(self, sizes: Sequence[int]) -> dict[int, float]:
        """Tokens per second with each batch size that fits; none where measuring takes too long for what it gains."""
        name = f"tokens/s with {self._kernels()} kernels in batches of {', '.join(map(str, sizes))}"
        worth_trying = TRIED_SHARE * np.sum(self.token_counts) > tuning.TRIED_TOKENS
        if not worth_trying and self.remembered.get(name) is None:
            return {}
        found = self.remembered.recall(name, lambda: tuning.best_rates(sizes, self._rate))
        return {int(tokens): rate for tokens, rate in found.items()}

    def _rate(self, max_tokens: int) -> float:
        """Tokens per second on the GPU in a batch of `max_tokens` from the shard's middle; 0 if that does not fit."""
        batches = self.batches(max_tokens)
        batch = batches[len(batches) // 2]
        try:
            return float(batch.token_counts.sum()) / self.pipeline.seconds(batch)
        except Exception as error:
            if not is_oom(error):
                raise
            return 0.0
