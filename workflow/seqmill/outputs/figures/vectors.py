"""A bounded number of vectors from a result, one per sequence, chosen at random but always the same."""

from dataclasses import dataclass

import numpy as np

from seqmill.outputs.datasets import Dataset
from seqmill.outputs.embedding_file import EmbeddingFile
from seqmill.outputs.figures.style import NotDrawn
from seqmill.outputs.token_means import token_means
from seqmill.units import GIB

# Points that a picture can show and a few seconds can place; and of what width at most.
MOST_ROWS, MOST_BYTES = 50_000, GIB // 2
# Where there are residues only, vectors are made of them, and many times as much is read.
MOST_RESIDUE_BYTES = 2 * GIB
SEED = 0


@dataclass(frozen=True)
class Sample:
    """Some sequences' vectors.

    Attributes:
        rows: (S,) of the result, ascending.
        values: (S, width) float32.
        source: what they are, in words.
    """

    rows: np.ndarray
    values: np.ndarray
    source: str


def take(file: EmbeddingFile) -> Sample:
    """A sample of the vectors that say most of a sequence: the mean of the last layer, where that is stored.

    Raises:
        NotDrawn: the file has neither vectors nor residues.
    """
    # Those without a layer are no states of a model: where tokens start, and the like.
    stored = [dataset for dataset in file.datasets if dataset.layer is not None]
    pooled = [dataset for dataset in stored if not dataset.is_per_token]
    if pooled:
        best = max(pooled, key=_preference)
        rows = choose(len(file.lengths), min(MOST_ROWS, MOST_BYTES // (4 * best.width)))
        values = np.asarray(file.values(best.name)[rows], np.float32)
        return Sample(rows, values, f"{best.representation} of layer {best.layer}")
    if not stored:
        raise NotDrawn("the result holds no embeddings")
    return _averaged(file, max(stored, key=_preference))


def choose(count: int, most: int) -> np.ndarray:
    """At most `most` of `count` rows, ascending: one at random of each of as many equal stretches.

    Files are often sorted, by organism or by length: so no part of them is left out.
    """
    if count <= most:
        return np.arange(count)
    starts = np.linspace(0, count, most + 1).astype(np.int64)
    return np.random.default_rng(SEED).integers(starts[:-1], starts[1:])


def _preference(dataset: Dataset) -> tuple[int, int]:
    order = ("mean_all", "mean")
    representation = order.index(dataset.representation) if dataset.representation in order else -1
    return representation, dataset.layer


def _averaged(file: EmbeddingFile, dataset: Dataset) -> Sample:
    """Means over residues, of sequences that together have no more than MOST_RESIDUE_BYTES of them."""
    with_content = np.flatnonzero(file.token_counts)
    rows = with_content[choose(len(with_content), MOST_ROWS)]
    sizes = file.sequence_bytes(dataset.name, rows)
    if sizes.sum() > MOST_RESIDUE_BYTES:
        # In random order as many as there is room for, at least one.
        order = np.random.default_rng(SEED).permutation(len(rows))
        rows = np.sort(rows[order[: max(int((np.cumsum(sizes[order]) <= MOST_RESIDUE_BYTES).sum()), 1)]])
    return Sample(
        rows, token_means(file, dataset, rows), f"the mean of {dataset.representation} of layer {dataset.layer}"
    )
