"""Packed batches: sequences end to end, no padding between them, filled up to a fixed number of tokens."""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from seqmill.fasta import Protein

# Shapes beyond the budget (one long sequence alone) are rounded up to this, which keeps tensor cores busy.
SHAPE_MULTIPLE = 64


@dataclass(frozen=True)
class Vocabulary:
    """How one model family turns letters into tokens.

    Attributes:
        tokens: (256,) uint8, the token of every byte.
        begin, end, padding: the special tokens around each sequence and in the filler.
    """

    tokens: np.ndarray
    begin: int
    end: int
    padding: int


class Batch(NamedTuple):
    """Sequences packed into T token slots.

    Attributes:
        number: which batch of the shard.
        tokens: (T,) uint8, each sequence between its begin and end token, then filler.
        cu_seqlens: (S + 1,) int32, where sequences begin; the last entry is where the filler begins.
        lengths: (S,) residues per sequence, a NumPy array: it stays on the host.
        rows: (S,) which rows of the result these sequences are, a NumPy array: it stays on the host.
    """

    number: int
    tokens: torch.Tensor
    cu_seqlens: torch.Tensor
    lengths: np.ndarray
    rows: np.ndarray

    def to(self, device: torch.device) -> "Batch":
        """The batch with its tensors on `device`, copied without blocking where the memory is pinned."""
        return self._replace(
            tokens=self.tokens.to(device, non_blocking=True), cu_seqlens=self.cu_seqlens.to(device, non_blocking=True)
        )

    # Computed where the batch lies: the host would take longer to send them than a GPU takes to make them.

    def positions(self) -> torch.Tensor:
        """(T,) int32, from 0 at each sequence's begin token; the filler counts on as one more sequence."""
        slots = torch.arange(len(self.tokens), dtype=torch.int32, device=self.tokens.device)
        return slots - self.cu_seqlens[_containing(self.cu_seqlens, slots)]

    def residues(self) -> torch.Tensor:
        """(R,) int32, the slots that hold residues, in order: no begin, end or filler."""
        numbers = torch.arange(int(self.lengths.sum()), dtype=torch.int32, device=self.tokens.device)
        sequences = torch.arange(len(self.cu_seqlens), dtype=torch.int32, device=self.tokens.device)
        # Residue i of sequence s stands 1 + 2s slots further right than among the residues alone.
        return numbers + 2 * _containing(self.cu_seqlens - 2 * sequences, numbers) + 1

    @property
    def longest(self) -> int:
        """Tokens of the longest sequence."""
        return int(self.lengths.max()) + 2


