"""Ways to damage a file or a shard's folder, each written once."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np

from seqmill.outputs.embedding_file import EmbeddingFile
from seqmill.outputs.meta import with_checksum


def flip(path: Path, place: int) -> None:
    """Change one bit of the byte at `place`; from the end, if negative."""
    content = bytearray(path.read_bytes())
    content[place] ^= 4
    path.write_bytes(content)


def flip_in(path: Path, text: str) -> None:
    """Change one bit of the first byte of `text`, where it first stands in the file."""
    flip(path, path.read_bytes().index(text.encode()))


def truncate(path: Path, size: int) -> None:
    """Cut the file off; beyond its end, lengthen it with zeros."""
    os.truncate(path, size)


def edit_meta(folder: Path, **changes) -> None:
    """As another run would have written it: with the right checksum."""
    path = folder / "meta.json"
    meta = json.loads(path.read_text()) | changes
    path.write_text(json.dumps(with_checksum({name: value for name, value in meta.items() if name != "seal"})))


def remove_from_meta(folder: Path, *names: str) -> None:
    path = folder / "meta.json"
    meta = json.loads(path.read_text())
    path.write_text(json.dumps({name: value for name, value in meta.items() if name not in names}))


def edit_embeddings(folder: Path, edit: Callable[[h5py.File], object]) -> None:
    with h5py.File(folder / "embeddings.h5", "a") as file:
        edit(file)


def flip_vector(folder: Path, row: int | None = None) -> None:
    """Change a bit of a vector of `mean`: the first of a row, or one in the middle of all."""
    path = folder / "embeddings.h5"
    with EmbeddingFile(path) as file:
        extent = file.extents["mean"]
    flip(path, (extent.offset + extent.end) // 2 if row is None else extent.offset + row * extent.dataset.row_bytes)


def flip_id(folder: Path) -> None:
    path = folder / "embeddings.h5"
    with EmbeddingFile(path) as file:
        first = file.ids()[0]
    flip_in(path, first)


def write_nan(folder: Path) -> None:
    with EmbeddingFile(folder / "embeddings.h5", writable=True) as file:
        file.write(np.array([3]), {"mean": np.full((1, file.extents["mean"].dataset.width), np.nan)})


def take_from(other: Path, folder: Path, *names: str) -> None:
    """Put another shard's files in the place of this one's."""
    for name in names:
        shutil.copy(other / name, folder / name)
