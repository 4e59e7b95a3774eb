"""Columns of hashes of 32 bytes, and the 64 hexadecimal digits that they are as text."""

import binascii
from collections.abc import Callable, Iterable

import numpy as np
import pyarrow as pa

from seqmill.inputs import strings
from seqmill.inputs.record import HASH

BYTES = pa.binary(32)


def hashes(texts: Iterable[str]) -> np.ndarray:
    """(N, 32) uint8, the hashes of which these are the digits."""
    return np.frombuffer(bytes.fromhex("".join(texts)), np.uint8).reshape(-1, 32)


def as_column(hashes: np.ndarray) -> pa.FixedSizeBinaryArray:
    """A column of hashes, (N, 32) uint8."""
    return pa.FixedSizeBinaryArray.from_buffers(BYTES, len(hashes), [None, pa.py_buffer(np.ascontiguousarray(hashes))])


def as_text(column: pa.FixedSizeBinaryArray) -> pa.LargeStringArray:
    """A column of hashes as their digits."""
    found = binascii.hexlify(content(column))
    return strings.of(found, 64 * np.arange(len(column) + 1), strings.TEXT)


def of_text(column: pa.Array) -> pa.FixedSizeBinaryArray:
    """A column of digits as the hashes."""
    digits, _ = strings.parts(column.cast(pa.large_string()))
    found = binascii.unhexlify(digits)
    return as_column(np.frombuffer(found, np.uint8).reshape(-1, 32))


def content(column: pa.FixedSizeBinaryArray) -> np.ndarray:
    """(N, 32) uint8, a column of hashes."""
    found = np.frombuffer(column.buffers()[1] or b"", np.uint8).reshape(-1, 32)
    return found[column.offset : column.offset + len(column)]


def with_text(table: pa.Table) -> pa.Table:
    """A table with the hashes of its records, if it has them, as digits. Earlier versions wrote them so, and now it is bytes."""
    return _converted(table, pa.large_string(), as_text)


def with_bytes(table: pa.Table) -> pa.Table:
    """The same with the hashes as 32 bytes, which is half as large."""
    return _converted(table, BYTES, of_text)


def _converted(table: pa.Table, kind: pa.DataType, convert: Callable[[pa.Array], pa.Array]) -> pa.Table:
    place = table.schema.get_field_index(HASH)
    if place < 0 or pa.types.is_fixed_size_binary(table.schema.types[place]) == pa.types.is_fixed_size_binary(kind):
        return table
    return table.set_column(place, HASH, pa.chunked_array(map(convert, table.column(place).chunks), kind))
