"""The table of records, records.parquet, read a million rows at a time: its strings are many times what they stand for."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

# Rows at a time, and of each row group of an index: what pandas takes for one, too.
ROWS = 2**20
SAMPLE = "sample"


def names(path: Path) -> list[str]:
    """The columns of a table."""
    return pq.read_schema(path).names


def batches(path: Path, columns: Sequence[str], sample: str | None = None) -> Iterator[pa.Table]:
    """Some columns, ROWS rows at a time, the last ones excepted; columns that the table lacks are left out.

    Args:
        sample: whose rows to take; None for all.
    """
    with pq.ParquetFile(path) as file:
        stored = file.schema_arrow.names
        wanted = [name for name in columns if name in stored]
        read = wanted if sample is None or SAMPLE in wanted else [*wanted, SAMPLE]
        waiting: list[pa.Table] = []
        for batch in file.iter_batches(ROWS, columns=read):
            table = pa.Table.from_batches([batch])
            if sample is not None:
                table = table.filter(pc.equal(table[SAMPLE], sample))
            waiting.append(table.select(wanted))
            while sum(map(len, waiting)) >= ROWS:
                found = pa.concat_tables(waiting)
                yield found[:ROWS]
                waiting = [found[ROWS:]]
        if sum(map(len, waiting)):
            yield pa.concat_tables(waiting)
