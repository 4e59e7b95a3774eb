"""The merged result: one HDF5 file in input order, and its index."""

from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pandas as pd

from seqmill.files import write_atomically
from seqmill.results import check
from seqmill.store import EmbeddingFile, check_room, cut, is_per_residue, lay_out

INDEX_COLUMNS = ["id", "length", "sequence_sha256", "shard", "row", "duplicate_of", "residues_replaced"]


def merge(folders: list[Path], records_path: Path, embeddings: Path, index: Path) -> str:
    """Write the merged file and the index; returns a line for people.

    Raises:
        UserError: a shard is missing, damaged, of another input, or made with another model or settings.
    """
    check(folders, records_path)
    records = pd.read_parquet(records_path)
    with ExitStack() as stack:
        files = [stack.enter_context(EmbeddingFile(folder / "embeddings.h5")) for folder in folders]
        types = {name: (extent.shape[1], extent.dtype) for name, extent in files[0].extents.items()}
        attributes = dict(files[0].attributes)
        kernels = {kernel for file in files for kernel in file.attributes["attention"].split(", ")}
        attributes["attention"] = ", ".join(sorted(kernels))
        lengths = records["length"].to_numpy()
        check_room(embeddings.parent, lengths, types)
        temporary = stack.enter_context(write_atomically(embeddings))
        lay_out(temporary, records["id"], lengths, types, attributes)
        with EmbeddingFile(temporary, writable=True) as merged:
            _copy(files, records["shard"].to_numpy(), records["row"].to_numpy(), merged)
    with write_atomically(index) as temporary:
        records[INDEX_COLUMNS].to_parquet(temporary, index=False)
    duplicates = int(records["duplicate_of"].notna().sum())
    return f"{len(records):,} records ({duplicates:,} of them duplicates) in {embeddings} and {index}"


def _copy(files: list[EmbeddingFile], shards: np.ndarray, rows: np.ndarray, merged: EmbeddingFile) -> None:
    """Fill the merged file: its sequence i is `files[shards[i]]`'s sequence `rows[i]`."""
    sources = {name: [file.values(name) for file in files] for name in merged.extents}
    offsets = [file.offsets for file in files]
    sizes = sum(merged.sequence_bytes(name, np.arange(len(rows))) for name in merged.extents)
    for start, stop in cut(sizes):
        at = slice(start, stop)
        values = {
            name: (
                _gather_residues(parts, offsets, shards[at], rows[at])
                if is_per_residue(name)
                else _gather(parts, shards[at], rows[at])
            )
            for name, parts in sources.items()
        }
        merged.write(np.arange(start, stop), values)


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
