"""Distinct sequences, assigned to shards of equal predicted cost."""

import heapq
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pandas as pd

from seqmill.files import remove_leftovers, reports_full_disk
from seqmill.inputs import outliers, records, sha256sums, shard_file
from seqmill.inputs.alphabet import PROTEIN, Alphabet
from seqmill.inputs.distinct import Distinct, Samples, find_distinct
from seqmill.inputs.known import Known
from seqmill.inputs.records import Places
from seqmill.inputs.rounds import RECORDS

# Sequences that are assigned at once.
AT_ONCE = 2**20


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
    chosen = np.empty(len(order), np.int32)
    for start in range(0, len(order), AT_ONCE):
        part = slice(start, start + AT_ONCE)
        own = []
        for cost in costs[order[part]].tolist():
            load, shard = loads[0]
            own.append(shard)
            heapq.heapreplace(loads, (load + cost, shard))
        chosen[part] = own
    by_shard = order[np.argsort(chosen, kind="stable")]
    return np.split(by_shard, np.cumsum(np.bincount(chosen, minlength=shards))[:-1])


def imbalance(costs: np.ndarray, assigned: list[np.ndarray]) -> float:
    """How much longer the slowest shard takes than the mean one: 0.02 is 2 %."""
    loads = np.array([costs[indices].sum() for indices in assigned])
    return float(loads.max() / loads.mean() - 1) if loads.any() else 0.0


def write_shards(
    distinct: Distinct, assigned: list[np.ndarray], folder: Path, known: Known, number: int | None
) -> None:
    """Write `<shard>.fasta` files (headers are sequence hashes), `records.parquet` and their `SHA256SUMS` into `folder`.

    Args:
        known: where the sequences are that are not in these shards.
        number: of the round; None for a run without samples.
    """
    lengths, hashes = distinct.lengths, distinct.hashes[distinct.known :]
    shards, rows = (np.empty(len(lengths), np.int64) for _ in range(2))
    names = [f"{shard}.fasta" for shard in range(len(assigned))]
    remove_leftovers(folder, {*names, RECORDS})
    sums = {}
    for shard, (name, indices) in enumerate(zip(names, assigned, strict=True)):
        shards[indices], rows[indices] = shard, np.arange(len(indices))
        with sha256sums.writing(folder / name, sums) as file:
            file.writelines(shard_file.blocks(hashes, distinct.sequences, lengths, indices))
    with sha256sums.writing(folder / RECORDS, sums) as file:
        records.write(file, distinct, Places.of(known, shards, rows, number))
    sha256sums.write(folder, sums)


def shard(
    samples: Samples,
    shards: int,
    folder: Path,
    cost: Callable[[np.ndarray], np.ndarray],
    earlier: pd.DataFrame | None = None,
    alphabet: Alphabet = PROTEIN,
    reused: pd.DataFrame | None = None,
) -> str:
    """Split records into `shards` files in `folder`; returns a one-line summary for people.

    Args:
        samples: each with its records; one without a name in a run without samples.
        cost: letters per sequence to the relative time that the model takes for each.
        earlier: the sequences that earlier rounds have, see `earlier_rounds.places`; None for a run without samples.
        alphabet: of the sequences.
        reused: the sequences that earlier results have, see `outputs.earlier.places`; None where none are reused.

    Raises:
        UserError: the disk is full.
    """
    number = 1 if earlier is None or earlier.empty else int(earlier["round"].max()) + 1
    known = Known.of(earlier, reused, number)
    folder.mkdir(parents=True, exist_ok=True)
    with reports_full_disk(folder), ExitStack() as stack:
        distinct = find_distinct(samples, folder, stack, known.hashes, alphabet.replacement)
        lengths = distinct.lengths
        costs = cost(lengths)
        outliers.warn(lengths, costs, distinct.unknown, alphabet.replacement, distinct.name)
        assigned = assign(lengths, costs, shards)
        write_shards(distinct, assigned, folder, known, None if earlier is None else number)
    elsewhere = int((distinct.records.numbers < distinct.known).sum())
    where = " or ".join(
        ["earlier samples"] * (earlier is not None) + ["earlier results"] * (known.reused_from is not None)
    )
    return (
        f"{len(distinct.records):,} records, {len(lengths):,} distinct sequences, {lengths.sum():,} {alphabet.members} to embed, "
        f"longest {lengths.max(initial=0):,}; {shards} shards, predicted imbalance {imbalance(costs, assigned):.2%}"
        + (f"; {elsewhere:,} records have sequences of {where}" if elsewhere else "")
    )
