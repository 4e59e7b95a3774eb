"""What letters sequences consist of, the simplest description that a probe of vectors is compared with."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from seqmill.errors import UserError
from seqmill.inputs.alphabet import Alphabet
from seqmill.inputs.fasta import read_all
from seqmill.inputs.record import SHOWN, Record, shown

LETTERS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ"
# Proteins or nucleotides: whatever the file has was embedded.
ANY = Alphabet(LETTERS, b"X", "a letter", "letters")


def of(table: pd.DataFrame, result: Path, fasta: list[Path]) -> np.ndarray:
    """(n, 27) float64: the share of each letter from A to Z, and the logarithm of the length.

    Args:
        table: the sequences: id, sequence (its hash), length.
        result: the folder of the result, beside which the shards of a run are.
        fasta: the files that were embedded; none: the shards.

    Raises:
        UserError: sequences are missing, or others than those that were embedded.
    """
    if fasta:
        return _counted(table, table["id"], read_all(fasta, ANY, "replace", "number"), ", ".join(map(str, fasta)))
    shards = _shards(result)
    if not shards:
        raise UserError(
            f"{result}: the sequences are needed to compare with their composition, and there are no shards here; give --fasta "
            "with the file that was embedded"
        )
    # Their records are named by the hash.
    records = (record for path in shards for record in read_all([path], ANY, "replace", "number"))
    return _counted(table, table["sequence"], records, str(shards[0].parent))


def _shards(result: Path) -> list[Path]:
    """The shards of the run: beside its result, or of the result of a sample one folder up."""
    for folder in (result, result.parent):
        found = sorted((folder / "shards").rglob("*.fasta"))
        if found := [path for path in found if path.stat().st_size]:
            return found
    return []


def _counted(table: pd.DataFrame, names: pd.Series, records: Iterable[Record], where: str) -> np.ndarray:
    rows = _rows(names)
    counts = np.full((len(table), len(LETTERS)), -1.0)
    for record in _wanted(records, rows):
        letters = np.bincount(np.frombuffer(record.sequence, np.uint8), minlength=128)
        counts[rows[record.id]] = letters[LETTERS[0] : LETTERS[-1] + 1]
    lengths, expected = counts.sum(axis=1), table["length"].to_numpy()
    if (wrong := np.flatnonzero(lengths != expected)).size:
        name = shown(str(table["id"].iloc[wrong[0]]), SHOWN)
        is_missing = counts[wrong[0], 0] < 0
        what = "is missing" if is_missing else f"has {lengths[wrong[0]]:,.0f} letters, not {expected[wrong[0]]:,}"
        raise UserError(f"{where}: '{name}' {what}; give --fasta with the file that was embedded")
    return np.column_stack([counts / lengths[:, None], np.log(lengths)])


def _rows(names: pd.Series) -> dict[str, list[int]]:
    return {str(name): rows.tolist() for name, rows in names.groupby(names).indices.items()}


def _wanted(records: Iterable[Record], rows: dict[str, list[int]]) -> Iterator[Record]:
    return (record for record in records if record.id in rows)
