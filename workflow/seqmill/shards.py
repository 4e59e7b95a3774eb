"""Distinct sequences, dealt to shards of equal predicted cost."""

import hashlib
import heapq
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pandas as pd

from seqmill import sums
from seqmill.fasta import Protein
from seqmill.files import needs_room, write_atomically

# Attention costs as much as the rest of a layer at about this many tokens: 6 x hidden size by operations
# (7,680 for ESM-2 650M), less a factor of 2.5 because attention runs at a lower rate than matrix products.
ATTENTION_PAR_TOKENS = 3000


@dataclass
class Distinct:
    """The distinct sequences of an input and the table of its records.

    Attributes:
        records: one row per input record, in input order: id, length, sequence_sha256, distinct (which
            distinct sequence), duplicate_of (id of the first record with it, or None), residues_replaced.
        residues: (total residues,) uint8, the distinct sequences end to end, in order of appearance.
        offsets: (distinct + 1,) int64, where each begins in `residues`.
        hashes: SHA-256 of each distinct sequence, hexadecimal.
    """

    records: pd.DataFrame
    residues: np.ndarray
    offsets: np.ndarray
    hashes: list[str]

    @property
    def lengths(self) -> np.ndarray:
        return np.diff(self.offsets)


def find_distinct(proteins: Iterable[Protein], spool: BinaryIO) -> Distinct:
    """Read all records; keep each distinct sequence once, in `spool` and not in memory."""
    number: dict[str, int] = {}
    first_id: list[str] = []
    offsets = [0]
    rows = []
    for protein in proteins:
        digest = hashlib.sha256(protein.sequence).hexdigest()
        distinct = number.setdefault(digest, len(number))
        new = distinct == len(first_id)
        if new:
            first_id.append(protein.id)
            spool.write(protein.sequence)
            offsets.append(offsets[-1] + len(protein.sequence))
        duplicate_of = None if new else first_id[distinct]
        rows.append((protein.id, len(protein.sequence), digest, distinct, duplicate_of, protein.replaced))
    spool.flush()
    columns = ["id", "length", "sequence_sha256", "distinct", "duplicate_of", "residues_replaced"]
    # Else a column of nothing but None would be stored without a type.
    records = pd.DataFrame(rows, columns=columns).astype({"duplicate_of": "str"})
    residues = np.memmap(spool, dtype=np.uint8, mode="r")
    return Distinct(records, residues, np.array(offsets), list(number))


def predicted_cost(lengths: np.ndarray) -> np.ndarray:
    """Relative time to embed sequences of these lengths: linear plus quadratic in tokens, float64."""
    tokens = lengths + 2.0
    return tokens * (1 + tokens / ATTENTION_PAR_TOKENS)


def deal(lengths: np.ndarray, shards: int) -> list[np.ndarray]:
    """Split sequences into shards of equal cost, each sorted longest first.

    The longest remaining sequence always goes to the shard with the least to do (Graham's LPT rule), so
    shards differ by at most the cost of one short sequence unless one giant outweighs all.

    Returns:
        For each shard the indices of its sequences, int64.
    """
    costs = predicted_cost(lengths)
    order = np.argsort(-lengths, kind="stable")
    loads = [(0.0, shard) for shard in range(shards)]
    dealt: list[list[int]] = [[] for _ in range(shards)]
    for index in order.tolist():
        load, shard = heapq.heappop(loads)
        dealt[shard].append(index)
        heapq.heappush(loads, (load + costs[index], shard))
    return [np.array(indices, dtype=np.int64) for indices in dealt]


def imbalance(lengths: np.ndarray, dealt: list[np.ndarray]) -> float:
    """How much longer the slowest shard takes than the mean one: 0.02 is 2 %."""
    costs = predicted_cost(lengths)
    loads = np.array([costs[indices].sum() for indices in dealt])
    return float(loads.max() / loads.mean() - 1)


def write_shards(distinct: Distinct, dealt: list[np.ndarray], folder: Path) -> None:
    """Write `<shard>.fasta` files (headers are sequence hashes), `records.parquet` and their `SHA256SUMS` into `folder`.

    `records.parquet` is `Distinct.records` with `distinct` resolved to `shard` and `row` (place in the shard).
    """
    shard_of = np.empty(len(distinct.hashes), dtype=np.int64)
    row_of = np.empty(len(distinct.hashes), dtype=np.int64)
    folder.mkdir(parents=True, exist_ok=True)
    for shard, indices in enumerate(dealt):
        shard_of[indices] = shard
        row_of[indices] = np.arange(len(indices))
        with write_atomically(folder / f"{shard}.fasta") as temporary, temporary.open("wb") as handle:
            for index in indices.tolist():
                start, stop = distinct.offsets[index : index + 2]
                handle.write(b">%s\n%s\n" % (distinct.hashes[index].encode(), distinct.residues[start:stop].tobytes()))
    records = distinct.records.drop(columns="distinct")
    records.insert(3, "shard", shard_of[distinct.records["distinct"]])
    records.insert(4, "row", row_of[distinct.records["distinct"]])
    with write_atomically(folder / "records.parquet") as temporary:
        records.to_parquet(temporary, index=False)
    sums.write(folder, [*(f"{shard}.fasta" for shard in range(len(dealt))), "records.parquet"])


def shard(proteins: Iterable[Protein], shards: int, folder: Path) -> str:
    """Split `proteins` into `shards` files in `folder`; returns a one-line summary for people.

    Raises:
        UserError: the disk is full.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with needs_room(folder), tempfile.TemporaryFile(dir=folder) as spool:
        distinct = find_distinct(proteins, spool)
        dealt = deal(distinct.lengths, shards)
        write_shards(distinct, dealt, folder)
        lengths = distinct.lengths
        return (
            f"{len(distinct.records):,} records, {len(lengths):,} distinct sequences, {lengths.sum():,} residues to embed, "
            f"longest {lengths.max():,}; {shards} shards, predicted imbalance {imbalance(lengths, dealt):.2%}"
        )
