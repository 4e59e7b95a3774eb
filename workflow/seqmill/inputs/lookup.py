"""What a user calls a record: in a shard, whose records have hashes for ids, what the input calls it."""

import re
from contextlib import suppress
from pathlib import Path

from seqmill.inputs.record import HASH, SHOWN, shown


def called(name: str, fasta: Path | None) -> str:
    """The id of a record in quotes, for messages.

    Args:
        name: its id in the file.
        fasta: the file; of a shard the first record of the input with this sequence is named, if the table of records is
            beside it. None where there is no file.
    """
    if fasta is None or not re.fullmatch("[0-9a-f]{64}", name):
        return f"'{shown(name, SHOWN)}'"
    found = None
    # There is something to say that matters more than a table that is missing or damaged.
    with suppress(OSError, ValueError, KeyError):
        found = _first_with(name, fasta.parent)
    if found is None:
        return f"'{name}' (the {HASH} of records in records.parquet and index.parquet)"
    return f"'{shown(found, SHOWN)}'"


def _first_with(digest: str, shards: Path) -> str | None:
    """The id of the first record with a sequence; the table is read in parts, as it may be large."""
    # Only here: a job that goes well need not wait for them.
    import pyarrow as pa
    import pyarrow.compute as pc
    from pyarrow import parquet

    from seqmill.inputs.rounds import RECORDS

    with parquet.ParquetFile(shards / RECORDS) as file:
        kind = file.schema_arrow.field(HASH).type
        is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
        wanted = pa.scalar(digest if is_text else bytes.fromhex(digest), kind)
        for batch in file.iter_batches(columns=["id", HASH]):
            place = pc.index(batch[HASH], wanted).as_py()
            if place >= 0:
                return batch["id"][place].as_py()
    return None
