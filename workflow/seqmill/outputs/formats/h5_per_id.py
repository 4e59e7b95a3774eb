"""HDF5 files with a dataset per id, as UniProt's per-protein and per-residue ones: `mean.h5`, `residues.h5`, and the index.

A vector is (width,), residues are (tokens, width). Root attributes: `model_name` and all of the result's own. Each dataset
has the attribute `original_id`. In its name `/`, which would make a group, is `%2F`, and `%` is `%25`, so that
`urllib.parse.unquote` gives the id back. The index has the records in order.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import h5py
import numpy as np
from h5py import h5a, h5d, h5p, h5s, h5t

from seqmill.outputs.datasets import Dataset
from seqmill.outputs.formats.hdf5 import new_file
from seqmill.outputs.formats.source import Source

# Values up to so many bytes are stored within the dataset's header: one place to write instead of two.
COMPACT_BYTES = 60_000
# What HDF5 keeps of a dataset besides its values and its name.
HEADER_BYTES = 700
# Of HDF5: from 1.8 on a dataset more takes the same time however many there are; before, ever more.
VERSIONS = ("v108", "v108")
TEXT = h5py.string_dtype("utf-8")


def write(source: Source, datasets: Sequence[Dataset], folder: Path) -> None:
    """Write a file per dataset; see the module."""
    for dataset in datasets:
        with named_datasets(source, datasets, dataset, folder) as file:
            for name, values in zip(source.ids(), source.each(dataset), strict=True):
                file.add(name_of(name), values, name)
    source.copy_index(folder)


def name_of(sequence: str) -> str:
    """The name of an id's dataset."""
    return "%2E" if sequence == "." else sequence.replace("%", "%25").replace("/", "%2F")


@contextmanager
def named_datasets(
    source: Source, datasets: Sequence[Dataset], dataset: Dataset, folder: Path
) -> Iterator["NamedDatasets"]:
    """A file for one of some datasets, to which datasets by name can be added."""
    path = folder / f"{dataset.name}.h5"
    model = str(source.attributes.get("model", "")).rstrip("/").rpartition("/")[2]
    alone = len([other for other in datasets if other.per == dataset.per]) == 1
    # Each id is there twice, as a name and as an attribute.
    names = sum(2 * len(name.encode()) for name in source.ids())
    with new_file(path, source.size([dataset]) + names + HEADER_BYTES * len(source) + 2**16, VERSIONS) as file:
        file.attrs["model_name"] = model if alone else f"{model}_{dataset.name}"
        file.attrs.update({**source.attributes, **dataset.attributes()})
        yield NamedDatasets(file)


class NamedDatasets:
    """Adds many small datasets to an HDF5 file: below h5py's own functions, which take several times as long."""

    def __init__(self, file: h5py.File):
        self._root = file.id
        self._scalar = h5s.create(h5s.SCALAR)
        # In the file, and in memory.
        self._text, self._python_text = h5t.py_create(TEXT, logical=True), h5t.py_create(TEXT)
        self._compact, self._contiguous = (h5p.create(h5p.DATASET_CREATE) for _ in range(2))
        self._compact.set_layout(h5d.COMPACT)
        self._contiguous.set_layout(h5d.CONTIGUOUS)
        self._contiguous.set_fill_time(h5d.FILL_TIME_NEVER)

    def add_once(self, name: str, values: np.ndarray, original: str) -> None:
        """Add a dataset, unless there is one of this name."""
        if not self._root.links.exists(name.encode()):
            self.add(name, values, original)

    def add(self, name: str, values: np.ndarray, original: str) -> None:
        """Add a dataset; `values` are C-contiguous, and `original` becomes its attribute `original_id`."""
        properties = self._compact if values.nbytes <= COMPACT_BYTES else self._contiguous
        kind, space = _type(values.dtype), h5s.create_simple(values.shape)
        stored = h5d.create(self._root, name.encode(), kind, space, properties)
        stored.write(h5s.ALL, h5s.ALL, values, kind)
        attribute = h5a.create(stored, b"original_id", self._text, self._scalar)
        attribute.write(np.array(original, dtype=TEXT), self._python_text)


@cache
def _type(dtype: np.dtype) -> h5t.TypeID:
    return h5t.py_create(dtype)
