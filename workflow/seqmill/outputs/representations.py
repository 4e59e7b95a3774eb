"""What can be stored of a sequence: one entry a representation, from per-token states to the values in the file.

Imports no torch, as checking and merging need no more than the names.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch

    from seqmill.kernels.operators import Operators
    from seqmill.kernels.packing import Batch

SEQUENCE, TOKEN = "sequence", "token"
Per = Literal["sequence", "token"]


@dataclass(frozen=True)
class Representation:
    """One way to store what a layer gives.

    Attributes:
        per: whether it has a row per sequence, in float32, or per content token, in half precision where the model
            computes in half precision.
        meaning: for the manual.
        compute: states (T, D), their batch and the operators to (S, D) float32, or to (content tokens, D).
    """

    per: Per
    meaning: str
    compute: "Callable[[torch.Tensor, Batch, Operators], torch.Tensor]"


def _mean(states: "torch.Tensor", batch: "Batch", operators: "Operators") -> "torch.Tensor":
    return operators.mean(states, batch.cu_seqlens, batch.leading, batch.trailing)


def _mean_all(states: "torch.Tensor", batch: "Batch", operators: "Operators") -> "torch.Tensor":
    return operators.mean(states, batch.cu_seqlens, 0, 0)


def _first_token(states: "torch.Tensor", batch: "Batch", _: "Operators") -> "torch.Tensor":
    return states[batch.cu_seqlens[:-1].long()].float()


def _residues(states: "torch.Tensor", batch: "Batch", _: "Operators") -> "torch.Tensor":
    return states.index_select(0, batch.content())


# The names that users write; they are part of a result's fingerprint.
REPRESENTATIONS = {
    "mean": Representation(SEQUENCE, "the mean over residues (DNA: tokens), without special tokens", _mean),
    "mean_all": Representation(SEQUENCE, "the mean over all tokens, special ones too", _mean_all),
    "bos": Representation(SEQUENCE, "the state of the first token", _first_token),
    "residues": Representation(TOKEN, "every residue's (DNA: token's) own state, which is large", _residues),
}
