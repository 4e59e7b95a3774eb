"""What a GPU is asked before a shard begins: how fast and how large its own batches can be, and which kernels suit them."""

import logging
import math
from collections.abc import Callable

import numpy as np
import torch

from seqmill.engine import memory, tuning
from seqmill.engine.batching import PackedBatches
from seqmill.engine.memory import Fit
from seqmill.engine.pipeline import Pipeline
from seqmill.engine.tuning import Choice
from seqmill.errors import UserError, is_oom
from seqmill.kernels import attention
from seqmill.settings import Settings

log = logging.getLogger(__name__)

# Tokens of the batch from which the time of the whole shard is predicted.
SAMPLE_TOKENS = 8_192
# Trying batch sizes may take this share of a shard's tokens.
TRIED_SHARE = 0.02


class Trials:
    """Chooses what depends on the GPU, the model and the shard together.

    Args:
        settings, reason: the settings in force, and why those are that were not chosen automatically.
        dtype: what the model computes in.
        batches: a batch size in tokens to the batches of what is left of the shard.

    Attributes:
        fit: the memory that batches take, once it was measured.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        settings: Settings,
        reason: str,
        dtype: torch.dtype,
        batches: Callable[[int], PackedBatches],
    ):
        self.pipeline, self.model, self.device = pipeline, pipeline.model, pipeline.device
        self.settings, self.reason, self.dtype, self.batches = settings, reason, dtype, batches
        self.token_counts = batches(SAMPLE_TOKENS).token_counts
        self.fit: Fit | None = None

    def compiled(self) -> Choice:
        """Take the fused kernels if asked to, or if compiling them pays."""
        return tuning.compiled(
            self.settings.compile, self.reason, self.device, self._predicted_seconds, self._compile_kernels
        )

    def attention(self) -> Choice:
        """The attention kernel in use."""
        kernel = self.model.kernels.attention
        if self.settings.attention != "auto":
            return Choice(kernel.version, self.reason)
        best = "fastest" if kernel.name == "triton" else "best"
        return Choice(kernel.version, f"auto because it is the {best} that works here")

    def batch_size(self) -> Choice:
        """The batch size in tokens."""
        requested = self.settings.batch_size
        if self.device.type != "cuda":
            return tuning.batch_size(requested, self.reason)
        try:
            self.fit = memory.measure(self.pipeline.probe, self.device)
        except Exception as error:
            # A batch size that the user gave may still be smaller than what is measured.
            if not is_oom(error) or requested is None:
                raise
        usable = memory.usable_bytes(self.device)
        worth_trying = TRIED_SHARE * np.sum(self.token_counts) > tuning.TRIED_TOKENS
        rate = self._rate if worth_trying else None
        chosen = tuning.batch_size(requested, self.reason, self.fit, usable, rate)
        memory.forget_peaks(self.device)
        return chosen

    def _compile_kernels(self) -> None:
        # Only here: Triton comes with PyTorch for NVIDIA GPUs under Linux, and with no other.
        from seqmill.kernels import triton_operators

        config = self.model.config
        needs = config.attention
        operators = triton_operators.fused(
            config.operators, self.device, self.dtype, config.width, needs.heads, needs.head_dim
        )
        self.model.kernels = self.model.kernels._replace(operators=operators)
        # Where the scores have a bias, seqmill's own kernel may already be the choice.
        if self.settings.attention == "auto" and self.model.kernels.attention.name not in ("sdpa", "triton"):
            self._compare_attention()

    def _compare_attention(self) -> None:
        """Take seqmill's own attention kernel if it is faster than the one chosen for sequences like the shard's."""
        needs, present = self.model.config.attention, self.model.kernels.attention
        try:
            own = attention.choose("triton", needs, self.device, self.dtype)
        except UserError as error:
            log.warning("%s: continuing with %s", error, present.version)
            return
        length = int(np.average(self.token_counts, weights=self.token_counts))
        found = attention.faster(present, own, needs, self.device, self.dtype, length)
        self.model.kernels = self.model.kernels._replace(attention=found)

    def _predicted_seconds(self) -> float:
        """How long the shard would take without compiled kernels, from a batch of its middle."""
        if not len(self.token_counts):
            return 0.0
        # The better of two: the first one loads kernels.
        rate = max(self._rate(SAMPLE_TOKENS) for _ in range(2))
        # Where so little does not fit, the kernels are wanted for the memory they save.
        return float(self.token_counts.sum()) / rate if rate else math.inf

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
