"""From letters to tokens, one for each letter; and the special tokens around those of any tokenizer."""

from collections.abc import Mapping, Sequence

import numpy as np

from seqmill.inputs.sequences import Sequences


def write_special(out: np.ndarray, counts: np.ndarray, before: Sequence[int], after: Sequence[int]) -> np.ndarray:
    """Write the special tokens around each of some sequences; returns (T,) bool, where their content goes.

    Args:
        out: (T,) to be filled, sequences end to end.
        counts: (S,) tokens of each, special ones included.
        before, after: special tokens of each.
    """
    ends = np.cumsum(counts)
    special = [(ends - counts + place, token) for place, token in enumerate(before)]
    special += [(ends - len(after) + place, token) for place, token in enumerate(after)]
    content = np.ones(len(out), dtype=bool)
    for slots, token in special:
        content[slots] = False
        out[slots] = token
    return content


class LetterTokenizer:
    """A token per letter, between special tokens. Implements `family.Tokenizer`.

    Args:
        vocabulary: the tokens in the order of their ids; those of one character stand for that letter.
        unknown, padding: tokens for every other byte, and for the slots behind the last sequence.
        before, after: special tokens around each sequence.
        aliases: letters that have the token of another one.
    """

    dtype = np.dtype(np.uint8)
    single_letters = True

    def __init__(
        self,
        vocabulary: Sequence[str],
        unknown: str,
        padding: str,
        before: Sequence[str],
        after: Sequence[str],
        aliases: Mapping[str, str] | None = None,
    ):
        self.table = np.full(256, vocabulary.index(unknown), dtype=self.dtype)
        for token_id, token in enumerate(vocabulary):
            if len(token) == 1:
                self.table[ord(token)] = token_id
        for letter, other in (aliases or {}).items():
            self.table[ord(letter)] = self.table[ord(other)]
        self.padding = vocabulary.index(padding)
        self.before = [vocabulary.index(token) for token in before]
        self.after = [vocabulary.index(token) for token in after]
        self.leading, self.trailing = len(before), len(after)

    def tokens(self, sequences: Sequences) -> "LetterTokens":
        """See `family.Tokenizer.tokens`."""
        return LetterTokens(self, sequences)


class LetterTokens:
    """Looked up batch by batch, which takes no time. Implements `family.Tokens`."""

    def __init__(self, tokenizer: LetterTokenizer, sequences: Sequences):
        self.tokenizer, self.sequences = tokenizer, sequences
        self.counts = np.diff(sequences.offsets) + tokenizer.leading + tokenizer.trailing

    def write(self, first: int, last: int, out: np.ndarray) -> None:
        """See `family.Tokens.write`."""
        tokenizer, offsets = self.tokenizer, self.sequences.offsets
        content = write_special(out, self.counts[first:last], tokenizer.before, tokenizer.after)
        out[content] = tokenizer.table[self.sequences.letters[offsets[first] : offsets[last]]]

    def starts(self, first: int, last: int) -> np.ndarray:
        """See `family.Tokens.starts`."""
        lengths = np.diff(self.sequences.offsets[first : last + 1])
        return np.concatenate([np.arange(length, dtype=np.int32) for length in [0, *lengths.tolist()]])
