"""What a user's table says of sequences: one column, for those that are wanted."""

import csv
import difflib
import gzip
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as parquet

from seqmill.errors import UserError, first_line

BLOCK_ROWS = 500_000
PARQUET = (".parquet", ".pq")
# UniProt's ids: `sp|P0A6F5|CH60_ECOLI`, while its tables have `P0A6F5`.
ACCESSION = re.compile(r"[^|]+\|([^|]+)\|[^|]*")


def read_column(path: Path, column: str, ids: Sequence[str]) -> pd.Series:
    """(N,) the column's values for N ids, as pandas reads them; missing where the table has no value.

    The ids are in the column `id`, or else in the first one; of UniProt's (sp|P0A6F5|CH60_ECOLI) the middle will do.
    Of several rows with one id the first counts.

    Args:
        path: a table with tabs or commas, plain or gzip, or parquet.

    Raises:
        UserError: it cannot be read, or has no such column.
    """
    accessions = [found[1] if (found := ACCESSION.fullmatch(name)) else name for name in ids]
    wanted = {*ids, *accessions}
    values: dict[str, object] = {}
    try:
        for keys, block in _blocks(path, column):
            kept = keys.isin(wanted)
            for key, value in zip(keys[kept].tolist(), block[kept].tolist(), strict=True):
                values.setdefault(key, value)
    except (OSError, ValueError, EOFError, csv.Error, pa.ArrowException) as error:
        raise UserError(
            f"results.metadata: {path} cannot be read as a table ({first_line(error)}); give a table with tabs (.tsv) or "
            "commas (.csv), or parquet"
        ) from None
    found = pd.Series(
        [values.get(name, values.get(other)) for name, other in zip(ids, accessions, strict=True)], dtype=object
    )
    return found.infer_objects()


def _blocks(path: Path, column: str) -> Iterator[tuple[pd.Series, pd.Series]]:
    """The ids and the values, block by block."""
    if path.suffix.lower() in PARQUET:
        file = parquet.ParquetFile(path)
        key = _key(path, file.schema_arrow.names, column)
        for batch in file.iter_batches(BLOCK_ROWS, columns=list({key, column})):
            block = batch.to_pandas()
            yield block[key].astype(str).str.strip(), block[column]
        return
    separator = _separator(path)
    names = pd.read_csv(path, sep=separator, nrows=0, dtype=str).columns
    key = _key(path, [str(name) for name in names], column)
    options = {
        "sep": separator,
        "usecols": list({key, column}),
        "dtype": str,
        "index_col": False,
        "chunksize": BLOCK_ROWS,
    }
    # An id may be called NA or null.
    for block in pd.read_csv(path, keep_default_na=False, **options):
        yield block[key].str.strip(), block[column]


def _separator(path: Path) -> str:
    """By the name, or else by the first line."""
    name = path.name.lower().removesuffix(".gz")
    if name.endswith(".csv"):
        return ","
    if name.endswith((".tsv", ".tab")):
        return "\t"
    with (gzip.open if path.suffix == ".gz" else open)(path, "rt") as handle:
        return "\t" if "\t" in handle.readline() else ","


def _key(path: Path, names: Sequence[str], column: str) -> str:
    """The column with the ids."""
    if column not in names:
        close = difflib.get_close_matches(column, names, 1)
        advice = f"did you mean {close[0]}?" if close else f"its columns are {', '.join(names[:20])}"
        raise UserError(f"results.color: {path} has no column {column}; {advice}")
    return next((name for name in names if name.lower() == "id"), names[0])
