"""What the shards of a run have to compute: the sequences assigned to them as the command shard does, in tokens."""

from dataclasses import dataclass

import numpy as np

from seqmill.inputs.shards import assign
from seqmill.inputs.windows import ERROR, FULL, Treatment
from seqmill.planning.outline import Outline


@dataclass(frozen=True)
class Workload:
    """The shards of a run.

    Attributes:
        tokens, squares: (shards,) float64, sums of the tokens of each, and of the squares of its pieces' tokens.
        kept: (shards,) float64, content tokens of each that have a state.
        sequences, letters, costs: (shards,) of each.
        largest: letters of the sequences of the one with the most letters.
        long: sequences that are not taken whole.
    """

    tokens: np.ndarray
    squares: np.ndarray
    kept: np.ndarray
    sequences: np.ndarray
    letters: np.ndarray
    costs: np.ndarray
    largest: np.ndarray
    long: int

    @classmethod
    def of(cls, lengths: np.ndarray, treatment: Treatment, model: Outline, shards: int) -> "Workload":
        """Of distinct sequences of so many letters, in so many shards."""
        content = content_tokens(lengths, model)
        pieces, special = treatment.pieces(content), model.family.cost.special_tokens
        if treatment.long in (FULL, ERROR):
            # Without rounding up what a token is on average.
            tokens, long = model.family.cost.tokens(lengths), 0
        else:
            tokens, long = pieces.stop - pieces.start + float(special), int((content > treatment.longest).sum())
        kept = pieces.kept_of_sequences.astype(np.float64) if long else tokens - special
        _, cost = model.family.treated(treatment)
        costs = cost(lengths)
        assigned = assign(lengths, costs, shards) if shards > 1 else [np.arange(len(lengths))]

        def of_pieces(values: np.ndarray) -> np.ndarray:
            return summed(np.add.reduceat(values, pieces.begins[:-1]) if len(lengths) else values)

        def summed(values: np.ndarray) -> np.ndarray:
            return np.array([values[indices].sum() for indices in assigned], np.float64)

        letters = summed(lengths)
        sequences = np.array([len(indices) for indices in assigned])
        largest = lengths[assigned[int(letters.argmax())]]
        return cls(
            of_pieces(tokens), of_pieces(tokens**2), summed(kept), sequences, letters, summed(costs), largest, long
        )

    @property
    def imbalance(self) -> float:
        """How much longer the slowest shard takes than the mean one."""
        return float(self.costs.max() / self.costs.mean() - 1) if self.costs.any() else 0.0


def content_tokens(lengths: np.ndarray, model: Outline) -> np.ndarray:
    """(S,) int64, tokens of sequences without special ones."""
    return np.ceil(lengths / model.family.letters_per_token).astype(np.int64)


def longest_piece(longest: int, treatment: Treatment, model: Outline) -> int:
    """Tokens of the longest piece, special ones included, where the longest sequence has so many letters."""
    content = int(content_tokens(np.array([longest]), model)[0])
    return min(content, treatment.longest or content) + model.family.cost.special_tokens
