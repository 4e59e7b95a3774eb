"""How the peers get their sequences, made without seqmill, and the clock that times them."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from common import by_length, total

from seqmill.inputs.fasta import Record
from seqmill.kernels.operators import EAGER

T = TypeVar("T")
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
# All batches are repeated until so many seconds have passed: short runs say little.
LEAST_S = 3.0
ESM2_TOKENS = ("<cls>", "<pad>", "<eos>", "<unk>", *"LAGVSERTIDPKQNFYMHWCXBUZO.-")
T5_TOKENS = ("<pad>", "</s>", "<unk>", *"ALGVSREDTIPKFQNYMHWCX")


class Rate(NamedTuple):
    """Letters (residues or bases) and tokens, special ones included, per second."""

    letters: float
    tokens: float


def rate(embed: Callable, batches: Sequence, letters: int, tokens: int) -> Rate:
    """Time all batches, after three of them as a warm-up.

    Args:
        letters, tokens: in all batches.
    """
    for batch in batches[:3]:
        embed(batch)
    _wait()
    begun, passes, took = time.perf_counter(), 0, 0.0
    while took < LEAST_S:
        for batch in batches:
            embed(batch)
        _wait()
        passes, took = passes + 1, time.perf_counter() - begun
    return Rate(passes * letters / took, passes * tokens / took)


def _wait() -> None:
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


class Letters:
    """A token per letter; letters that are not among the tokens are unknown.

    Args:
        tokens: in the order of their ids.
        before, after, padding, unknown: ids of special tokens around each sequence, and of the others.
    """

    def __init__(self, tokens: Sequence[str], before: list[int], after: list[int], padding: int, unknown: int):
        self.before, self.after, self.padding = before, after, padding
        self.special = len(before) + len(after)
        self.table = np.full(256, unknown, dtype=np.int64)
        for number, token in enumerate(tokens):
            if len(token) == 1:
                self.table[ord(token)] = number

    def __call__(self, sequence: bytes) -> np.ndarray:
        """(tokens,) int64."""
        return np.concatenate([self.before, self.table[np.frombuffer(sequence, np.uint8)], self.after]).astype(np.int64)

    def count(self, proteins: list[Record]) -> int:
        return total(proteins) + self.special * len(proteins)


# ESM-C's ids of letters and special tokens are ESM-2's.
ESM_LETTERS = Letters(ESM2_TOKENS, before=[0], after=[2], padding=1, unknown=3)
# U, Z, O and B become X, as ProtT5's authors do before they tokenize.
T5_LETTERS = Letters(T5_TOKENS, before=[], after=[1], padding=0, unknown=T5_TOKENS.index("X"))


class Padded(NamedTuple):
    """Sequences beside each other: ids (S, longest) int64 and lengths (S,) in tokens, on the host."""

    ids: torch.Tensor
    lengths: torch.Tensor

    @classmethod
    def of(cls, tokens: Sequence[np.ndarray], padding: int) -> "Padded":
        lengths = torch.tensor([len(row) for row in tokens])
        ids = torch.full((len(tokens), int(lengths.max())), padding)
        for row, values in zip(ids, tokens, strict=True):
            row[: len(values)] = torch.from_numpy(values)
        return cls(ids, lengths)

    def to(self, device: torch.device) -> "Padded":
        return Padded(self.ids.to(device), self.lengths.to(device))

    @property
    def mask(self) -> torch.Tensor:
        """(S, longest) int64, one where there is a token."""
        return (torch.arange(self.ids.shape[1], device=self.ids.device) < self.lengths[:, None]).long()

    def mean(self, hidden: torch.Tensor, leading: int, trailing: int) -> torch.Tensor:
        """(S, D) float32 on the host, over the tokens that are neither padding nor special."""
        places = torch.arange(self.ids.shape[1], device=self.ids.device)
        keep = ((places >= leading) & (places < (self.lengths - trailing)[:, None])).unsqueeze(-1)
        return ((hidden.float() * keep).sum(1) / keep.sum(1)).cpu()


class Packed(NamedTuple):
    """Sequences end to end: ids (T,) int64, positions (T,) int64 from 0, cu_seqlens (S + 1,) int32, the longest."""

    ids: torch.Tensor
    positions: torch.Tensor
    cu_seqlens: torch.Tensor
    longest: int

    @classmethod
    def of(cls, tokens: Sequence[np.ndarray]) -> "Packed":
        lengths = [len(row) for row in tokens]
        positions = np.concatenate([np.arange(length) for length in lengths])
        bounds = torch.from_numpy(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))
        return cls(torch.from_numpy(np.concatenate(tokens)), torch.from_numpy(positions), bounds, max(lengths))

    def to(self, device: torch.device) -> "Packed":
        return Packed(*(part.to(device) for part in self[:3]), self.longest)

    def mean(self, hidden: torch.Tensor, leading: int, trailing: int) -> torch.Tensor:
        """(S, D) float32 on the host, over the tokens that are not special."""
        return EAGER.mean(hidden, self.cu_seqlens[:-1] + leading, self.cu_seqlens[1:] - trailing).cpu()


def tokens_of(record: Record) -> int:
    """A token per letter, and two special ones."""
    return len(record.sequence) + 2


def padded_batches(
    items: Iterable[T], tokens: int | None, count: int | None, length: Callable[[T], int] = tokens_of
) -> list[list[T]]:
    """Batches in the order given: at most `count` sequences, or as many as padded hold `tokens`.

    Args:
        length: tokens of an item.
    """
    batches, batch, longest = [], [], 0
    for item in items:
        widest = max(longest, length(item))
        full = len(batch) == count if count else widest * (len(batch) + 1) > tokens
        if batch and full:
            batches.append(batch)
            batch, widest = [], length(item)
        batch.append(item)
        longest = widest
    return [*batches, batch]


def packed_batches(records: Iterable[Record], letters: Letters, tokens: int) -> Iterator[Packed]:
    """Longest first, at most `tokens` a batch; one sequence longer than that goes alone."""
    batch: list[np.ndarray] = []
    for record in by_length(list(records)):
        row = letters(record.sequence)
        if batch and sum(map(len, batch)) + len(row) > tokens:
            yield Packed.of(batch)
            batch = []
        batch.append(row)
    yield Packed.of(batch)


def bpe_tokens(records: list[Record], tokenizer: Path) -> list[np.ndarray]:
    """The token ids of each record by a tokenizer.json, special ones included."""
    from tokenizers import Tokenizer

    made = Tokenizer.from_file(str(tokenizer))
    # DNABERT-S's file cuts and fills everything to 2,000 tokens.
    made.no_truncation()
    made.no_padding()
    encoded = made.encode_batch_fast([record.sequence.decode() for record in records])
    return [np.array(tokens.ids, dtype=np.int64) for tokens in encoded]
