"""Strings that are kept in a temporary file and not in memory, end to end."""

import mmap
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa

from seqmill.inputs import strings


class Spool:
    """N strings of bytes in a file without a name, which is gone when this is.

    Args:
        folder: on the disk that has room for them.
    """

    def __init__(self, folder: Path):
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
        self._lengths = [np.zeros(0, np.int64)]

    def __enter__(self) -> "Spool":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, added: pa.Array) -> None:
        content, offsets = strings.parts(added)
        self._file.write(content)
        self._lengths.append(np.diff(offsets))

    @property
    def lengths(self) -> np.ndarray:
        """(N,) int64, the bytes of each."""
        self._lengths = [np.concatenate(self._lengths)]
        return self._lengths[0]

    def _offsets(self) -> np.ndarray:
        """(N + 1,) int64, where each begins."""
        return np.append(np.zeros(1, np.int64), np.cumsum(self.lengths))

    def _content(self) -> mmap.mmap | bytes:
        """All of them, end to end, mapped."""
        self._file.flush()
        if not self._file.tell():
            return b""
        return mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)

    def strings(self) -> pa.LargeBinaryArray:
        """All of them, mapped."""
        return strings.of(self._content(), self._offsets())

    def text(self, first: int = 0) -> pa.LargeStringArray:
        """Those from one on, which are UTF-8; mapped."""
        return strings.of(self._content(), self._offsets()[first:], strings.TEXT)
