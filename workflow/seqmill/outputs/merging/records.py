"""The records of a merged result: numbers for all, and text only of those that are taken from earlier results."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from seqmill.errors import UserError
from seqmill.inputs import hexadecimal, record_table
from seqmill.inputs.record import HASH
from seqmill.inputs.record_table import SAMPLE
from seqmill.inputs.rounds import PLACE, REUSED_FROM


class Records:
    """The records of a run, or of one sample, in input order.

    Args:
        path: records.parquet.
        sample: None for a run without samples.

    Attributes:
        rows: (records,) int32, in the shard or in the earlier result.
        lengths: (records,) int64, letters.
        reused: of those taken from earlier results `record`, counted from 0, hash, row and REUSED_FROM; None where the table
            knows no earlier results.
        duplicates: how many have the sequence of another one.

    Raises:
        UserError: there is no such sample.
    """

    def __init__(self, path: Path, sample: str | None):
        self._path, self._sample = path, sample
        numbers: dict[str, list[np.ndarray]] = {name: [] for name in (*PLACE, "length")}
        reused, self.duplicates, count = [], 0, 0
        for table in record_table.batches(path, [*numbers, HASH, "duplicate_of", REUSED_FROM], sample):
            for name in numbers.keys() & set(table.column_names):
                numbers[name].append(table[name].to_numpy().astype(np.int64 if name == "length" else np.int32))
            self.duplicates += len(table) - table["duplicate_of"].null_count
            if REUSED_FROM in table.column_names:
                reused.append(_reused(table, count))
            count += len(table)
        if not count:
            raise UserError(f"{path}: has no sample {sample}; its samples are {', '.join(_samples(path))}")
        self.rows, self.lengths = (np.concatenate(numbers.pop(name)) for name in ("row", "length"))
        self._shards = np.concatenate(numbers["shard"])
        self._rounds = np.concatenate(numbers["round"]) if numbers["round"] else None
        self.reused = pd.concat(reused, ignore_index=True) if reused else None

    def __len__(self) -> int:
        return len(self.rows)

    def sources(self, shards: int, earlier: int) -> np.ndarray:
        """(records,) int32, the number of the file that each is taken from: the shards of all rounds, then earlier results.

        Args:
            shards: of each round.
            earlier: the number of the first earlier result.
        """
        numbers = self._shards if self._rounds is None else self._shards + (self._rounds - 1) * shards
        if self.reused is None:
            return numbers
        numbers = numbers.copy()
        codes, _ = pd.factorize(self.reused[REUSED_FROM])
        numbers[self.reused["record"]] = earlier + codes
        return numbers

    def ids(self) -> pa.ChunkedArray:
        """(records,) str."""
        tables = record_table.batches(self._path, ["id"], self._sample)
        return pa.chunked_array([chunk for table in tables for chunk in table["id"].chunks])


def _reused(table: pa.Table, first: int) -> pd.DataFrame:
    is_reused = table[REUSED_FROM].is_valid()
    own = hexadecimal.with_text(table.filter(is_reused))
    columns = {
        "record": first + np.flatnonzero(is_reused.to_numpy()),
        HASH: own[HASH].to_pandas(),
        "row": own["row"].to_numpy(),
        REUSED_FROM: own[REUSED_FROM].to_pandas(),
    }
    return pd.DataFrame(columns)


def _samples(path: Path) -> list[str]:
    tables = record_table.batches(path, [SAMPLE])
    return list(dict.fromkeys(name for table in tables for name in pc.unique(table[SAMPLE]).to_pylist()))
