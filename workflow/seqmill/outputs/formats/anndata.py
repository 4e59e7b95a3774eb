"""AnnData, a file per dataset (`mean.h5ad`): X the vectors, obs the index by id, uns what is known of the result.

Written as the format is documented (https://anndata.readthedocs.io/en/stable/fileformat-prose.html), without the library,
which would hold all of obs in memory. Text that is missing in the index is empty here, a missing number -1.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa

from seqmill.outputs.datasets import Dataset
from seqmill.outputs.formats.hdf5 import new_file
from seqmill.outputs.formats.source import Source
from seqmill.outputs.layout import STRINGS, contiguous

# What HDF5 keeps of a text besides its letters: a reference, and its share of a heap.
TEXT_BYTES = 48


def write(source: Source, datasets: Sequence[Dataset], folder: Path) -> None:
    """Write a file per dataset; see the module."""
    for dataset in datasets:
        path = folder / f"{dataset.name}.h5ad"
        with new_file(path, source.size([dataset]) + _size_of_index(source) + 2**20) as file:
            _encode(file, "anndata", "0.1.0")
            for name in ("obsm", "varm", "obsp", "varp", "layers", "uns"):
                _encode(file.create_group(name), "dict", "0.1.0")
            for name, value in {**source.attributes, **dataset.attributes()}.items():
                _add(file["uns"], name, value)
            names = np.array([str(column) for column in range(dataset.width)], dtype=object)
            _encode_text(_frame(file, "var", "name", []).create_dataset("name", data=names, dtype=STRINGS))
            matrix = file.create_dataset("X", (len(source), dataset.width), dataset.dtype, dcpl=contiguous())
            _encode(matrix, "array", "0.2.0")
            columns = _columns(file, source)
            for block in source.blocks(dataset):
                matrix[block.first : block.last] = block.values[dataset.name]
                for name, column in columns.items():
                    column[block.first : block.last] = _values(block.records.column(name))


def _columns(file: h5py.File, source: Source) -> dict[str, h5py.Dataset]:
    """The columns of obs, to be filled."""
    known = source.schema
    frame = _frame(file, "obs", "id", [name for name in known.names if name != "id"])
    columns = {}
    for field in known:
        kind = field.type.to_pandas_dtype() if _is_plain(field.type) else STRINGS
        columns[field.name] = frame.create_dataset(field.name, (len(source),), kind)
        if kind is STRINGS:
            _encode_text(columns[field.name])
        else:
            _encode(columns[field.name], "array", "0.2.0")
    return columns


def _values(column: pa.Array) -> np.ndarray:
    if _is_plain(column.type):
        missing = False if pa.types.is_boolean(column.type) else -1
        return column.fill_null(missing).to_numpy(zero_copy_only=False)
    return column.cast(pa.large_string()).fill_null("").to_numpy(zero_copy_only=False)


def _is_plain(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)


def _size_of_index(source: Source) -> int:
    """Bytes that the index takes as obs, or more."""
    return sum(
        block.records.nbytes + TEXT_BYTES * block.records.num_columns * (block.last - block.first)
        for block in source.blocks()
    )


def _frame(file: h5py.File, name: str, index: str, columns: list[str]) -> h5py.Group:
    frame = file.create_group(name)
    _encode(frame, "dataframe", "0.2.0")
    frame.attrs["_index"] = index
    frame.attrs["column-order"] = np.array(columns, dtype=STRINGS) if columns else np.array([], dtype=np.float64)
    return frame


def _add(group: h5py.Group, name: str, value: Any) -> None:
    """Add an attribute of the result to uns."""
    array = np.asarray(value)
    is_text = array.dtype.kind not in "iufb"
    stored = group.create_dataset(
        name, data=array.astype(object) if is_text else array, dtype=STRINGS if is_text else None
    )
    if array.ndim:
        _encode(stored, "string-array" if is_text else "array", "0.2.0")
    else:
        _encode(stored, "string" if is_text else "numeric-scalar", "0.2.0")


def _encode_text(stored: h5py.Dataset) -> None:
    _encode(stored, "string-array", "0.2.0")


def _encode(stored: h5py.HLObject, kind: str, version: str) -> None:
    stored.attrs["encoding-type"], stored.attrs["encoding-version"] = kind, version