def _containing(starts: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """Which of the stretches that begin at `starts` each place lies in, int32."""
    return torch.searchsorted(starts, places, right=True, out_int32=True) - 1


class Sequences:
    """The sequences of one shard, longest first.

    Attributes:
        ids: names, in the file's order.
        rows: (N,) int64, the file's row of each sequence in longest-first order.
        residues: (total,) uint8, letters end to end, longest sequence first.
        offsets: (N + 1,) int64, where each sequence begins in `residues`.
    """

    def __init__(self, proteins: list[Protein]):
        self.ids = [protein.id for protein in proteins]
        lengths = np.array([len(protein.sequence) for protein in proteins], dtype=np.int64)
        self.rows = np.argsort(-lengths, kind="stable")
        letters = b"".join(proteins[row].sequence for row in self.rows.tolist())
        self.residues = np.frombuffer(letters, dtype=np.uint8)
        self.offsets = np.concatenate([[0], np.cumsum(lengths[self.rows])])

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def lengths(self) -> np.ndarray:
        """(N,) int64, residues per sequence in the file's order."""
        lengths = np.empty(len(self), dtype=np.int64)
        lengths[self.rows] = np.diff(self.offsets)
        return lengths

    def digest(self) -> str:
        """SHA-256 over ids and residues in order, hexadecimal."""
        digest = hashlib.sha256("\n".join(self.ids).encode())
        digest.update(self.lengths.tobytes())
        digest.update(self.residues)
        return digest.hexdigest()


def plan(tokens: np.ndarray, budget: int) -> np.ndarray:
    """Cut sequences, in their order, into batches of at most `budget` tokens; one longer than that goes alone.

    Args:
        tokens: (N,) tokens per sequence.

    Returns:
        (batches + 1,) int64: batch b holds sequences `bounds[b]` to `bounds[b + 1]`.
    """
    total = np.concatenate([[0], np.cumsum(tokens)])
    bounds = [0]
    while bounds[-1] < len(tokens):
        start = bounds[-1]
        stop = int(np.searchsorted(total, total[start] + budget, side="right")) - 1
        bounds.append(max(stop, start + 1))
    return np.array(bounds, dtype=np.int64)


def pack(
    number: int, letters: np.ndarray, lengths: np.ndarray, rows: np.ndarray, shape: int, vocabulary: Vocabulary
) -> Batch:
    """Pack sequences into `shape` token slots.

    Args:
        letters: (R,) uint8, the residues of all sequences end to end.
        lengths: (S,) residues per sequence.
    """
    cu_seqlens = np.zeros(len(lengths) + 1, dtype=np.int32)
    np.cumsum(lengths + 2, out=cu_seqlens[1:])
    tokens = np.full(shape, vocabulary.padding, dtype=np.uint8)
    own = np.ones(cu_seqlens[-1], dtype=bool)
    own[cu_seqlens[:-1]] = own[cu_seqlens[1:] - 1] = False
    tokens[: len(own)][own] = vocabulary.tokens[letters]
    tokens[cu_seqlens[:-1]] = vocabulary.begin
    tokens[cu_seqlens[1:] - 1] = vocabulary.end
    return Batch(number, torch.from_numpy(tokens), torch.from_numpy(cu_seqlens), lengths, rows)


class PackedBatches(Dataset):
    """The batches of one shard, packed on demand by the DataLoader's workers.

    Args:
        budget: tokens in a batch, special tokens included.
        fill: fill every batch up to the budget, so that all have one shape; else only as long as needed.
        first: leave out so many of the longest sequences. The others' batches do not depend on it if a batch of the
            whole begins there.
    """

    def __init__(self, sequences: Sequences, vocabulary: Vocabulary, budget: int, fill: bool, first: int = 0):
        self.sequences = sequences
        self.vocabulary = vocabulary
        self.budget = budget
        self.fill = fill
        self.bounds = first + plan(np.diff(sequences.offsets[first:]) + 2, budget)

    def __len__(self) -> int:
        return len(self.bounds) - 1

    def shape(self, number: int) -> int:
        """Token slots of batch `number`."""
        start, stop = self.bounds[number : number + 2]
        tokens = int(self.sequences.offsets[stop] - self.sequences.offsets[start] + 2 * (stop - start))
        if self.fill and tokens <= self.budget:
            return self.budget
        return -(-tokens // SHAPE_MULTIPLE) * SHAPE_MULTIPLE if self.fill else tokens

    def __getitem__(self, number: int) -> Batch:
        if not 0 <= number < len(self):
            raise IndexError(number)
        start, stop = self.bounds[number : number + 2]
        offsets = self.sequences.offsets[start : stop + 1]
        return pack(
            number,
            self.sequences.residues[offsets[0] : offsets[-1]],
            np.diff(offsets),
            self.sequences.rows[start:stop],
            self.shape(number),
            self.vocabulary,
        )

    def packing_efficiency(self) -> float:
        """Share of the token slots that hold residues or their special tokens."""
        slots = sum(self.shape(number) for number in range(len(self)))
        tokens = np.diff(self.sequences.offsets[self.bounds[0] :]) + 2
        return float(np.sum(tokens)) / slots if slots else 1.0


def loader(batches: PackedBatches, workers: int, pin_memory: bool) -> DataLoader:
    """Prefetch batches in order: `workers` processes, two batches ahead each."""
    return DataLoader(
        batches,
        batch_size=None,
        num_workers=workers,
        prefetch_factor=2 if workers else None,
        pin_memory=pin_memory,
        collate_fn=_as_is,
        # Forked workers share the shard's residues; they never touch CUDA.
        multiprocessing_context="fork" if workers else None,
    )


def _as_is(batch: Batch) -> Batch:
    return batch
