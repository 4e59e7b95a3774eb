"""What the formats that are HDF5 share: a new file for which the disk has room."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py


@contextmanager
def new_file(path: Path, size: int, versions: tuple[str, str] | None = None) -> Iterator[h5py.File]:
    """Create a file that takes `size` bytes or less; what it does not take is given back at the end.

    The space is taken at once, as HDF5 can crash the process on a full disk.

    Args:
        versions: of HDF5, see `libver` of `h5py.File`.
    """
    with h5py.File(path, "w", libver=versions) as file:
        with path.open("rb+") as handle:
            os.posix_fallocate(handle.fileno(), 0, size)
        yield file
        file.flush()
        end = file.id.get_filesize()
    os.truncate(path, end)
