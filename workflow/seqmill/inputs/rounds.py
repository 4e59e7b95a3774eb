"""Rounds of samples: which samples each has.

Each round has a folder of shards, `<round>/`, with a table of its records and with samples.json, which is written when
the shards are complete.
"""

from pathlib import Path

from seqmill.errors import UserError
from seqmill.files import read_json, write_json

SAMPLES, RECORDS = "samples.json", "records.parquet"
PLACE = ["round", "shard", "row"]
# The earlier result (see `outputs.earlier`) that a sequence is taken from: its row counts there, and its shard is ELSEWHERE.
REUSED_FROM = "reused_from"
ELSEWHERE = -1


def write(folder: Path, samples: dict[str, list[str]]) -> None:
    """Record the samples of a round and their FASTA files."""
    write_json(folder / SAMPLES, samples)


def read_all(shards: Path) -> dict[int, tuple[dict[str, list[str]], bool]]:
    """For each round by number: its samples with their FASTA files, and whether its table of records is there.

    Raises:
        UserError: a record is damaged.
    """
    found = {}
    for path in shards.glob(f"*/{SAMPLES}"):
        if path.parent.name.isdecimal():
            try:
                found[int(path.parent.name)] = dict(read_json(path)), (path.parent / RECORDS).exists()
            except (OSError, ValueError, TypeError) as error:
                raise UserError(
                    f"{path}: cannot be read ({error}); remove {path.parent}, and its samples are computed again"
                ) from None
    return dict(sorted(found.items()))
