"""Arrays of strings that are end to end in their bytes: cut out of others and put elsewhere, none an object of Python."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

BYTES, TEXT = pa.large_binary(), pa.large_string()


def of(content: pa.Buffer | bytes, offsets: np.ndarray, kind: pa.DataType = BYTES) -> pa.Array:
    """The strings between places, (N + 1,) int64, of some bytes, which are not copied."""
    return pa.Array.from_buffers(kind, len(offsets) - 1, [None, pa.py_buffer(offsets), pa.py_buffer(content)])


def cut(content: bytes, starts: np.ndarray, stops: np.ndarray) -> pa.LargeBinaryArray:
    """Stretches of some bytes from `starts` to `stops`, (N,) int64, each behind the one before it."""
    # They and what is between them; the last number is for N = 0.
    both = of(content, np.append(np.column_stack([starts, stops]), len(content)))
    return both.take(np.arange(0, len(both), 2))


def parts(strings: pa.Array) -> tuple[memoryview, np.ndarray]:
    """The bytes of all strings end to end, and where each begins and the last one ends, (N + 1,) int64."""
    _, offsets, content = strings.buffers()
    offsets = np.frombuffer(offsets or bytes(8), np.int64)[strings.offset :][: len(strings) + 1]
    return memoryview(content or b"")[offsets[0] : offsets[-1]], offsets - offsets[0]


def lengths(strings: pa.Array) -> np.ndarray:
    """(N,) int64, the bytes of each."""
    return np.diff(parts(strings)[1])


def in_lines(*columns: pa.Array) -> memoryview:
    """Of each row the strings of all columns, and a line end behind each."""
    nothing, line_end = (pa.scalar(text, BYTES) for text in (b"", b"\n"))
    return parts(pc.binary_join_element_wise(*columns, nothing, line_end))[0]
