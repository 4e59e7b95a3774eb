"""From letters to tokens."""

from collections.abc import Sequence

import numpy as np

from seqmill.inputs.sequences import Sequences


class LetterTokenizer:
    """A token per letter, between special tokens. Implements `family.Tokenizer`.

    Args:
        vocabulary: the tokens in the order of their ids; those of one character stand for that letter.
        unknown, padding: tokens for every other byte, and for the slots behind the last sequence.
        before, after: special tokens around each sequence.
    """

    dtype = np.dtype(np.uint8)

    def __init__(
        self, vocabulary: Sequence[str], unknown: str, padding: str, before: Sequence[str], after: Sequence[str]
    ):
        self.table = np.full(256, vocabulary.index(unknown), dtype=self.dtype)
        for token_id, token in enumerate(vocabulary):
            if len(token) == 1:
                self.table[ord(token)] = token_id
        self.padding = vocabulary.index(padding)
        self.before = [vocabulary.index(token) for token in before]
        self.after = [vocabulary.index(token) for token in after]
        self.leading, self.trailing = len(before), len(after)

    def counts(self, sequences: Sequences) -> np.ndarray:
        """See `family.Tokenizer.counts`."""
        return np.diff(sequences.offsets) + self.leading + self.trailing

    def encode(self, letters: np.ndarray, lengths: np.ndarray, token_counts: np.ndarray, out: np.ndarray) -> None:
        """See `family.Tokenizer.encode`."""
        ends = np.cumsum(token_counts)
        begins = ends - token_counts
        special = [(begins + place, token) for place, token in enumerate(self.before)]
        special += [(ends - self.trailing + place, token) for place, token in enumerate(self.after)]
        content = np.ones(len(out), dtype=bool)
        for slots, token in special:
            content[slots] = False
            out[slots] = token
        out[content] = self.table[letters]
