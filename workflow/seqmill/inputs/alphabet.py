"""Alphabets: which letters a sequence may have, and what is said of those that it may not."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Alphabet:
    """The letters that a family of models takes.

    Attributes:
        name: of the command line.
        letters: all of them, upper case.
        replacement: the letter for what is not among them.
        member: what a letter stands for, with its article, in messages.
        mistaken: what a sequence of the wrong kind looks like and what to do, or None for one that may be right.
    """

    name: str
    letters: bytes
    replacement: bytes
    member: str
    mistaken: Callable[[bytes], str | None] = lambda _: None

    def replaced(self, sequence: bytes) -> bytes:
        """The sequence with the replacement for every other letter."""
        return sequence.translate(bytes(c if c in self.letters else self.replacement[0] for c in range(256)))


def looks_like_nucleotides(sequence: bytes) -> bool:
    """Whether all four bases are common and hardly anything else is there.

    A protein of 20 residues looks so about once in 10**11; asking for each of the four bases keeps
    low-complexity proteins (runs of N, A or T) out.
    """
    length = len(sequence)
    if length < 20 or len(sequence.translate(None, b"ACGTUN")) > 0.05 * length:
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
        return "looks like nucleotides; this model embeds proteins, so translate it first"
    return None


# The 20 amino acids, then unknown (X), ambiguous (B, Z), selenocysteine (U) and pyrrolysine (O).
PROTEIN = Alphabet("protein", b"ACDEFGHIKLMNPQRSTVWY" + b"XBUZO", b"X", "an amino acid", _not_a_protein)
