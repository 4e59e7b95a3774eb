"""Sequences that need not be computed, as earlier rounds or earlier results have them."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa

from seqmill.inputs import hexadecimal
from seqmill.inputs.rounds import REUSED_FROM

NOTHING, NOWHERE = np.zeros((0, 32), np.uint8), np.zeros(0, np.int64)


@dataclass(frozen=True)
class Known:
    """Where K sequences are.

    Attributes:
        hashes: (K, 32) uint8, SHA-256 of each.
        shard, row, round: (K,) int64.
        reused_from: (K,) text, the earlier result that has it, else null; None where none are reused.
    """

    hashes: np.ndarray
    shard: np.ndarray
    row: np.ndarray
    round: np.ndarray
    reused_from: pa.LargeStringArray | None

    @classmethod
    def of(cls, earlier: pd.DataFrame | None, reused: pd.DataFrame | None, number: int) -> "Known":
        """Those of earlier rounds, which come first, and of earlier results; see `shards.shard`.

        Args:
            number: of the round.
        """
        tables = [
            table for table in (earlier, None if reused is None else reused.assign(round=number)) if table is not None
        ]
        if not tables:
            return cls(NOTHING, NOWHERE, NOWHERE, NOWHERE, None)
        known = pd.concat(tables)
        known = known[~known.index.duplicated()]
        names = None
        if REUSED_FROM in known:
            # By way of objects: a column of text that was put together from several tables is in chunks.
            names = pa.array(known[REUSED_FROM].to_numpy(object), pa.large_string(), from_pandas=True)
        numbers = (known[name].to_numpy(np.int64) for name in ("shard", "row", "round"))
        return cls(hexadecimal.hashes(known.index), *numbers, names)
