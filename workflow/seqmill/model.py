"""The seam between model families and everything else: tokens in, per-token states out."""

import logging
from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
import torch
import transformers
from transformers import AutoConfig, EsmConfig, EsmModel, PreTrainedConfig

from seqmill import attention, esm2
from seqmill.batches import Batch, Vocabulary
from seqmill.errors import UserError, first_line
from seqmill.oom import is_oom
from seqmill.weights import Weights

log = logging.getLogger(__name__)

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


class Model(Protocol):
    """What a model family offers the rest of seqmill.

    Attributes:
        vocabulary: how its letters become tokens.
        layer_count: hidden states are numbered from 0 (embeddings) to this.
        width: size of a hidden state.
    """

    vocabulary: Vocabulary
    layer_count: int
    width: int

    def __call__(self, batch: Batch, layers: Sequence[int]) -> dict[int, torch.Tensor]:
        """Hidden states of `layers`, each (T, width), for a batch on the model's device."""
        ...

    def flops(self, lengths: np.ndarray, layers: int | None = None) -> float:
        """Floating-point operations to embed sequences of these lengths through the first `layers` layers."""
        ...

    def compile_layers(self, on: bool = True) -> None:
        """Compile the layers in place, which makes the first batch slow, or go back to eager code."""
        ...

    def parameters(self) -> Iterator[torch.Tensor]:
        """The weights."""
        ...


def read_config(weights: Weights) -> PreTrainedConfig:
    """The model's configuration, checked to be of a family that seqmill knows.

    Raises:
        UserError: another architecture, or an unreadable config.json.
    """
    try:
        config = AutoConfig.from_pretrained(weights.folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"model {weights.name}: its config.json cannot be used ({first_line(error)})") from None
    if not isinstance(config, EsmConfig):
        raise UserError(f"model {weights.name}: is of type {config.model_type}; seqmill supports ESM-2 checkpoints")
    esm2.check_config(config, weights.name)
    return config


def load(
    weights: Weights, config: PreTrainedConfig, dtype: torch.dtype, device: torch.device, requested_attention: str
) -> tuple[Model, attention.Kernel]:
    """Load a checkpoint through transformers and turn it into the packed model on `device`.

    Raises:
        UserError: weights missing or of another shape, or the requested attention kernel does not work.
        torch.OutOfMemoryError: the weights do not fit on the device.
    """
    heads = config.num_attention_heads
    kernel = attention.choose(requested_attention, device, dtype, heads, config.hidden_size // heads)
    source = _load_checkpoint(weights, dtype)
    return esm2.ESM2.from_transformers(source, kernel).to(device), kernel


def _load_checkpoint(weights: Weights, dtype: torch.dtype) -> EsmModel:
    # Its report on keys is judged below, and its progress bar does not belong into logs.
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        source, report = EsmModel.from_pretrained(
            weights.folder,
            dtype=dtype,
            add_pooling_layer=False,
            local_files_only=True,
            weights_only=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
        )
    except Exception as error:  # safetensors, pickle and zip files each fail in their own ways
        if is_oom(error):
            raise
        raise UserError(
            f"model {weights.name}: the weights cannot be loaded ({first_line(error)}); get them again"
        ) from None
    # The contact head takes no part in embeddings, and some checkpoints come without it.
    missing = sorted(key for key in report["missing_keys"] if not key.startswith("contact_head."))
    # transformers fills these at random, or drops them, and goes on.
    strange = sorted(
        [key for key, *_ in report["mismatched_keys"] if not key.startswith("contact_head.")]
        + [key for key in report["unexpected_keys"] if ".layer." in key and "rotary" not in key]
    )
    if strange:
        raise UserError(
            f"model {weights.name}: the weights do not fit config.json, {strange[0]} for one; get both again"
        )
    if missing:
        raise UserError(
            f"model {weights.name}: the checkpoint lacks {len(missing)} tensors, {missing[0]} first; get it again"
        )
    return source


def choose_dtype(requested: str, device: torch.device) -> tuple[torch.dtype, str]:
    """The dtype to compute in, and why: bfloat16 from Ampere on, float16 on older GPUs, float32 on the CPU."""
    if requested != "auto":
        return DTYPES[requested], "as requested"
    if device.type != "cuda":
        return torch.float32, "auto because this runs on the CPU"
    if torch.cuda.get_device_capability(device) >= (8, 0):
        return torch.bfloat16, "auto because this GPU computes bfloat16 at full rate"
    return torch.float16, "auto because this GPU has no fast bfloat16"


def resolve_layers(requested: Sequence[int], layer_count: int) -> tuple[int, ...]:
    """Absolute layer numbers, ascending and distinct; -1 is the last, 0 the embeddings.

    Raises:
        UserError: the model has no such layer.
    """
    for layer in requested:
        if not -layer_count - 1 <= layer <= layer_count:
            raise UserError(f"layers: there is no layer {layer}; this model has 0 (embeddings) to {layer_count} (last)")
    return tuple(sorted({layer % (layer_count + 1) for layer in requested}))
