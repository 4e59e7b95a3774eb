"""From per-token states to what is stored: vectors per sequence, and states per residue."""

from collections.abc import Sequence

import torch

from seqmill.batches import Batch
from seqmill.operators import Operators

CHOICES = ("mean", "bos", "residues")


def mean(states: torch.Tensor, batch: Batch, compute: Operators) -> torch.Tensor:
    """Mean over residues, without the special tokens: (T, D) to (S, D), float32."""
    return compute.mean(states, batch.cu_seqlens)


def bos(states: torch.Tensor, batch: Batch, compute: Operators) -> torch.Tensor:
    """The state of the begin token: (T, D) to (S, D), float32."""
    return states[batch.cu_seqlens[:-1].long()].float()


def residues(states: torch.Tensor, batch: Batch, compute: Operators) -> torch.Tensor:
    """The states of all residues, without special tokens and filler: (T, D) to (R, D).

    bfloat16, which HDF5 has no type for, becomes float16.
    """
    dtype = torch.float16 if states.dtype == torch.bfloat16 else states.dtype
    return states.index_select(0, batch.residues()).to(dtype)


POOLINGS = {"mean": mean, "bos": bos, "residues": residues}


def dataset_names(layers: Sequence[int], poolings: Sequence[str]) -> dict[str, tuple[int, str]]:
    """What each dataset of the result holds: its name to (layer, pooling).

    One layer gives the pooling's plain name (`mean`), several give one dataset each (`mean_layer30`).
    """
    if len(layers) == 1:
        return {pooling: (layers[0], pooling) for pooling in poolings}
    return {f"{pooling}_layer{layer}": (layer, pooling) for layer in layers for pooling in poolings}
