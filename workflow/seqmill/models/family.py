"""The seam between model families and everything else: tokens in, per-token states out. Imports no torch.

A family is a folder: its sizes and tokens, its network, and a `Family`; and a line in `registry.FAMILIES`.
"""

import importlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from seqmill.errors import UserError
from seqmill.inputs.alphabet import Alphabet
from seqmill.inputs.sequences import Sequences
from seqmill.inputs.windows import ERROR, TRUNCATE, WINDOW, Treatment
from seqmill.kernels.needs import AttentionNeeds

if TYPE_CHECKING:
    import torch

    from seqmill.kernels.operators import Kernels
    from seqmill.kernels.packing import Batch
    from seqmill.models.checkpoint import Checkpoint

# Of widths and vocabularies, and of layers. No model is near these, and one that said so would fill the memory before
# its weights are looked at.
MAX_SIZE, MAX_LAYERS = 2**20, 2**10

# Gives the shapes of a checkpoint's tensors by name, which are read only when it is called.
Shapes = Callable[[], Mapping[str, tuple[int, ...]]]
# Letters per sequence (S,) to relative time (S,).
Cost = Callable[[np.ndarray], np.ndarray]


def are_sizes(values: Iterable[Any]) -> bool:
    """Whether all are whole numbers that a model's sizes can be."""
    return all(type(value) is int and 0 < value <= MAX_SIZE for value in values)


def wrong_sizes(name: str) -> UserError:
    """What to raise for a model whose config.json makes no sense."""
    return UserError(f"model {name}: its config.json lacks sizes of the model or has wrong ones; get it again")


class Tokenizer(Protocol):
    """How a family turns letters into tokens; nothing else knows of special tokens.

    Attributes:
        dtype: of token ids.
        leading, trailing: special tokens before and after the content of each sequence.
        padding: the token id of the slots behind the last sequence of a batch.
        single_letters: whether every token of the content stands for one letter.
    """

    dtype: np.dtype
    leading: int
    trailing: int
    padding: int
    single_letters: bool

    def tokens(self, sequences: Sequences) -> "Tokens":
        """The tokens of a shard, called once; may go on working in the background.

        Raises:
            UserError: from here or from what is returned: the tokenizer's files do not fit these sequences.
        """
        ...


class Tokens(Protocol):
    """The tokens of D distinct sequences, in the order of computing.

    Attributes:
        counts: (D,) int64, tokens per sequence, special ones included.
    """

    counts: np.ndarray

    def write(self, first: int, last: int, out: np.ndarray) -> None:
        """Write the tokens of the sequences `first` to `last`, in a reader process.

        Args:
            out: (sum of their counts,) in the tokenizer's dtype, to be filled.
        """
        ...

    def starts(self, first: int, last: int) -> np.ndarray:
        """(content tokens,) int32, where in its sequence the letters of each content token begin."""
        ...


class Config(Protocol):
    """The sizes of one model, known before its weights are loaded.

    Attributes:
        layer_count: hidden states are numbered from 0 (embeddings) to this.
        width: size of a hidden state.
        parameter_count: numbers in the weights that are loaded.
        matrices: those of them that are in the matrices of one layer, with which each of its tokens is multiplied.
        attention: what it needs of an attention kernel.
        operators: the steps of `kernels.operators.Operators` that it uses.
        half: bfloat16 or float16, whichever loses less in this model; what dtype auto takes on GPUs that have both.
        max_tokens: the longest sequence that it can take, special tokens included; None for no limit.
    """

    layer_count: int
    width: int
    parameter_count: int
    matrices: int
    attention: AttentionNeeds
    operators: tuple[str, ...]
    half: str
    max_tokens: int | None


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

    def parameters(self) -> "Iterator[torch.Tensor]":
        """The weights."""
        ...


@dataclass(frozen=True)
class Known:
    """A hub model that was tested: its commit, and the SHA-256 of its weight files."""

    revision: str
    files: Mapping[str, str]


@dataclass(frozen=True)
class CostInTokens:
    """A `Family.cost` that is linear plus quadratic in tokens: the time of so many tokens without attention.

    Attributes:
        par_tokens: the tokens of a sequence for which attention costs as much as the rest of a layer.
        special_tokens: of a sequence.
        letters_per_token: on average.
    """

    par_tokens: float
    special_tokens: int
    letters_per_token: float = 1.0

    def tokens(self, lengths: np.ndarray) -> np.ndarray:
        """(S,) float64, the tokens of sequences of so many letters, special ones included."""
        return lengths / self.letters_per_token + self.special_tokens

    def __call__(self, lengths: np.ndarray) -> np.ndarray:
        """(S,) float64, the relative time of sequences of so many letters."""
        tokens = self.tokens(lengths)
        return tokens * (1 + tokens / self.par_tokens)


