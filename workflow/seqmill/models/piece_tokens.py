"""The tokens of pieces of long sequences, each between the special tokens of a sequence."""

import numpy as np

from seqmill.inputs.windows import Pieces
from seqmill.models.family import Tokenizer, Tokens


class PieceTokens:
    """The tokens of P pieces, cut out of those of their sequences. Implements `family.Tokens`, but for `starts`."""

    def __init__(self, tokens: Tokens, tokenizer: Tokenizer, pieces: Pieces):
        self.tokens, self.tokenizer, self.pieces = tokens, tokenizer, pieces
        self.sequence = pieces.sequence
        self.counts = pieces.stop - pieces.start + tokenizer.leading + tokenizer.trailing
        # The last sequence and its tokens: the pieces of one follow each other.
        self._last: tuple[int, np.ndarray] = (-1, np.empty(0))

    def write(self, first: int, last: int, out: np.ndarray) -> None:
        """See `family.Tokens.write`."""
        leading, trailing, at = self.tokenizer.leading, self.tokenizer.trailing, 0
        for piece in range(first, last):
            whole = self._of_sequence(int(self.sequence[piece]))
            content = whole[leading + self.pieces.start[piece] : leading + self.pieces.stop[piece]]
            for part in (whole[:leading], content, whole[len(whole) - trailing :]):
                out[at : at + len(part)] = part
                at += len(part)

    def _of_sequence(self, sequence: int) -> np.ndarray:
        if self._last[0] != sequence:
            whole = np.empty(self.tokens.counts[sequence], self.tokenizer.dtype)
            self.tokens.write(sequence, sequence + 1, whole)
            self._last = sequence, whole
        return self._last[1]
