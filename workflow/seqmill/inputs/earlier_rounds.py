"""Where the distinct sequences of earlier rounds are; see `rounds`."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq

from seqmill.inputs import hexadecimal, sha256sums
from seqmill.inputs.record import HASH
from seqmill.inputs.rounds import PLACE, REUSED_FROM


def places(paths: Sequence[Path]) -> pd.DataFrame:
    """Where each distinct sequence of some rounds is.

    Args:
        paths: the tables of the rounds' records, in the order of the rounds, from the first.

    Returns:
        A row per distinct sequence, with its hash as the index: round, shard and row, and REUSED_FROM where a round has it.

    Raises:
        UserError: a table is damaged.
    """
    tables = [pd.DataFrame(columns=[HASH, *PLACE]).astype(dict.fromkeys(PLACE, "int64"))]
    tables += [distinct(path, number) for number, path in enumerate(paths, start=1)]
    return pd.concat(tables[1:] or tables, ignore_index=True).set_index(HASH)


def distinct(path: Path, number: int) -> pd.DataFrame:
    """Hash of each distinct sequence of a round, and where it is: round, shard and row.

    The one table of a run without samples is that of round 1. REUSED_FROM is among the columns where it is in the table.

    Raises:
        UserError: the table is damaged.
    """
    sha256sums.verify(path)
    table = read_records(path, [HASH, *PLACE, REUSED_FROM])
    table = table if "round" in table else table.assign(round=1)
    return table[table["round"] == number].drop_duplicates(HASH)


def read_records(path: Path, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """The table of records, with the hashes as hexadecimal digits; of these columns, as far as it has them, or all."""
    stored = pq.read_schema(path).names
    wanted = None if columns is None else [name for name in columns if name in stored]
    table = hexadecimal.with_text(pq.read_table(path, columns=wanted)).to_pandas()
    return table.astype({REUSED_FROM: "string"}) if REUSED_FROM in table else table
