"""The index of a merged result: the table of records as people need it, written a million rows at a time."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from seqmill.files import write_atomically
from seqmill.inputs import hexadecimal, record_table
from seqmill.inputs.record import HASH
from seqmill.inputs.rounds import REUSED_FROM
from seqmill.outputs.datasets import EMBEDDED, WINDOWS
from seqmill.outputs.index import TEXT

COLUMNS = ["id", "length", HASH, "shard", "row", "duplicate_of", "residues_replaced"]
# Version 0.1 had no such columns in its table of records.
COLUMNS += ["description", "renamed_from"]
# Where there are samples: the round whose shard it is.
COLUMNS += ["round"]
# Where long sequences were not embedded whole.
COLUMNS += [WINDOWS, EMBEDDED]
# Where earlier results are reused: the one that the sequence is taken from, in which `row` counts; then `shard` is -1.
COLUMNS += [REUSED_FROM]
# Of some rows pandas tells the types of all.
EXAMPLES = 1000


def write(path: Path, records: Path, sample: str | None, described: Mapping[str, np.ndarray]) -> None:
    """Write a row per record.

    Args:
        records: records.parquet.
        sample: whose records to take; None for a run without samples.
        described: further columns, values (N,) in the order of the records.

    Raises:
        UserError: the disk is full.
    """
    first, writer = 0, None
    with write_atomically(path) as temporary:
        try:
            for table in record_table.batches(records, COLUMNS, sample):
                table = _completed(table, first, described)
                writer = writer or pq.ParquetWriter(temporary, _schema(table))
                writer.write_table(table.cast(writer.schema))
                first += len(table)
        finally:
            if writer is not None:
                writer.close()


def _completed(table: pa.Table, first: int, described: Mapping[str, np.ndarray]) -> pa.Table:
    table = hexadecimal.with_text(table)
    columns = dict(zip(table.column_names, table.columns, strict=True))
    for name, values in described.items():
        columns[name] = pa.chunked_array([pa.array(values[first : first + len(table)])])
    names = [name for name in COLUMNS if name in columns]
    return pa.table([columns[name] for name in names], names).replace_schema_metadata(table.schema.metadata)


def _schema(table: pa.Table) -> pa.Schema:
    """Of the file, as pandas writes it: whoever reads it there gets the types that the table of records has."""
    example = table[:EXAMPLES].to_pandas()
    # A column of nothing but None would be stored without a type.
    example = example.astype({name: TEXT for name in ("duplicate_of", "renamed_from") if name in example})
    return pa.Schema.from_pandas(example, preserve_index=False)
