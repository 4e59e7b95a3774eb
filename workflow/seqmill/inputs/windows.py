"""What becomes of long sequences: embedded whole, in overlapping windows, or cut off; in tokens, special ones excluded."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from seqmill.errors import UserError

FULL, WINDOW, TRUNCATE, ERROR = "full", "window", "truncate", "error"


@dataclass(frozen=True)
class Treatment:
    """How sequences of more than `longest` tokens are embedded.

    Attributes:
        long: FULL, WINDOW, TRUNCATE or ERROR.
        longest: content tokens that the model gets at once; None where it gets any number.
        overlap: content tokens that neighbouring windows share at least.
    """

    long: str = FULL
    longest: int | None = None
    overlap: int = 0

    @classmethod
    def of(cls, long: str, max_length: int | None, overlap: int | None, trained: int) -> "Treatment":
        """What the settings ask for.

        Args:
            max_length: None is `trained`.
            overlap: None is a quarter of that.
            trained: content tokens that the model was trained on.

        Raises:
            UserError: windows would not get on.
        """
        if long == FULL:
            return cls()
        longest = max_length or trained
        shared = longest // 4 if overlap is None else overlap
        if long == WINDOW and shared >= longest:
            raise UserError(
                f"sequences.overlap is {shared:,} and windows have {longest:,} at most; give a smaller overlap"
            )
        return cls(long, longest, shared if long == WINDOW else 0)

    @property
    def name(self) -> str:
        """As the fingerprint has it. A file without sequences that are too long is embedded in full."""
        words = {WINDOW: f"{WINDOW} {self.longest} overlap {self.overlap}", TRUNCATE: f"{TRUNCATE} {self.longest}"}
        return words.get(self.long, FULL)

    @classmethod
    def read(cls, name: str) -> "Treatment":
        """The treatment of a result with this `name` in its fingerprint."""
        long, *numbers = re.findall(r"[a-z]+(?= \d)|^[a-z]+|\d+", name.replace(" overlap", ""))
        return cls(long, *map(int, numbers))

    def pieces(self, counts: np.ndarray) -> "Pieces":
        """The pieces of sequences of so many content tokens, (S,)."""
        if self.long in (FULL, ERROR) or not (counts > self.longest).any():
            return Pieces.whole(counts)
        if self.long == TRUNCATE:
            return Pieces.whole(np.minimum(counts, self.longest))
        return self._windows(counts)

    def _windows(self, counts: np.ndarray) -> "Pieces":
        """Windows of `longest` tokens, spread evenly; each token counts where it lies most central."""
        longest, step = self.longest, self.longest - self.overlap
        numbers = np.maximum(-(-(counts - self.overlap) // step), 1)
        numbers[counts <= longest] = 1
        begins = np.concatenate([[0], np.cumsum(numbers)])
        sequence = np.repeat(np.arange(len(counts)), numbers)
        place = np.arange(begins[-1]) - begins[sequence]
        own, gaps = counts[sequence], np.maximum(numbers - 1, 1)[sequence]
        start = place * np.maximum(own - longest, 0) // gaps
        stop = np.minimum(start + longest, own)
        is_first, is_last = place == 0, place == numbers[sequence] - 1
        # Between two windows of equal length, where the distances to their middles are equal.
        kept_stop = np.where(is_last, own, (start + np.append(start[1:], 0) + longest + 1) // 2)
        kept_start = np.where(is_first, 0, np.append(0, kept_stop[:-1]))
        return Pieces(begins, start, stop, kept_start, kept_stop)

    def cost(
        self, cost: Callable[[np.ndarray], np.ndarray], lengths: np.ndarray, letters_per_token: float = 1.0
    ) -> np.ndarray:
        """(S,) relative time of sequences of so many letters, (S,), where `cost` gives it for whole ones."""
        if self.long in (FULL, ERROR):
            return cost(lengths)
        pieces = self.pieces(np.ceil(lengths / letters_per_token).astype(np.int64))
        letters = np.minimum((pieces.stop - pieces.start) * letters_per_token, np.repeat(lengths, pieces.numbers))
        return np.add.reduceat(cost(letters), pieces.begins[:-1]) if len(lengths) else cost(lengths)


@dataclass(frozen=True)
class Pieces:
    """P pieces of S sequences, in the order of the sequences; all in content tokens of the sequence.

    Attributes:
        begins: (S + 1,) int64, which piece is the first of each sequence.
        start, stop: (P,) int64, what the model gets of the sequence.
        kept_start, kept_stop: (P,) int64, the tokens whose states are taken from this piece.
    """

    begins: np.ndarray
    start: np.ndarray
    stop: np.ndarray
    kept_start: np.ndarray
    kept_stop: np.ndarray

    @classmethod
    def whole(cls, counts: np.ndarray) -> "Pieces":
        """One piece a sequence: its first `counts` tokens."""
        zeros = np.zeros_like(counts)
        return cls(np.arange(len(counts) + 1), zeros, counts, zeros, counts)

    def are_whole(self, counts: np.ndarray) -> bool:
        """Whether each piece is a whole sequence of so many tokens, (S,)."""
        return np.array_equal(self.stop - self.start, counts)

    @property
    def numbers(self) -> np.ndarray:
        """(S,) pieces of each sequence."""
        return np.diff(self.begins)

    @cached_property
    def sequence(self) -> np.ndarray:
        """(P,) which sequence each piece belongs to."""
        return np.repeat(np.arange(len(self.begins) - 1), self.numbers)

    @cached_property
    def kept(self) -> np.ndarray:
        """(P,) tokens whose states are taken from each piece."""
        return self.kept_stop - self.kept_start

    @property
    def kept_of_sequences(self) -> np.ndarray:
        """(S,) tokens of each sequence that have a state."""
        return self.kept_stop[self.begins[1:] - 1]
