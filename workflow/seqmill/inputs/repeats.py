"""Ids that come more than once, found among millions without keeping each in memory."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from seqmill.inputs.ids import with_own_ids
from seqmill.inputs.record import Record

# What numbers that were given to repeated ids leave of an id: only those with the same rest can get in each other's way.
NUMBERS = r"(_[0-9]+)+$"


def keys(names: pa.LargeStringArray) -> np.ndarray:
    """(N,) int64, equal for equal ids, and hardly ever for others."""
    return np.fromiter(map(hash, names.to_pylist()), np.int64, len(names))


def may_be_among(keys: np.ndarray) -> bool:
    """Whether two of some ids may be the same, by their keys."""
    in_order = np.sort(keys)
    return bool((in_order[1:] == in_order[:-1]).any())


def found(names: pa.LargeStringArray, keys: np.ndarray) -> np.ndarray:
    """(R,) int64, the rows of ids that came in a row before.

    Args:
        names: (N,) ids.
        keys: (N,) of the ids, see `keys`.
    """
    in_order = np.sort(keys)
    # Hardly ever more than those that are repeated; the ids themselves decide.
    rows = np.flatnonzero(np.isin(keys, in_order[1:][in_order[1:] == in_order[:-1]]))
    seen: set[str] = set()
    again = []
    for row, name in zip(rows.tolist(), names.take(pa.array(rows)).to_pylist(), strict=True):
        if name in seen:
            again.append(row)
        seen.add(name)
    return np.array(again, np.int64)


def numbered(names: pa.LargeStringArray, repeated: np.ndarray) -> dict[int, str]:
    """The new ids of the rows that need one, as `with_own_ids` numbers them.

    Args:
        names: (N,) ids.
        repeated: see `found`.
    """
    roots = pc.replace_substring_regex(names, pattern=NUMBERS, replacement="")
    rows = np.flatnonzero(pc.is_in(roots, value_set=roots.take(pa.array(repeated)).unique()))
    given = zip(rows.tolist(), names.take(pa.array(rows)).to_pylist(), strict=True)
    records = with_own_ids((Record(name, b"", None, row) for row, name in given), "number")
    return {record.line: record.id for record in records if record.renamed_from is not None}
