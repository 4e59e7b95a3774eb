"""Tables that are written a part at a time: text with tabs, or parquet."""

from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import parquet

from seqmill.errors import UserError
from seqmill.files import write_atomically

SUFFIXES = (".tsv", ".parquet")
# They would end a cell or a line.
BREAKS = r"[\t\r\n]"


def check_name(path: Path) -> None:
    """Refuse a table whose name does not say what it is."""
    if path.suffix not in SUFFIXES:
        raise UserError(f"{path}: give the table a name that ends in {' or '.join(SUFFIXES)}")


def write(path: Path, schema: pa.Schema, tables: Iterable[pa.Table]) -> int:
    """Write tables one after the other into one file; returns the number of rows.

    Raises:
        UserError: the disk is full, or the name does not say what kind of table it is to be.
    """
    check_name(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_atomically(path) as temporary:
        if path.suffix == ".parquet":
            return _write_parquet(temporary, schema, tables)
        return _write_text(temporary, schema, tables)


def _write_parquet(path: Path, schema: pa.Schema, tables: Iterable[pa.Table]) -> int:
    rows = 0
    with parquet.ParquetWriter(path, schema) as writer:
        for table in tables:
            writer.write_table(table)
            rows += len(table)
    return rows


def _write_text(path: Path, schema: pa.Schema, tables: Iterable[pa.Table]) -> int:
    rows = 0
    with path.open("w", encoding="utf-8") as file:
        file.write("\t".join(schema.names) + "\n")
        for table in tables:
            cells = [_text(table[name]) for name in schema.names]
            lines = pc.binary_join_element_wise(*cells, pa.scalar("\t", pa.large_string()))
            file.writelines(f"{line}\n" for line in lines.to_pylist())
            rows += len(table)
    return rows


def _text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column's cells as text; those that begin with a quotation mark are quoted, as readers of tables expect."""
    text = column.cast(pa.large_string())
    if not pa.types.is_large_string(column.type):
        return text
    text = pc.replace_substring_regex(text, BREAKS, " ")
    quoted = pc.replace_substring(text, '"', '""')
    mark = pa.scalar('"', pa.large_string())
    quoted = pc.binary_join_element_wise(mark, quoted, mark, pa.scalar("", pa.large_string()))
    return pc.if_else(pc.starts_with(text, '"'), quoted, text)
