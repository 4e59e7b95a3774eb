"""Checksums of a result file: a flipped byte is found, wherever in the file it stands.

A dataset's checksum is the sum, modulo 2**64, of the XXH3 of each sequence's values, seeded with the sequence's row. So
it grows while batches are written in any order, and no file has to be read again when it is complete.
"""

import hashlib
import json
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import xxhash

from seqmill.store import BLOCK_BYTES, EmbeddingFile

MODULUS = 2**64
# All bytes around the datasets' values: ids, lengths, attributes and HDF5's own.
AROUND = "around"


def of_rows(file: EmbeddingFile, name: str, rows: np.ndarray, values: np.ndarray) -> int:
    """Checksum of some sequences' values in one dataset of a file.

    Args:
        rows: (S,) row numbers of the sequences.
        values: (S, width), or (sum of the sequences' lengths, width) where it is per residue; as stored, C-contiguous.
    """
    ends = np.cumsum(file.sequence_bytes(name, rows))
    content = memoryview(values.reshape(-1).view(np.uint8))
    total = start = 0
    for row, end in zip(rows.tolist(), ends.tolist(), strict=True):
        total += xxhash.xxh3_64_intdigest(content[start:end], row)
        start = end
    return total % MODULUS


def of_dataset(file: EmbeddingFile, name: str, rows: np.ndarray) -> int:
    """Checksum of some sequences' values as they stand in the file."""
    return sum(of_rows(file, name, part, values) for part, values in file.blocks(name, rows)) % MODULUS


def around(file: EmbeddingFile) -> int:
    """Checksum of all bytes that are no dataset's values."""
    hashed = xxhash.xxh3_64()
    extents = sorted(file.extents.values(), key=lambda extent: extent.offset)
    with Path(file.path).open("rb") as handle:
        for extent in extents:
            _hash_until(handle, extent.offset, hashed)
            handle.seek(max(extent.end, handle.tell()))
        _hash_until(handle, file.path.stat().st_size, hashed)
    return hashed.intdigest()


def _hash_until(handle: BinaryIO, end: int, hashed: xxhash.xxh3_64) -> None:
    while (left := end - handle.tell()) > 0:
        content = handle.read(min(left, BLOCK_BYTES))
        if not content:
            return
        hashed.update(content)


def sealed(content: dict[str, Any]) -> dict[str, Any]:
    """A JSON object with the SHA-256 of its other entries under `seal`, so that damage to it is found."""
    return {**content, "seal": _seal(content)}


def is_intact(content: dict[str, Any]) -> bool:
    """Whether a sealed JSON object is as it was written."""
    return content.get("seal") == _seal({name: value for name, value in content.items() if name != "seal"})


def _seal(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
