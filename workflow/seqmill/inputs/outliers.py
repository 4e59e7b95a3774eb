"""Sequences of which a user should know before the work starts: those that take most of the time, and unknown ones."""

import logging
from collections.abc import Callable

import numpy as np

from seqmill.inputs.record import SHOWN, shown

log = logging.getLogger(__name__)

# Of the predicted time of all sequences; shorter ones are never worth a word, however few there are.
LARGE_SHARE, LARGE_LETTERS = 0.1, 2_000
UNKNOWN_SHARE = 0.5
# Sequences in one message.
LISTED = 10
# Letters that are looked at at once, which bounds memory.
BLOCK = 2**22


def warn(
    lengths: np.ndarray, costs: np.ndarray, unknown: np.ndarray, letter: bytes, name: Callable[[int], str]
) -> None:
    """Log a warning about sequences that take much of the time, and one about those that are mostly unknown.

    Args:
        lengths, costs: (N,) letters of each sequence, and its relative time.
        unknown: (N,) how many of its letters are unknown.
        letter: the unknown one.
        name: what a sequence is called, by its number.
    """

    def called(index: int) -> str:
        return shown(name(index), SHOWN)

    shares = costs / max(float(costs.sum()), 1e-9)
    large = np.flatnonzero((shares > LARGE_SHARE) & (lengths > LARGE_LETTERS))
    if len(large):
        log.warning(
            "%s alone %s %.0f %% of the predicted time: %s. If you do not need %s, leave %s out of the FASTA; in the "
            "workflow, with more shards, the other sequences need not wait",
            _count(large),
            "takes" if len(large) == 1 else "take",
            100 * shares[large].sum(),
            _listed(large, shares, lambda index: f"{called(index)} ({lengths[index]:,} letters, {shares[index]:.0%})"),
            *(("it", "it") if len(large) == 1 else ("them", "them")),
        )
    empty = np.flatnonzero(unknown > UNKNOWN_SHARE * lengths)
    if len(empty):
        mark = letter.decode()
        log.warning(
            "%s more than half %s, which says nothing: %s. Unless you need an embedding of each, leave such sequences out of "
            "the FASTA",
            f"{_count(empty)} {'is' if len(empty) == 1 else 'are'}",
            mark,
            _listed(
                empty,
                lengths,
                lambda index: f"{called(index)} ({unknown[index]:,} {mark} of {lengths[index]:,} letters)",
            ),
        )


def count(letters: memoryview | bytes, offsets: np.ndarray, letter: bytes) -> np.ndarray:
    """(N,) int64, how often a letter comes in each of some sequences.

    Args:
        letters: all sequences end to end.
        offsets: (N + 1,) where each begins.
    """
    counts = np.zeros(len(offsets) - 1, dtype=np.int64)
    array = np.frombuffer(letters, np.uint8)
    for start in range(0, len(array), BLOCK):
        places = start + np.flatnonzero(array[start : start + BLOCK] == letter[0])
        sequences, times = np.unique(np.searchsorted(offsets, places, side="right") - 1, return_counts=True)
        counts[sequences] += times
    return counts


def _count(sequences: np.ndarray) -> str:
    return "1 sequence" if len(sequences) == 1 else f"{len(sequences):,} sequences"


def _listed(sequences: np.ndarray, weights: np.ndarray, describe: Callable[[int], str]) -> str:
    """The first ones by weight."""
    first = sequences[np.argsort(-weights[sequences], kind="stable")][:LISTED]
    return ", ".join(map(describe, first.tolist())) + (", ..." if len(sequences) > LISTED else "")
