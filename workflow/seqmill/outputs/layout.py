"""Creating a result file: complete but for the values of its datasets, whose places are fixed from the start."""

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from seqmill.errors import UserError
from seqmill.outputs.datasets import Dataset

# What HDF5 needs for itself, without sequences.
HDF5_BYTES = 5_000
STRINGS = h5py.string_dtype("utf-8")
# Ids at a time: as Python's strings they take several times their length. A multiple of the 65,536 that HDF5 converts at a
# time: the file then has the bytes that it has where they are written at once.
IDS_AT_ONCE = 2**18


def lay_out(
    path: Path,
    ids: Sequence[str],
    lengths: np.ndarray,
    token_counts: np.ndarray,
    datasets: Sequence[Dataset],
    attributes: Mapping[str, Any],
) -> None:
    """Create a result file that is complete but for the values of its datasets.

    Args:
        ids: (N,) names of the rows; a list, or a column of Arrow.
        lengths: (N,) letters of each.
        token_counts: (N,) content tokens of each: rows in a dataset that is per token.
        attributes: root attributes.
    """
    with h5py.File(path, "w") as file:
        _preallocate(path, ids)
        stored = file.create_dataset("ids", len(ids), STRINGS)
        for start, block in _blocks(ids):
            stored[start : start + len(block)] = block
        file.create_dataset("lengths", data=np.asarray(lengths, dtype=np.int64))
        if any(dataset.is_per_token for dataset in datasets):
            file.create_dataset("offsets", data=offsets(token_counts))
        for dataset in datasets:
            shape = int(np.sum(dataset.rows(token_counts))), dataset.width
            stored = file.create_dataset(dataset.name, shape, dataset.dtype, dcpl=contiguous())
            stored.attrs.update(dataset.attributes())
        file.attrs.update(attributes)


def offsets(counts: np.ndarray) -> np.ndarray:
    """(N + 1,) int64, where each of N neighbours begins whose sizes are `counts`."""
    return np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])


def file_bytes(count: int, id_bytes: float, token_count: float, datasets: Sequence[Dataset]) -> float:
    """What a result file will take, within a percent.

    Args:
        count: sequences.
        id_bytes: of all their ids, without what rounds each up to 8.
        token_count: their content tokens.
    """
    is_per_token = any(dataset.is_per_token for dataset in datasets)
    values = sum((token_count if dataset.is_per_token else count) * dataset.row_bytes for dataset in datasets)
    # Of each sequence its id, with a header in one place and a reference in another, its length, and where it begins.
    around = id_bytes + (3.5 + 16 + 16 + 8 + 8 * is_per_token) * count
    return max(values + around + HDF5_BYTES, _preallocated(count, id_bytes))


def check_space(folder: Path, needed: int) -> None:
    """Compare the bytes that values need with what is free, before any work is done for them.

    Raises:
        UserError: too little is free.
    """
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"{folder}: the embeddings need {needed / 1e9:.1f} GB, but the disk has {free / 1e9:.1f} GB free; free some "
            "space, or store less (pooling mean, fewer layers)"
        )


def _preallocated(count: int, id_bytes: float) -> int:
    return int(id_bytes + (64 + 24) * count + 2**16)


def _preallocate(path: Path, ids: Sequence[str]) -> None:
    """Preallocate space for HDF5's own metadata: HDF5 can crash the process on a full disk."""
    size = _preallocated(len(ids), sum(len(name.encode()) for _, block in _blocks(ids) for name in block))
    with path.open("rb+") as file:
        os.posix_fallocate(file.fileno(), 0, size)


def _blocks(ids: Sequence[str]) -> Iterator[tuple[int, np.ndarray]]:
    """The first number and the ids of each block."""
    for start in range(0, len(ids), IDS_AT_ONCE):
        yield start, np.array(ids[start : start + IDS_AT_ONCE], dtype=object)


def contiguous() -> h5py.h5p.PropDCID:
    """Contiguous, its place in the file known from the start, and no fill values: each row is written once."""
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_layout(h5py.h5d.CONTIGUOUS)
    properties.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    properties.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    return properties
