"""Ids that come more than once are found among all, whatever their keys, and numbered as one after the other."""

import random

import numpy as np
import pyarrow as pa
import pytest

from seqmill.inputs import repeats
from seqmill.inputs.ids import with_own_ids
from seqmill.inputs.record import Record

IDS = ["a", "b", "a_2", "a_3", "a_2_2", "b_2", "_2", "", "c_10", "c", "x_1_2", "x_1"]


def poor(names):
    return np.array([len(name) % 2 for name in names.to_pylist()])


@pytest.mark.parametrize("keys", [repeats.keys, poor], ids=["keys", "poor keys"])
def test_numbers_are_those_that_one_after_the_other_gets(keys):
    dice = random.Random(0)
    for _ in range(100):
        names = dice.choices(IDS, k=dice.randint(1, 12))
        column = pa.array(names, pa.large_string())
        own = keys(column)
        rows = repeats.found(column, own)
        assert rows.tolist() == [row for row, name in enumerate(names) if name in names[:row]]
        assert repeats.may_be_among(own) or not len(rows)
        records = list(with_own_ids((Record(name, b"", None, row) for row, name in enumerate(names)), "number"))
        expected = {row: record.id for row, record in enumerate(records) if record.renamed_from is not None}
        assert (repeats.numbered(column, rows) if len(rows) else {}) == expected
