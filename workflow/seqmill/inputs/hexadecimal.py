"""Columns of hashes of 32 bytes, and the 64 hexadecimal digits that they are as text."""

import binascii
from collections.abc import Iterable

import numpy as np
import pyarrow as pa

BYTES = pa.binary(32)


def hashes(texts: Iterable[str]) -> np.ndarray:
    """(N, 32) uint8, the hashes of which these are the digits."""
    return np.frombuffer(bytes.fromhex("".join(texts)), np.uint8).reshape(-1, 32)


def as_column(hashes: np.ndarray) -> pa.FixedSizeBinaryArray:
    """A column of hashes, (N, 32) uint8."""
    return pa.FixedSizeBinaryArray.from_buffers(BYTES, len(hashes), [None, pa.py_buffer(np.ascontiguousarray(hashes))])


def as_text(column: pa.FixedSizeBinaryArray) -> pa.LargeStringArray:
    """A column of hashes as their digits."""
    content = np.frombuffer(column.buffers()[1] or b"", np.uint8).reshape(-1, 32)
    found = binascii.hexlify(content[column.offset : column.offset + len(column)])
    offsets = 64 * np.arange(len(column) + 1)
    return pa.LargeStringArray.from_buffers(len(column), pa.py_buffer(offsets), pa.py_buffer(found))


def of_text(column: pa.Array) -> pa.FixedSizeBinaryArray:
    """A column of digits as the hashes."""
    column = column.cast(pa.large_string())
    _, offsets, content = column.buffers()
    offsets = np.frombuffer(offsets or bytes(8), np.int64)[column.offset :][: len(column) + 1]
    found = binascii.unhexlify(memoryview(content or b"")[offsets[0] : offsets[-1]])
    return as_column(np.frombuffer(found, np.uint8).reshape(-1, 32))
