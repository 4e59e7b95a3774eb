"""The batches of a shard: planned within a number of tokens, packed on demand, prefetched."""

import itertools
import os
from collections.abc import Callable, Iterator
from functools import cached_property, partial

import numpy as np
import torch
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from seqmill.inputs.sequences import Sequences
from seqmill.inputs.windows import Pieces
from seqmill.kernels.packing import Batch
from seqmill.models.family import Tokenizer, Tokens
from seqmill.models.piece_tokens import PieceTokens

# Shapes beyond the batch size (one long sequence alone) are rounded up to this, which keeps tensor cores busy.
SHAPE_MULTIPLE = 64
# Batches that a worker sends at once: each message takes the thread that feeds the GPU a third of a millisecond.
SENT_TOGETHER = 4


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


def filler(tokens: int, tokenizer: Tokenizer) -> Batch:
    """A batch of one sequence of padding tokens, for measuring memory."""
    token_ids = np.full(tokens, tokenizer.padding, dtype=tokenizer.dtype)
    cu_seqlens = torch.tensor([0, tokens], dtype=torch.int32)
    kept = torch.tensor([[0], [0], [tokens], [tokens]], dtype=torch.int32)
    counts, rows = np.array([tokens]), np.zeros(1, dtype=np.int64)
    return Batch(-1, torch.from_numpy(token_ids), cu_seqlens, kept, counts, counts, rows)


class PackedBatches(TorchDataset):
    """The batches of one shard, packed on demand by the DataLoader's workers.

    Args:
        tokens: of the sequences, whole.
        max_tokens: in a batch, special tokens included.
        fill: fill every batch up to `max_tokens`, so that all have one shape; else only as long as needed.
        first: leave out the batches of so many of the longest sequences, which are finished. The others are the same as
            in the whole: the first of them may begin with what is finished, too.
        pieces: of the sequences; None for whole ones.

    Attributes:
        first_piece: the piece with which the first batch begins.
        token_counts: those of the pieces that are not left out.
    """

    def __init__(
        self,
        sequences: Sequences,
        tokens: Tokens,
        tokenizer: Tokenizer,
        max_tokens: int,
        fill: bool,
        first: int = 0,
        pieces: Pieces | None = None,
    ):
        content = tokens.counts - (tokenizer.leading + tokenizer.trailing)
        self.pieces = pieces or Pieces.whole(content)
        self.tokens = tokens if self.pieces.are_whole(content) else PieceTokens(tokens, tokenizer, self.pieces)
        self.tokenizer, self.max_tokens, self.fill, self.first = tokenizer, max_tokens, fill, first
        self.sequence = self.pieces.sequence
        self.rows = sequences.rows[self.sequence]
        # Behind those that an earlier result has.
        origin = int(self.pieces.begins[sequences.known])
        bounds = origin + plan(self.tokens.counts[origin:], max_tokens)
        begun = int(np.searchsorted(bounds, self.pieces.begins[first], side="right")) - 1
        self.first_piece = int(bounds[begun])
        self.bounds = bounds[begun:] - self.first_piece
        self.token_counts = self.tokens.counts[self.first_piece :]

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
        start, stop = (self.first_piece + self.bounds[index : index + 2]).tolist()
        token_counts = self.tokens.counts[start:stop]
        cu_seqlens = np.zeros(len(token_counts) + 1, dtype=np.int32)
        np.cumsum(token_counts, out=cu_seqlens[1:])
        token_ids = np.full(self.shape(index), self.tokenizer.padding, dtype=self.tokenizer.dtype)
        self.tokens.write(start, stop, token_ids[: cu_seqlens[-1]])
        return Batch(
            index,
            torch.from_numpy(token_ids),
            torch.from_numpy(cu_seqlens),
            torch.from_numpy(self._kept(start, stop, cu_seqlens)),
            token_counts,
            self.pieces.kept[start:stop],
            self.rows[start:stop],
        )

    def _kept(self, start: int, stop: int, cu_seqlens: np.ndarray) -> np.ndarray:
        """(4, S) int32, see `Batch.kept`: only the first piece keeps what is before the sequence, only the last what is behind."""
        pieces, numbers = self.pieces, np.arange(start, stop)
        begins, ends = cu_seqlens[:-1], cu_seqlens[1:]
        content = begins + self.tokenizer.leading - pieces.start[start:stop]
        kept_start, kept_stop = content + pieces.kept_start[start:stop], content + pieces.kept_stop[start:stop]
        sequence = self.sequence[start:stop]
        is_first, is_last = numbers == pieces.begins[sequence], numbers + 1 == pieces.begins[sequence + 1]
        kept = (np.where(is_first, begins, kept_start), kept_start, kept_stop, np.where(is_last, ends, kept_stop))
        return np.stack(kept).astype(np.int32)

    def finished(self, index: int) -> int:
        """How many sequences are whole with batch `index` that were not before it."""
        return int(self._whole[index + 1] - self._whole[index])

    @cached_property
    def _whole(self) -> np.ndarray:
        """(batches + 1,) how many sequences are whole before each batch."""
        whole = np.searchsorted(self.pieces.begins, self.first_piece + self.bounds, side="right") - 1
        return np.maximum(whole, self.first)

    def packing_efficiency(self) -> float:
        """Share of the token slots that are not padding."""
        slots = sum(self.shape(index) for index in range(len(self)))
        return float(np.sum(self.token_counts)) / slots if slots else 1.0


class _Arrays(TorchDataset):
    """The same batches as arrays: workers send them as bytes, but each tensor through a socket and a file of its own."""

    def __init__(self, batches: PackedBatches):
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> Batch:
        return _changed(self.batches[index], torch.Tensor.numpy)


def loader(batches: PackedBatches, workers: int, pin_memory: bool) -> Iterator[Batch]:
    """Prefetch batches in order: `workers` processes, each two messages of SENT_TOGETHER batches ahead."""
    loaded = DataLoader(
        _Arrays(batches),
        batch_size=SENT_TOGETHER,
        num_workers=workers,
        prefetch_factor=2 if workers else None,
        collate_fn=_as_is,
        # Forked workers share the shard's letters and tokens; they never touch CUDA.
        multiprocessing_context="fork" if workers else None,
        worker_init_fn=partial(_end_without, os.getpid()),
    )
    for batch in itertools.chain.from_iterable(loaded):
        tensors = _changed(batch, torch.from_numpy)
        yield _changed(tensors, torch.Tensor.pin_memory) if pin_memory else tensors


def _end_without(parent: int, _: int) -> None:
    """End a worker whose parent, the process of that number, was killed before the worker came so far.

    Those that lose theirs later end by themselves: PyTorch's workers look whether it is still the one that they first saw.
    """
    if os.getppid() != parent:
        os._exit(1)


def _changed(batch: Batch, change: Callable) -> Batch:
    """The batch with what goes to the device changed."""
    return batch._replace(
        token_ids=change(batch.token_ids), cu_seqlens=change(batch.cu_seqlens), kept=change(batch.kept)
    )


def _as_is(batches: list[Batch]) -> list[Batch]:
    return batches
