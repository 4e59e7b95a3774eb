"""The merged result: one HDF5 file in input order, and its index."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import h5py
import numpy as np
import pandas as pd

from seqmill.files import write_atomically
from seqmill.results import check
from seqmill.store import EmbeddingWriter, is_per_residue, read_rows

# What merging holds in memory at a time.
BLOCK_BYTES = 64 * 2**20
INDEX_COLUMNS = ["id", "length", "sequence_sha256", "shard", "row", "duplicate_of", "residues_replaced"]


def merge(folders: list[Path], records_path: Path, embeddings: Path, index: Path) -> str:
    """Write the merged file and the index; returns a line for people.

    Raises:
        UserError: a shard is missing, damaged, of another input, or made with another model or settings.
    """
    check(folders, records_path)
    records = pd.read_parquet(records_path)
    with ExitStack() as stack:
        files = [stack.enter_context(h5py.File(folder / "embeddings.h5")) for folder in folders]
        datasets = [name for name in files[0] if name not in ("ids", "lengths", "offsets")]
        types = {name: (files[0][name].shape[1], files[0][name].dtype) for name in datasets}
        attributes = dict(files[0].attrs)
        attributes["attention"] = ", ".join(sorted({file.attrs["attention"] for file in files}))
        sources = {name: [read_rows(file[name]) for file in files] for name in datasets}
        offsets = [file["offsets"][:] if "offsets" in file else None for file in files]
        writer = stack.enter_context(
            EmbeddingWriter(embeddings, records["id"], records["length"].to_numpy(), types, attributes)
        )
        shards, rows = records["shard"].to_numpy(), records["row"].to_numpy()
        row_bytes = _row_bytes(records["length"].to_numpy(), types)
        for start, stop in _blocks(row_bytes):
            at = slice(start, stop)
            values = {
                name: (
                    _gather_residues(sources[name], offsets, shards[at], rows[at])
                    if is_per_residue(name)
                    else _gather(sources[name], shards[at], rows[at])
                )
                for name in datasets
            }
            writer.write(np.arange(start, stop), values)
    with write_atomically(index) as temporary:
        records[INDEX_COLUMNS].to_parquet(temporary, index=False)
    duplicates = int(records["duplicate_of"].notna().sum())
    return f"{len(records):,} records ({duplicates:,} of them duplicates) in {embeddings} and {index}"


def _gather(sources: list[np.ndarray], shards: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Rows of several arrays: `sources[shards[i]][rows[i]]` for every i."""
    values = np.empty((len(rows), sources[0].shape[1]), sources[0].dtype)
    for shard, source in enumerate(sources):
        here = shards == shard
        values[here] = source[rows[here]]
    return values


def _gather_residues(
    sources: list[np.ndarray], offsets: list[np.ndarray], shards: np.ndarray, rows: np.ndarray
) -> np.ndarray:
    """The residues of several sequences, end to end."""
    places = zip(shards.tolist(), rows.tolist(), strict=True)
    return np.concatenate([sources[s][offsets[s][r] : offsets[s][r + 1]] for s, r in places])


def _row_bytes(lengths: np.ndarray, types: dict[str, tuple[int, np.dtype]]) -> np.ndarray:
    sizes = {name: width * np.dtype(dtype).itemsize for name, (width, dtype) in types.items()}
    per_residue = sum(size for name, size in sizes.items() if is_per_residue(name))
    per_sequence = sum(size for name, size in sizes.items() if not is_per_residue(name))
    return per_sequence + per_residue * lengths


def _blocks(row_bytes: np.ndarray) -> Iterator[tuple[int, int]]:
    """Cut rows into blocks of about BLOCK_BYTES, at least one row each."""
    ends = np.cumsum(row_bytes)
    start = 0
    while start < len(row_bytes):
        done = ends[start - 1] if start else 0
        stop = max(int(np.searchsorted(ends, done + BLOCK_BYTES, side="right")), start + 1)
        yield start, stop
        start = stop
