"""Distinct sequences, assigned to shards of equal predicted cost."""

import hashlib
import heapq
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pandas as pd

from seqmill.files import reports_full_disk, write_atomically
from seqmill.inputs import sha256sums
from seqmill.inputs.fasta import Record


@dataclass
class Distinct:
    """The distinct sequences of an input and the table of its records.

    Attributes:
        records: one row per input record, in input order: id, length, sequence_sha256, distinct (which
            distinct sequence), duplicate_of (id of the first record with it, or None), residues_replaced.
        letters: (total letters,) uint8, the distinct sequences end to end, in order of appearance.
        offsets: (distinct + 1,) int64, where each begins in `letters`.
        hashes: SHA-256 of each distinct sequence, hexadecimal.
    """

    records: pd.DataFrame
    letters: np.ndarray
    offsets: np.ndarray
    hashes: list[str]

    @property
    def lengths(self) -> np.ndarray:
        return np.diff(self.offsets)


def find_distinct(records: Iterable[Record], temporary: BinaryIO) -> Distinct:
    """Read all records; keep each distinct sequence once, in the file `temporary` and not in memory."""
    number: dict[str, int] = {}
    first_id: list[str] = []
    offsets = [0]
    rows = []
    for record in records:
        digest = hashlib.sha256(record.sequence).hexdigest()
        distinct = number.setdefault(digest, len(number))
        new = distinct == len(first_id)
        if new:
            first_id.append(record.id)
            temporary.write(record.sequence)
            offsets.append(offsets[-1] + len(record.sequence))
        duplicate_of = None if new else first_id[distinct]
        about = record.replaced, record.description, record.renamed_from
        rows.append((record.id, len(record.sequence), digest, distinct, duplicate_of, *about))
    temporary.flush()
    columns = ["id", "length", "sequence_sha256", "distinct", "duplicate_of", "residues_replaced"]
    columns += ["description", "renamed_from"]
    # Otherwise a column of nothing but None would be stored without a type.
    table = pd.DataFrame(rows, columns=columns).astype({"duplicate_of": "str", "renamed_from": "str"})
    letters = np.memmap(temporary, dtype=np.uint8, mode="r")
    return Distinct(table, letters, np.array(offsets), list(number))


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
    return float(loads.max() / loads.mean() - 1)


def write_shards(distinct: Distinct, assigned: list[np.ndarray], folder: Path) -> None:
    """Write `<shard>.fasta` files (headers are sequence hashes), `records.parquet` and their `SHA256SUMS` into `folder`.

    `records.parquet` is `Distinct.records` with `distinct` resolved to `shard` and `row` (place in the shard).
    """
    shard_of = np.empty(len(distinct.hashes), dtype=np.int64)
    row_of = np.empty(len(distinct.hashes), dtype=np.int64)
    folder.mkdir(parents=True, exist_ok=True)
    for shard, indices in enumerate(assigned):
        shard_of[indices] = shard
        row_of[indices] = np.arange(len(indices))
        with write_atomically(folder / f"{shard}.fasta") as temporary, temporary.open("wb") as handle:
            for index in indices.tolist():
                start, stop = distinct.offsets[index : index + 2]
                handle.write(b">%s\n%s\n" % (distinct.hashes[index].encode(), distinct.letters[start:stop].tobytes()))
    records = distinct.records.drop(columns="distinct")
    records.insert(3, "shard", shard_of[distinct.records["distinct"]])
    records.insert(4, "row", row_of[distinct.records["distinct"]])
    with write_atomically(folder / "records.parquet") as temporary:
        records.to_parquet(temporary, index=False)
    sha256sums.write(folder, [*(f"{shard}.fasta" for shard in range(len(assigned))), "records.parquet"])


def shard(records: Iterable[Record], shards: int, folder: Path, cost: Callable[[np.ndarray], np.ndarray]) -> str:
    """Split `records` into `shards` files in `folder`; returns a one-line summary for people.

    Args:
        cost: letters per sequence to the relative time that the model takes for each.

    Raises:
        UserError: the disk is full.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with reports_full_disk(folder), tempfile.TemporaryFile(dir=folder) as temporary:
        distinct = find_distinct(records, temporary)
        lengths = distinct.lengths
        costs = cost(lengths)
        assigned = assign(lengths, costs, shards)
        write_shards(distinct, assigned, folder)
        return (
            f"{len(distinct.records):,} records, {len(lengths):,} distinct sequences, {lengths.sum():,} residues to embed, "
            f"longest {lengths.max():,}; {shards} shards, predicted imbalance {imbalance(costs, assigned):.2%}"
        )
