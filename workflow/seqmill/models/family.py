"""The seam between model families and everything else: tokens in, per-token states out. Imports no torch.

A family is a folder: its sizes and tokens, its network, and a `Family`; and a line in `registry.FAMILIES`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from seqmill.inputs.alphabet import Alphabet
from seqmill.inputs.sequences import Sequences
from seqmill.kernels.needs import AttentionNeeds

if TYPE_CHECKING:
    import torch

    from seqmill.kernels.operators import Kernels
    from seqmill.kernels.packing import Batch
    from seqmill.models.checkpoint import Checkpoint


class Tokenizer(Protocol):
    """How a family turns letters into tokens; nothing else knows of special tokens.

    Attributes:
        dtype: of token ids.
        leading, trailing: special tokens before and after the content of each sequence.
        padding: the token id of the slots behind the last sequence of a batch.
    """

    dtype: np.dtype
    leading: int
    trailing: int
    padding: int

    def counts(self, sequences: Sequences) -> np.ndarray:
        """(N,) int64, tokens per sequence in the order of computing, special ones included. Called once per shard."""
        ...

    def encode(self, letters: np.ndarray, lengths: np.ndarray, token_counts: np.ndarray, out: np.ndarray) -> None:
        """Write the tokens of one batch, in a reader process.

        Args:
            letters: (R,) uint8, the letters of the batch's sequences end to end.
            lengths: (S,) letters per sequence.
            token_counts: (S,) tokens per sequence as `counts` gave them.
            out: (sum of token_counts,) in `dtype`, to be filled.
        """
        ...


class Config(Protocol):
    """The sizes of one model, known before its weights are loaded.

    Attributes:
        layer_count: hidden states are numbered from 0 (embeddings) to this.
        width: size of a hidden state.
        parameter_count: numbers in the weights that are loaded.
        attention: what it needs of an attention kernel.
        operators: the steps of `kernels.operators.Operators` that it uses.
    """

    layer_count: int
    width: int
    parameter_count: int
    attention: AttentionNeeds
    operators: tuple[str, ...]


class Model(Protocol):
    """A loaded model.

    Attributes:
        config, tokenizer: its sizes, and how its letters become tokens.
        kernels: what computes attention and the memory-bound steps; may be exchanged at any time.
    """

    config: Config
    tokenizer: Tokenizer
    kernels: "Kernels"

    def __call__(self, batch: "Batch", layers: Sequence[int]) -> dict[int, "torch.Tensor"]:
        """Hidden states of `layers`, each (T, width), for a batch on the model's device."""
        ...

    def flops(self, token_counts: np.ndarray, layers: int | None = None) -> float:
        """Floating-point operations (a multiply-add is two) for sequences of so many tokens through `layers` layers."""
        ...

    def parameters(self) -> "Iterator[torch.Tensor]":
        """The weights."""
        ...


@dataclass(frozen=True)
class Known:
    """A hub model that was tested: its commit, and the SHA-256 of its weight files."""

    revision: str
    files: Mapping[str, str]


@dataclass(frozen=True)
class Family:
    """What seqmill has to know of a family of models.

    Attributes:
        name: for people.
        accepts: whether a checkpoint is of this family: config.json, and the names of its tensors, which are read
            only when asked for. model_type alone can lie: DNABERT-S says "bert".
        alphabet: what its sequences may hold.
        cost: letters per sequence to relative time, for shards of equal time.
        read_config: config.json and the model's name to its sizes; UserError where they make no sense.
        tokenizer: for a model folder.
        build: the model on the checkpoint's device, from its sizes, tensors, tokenizer and kernels, in a dtype.
        known: hub ids that were tested.
        hub_ids: all that its authors publish.
        files: patterns of the files that a model needs besides config.json and its weights.
    """

    name: str
    accepts: Callable[[Mapping[str, Any], Callable[[], set[str]]], bool]
    alphabet: Alphabet
    cost: Callable[[np.ndarray], np.ndarray]
    read_config: Callable[[Mapping[str, Any], str], Config]
    tokenizer: Callable[[Path], Tokenizer]
    build: "Callable[[Config, Checkpoint, Tokenizer, Kernels, torch.dtype], Model]"
    known: Mapping[str, Known] = field(default_factory=dict)
    hub_ids: tuple[str, ...] = ()
    files: tuple[str, ...] = ("*.json", "vocab.txt")
