"""The mean of a sequence's states, of results that hold no vector per sequence."""

import numpy as np

from seqmill.outputs.datasets import Dataset
from seqmill.outputs.embedding_file import EmbeddingFile, cut


def token_means(file: EmbeddingFile, dataset: Dataset, rows: np.ndarray) -> np.ndarray:
    """(S, width) float32, the means over the tokens of the sequences `rows`; zeros for a sequence without tokens.

    States are read a stretch of the file at a time, as they may be large.

    Args:
        dataset: one that is per token.
        rows: (S,) row numbers, fastest if they ascend.

    Raises:
        UserError: the file was cut off since it was opened.
    """
    means, done = np.zeros((len(rows), dataset.width), np.float32), 0
    for run in runs(rows):
        for start, stop in cut(file.sequence_bytes(dataset.name, run)):
            places = file.offsets[run[start] : run[stop - 1] + 2]
            states = file.read(dataset, int(places[0]), int(places[-1])).astype(np.float32, copy=False)
            counts = np.diff(places)
            filled = np.flatnonzero(counts)
            sums = np.add.reduceat(states, (places[:-1] - places[0])[filled], axis=0, dtype=np.float64)
            means[done + start + filled] = sums / counts[filled, None]
        done += len(run)
    return means


def runs(rows: np.ndarray) -> list[np.ndarray]:
    """Row numbers, cut where they do not ascend by one: [4, 5, 2] gives [4, 5] and [2]."""
    return np.split(rows, np.flatnonzero(np.diff(rows) != 1) + 1) if len(rows) else []
