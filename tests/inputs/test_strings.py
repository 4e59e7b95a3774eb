"""Strings that are end to end are cut, put in lines and taken apart as Python's own are."""

import numpy as np
import pyarrow as pa
import pytest

from seqmill.inputs import strings

CONTENT = b">a\nMKT\n>b\n\n"


@pytest.mark.parametrize(
    "stretches", [[], [(0, 0)], [(0, 11)], [(1, 2), (3, 6), (8, 9)], [(1, 2), (2, 2), (2, 6)], [(11, 11)]]
)
def test_stretches_are_cut_as_slices_are(stretches):
    starts, stops = np.array(stretches, np.int64).reshape(-1, 2).T
    found = strings.cut(CONTENT, starts, stops)
    assert found.to_pylist() == [CONTENT[start:stop] for start, stop in stretches]
    assert strings.lengths(found).tolist() == (stops - starts).tolist()


@pytest.mark.parametrize("kind", [strings.BYTES, strings.TEXT])
@pytest.mark.parametrize("part", [slice(None), slice(1, 3), slice(2, 2), slice(4, None)])
def test_a_part_of_an_array_has_no_bytes_of_the_others(kind, part):
    array = pa.array(["a", "grün", "", "bc"], kind)[part]
    content, offsets = strings.parts(array)
    assert strings.of(content, offsets, kind).to_pylist() == array.to_pylist()
    assert (offsets[0], offsets[-1]) == (0, len(content))


def test_an_array_of_none_has_no_bytes():
    content, offsets = strings.parts(pa.array([], strings.BYTES))
    assert (bytes(content), offsets.tolist()) == (b"", [0])


def test_each_row_is_a_line_for_each_column():
    heads, bodies = pa.array([b">a", b">b"], strings.BYTES), pa.array([b"MKT", b""], strings.BYTES)
    assert bytes(strings.in_lines(heads, bodies)) == CONTENT
