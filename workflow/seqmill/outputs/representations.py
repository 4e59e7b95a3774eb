"""What can be stored of a sequence: one entry a representation, from per-token states to the values in the file.

Imports no torch, as checking and merging need no more than the names.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from seqmill.outputs import joins

if TYPE_CHECKING:
    import torch

    from seqmill.kernels.operators import Operators
    from seqmill.kernels.packing import Batch

SEQUENCE, TOKEN = "sequence", "token"
Per = Literal["sequence", "token"]
LEADING, TRAILING = "leading", "trailing"


@dataclass(frozen=True)
class Representation:
    """One way to store what a layer gives.

    Attributes:
        per: whether it has a row per sequence or per content token.
        meaning: for the manual.
        compute: states (T, D), their batch and the operators to (S, parts * D) float32, or to (content tokens, D).
        join: the values of P pieces (P, parts * D) float32, how many tokens of each count (P,), and where each sequence
            begins among the pieces (S,), to the values of S sequences (S, D). None where rows of pieces are rows of the
            sequence.
        parts: how many rows of D values are computed of a piece; one of them is the result itself.
        counts_special: whether special tokens are among those that count.
        needs: which special token the family's tokenizer has to add, if any.
    """

    per: Per
    meaning: str
    compute: "Callable[[torch.Tensor, Batch, Operators], torch.Tensor]"
    join: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray] | None
    parts: int = 1
    counts_special: bool = False
    needs: Literal["leading", "trailing"] | None = None


def _mean(states: "torch.Tensor", batch: "Batch", operators: "Operators") -> "torch.Tensor":
    return operators.mean(states, batch.kept[1], batch.kept[2])


def _mean_all(states: "torch.Tensor", batch: "Batch", operators: "Operators") -> "torch.Tensor":
    return operators.mean(states, batch.kept[0], batch.kept[3])


def _maximum(states: "torch.Tensor", batch: "Batch", _: "Operators") -> "torch.Tensor":
    # Here, as torch is imported by now.
    from seqmill.kernels.operators import maximum

    return maximum(states, batch.kept[1], batch.kept[2])


def _mean_and_variance(states: "torch.Tensor", batch: "Batch", _: "Operators") -> "torch.Tensor":
    from seqmill.kernels.operators import mean_and_variance

    return mean_and_variance(states, batch.kept[1], batch.kept[2])


def _first_token(states: "torch.Tensor", batch: "Batch", _: "Operators") -> "torch.Tensor":
    return states[batch.kept[0].long()].float()


def _last_token(states: "torch.Tensor", batch: "Batch", _: "Operators") -> "torch.Tensor":
    return states[batch.kept[3].long() - 1].float()


def _residues(states: "torch.Tensor", batch: "Batch", _: "Operators") -> "torch.Tensor":
    return states.index_select(0, batch.content())


def _per_sequence(meaning: str, compute: Callable, join: Callable, **details: object) -> Representation:
    return Representation(SEQUENCE, meaning, compute, join, **details)


# The names that users write; they are part of a result's fingerprint.
REPRESENTATIONS = {
    "mean": _per_sequence("mean over residues (DNA: tokens)", _mean, joins.mean),
    "mean_all": _per_sequence("mean over all tokens, special ones too", _mean_all, joins.mean, counts_special=True),
    "max": _per_sequence("largest values over residues", _maximum, joins.maximum),
    "std": _per_sequence(
        "standard deviation over residues (divisor: their number)",
        _mean_and_variance,
        joins.standard_deviation,
        parts=2,
    ),
    "cls": _per_sequence("state of the token before them", _first_token, joins.first, needs=LEADING),
    "bos": _per_sequence("older name of cls", _first_token, joins.first, needs=LEADING),
    "eos": _per_sequence("state of the token behind them", _last_token, joins.last, needs=TRAILING),
    "residues": Representation(TOKEN, "each one's state: large", _residues, join=None),
}