def flops(config: Config, token_counts: np.ndarray, layers: int | None = None) -> float:
    """Floating-point operations (a multiply-add is two) for sequences of so many tokens through `layers` layers.

    Args:
        token_counts: (S,).
        layers: all of them if left out.
    """
    tokens = token_counts.astype(np.float64)
    # The width in which a layer compares tokens.
    attended = config.attention.heads * config.attention.head_dim
    depth = config.layer_count if layers is None else layers
    return float((tokens * (2 * config.matrices + 4 * attended * tokens)).sum() * depth)


def built_by(module: str, name: str) -> "Callable[[Config, Checkpoint, Tokenizer, Kernels, torch.dtype], Model]":
    """A `Family.build`: the `from_checkpoint` of a model, which is imported only then.

    Planning and sharding ask for the alphabet and must not wait for torch.
    """

    def build(*arguments: Any) -> Model:
        return getattr(importlib.import_module(module), name).from_checkpoint(*arguments)

    return build


def limited(alphabet: Alphabet, treatment: Treatment, single_letters: bool) -> Alphabet:
    """The alphabet with the limit of length that a treatment of long sequences sets or lifts.

    Args:
        single_letters: whether each token is a letter: otherwise the limit, which is in tokens, is none of letters.
    """
    if treatment.long in (WINDOW, TRUNCATE):
        return replace(alphabet, longest=None)
    if treatment.long == ERROR and single_letters:
        longest = min(treatment.longest, alphabet.longest or treatment.longest)
        return replace(alphabet, longest=longest, limit="sequences.long error and max_length allow")
    return alphabet


@dataclass(frozen=True)
class Family:
    """What seqmill has to know of a family of models.

    Attributes:
        name: for people, and for model.family.
        accepts: whether a checkpoint is of this family: config.json (with a model_type of "" where there is none),
            and the names of its tensors, read only when asked for. model_type alone can lie: DNABERT-S says "bert".
        alphabet: what its sequences may hold.
        cost: letters per sequence to relative time, for shards of equal time, and to tokens.
        read_config: config.json, the model's name and the shapes of its tensors, which are read only when asked for, to
            its sizes; UserError where they make no sense.
        tokenizer: for a model folder and its sizes.
        build: the model on the checkpoint's device, from its sizes, tensors, tokenizer and kernels, in a dtype.
        licence: of the weights with these sizes and this name.
        known: hub ids that were tested.
        hub_ids: all that its authors publish.
        files: patterns of the files that a model needs besides config.json and its weights.
        tokenizer_files: names of those that decide the tokens, so that the model's checksum has to cover them.
        pooling: what is stored where nothing else is asked for.
        trained: tokens of the longest sequences that it was trained on, special ones excluded.
        letters_per_token: on average.
    """

    name: str
    accepts: Callable[[Mapping[str, Any], Callable[[], set[str]]], bool]
    alphabet: Alphabet
    cost: CostInTokens
    read_config: Callable[[Mapping[str, Any], str, Shapes], Config]
    tokenizer: Callable[[Path, Config], Tokenizer]
    build: "Callable[[Config, Checkpoint, Tokenizer, Kernels, torch.dtype], Model]"
    licence: Callable[[Config, str], str]
    known: Mapping[str, Known] = field(default_factory=dict)
    hub_ids: tuple[str, ...] = ()
    files: tuple[str, ...] = ("*.json", "vocab.txt")
    tokenizer_files: tuple[str, ...] = ()
    pooling: tuple[str, ...] = ("mean",)
    trained: int = 1022
    letters_per_token: float = 1.0

    def chosen(self, asked: Sequence[str], auto: str) -> tuple[str, ...]:
        """The representations that are asked for, without repeats; `auto` stands for those that the authors take."""
        return tuple(dict.fromkeys(p for name in asked for p in (self.pooling if name == auto else [name])))

    def treated(self, treatment: Treatment) -> "tuple[Alphabet, Cost]":
        """Alphabet and cost where long sequences are treated so."""
        return (
            limited(self.alphabet, treatment, self.letters_per_token == 1),
            lambda lengths: treatment.cost(self.cost, lengths, self.letters_per_token),
        )
