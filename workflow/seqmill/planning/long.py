"""What becomes of long sequences: the pieces that a model is given of each, by `sequences.long`."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from seqmill.planning.outline import Outline

# Letters of the longest sequences that each family was trained on; its authors vouch for no longer ones.
TRAINED = {"ESM-2": 1022, "ESM-1": 1022, "ESM-C": 2046, "T5": 512, "DNABERT": 10_000}


@dataclass(frozen=True)
class Treatment:
    """What `sequences.long` says.

    Attributes:
        name: full, window, truncate or error.
        limit: letters of the longest piece; None where all are taken whole.
        overlap: letters that two windows share.
    """

    name: str
    limit: int | None
    overlap: int

    @classmethod
    def of(cls, sequences: dict[str, Any], model: Outline) -> "Treatment":
        """As the section `sequences` of a configuration has it."""
        name, limit, overlap = (sequences.get(key) for key in ("long", "max_length", "overlap"))
        if name == "full":
            return cls(name, None, 0)
        limit = limit if type(limit) is int else model.alphabet.longest or TRAINED.get(model.family.name, 1022)
        overlap = overlap if type(overlap) is int else 0
        return cls(name, limit, min(overlap, limit - 1))

    def is_long(self, lengths: np.ndarray) -> np.ndarray:
        """(S,) bool, which sequences of so many letters are not taken whole."""
        return lengths > self.limit if self.limit is not None else np.zeros(len(lengths), bool)

    def pieces(self, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What a model is given of sequences of so many letters.

        Returns:
            (S,) int64 pieces of each sequence, and (S,) float64 letters of each of its pieces on average.
        """
        if self.limit is None or self.name == "error":
            return np.ones(len(lengths), np.int64), lengths.astype(float)
        kept = np.minimum(lengths, self.limit)
        if self.name == "truncate":
            return np.ones(len(lengths), np.int64), kept.astype(float)
        step = self.limit - self.overlap
        counts = 1 + np.maximum(-(-(lengths - self.limit) // step), 0)
        return counts, (lengths + (counts - 1) * self.overlap) / counts
