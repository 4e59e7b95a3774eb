"""From the results of batches to the values of whole sequences, whose pieces may lie in several batches."""

from collections.abc import Sequence

import numpy as np

from seqmill.engine.batching import PackedBatches
from seqmill.engine.pipeline import BatchResult, NotFinite
from seqmill.outputs.datasets import Dataset
from seqmill.outputs.representations import REPRESENTATIONS


class Assembly:
    """Joins the pieces of sequences, in the order of computing.

    Args:
        batches: whose results it is given, one after the other.
        datasets: what is computed.

    Attributes:
        done: so many sequences are whole.
        first: the piece with which the next result begins.
    """

    def __init__(self, batches: PackedBatches, datasets: Sequence[Dataset]):
        self.pieces, self.rows, self.datasets = batches.pieces, batches.rows, datasets
        self.done, self.first = batches.first, batches.first_piece
        # Values per dataset of the sequence that is not whole yet, a part per batch.
        self.waiting: dict[str, list[np.ndarray]] = {dataset.name: [] for dataset in datasets}
        self.content, begins = self.pieces.kept, self.pieces.begins
        self.all_tokens = self.content.copy()
        self.all_tokens[begins[:-1]] += batches.tokenizer.leading
        self.all_tokens[begins[1:] - 1] += batches.tokenizer.trailing

    def add(self, result: BatchResult) -> tuple[int, dict[str, np.ndarray]]:
        """Take the next batch's results; how many sequences are whole now, and their values per dataset.

        Raises:
            NotFinite: a value is too large for the dtype in which it is stored.
        """
        begins, last = self.pieces.begins, self.first + len(result.batch.rows)
        # Sequences whose last piece is among these; the rest waits.
        whole = max(int(np.searchsorted(begins, last, side="right")) - 1, self.done)
        start, stop = int(begins[self.done]), int(begins[whole])
        values = {dataset.name: self._joined(dataset, result, start, stop, whole) for dataset in self.datasets}
        count, self.done, self.first = whole - self.done, whole, last
        return count, values

    def _joined(self, dataset: Dataset, result: BatchResult, start: int, stop: int, whole: int) -> np.ndarray:
        """A dataset's values of the sequences `self.done` to `whole`, whose pieces are `start` to `stop`."""
        new = result.values[dataset.name]
        # A batch may begin with pieces of sequences that are finished.
        new = new[self._size(dataset, self.first, max(start, self.first)) :]
        begun = max(start, self.first)
        parts = self.waiting[dataset.name]
        taken = self._size(dataset, begun, max(stop, begun))
        if stop <= start:
            # The memory of the results is used again.
            parts.append(new.copy())
            return new[:0]
        values = np.concatenate([*parts, new[:taken]]) if parts else new[:taken]
        self.waiting[dataset.name] = [new[taken:].copy()] if taken < len(new) else []
        representation = REPRESENTATIONS[dataset.representation]
        if representation.join is not None and not (representation.parts == 1 and stop - start == whole - self.done):
            counts = self.all_tokens if representation.counts_special else self.content
            values = representation.join(values, counts[start:stop], self.pieces.begins[self.done : whole] - start)
        return self._stored(dataset, values)

    def _size(self, dataset: Dataset, first: int, last: int) -> int:
        """Rows that some pieces have in a dataset."""
        return int(self.content[first:last].sum()) if dataset.is_per_token else last - first

    def _stored(self, dataset: Dataset, values: np.ndarray) -> np.ndarray:
        """The values in the dtype of the file."""
        if values.dtype == dataset.dtype:
            return values
        with np.errstate(over="ignore"):
            stored = values.astype(dataset.dtype)
        if not np.isfinite(stored).all():
            bad = int(np.flatnonzero(~np.isfinite(stored).all(axis=1))[0])
            raise NotFinite(dataset.name, int(self.rows[self.pieces.begins[self.done + bad]]), dataset.dtype.name)
        return stored
