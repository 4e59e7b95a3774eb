"""Reading results back, and comparing them."""

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np


def read_embeddings(path: Path) -> dict[str, Any]:
    """All datasets of an `embeddings.h5`, by name."""
    with h5py.File(path) as file:
        values = {name: file[name][:] for name in file if name != "ids"}
        return values | {"ids": file["ids"].asstr()[:].tolist()}


def read_attributes(path: Path) -> dict[str, Any]:
    with h5py.File(path) as file:
        return dict(file.attrs)


def read_meta(folder: Path) -> dict[str, Any]:
    """A finished shard's `meta.json`."""
    return json.loads((folder / "meta.json").read_text())


def relative_error(values: np.ndarray, expected: np.ndarray) -> float:
    """The worst vector's: |values - expected| / |expected|."""
    return float((np.linalg.norm(values - expected, axis=1) / np.linalg.norm(expected, axis=1)).max())


def assert_same_embeddings(path: Path, expected_path: Path) -> None:
    """The same records in the same order, the same vectors, and the same attributes."""
    values, expected = read_embeddings(path), read_embeddings(expected_path)
    assert values["ids"] == expected["ids"]
    assert values["lengths"].tolist() == expected["lengths"].tolist()
    assert values.keys() == expected.keys()
    assert relative_error(values["mean"], expected["mean"]) <= 1e-6
    np.testing.assert_equal(read_attributes(path), read_attributes(expected_path))
