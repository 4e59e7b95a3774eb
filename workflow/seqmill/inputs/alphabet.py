"""Alphabets: which letters a sequence may have, and what is said of those that it may not."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

UPPER = bytes.maketrans(b"abcdefghijklmnopqrstuvwxyz", b"ABCDEFGHIJKLMNOPQRSTUVWXYZ")
# Letters at the start of a sequence by which most are seen to be of the right kind, and those by which most others are.
LOOKED_AT = (64, 512)
# Of a sequence's letters, so few may be others where it looks like another kind of sequence.
OTHERS = 0.05


@dataclass(frozen=True)
class Alphabet:
    """What sequences a family of models takes.

    Attributes:
        letters: all of them, upper case.
        replacement: the letter for what is not among them.
        member: what a letter stands for, with its article, in messages.
        members: what many letters are.
        mistaken: what a sequence of the wrong kind looks like and what to do, or None for one that may be right.
        written: how else letters may be written: theirs and ours, equally many.
        longest: letters of the longest sequence; None for no limit.
        limit: whose limit that is, in messages.
        decoys: the letters that, but for a share of OTHERS, a sequence consists of if it has none but `letters` and is
            `mistaken`; None where nothing is known of that.
    """

    letters: bytes
    replacement: bytes
    member: str
    members: str
    mistaken: Callable[[bytes], str | None] = lambda _: None
    written: tuple[bytes, bytes] = (b"", b"")
    longest: int | None = None
    limit: str = "this model takes"
    decoys: bytes | None = None

    @cached_property
    def reading(self) -> bytes:
        """The table for `bytes.translate` that raises letters and then does as `read`."""
        return self.read(UPPER)

    @cached_property
    def wrong(self) -> bytes:
        """The table for `bytes.translate` that makes all letters 0 and everything else 1."""
        return bytes(c not in self.letters for c in range(256))

    def read(self, sequence: bytes) -> bytes:
        """The sequence in the alphabet's own writing."""
        return sequence.translate(bytes.maketrans(*self.written)) if self.written[0] else sequence

    def replaced(self, sequence: bytes) -> bytes:
        """The sequence with the replacement for every other letter."""
        return sequence.translate(bytes(c if c in self.letters else self.replacement[0] for c in range(256)))

    def suspects(self, letters: np.ndarray, offsets: np.ndarray) -> np.ndarray:
        """The sequences, by number, that `mistaken` has to be asked about; all others are of the right kind.

        Args:
            letters: (total,) uint8, all sequences end to end, none but the alphabet's in them.
            offsets: (N + 1,) int64, where each begins.
        """
        lengths = np.diff(offsets)
        suspect = np.ones(len(lengths), bool)
        if self.decoys is not None:
            is_other = bytes(c not in self.decoys for c in range(256))
            for width in LOOKED_AT:
                seen = np.flatnonzero(suspect & (lengths >= width))
                if len(seen):
                    windows = np.lib.stride_tricks.sliding_window_view(letters, width)[offsets[seen]]
                    others = np.frombuffer(windows.tobytes().translate(is_other), np.uint8).reshape(-1, width)
                    suspect[seen] = others.sum(axis=1) <= OTHERS * lengths[seen]
        return np.flatnonzero(suspect)


def looks_like_nucleotides(sequence: bytes) -> bool:
    """Whether all four bases are common and hardly anything else is there.

    A protein of 20 residues looks so about once in 10**11; asking for each of the four bases keeps
    low-complexity proteins (runs of N, A or T) out.
    """
    length = len(sequence)
    if length < 20 or len(sequence.translate(None, b"ACGTUN")) > OTHERS * length:
        return False
    bases = (
        sequence.count(b"A"),
        sequence.count(b"C"),
        sequence.count(b"G"),
        sequence.count(b"T") + sequence.count(b"U"),
    )
    return min(bases) >= 0.05 * length


def _not_a_protein(sequence: bytes) -> str | None:
    if looks_like_nucleotides(sequence):
        return (
            "looks like nucleotides; this model embeds proteins, so translate it first (if the model does embed nucleotides, "
            "set model.family)"
        )
    return None


def looks_like_protein(sequence: bytes) -> bool:
    """Whether letters are common that amino acids have and nucleotides, ambiguous ones included, have not.

    A third of an average protein; 20 letters of one hold none of them once in 3,000 times.
    """
    return len(sequence) >= 20 and len(sequence) - len(sequence.translate(None, b"EFILPQ")) > OTHERS * len(sequence)


def _not_nucleotides(sequence: bytes) -> str | None:
    if looks_like_protein(sequence):
        return "looks like a protein; this model embeds nucleotides, so give the gene or the genome"
    return None


# The 20 amino acids, then unknown (X), ambiguous (B, Z), selenocysteine (U) and pyrrolysine (O).
PROTEIN = Alphabet(
    b"ACDEFGHIKLMNPQRSTVWY" + b"XBUZO", b"X", "an amino acid", "residues", _not_a_protein, decoys=b"ACGTUN"
)
# The four bases and unknown (N). RNA is read as DNA. Nothing of these letters looks like a protein.
NUCLEOTIDE = Alphabet(b"ACGTN", b"N", "A, C, G, T, U or N", "bases", _not_nucleotides, (b"U", b"T"), decoys=b"")
