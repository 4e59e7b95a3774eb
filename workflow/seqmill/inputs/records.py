"""records.parquet: a row for each record of an input, and where its sequence is."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from seqmill.inputs import hexadecimal
from seqmill.inputs.distinct import Distinct
from seqmill.inputs.known import Known
from seqmill.inputs.record import HASH
from seqmill.inputs.rounds import REUSED_FROM

# Rows that are made at once; those of a row group.
ROWS = 2**20


@dataclass(frozen=True)
class Places:
    """Where the sequences of an input are.

    Attributes:
        shard, row: (known + D,) int64, of each sequence of a `Distinct`.
        round: (known + D,) int64, in which round of samples its shard is; None without samples.
        reused_from: (known + D,) text, the earlier result that has it, else null; None where none are reused.
    """

    shard: np.ndarray
    row: np.ndarray
    round: np.ndarray | None
    reused_from: pa.LargeStringArray | None

    @classmethod
    def of(cls, known: Known, shard: np.ndarray, row: np.ndarray, number: int | None) -> "Places":
        """Of known sequences, and of D in shards; of the round with this number, None without samples."""
        rounds = None if number is None else np.append(known.round, np.full(len(row), number))
        reused = known.reused_from
        if reused is not None:
            reused = pa.concat_arrays([reused, pa.nulls(len(row), pa.large_string())])
        return cls(np.append(known.shard, shard), np.append(known.row, row), rounds, reused)


def write(file: BinaryIO, distinct: Distinct, places: Places) -> None:
    """Write the table of records."""
    tables = _tables(distinct, places)
    first = next(tables)
    with pq.ParquetWriter(file, first.schema) as writer:
        writer.write_table(first)
        for table in tables:
            writer.write_table(table)


def _tables(distinct: Distinct, places: Places) -> Iterator[pa.Table]:
    """Some rows after the other; one table even where there are none."""
    records, first = distinct.records, distinct.records.first()
    names = pa.array([name for name, _ in records.samples], pa.large_string())
    ends = np.cumsum([size for _, size in records.samples])
    for start in range(0, max(len(records), 1), ROWS):
        rows = np.arange(start, min(start + ROWS, len(records)))
        part = slice(start, start + ROWS)
        numbers = records.numbers[part]
        firsts = pa.array(first[part], mask=first[part] == rows)
        columns = {
            "id": records.ids[part],
            "length": records.lengths[part],
            HASH: hexadecimal.as_column(distinct.hashes[numbers]),
            "shard": places.shard[numbers],
            "row": places.row[numbers],
            "duplicate_of": records.ids.take(firsts),
            "residues_replaced": records.replaced[part],
            "description": records.descriptions[part],
            "renamed_from": records.renamed_from[part],
        }
        if places.round is not None:
            own = names.take(pa.array(np.searchsorted(ends, rows, side="right")))
            columns |= {"sample": own, "round": places.round[numbers]}
        if places.reused_from is not None:
            columns[REUSED_FROM] = places.reused_from.take(pa.array(numbers))
        yield pa.table(columns)
