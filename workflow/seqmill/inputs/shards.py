"""Distinct sequences, assigned to shards of equal predicted cost."""

import hashlib
import heapq
import tempfile
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pandas as pd

from seqmill.files import reports_full_disk, write_atomically
from seqmill.inputs import outliers, sha256sums
from seqmill.inputs.alphabet import PROTEIN, Alphabet
from seqmill.inputs.fasta import Record
from seqmill.inputs.rounds import PLACE, RECORDS

# The number of a distinct sequence that is not in this round's shards.
ELSEWHERE = -1

# The dtype of text of which some is missing: before pandas 3, "str" made words of None.
TEXT = "str" if int(pd.__version__.split(".")[0]) >= 3 else "string"

Samples = Mapping[str | None, Iterable[Record]]


@dataclass
class Distinct:
    """The distinct sequences of an input and the table of its records.

    Attributes:
        records: one row per input record, in input order: id, length, sequence_sha256, distinct (which
            distinct sequence; ELSEWHERE for one that an earlier round has), duplicate_of (id of the first record of its
            sample with it, or None), residues_replaced, description, renamed_from, sample.
        letters: (total letters,) uint8, the distinct sequences end to end, in order of appearance.
        offsets: (distinct + 1,) int64, where each begins in `letters`.
        hashes: SHA-256 of each distinct sequence, hexadecimal.
        unknown: (distinct,) int64, how many of its letters are unknown.
    """

    records: pd.DataFrame
    letters: np.ndarray
    offsets: np.ndarray
    hashes: list[str]
    unknown: np.ndarray

    @property
    def lengths(self) -> np.ndarray:
        return np.diff(self.offsets)

    def name(self, distinct: int) -> str:
        """The id of the first record with a distinct sequence."""
        return self.records["id"][(self.records["distinct"] == distinct).idxmax()]


def find_distinct(
    samples: Samples, temporary: BinaryIO, earlier: Container[str] = (), unknown: bytes = b"X"
) -> Distinct:
    """Read all records; keep each distinct sequence once, in the file `temporary` and not in memory.

    Args:
        earlier: hashes of the sequences that earlier rounds have, which are left out.
        unknown: the letter that stands for an unknown one.
    """
    number: dict[str, int] = {}
    offsets, counts = [0], []
    rows = []
    for sample, records in samples.items():
        first_id: dict[str, str] = {}
        for record in records:
            digest = hashlib.sha256(record.sequence).hexdigest()
            first = first_id.setdefault(digest, record.id)
            distinct = ELSEWHERE if digest in earlier else number.setdefault(digest, len(number))
            if distinct == len(offsets) - 1:
                temporary.write(record.sequence)
                offsets.append(offsets[-1] + len(record.sequence))
                counts.append(record.sequence.count(unknown))
            about = record.replaced, record.description, record.renamed_from, sample
            duplicate_of = None if first == record.id else first
            rows.append((record.id, len(record.sequence), digest, distinct, duplicate_of, *about))
    temporary.flush()
    columns = ["id", "length", "sequence_sha256", "distinct", "duplicate_of", "residues_replaced"]
    columns += ["description", "renamed_from", "sample"]
    # Otherwise a column of nothing but None would be stored without a type.
    table = pd.DataFrame(rows, columns=columns).astype({"duplicate_of": TEXT, "renamed_from": TEXT})
    letters = np.memmap(temporary, dtype=np.uint8, mode="r") if offsets[-1] else np.empty(0, np.uint8)
    return Distinct(table, letters, np.array(offsets), list(number), np.array(counts, dtype=np.int64))


def assign(lengths: np.ndarray, costs: np.ndarray, shards: int) -> list[np.ndarray]:
    """Split sequences into shards of equal cost, each sorted longest first.

    The longest remaining sequence always goes to the shard with the least to do (Graham's LPT rule), so
    shards differ by at most the cost of one short sequence unless one very long one outweighs all.

    Args:
        lengths: (N,) letters per sequence.
        costs: (N,) relative time for each.

    Returns:
        For each shard the indices of its sequences, int64.
    """
    order = np.argsort(-lengths, kind="stable")
    loads = [(0.0, shard) for shard in range(shards)]
    assigned: list[list[int]] = [[] for _ in range(shards)]
    for index in order.tolist():
        load, shard = heapq.heappop(loads)
        assigned[shard].append(index)
        heapq.heappush(loads, (load + costs[index], shard))
    return [np.array(indices, dtype=np.int64) for indices in assigned]


