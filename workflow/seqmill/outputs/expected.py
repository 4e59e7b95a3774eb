"""Which sequences the shards of an input hold, by its table of records."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from seqmill.errors import UserError
from seqmill.inputs import hexadecimal, record_table, sha256sums
from seqmill.inputs.record import HASH
from seqmill.inputs.rounds import ELSEWHERE
from seqmill.outputs.embedding_file import EmbeddingFile
from seqmill.outputs.layout import offsets
from seqmill.outputs.meta import AGAIN


class Expected:
    """The sequences of all shards: 40 bytes for each, and no table is in memory as a whole.

    Args:
        records: records.parquet of the input, or of each round of samples, in order.
        shards: of each round.

    Raises:
        UserError: the records are damaged or name more shards.
    """

    def __init__(self, records: Sequence[Path], shards: int):
        self.shards = shards
        counts = np.zeros(shards * len(records), np.int64)
        for number, path in enumerate(records):
            sha256sums.verify(path)
            for table in record_table.batches(path, ["shard", "row", "round"]):
                places, rows, _ = self._own(table, number, path)
                np.maximum.at(counts, places, rows + 1)
        # Where the sequences of each shard begin.
        self._starts = offsets(counts)
        self._digests = np.zeros((self._starts[-1], 32), np.uint8)
        self._lengths = np.zeros(self._starts[-1], np.int64)
        for number, path in enumerate(records):
            for table in record_table.batches(path, [HASH, "length", "shard", "row", "round"]):
                places, rows, own = self._own(table, number, path)
                at = self._starts[places] + rows
                hashes = hexadecimal.with_bytes(table)[HASH].combine_chunks()
                self._digests[at] = hexadecimal.content(hashes)[own]
                self._lengths[at] = table["length"].to_numpy()[own]

    def _own(self, table: pa.Table, number: int, path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Shard, counted on from round to round, and row of those records whose sequences a round has itself; which."""
        shards, rows = table["shard"].to_numpy(), table["row"].to_numpy()
        own = shards != ELSEWHERE
        if "round" in table.column_names:
            own &= table["round"].to_numpy() == number + 1
        largest = shards[own].max(initial=ELSEWHERE)
        if largest >= self.shards:
            raise UserError(
                f"{path}: assigns sequences to shard {largest}, but {self.shards} folders were given for it; give all"
            )
        return shards[own] + number * self.shards, rows[own], own

    def refuse_others(self, file: EmbeddingFile, number: int) -> None:
        """Compare the sequences of a shard, the how many-th of all, with these.

        Raises:
            UserError: it holds others.
        """
        own = slice(self._starts[number], self._starts[number + 1])
        ids = file.ids().tolist()
        hashes = self._digests[own].tobytes().hex()
        is_same = set(map(len, ids)) <= {64} and "".join(ids) == hashes
        if not (is_same and np.array_equal(file.lengths, self._lengths[own])):
            raise UserError(f"{file.path}: holds other sequences than this shard of the input; {AGAIN}")
