"""The result file: HDF5 with one dataset per pooling, whole or not there."""

import errno
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np

from seqmill.errors import UserError

STRINGS = h5py.string_dtype("utf-8")


class EmbeddingWriter:
    """Writes one `embeddings.h5`, row by row in any order, under a temporary name until it is complete.

    Use as a context manager: leaving it normally closes the file and gives it its name, an exception removes it.

    Args:
        ids: (N,) names of the rows.
        lengths: (N,) residues of each.
        datasets: name to (width, dtype); names that start with `residues` hold a row per residue.
        attributes: root attributes.

    Raises:
        UserError: the disk has not enough room, at the start or later.
    """

    def __init__(
        self,
        path: Path,
        ids: Sequence[str],
        lengths: np.ndarray,
        datasets: Mapping[str, tuple[int, np.dtype]],
        attributes: Mapping[str, Any],
    ):
        self.path = path
        self.temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        self.offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
        check_room(path.parent, lengths, datasets)
        self.file = h5py.File(self.temporary, "w")
        self.file.create_dataset("ids", data=np.array(ids, dtype=object), dtype=STRINGS)
        self.file.create_dataset("lengths", data=np.asarray(lengths, dtype=np.int64))
        if any(is_per_residue(name) for name in datasets):
            self.file.create_dataset("offsets", data=self.offsets)
        for name, (width, dtype) in datasets.items():
            rows = int(self.offsets[-1]) if is_per_residue(name) else len(lengths)
            self.file.create_dataset(name, (rows, width), dtype, dcpl=_laid_out())
        self.file.attrs.update(attributes)
        self.file.flush()
        # Rows go straight to their place in the file: through h5py each write holds Python's lock, which stalls the
        # thread that feeds the GPU, and rows in no order take a call to HDF5 each.
        self.places = {name: (self.file[name].id.get_offset(), self.file[name].dtype) for name in datasets}
        self.descriptor = os.open(self.temporary, os.O_WRONLY)

    def __enter__(self) -> "EmbeddingWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self.file.close()
            if kind is None:
                os.fsync(self.descriptor)
                self.temporary.replace(self.path)
        finally:
            os.close(self.descriptor)
            self.temporary.unlink(missing_ok=True)

    def write(self, rows: np.ndarray, values: Mapping[str, np.ndarray]) -> None:
        """Write the values of sequences `rows`.

        Args:
            rows: (S,) row numbers.
            values: per dataset (S, width), or (sum of the rows' lengths, width) where it is per residue.
        """
        lengths = self.offsets[rows + 1] - self.offsets[rows]
        at = np.concatenate([[0], np.cumsum(lengths)])
        for start, stop in _runs(rows):
            for name, value in values.items():
                if is_per_residue(name):
                    self._write(name, self.offsets[rows[start]], value[at[start] : at[stop]])
                else:
                    self._write(name, rows[start], value[start:stop])

    def _write(self, name: str, row: int, values: np.ndarray) -> None:
        offset, dtype = self.places[name]
        values = np.ascontiguousarray(values, dtype)
        position, left = offset + int(row) * values.shape[1] * dtype.itemsize, memoryview(values).cast("B")
        while left:
            try:
                written = os.pwrite(self.descriptor, left, position)
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                    raise
                raise UserError(
                    f"{self.path.parent}: the disk is full or the quota used up; make room and run the same command again"
                ) from None
            position, left = position + written, left[written:]


def _laid_out() -> h5py.h5p.PropDCID:
    """Contiguous, its place in the file known from the start, and no fill values: each row is written once."""
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_layout(h5py.h5d.CONTIGUOUS)
    properties.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    properties.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    return properties


def check_room(folder: Path, lengths: np.ndarray, datasets: Mapping[str, tuple[int, np.dtype]]) -> None:
    """Compare the space a result needs with what is free, before any work is done for it.

    Raises:
        UserError: too little is free.
    """
    rows = {True: int(np.sum(lengths)), False: len(lengths)}
    needed = sum(rows[is_per_residue(name)] * width * dtype.itemsize for name, (width, dtype) in datasets.items())
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"{folder}: the embeddings need {needed / 1e9:.1f} GB, but the disk has {free / 1e9:.1f} GB free; make room, or "
            "store less (pooling mean, fewer layers)"
        )


def is_per_residue(dataset: str) -> bool:
    return dataset.startswith("residues")


def read_rows(dataset: h5py.Dataset) -> np.ndarray:
    """The dataset's values, mapped from the file and not read: gathering scattered rows through h5py is slow."""
    if dataset.size == 0:
        return np.empty(dataset.shape, dataset.dtype)
    return np.memmap(dataset.file.filename, dataset.dtype, "r", dataset.id.get_offset(), dataset.shape)


def _runs(rows: np.ndarray) -> list[tuple[int, int]]:
    """(start, stop) of stretches in which row numbers ascend by one: [4, 5, 2] gives [(0, 2), (2, 3)]."""
    breaks = (np.flatnonzero(np.diff(rows) != 1) + 1).tolist()
    return list(zip([0, *breaks], [*breaks, len(rows)], strict=True)) if len(rows) else []
