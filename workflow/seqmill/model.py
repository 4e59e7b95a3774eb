"""The seam between model families and everything else: tokens in, per-token states out."""

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
import torch

from seqmill import attention, checkpoint, esm2
from seqmill.batches import Batch, Vocabulary
from seqmill.errors import UserError
from seqmill.operators import Operators
from seqmill.weights import Weights

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


class Model(Protocol):
    """What a model family offers the rest of seqmill.

    Attributes:
        vocabulary: how its letters become tokens.
        layer_count: hidden states are numbered from 0 (embeddings) to this.
        width: size of a hidden state.
        kernel, operators: what computes attention and the memory-bound steps; may be exchanged at any time.
    """

    vocabulary: Vocabulary
    layer_count: int
    width: int
    kernel: attention.Kernel
    operators: Operators

    def __call__(self, batch: Batch, layers: Sequence[int]) -> dict[int, torch.Tensor]:
        """Hidden states of `layers`, each (T, width), for a batch on the model's device."""
        ...

    def flops(self, lengths: np.ndarray, layers: int | None = None) -> float:
        """Floating-point operations to embed sequences of these lengths through the first `layers` layers."""
        ...

    def parameters(self) -> Iterator[torch.Tensor]:
        """The weights."""
        ...


def read_config(weights: Weights) -> esm2.Config:
    """The model's configuration, checked to be of a family that seqmill knows.

    Raises:
        UserError: another architecture, or an unreadable config.json.
    """
    fields = checkpoint.read_config(weights)
    if fields["model_type"] != "esm":
        raise UserError(
            f"model {weights.name}: its config.json is of type {fields['model_type']}; seqmill supports ESM-2 checkpoints"
        )
    return esm2.Config.read(fields, weights.name)


def load(
    weights: Weights, config: esm2.Config, dtype: torch.dtype, device: torch.device, requested_attention: str
) -> tuple[Model, attention.Kernel]:
    """Load a checkpoint as transformers writes it into the packed model on `device`.

    Raises:
        UserError: weights missing or of another shape, or the requested attention kernel does not work.
        torch.OutOfMemoryError: the weights do not fit on the device.
    """
    if device.type == "cpu":
        _settle_mkl()
    kernel = attention.choose(requested_attention, device, dtype, config.num_attention_heads, config.head_dim)
    source = checkpoint.Checkpoint(weights, "esm.", device)
    return esm2.ESM2.from_checkpoint(config, source, kernel, dtype), kernel


def _settle_mkl() -> None:
    """Use the threaded sine and cosine once, for nothing.

    The first time that MKL shares one of them among threads, a thread's part now and then comes out with errors of
    1e-4 (seen with PyTorch 2.13 on two cores, once in five starts of a busy process; never from the second time on).
    """
    angles = torch.zeros(1 << 15)
    angles.cos(), angles.sin()


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
