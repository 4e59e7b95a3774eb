"""The batches of a shard: planned within a number of tokens, packed on demand, prefetched."""

import numpy as np
import torch
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from seqmill.inputs.sequences import Sequences
from seqmill.kernels.packing import Batch
from seqmill.models.family import Tokenizer, Tokens

# Shapes beyond the batch size (one long sequence alone) are rounded up to this, which keeps tensor cores busy.
SHAPE_MULTIPLE = 64


def plan(token_counts: np.ndarray, max_tokens: int) -> np.ndarray:
    """Cut sequences, in their order, into batches of at most `max_tokens`; one longer than that goes alone.

    Args:
        token_counts: (N,) tokens per sequence.

    Returns:
        (batches + 1,) int64: batch b holds sequences `bounds[b]` to `bounds[b + 1]`.
    """
    total = np.concatenate([[0], np.cumsum(token_counts)])
    bounds = [0]
    while bounds[-1] < len(token_counts):
        start = bounds[-1]
        stop = int(np.searchsorted(total, total[start] + max_tokens, side="right")) - 1
        bounds.append(max(stop, start + 1))
    return np.array(bounds, dtype=np.int64)


def pack(
    index: int, tokens: Tokens, first: int, last: int, rows: np.ndarray, shape: int, tokenizer: Tokenizer
) -> Batch:
    """Pack the sequences `first` to `last` into `shape` token slots."""
    token_counts = tokens.counts[first:last]
    cu_seqlens = np.zeros(len(token_counts) + 1, dtype=np.int32)
    np.cumsum(token_counts, out=cu_seqlens[1:])
    token_ids = np.full(shape, tokenizer.padding, dtype=tokenizer.dtype)
    tokens.write(first, last, token_ids[: cu_seqlens[-1]])
    return Batch(
        index,
        torch.from_numpy(token_ids),
        torch.from_numpy(cu_seqlens),
        token_counts,
        rows,
        tokenizer.leading,
        tokenizer.trailing,
    )


def filler(tokens: int, tokenizer: Tokenizer) -> Batch:
    """A batch of one sequence of padding tokens, for measuring memory."""
    token_ids = np.full(tokens, tokenizer.padding, dtype=tokenizer.dtype)
    cu_seqlens = torch.tensor([0, tokens], dtype=torch.int32)
    counts, rows = np.array([tokens]), np.zeros(1, dtype=np.int64)
    return Batch(-1, torch.from_numpy(token_ids), cu_seqlens, counts, rows, tokenizer.leading, tokenizer.trailing)


class PackedBatches(TorchDataset):
    """The batches of one shard, packed on demand by the DataLoader's workers.

    Args:
        max_tokens: in a batch, special tokens included.
        fill: fill every batch up to `max_tokens`, so that all have one shape; else only as long as needed.
        first: leave out so many of the longest sequences. If one of the batches of all sequences begins there, the
            batches of the others are the same as in the whole.

    Attributes:
        token_counts: those of the sequences that are not left out.
    """

    def __init__(
        self,
        sequences: Sequences,
        tokens: Tokens,
        tokenizer: Tokenizer,
        max_tokens: int,
        fill: bool,
        first: int = 0,
    ):
        self.sequences, self.tokens, self.tokenizer = sequences, tokens, tokenizer
        self.max_tokens, self.fill, self.first = max_tokens, fill, first
        self.token_counts = tokens.counts[first:]
        self.bounds = plan(self.token_counts, max_tokens)

    def __len__(self) -> int:
        return len(self.bounds) - 1

    def shape(self, index: int) -> int:
        """Token slots of batch `index`."""
        start, stop = self.bounds[index : index + 2]
        tokens = int(self.token_counts[start:stop].sum())
        if self.fill and tokens <= self.max_tokens:
            return self.max_tokens
        return -(-tokens // SHAPE_MULTIPLE) * SHAPE_MULTIPLE if self.fill else tokens

    def __getitem__(self, index: int) -> Batch:
        if not 0 <= index < len(self):
            raise IndexError(index)
        start, stop = (self.first + self.bounds[index : index + 2]).tolist()
        return pack(index, self.tokens, start, stop, self.sequences.rows[start:stop], self.shape(index), self.tokenizer)

    def packing_efficiency(self) -> float:
        """Share of the token slots that are not padding."""
        slots = sum(self.shape(index) for index in range(len(self)))
        return float(np.sum(self.token_counts)) / slots if slots else 1.0


def loader(batches: PackedBatches, workers: int, pin_memory: bool) -> DataLoader:
    """Prefetch batches in order: `workers` processes, two batches ahead each."""
    return DataLoader(
        batches,
        batch_size=None,
        num_workers=workers,
        prefetch_factor=2 if workers else None,
        pin_memory=pin_memory,
        collate_fn=_as_is,
        # Forked workers share the shard's letters and tokens; they never touch CUDA.
        multiprocessing_context="fork" if workers else None,
    )


def _as_is(batch: Batch) -> Batch:
    return batch
