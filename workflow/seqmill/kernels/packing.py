"""Packed batches: sequences end to end, no padding between them, in tokens."""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch


class Batch(NamedTuple):
    """Sequences, or pieces of long ones, packed into T token slots.

    Attributes:
        index: which batch of the shard.
        token_ids: (T,) in the tokenizer's dtype: sequences end to end, each with its special tokens, then padding.
        cu_seqlens: (S + 1,) int32, where sequences begin; the last entry is where the padding begins.
        kept: (4, S) int32, the slots of each sequence whose states count: from kept[0] to kept[3] with its special tokens,
            from kept[1] to kept[2] without. Of a whole sequence that is all of it.
        token_counts: (S,) tokens per sequence, special ones included, a NumPy array: it stays on the host.
        content_counts: (S,) slots per sequence from kept[1] to kept[2], a NumPy array: it stays on the host.
        rows: (S,) which rows of the result these sequences are, a NumPy array: it stays on the host.
    """

    index: int
    token_ids: torch.Tensor
    cu_seqlens: torch.Tensor
    kept: torch.Tensor
    token_counts: np.ndarray
    content_counts: np.ndarray
    rows: np.ndarray

    def to(self, device: torch.device) -> "Batch":
        """The batch with its tensors on `device`, copied without blocking where the memory is pinned."""
        return self._replace(
            token_ids=self.token_ids.to(device, non_blocking=True),
            cu_seqlens=self.cu_seqlens.to(device, non_blocking=True),
            kept=self.kept.to(device, non_blocking=True),
        )

    # Computed on the device of the batch: sending them would take longer than computing them.

    def positions(self) -> torch.Tensor:
        """(T,) int32, from 0 at each sequence's first token; the padding counts on as one more sequence."""
        slots = torch.arange(len(self.token_ids), dtype=torch.int32, device=self.token_ids.device)
        return slots - self.cu_seqlens[_containing(self.cu_seqlens, slots)]

    def content(self) -> torch.Tensor:
        """(C,) int32, the slots that stand for letters and count, in order: no special tokens, no padding."""
        begins, ends = self.kept[1], self.kept[2]
        numbers = torch.arange(int(self.content_counts.sum()), dtype=torch.int32, device=self.token_ids.device)
        # Where each sequence's slots stand among those that are wanted.
        places = torch.cumsum(ends - begins, 0, dtype=torch.int32) - (ends - begins)
        return numbers + (begins - places)[_containing(places, numbers)]

    @property
    def longest(self) -> int:
        """Tokens of the longest sequence."""
        return int(self.token_counts.max())

    @property
    def packing(self) -> "Packing":
        """Where its sequences begin and end, for attention."""
        return Packing(self.cu_seqlens, self.longest, self.token_counts)


def _containing(starts: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """Which of the stretches that begin at `starts` each place lies in, int32."""
    return torch.searchsorted(starts, places, right=True, out_int32=True) - 1


class Group(NamedTuple):
    """Neighbouring sequences that standard attention computes as one dense batch.

    Attributes:
        span: the token slots of all of them.
        shape: (count, longest).
        slots: (count, longest) int64 on the device, the slots of each, beyond a sequence's end its last one again;
            None where all are equally long, so that a view of the span will do.
        mask: (count, 1, 1, longest) bool, which slots are the sequence's own; None likewise.
    """

    span: slice
    shape: tuple[int, int]
    slots: torch.Tensor | None
    mask: torch.Tensor | None


@dataclass(frozen=True)
class Packing:
    """Where the sequences of a packed batch begin and end, in the forms that kernels need.

    Attributes:
        cu_seqlens: (S + 1,) int32 on the device.
        max_seqlen: the longest sequence's tokens.
        token_counts: (S,) tokens of each sequence, on the host.
    """

    cu_seqlens: torch.Tensor
    max_seqlen: int
    token_counts: np.ndarray

    @cached_property
    def groups(self) -> list[Group]:
        """The dense batches of standard attention, made once for all layers."""
        device = self.cu_seqlens.device
        # A GPU wins by few launches and pads a little for that; a CPU wins by not padding.
        waste = 1.0 if device.type == "cpu" else 1.2
        starts = np.concatenate([[0], np.cumsum(self.token_counts)])
        groups = []
        for first, last in similar(self.token_counts, waste):
            counts = self.token_counts[first:last]
            longest = int(counts.max())
            slots = mask = None
            if counts.min() < longest:
                within = np.arange(longest)
                slots = starts[first:last, None] + np.minimum(within, counts[:, None] - 1)
                slots = torch.from_numpy(slots).to(device, non_blocking=True)
                own = (within < counts[:, None])[:, None, None, :]
                mask = torch.from_numpy(own).to(device, non_blocking=True)
            span = slice(int(starts[first]), int(starts[last]))
            groups.append(Group(span, (last - first, longest), slots, mask))
        return groups


def similar(token_counts: np.ndarray, waste: float) -> list[tuple[int, int]]:
    """Cut sequences into stretches that padding to their longest makes at most `waste` times as large."""
    bounds, start = [], 0
    while start < len(token_counts):
        longest = np.maximum.accumulate(token_counts[start:])
        padded = longest * np.arange(1, len(longest) + 1)
        fits = padded <= waste * np.cumsum(token_counts[start:])
        stop = start + (len(fits) if fits.all() else int(np.argmin(fits)))
        bounds.append((start, stop))
        start = stop
    return bounds