def imbalance(costs: np.ndarray, assigned: list[np.ndarray]) -> float:
    """How much longer the slowest shard takes than the mean one: 0.02 is 2 %."""
    loads = np.array([costs[indices].sum() for indices in assigned])
    return float(loads.max() / loads.mean() - 1) if loads.any() else 0.0


def write_shards(distinct: Distinct, assigned: list[np.ndarray], folder: Path, earlier: pd.DataFrame | None) -> None:
    """Write `<shard>.fasta` files (headers are sequence hashes), `records.parquet` and their `SHA256SUMS` into `folder`.

    `records.parquet` is `Distinct.records` with `distinct` resolved to `shard` and `row` (place in the shard), and, in
    a round of samples, to `round`.

    Args:
        earlier: see `rounds.places`; None for a run without samples.
    """
    places = np.empty((len(distinct.hashes), 2), dtype=np.int64)
    for shard, indices in enumerate(assigned):
        places[indices] = np.stack([np.full(len(indices), shard), np.arange(len(indices))], axis=1)
        with write_atomically(folder / f"{shard}.fasta") as temporary, temporary.open("wb") as handle:
            for index in indices.tolist():
                start, stop = distinct.offsets[index : index + 2]
                handle.write(b">%s\n%s\n" % (distinct.hashes[index].encode(), distinct.letters[start:stop].tobytes()))
    records = distinct.records.drop(columns=["distinct", "sample"])
    which = distinct.records["distinct"].to_numpy()
    shard_and_row = np.full((len(which), 2), ELSEWHERE, dtype=np.int64)
    shard_and_row[which != ELSEWHERE] = places[which[which != ELSEWHERE]]
    records.insert(3, "shard", shard_and_row[:, 0])
    records.insert(4, "row", shard_and_row[:, 1])
    if earlier is not None:
        records["sample"] = distinct.records["sample"]
        records["round"] = earlier["round"].max() + 1 if len(earlier) else 1
        known = which == ELSEWHERE
        records.loc[known, PLACE] = earlier.loc[records.loc[known, "sequence_sha256"], PLACE].to_numpy()
    with write_atomically(folder / RECORDS) as temporary:
        records.to_parquet(temporary, index=False)
    sha256sums.write(folder, [*(f"{shard}.fasta" for shard in range(len(assigned))), RECORDS])


def shard(
    samples: Samples,
    shards: int,
    folder: Path,
    cost: Callable[[np.ndarray], np.ndarray],
    earlier: pd.DataFrame | None = None,
    alphabet: Alphabet = PROTEIN,
) -> str:
    """Split records into `shards` files in `folder`; returns a one-line summary for people.

    Args:
        samples: the records of each sample; of one without a name in a run without samples.
        cost: letters per sequence to the relative time that the model takes for each.
        earlier: the sequences that earlier rounds have, see `rounds.places`; None for a run without samples.
        alphabet: of the sequences.

    Raises:
        UserError: the disk is full.
    """
    folder.mkdir(parents=True, exist_ok=True)
    unknown = alphabet.replacement
    with reports_full_disk(folder), tempfile.TemporaryFile(dir=folder) as temporary:
        distinct = find_distinct(samples, temporary, () if earlier is None else set(earlier.index), unknown)
        lengths = distinct.lengths
        costs = cost(lengths)
        outliers.warn(lengths, costs, distinct.unknown, unknown, distinct.name)
        assigned = assign(lengths, costs, shards)
        write_shards(distinct, assigned, folder, earlier)
    known = int((distinct.records["distinct"] == ELSEWHERE).sum())
    return (
        f"{len(distinct.records):,} records, {len(lengths):,} distinct sequences, {lengths.sum():,} {alphabet.members} to embed, "
        f"longest {lengths.max(initial=0):,}; {shards} shards, predicted imbalance {imbalance(costs, assigned):.2%}"
        + (f"; {known:,} records have sequences of earlier samples" if known else "")
    )
