"""Where the values of each record of a merge come from."""

from collections.abc import Sequence

import numpy as np

from seqmill.outputs.layout import offsets
from seqmill.outputs.source import Source


class Places:
    """Record i is sequence `rows[i]` of source `sources[i]`; several records may be the same one.

    Args:
        files: the sources.
        sources: (records,) numbers of sources.
        rows: (records,) the sequence's row there.

    Attributes:
        order: (records,) the records, by source and row: the order in which values arrive.
        rows: (records,) their rows in that order.
    """

    def __init__(self, files: Sequence[Source], sources: np.ndarray, rows: np.ndarray):
        self.files = files
        starts = offsets(np.array([file.count for file in files]))
        keys = starts[sources] + rows
        order = np.argsort(keys)
        self._bounds = np.searchsorted(keys, starts, sorter=order)
        # Half of what argsort gives: there are tens of millions.
        self.order = order.astype(np.int32) if len(order) < 2**31 else order
        self.rows = rows[self.order]

    def of(self, source: int) -> tuple[np.ndarray, np.ndarray]:
        """Records that are of a source, and their rows there, ascending."""
        own = slice(self._bounds[source], self._bounds[source + 1])
        return self.order[own], self.rows[own]

    def is_whole(self, source: int) -> bool:
        """Whether all sequences of a source are among the records."""
        _, rows = self.of(source)
        return len(rows) > 0 and np.count_nonzero(np.diff(rows)) + 1 == self.files[source].count

    def token_counts(self) -> np.ndarray:
        """(records,) content tokens of each, where a dataset is per token."""
        counts = np.zeros(len(self.order), np.int64)
        for number, file in enumerate(self.files):
            records, rows = self.of(number)
            counts[records] = file.token_counts(rows)
        return counts
