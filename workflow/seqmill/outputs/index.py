"""The index of one file's embeddings: what the merged index says of each record, without the places in shards."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from seqmill.files import write_atomically
from seqmill.inputs.rounds import REUSED_FROM
from seqmill.inputs.sequences import Sequences

# Text of which some may be missing: pandas 3 calls it str, pandas 2 would write "None" for it.
TEXT = pd.StringDtype(na_value=np.nan)

COLUMNS = ["id", "length", "sequence_sha256", "duplicate_of", "residues_replaced", "description", "renamed_from"]


def write(
    sequences: Sequences,
    described: Mapping[str, np.ndarray],
    path: Path,
    origins: Sequence[str | None] | None = None,
) -> None:
    """Write a row per record, in the file's order; `origins` as for `table`.

    Args:
        described: further columns, values (N,) in the file's order.

    Raises:
        UserError: the disk is full.
    """
    # Otherwise a column of nothing but None would be stored without a type.
    index = table(sequences, origins).astype({"duplicate_of": TEXT, "renamed_from": TEXT}).assign(**described)
    with write_atomically(path) as temporary:
        index.to_parquet(temporary, index=False)


def table(sequences: Sequences, origins: Sequence[str | None] | None = None) -> pd.DataFrame:
    """The columns COLUMNS; `duplicate_of` is the id of the first record with the same sequence, None for that one.

    Args:
        origins: for the column REUSED_FROM, the earlier result that each distinct sequence is taken from, or None, in the
            order of computing; None for no such column.
    """
    hashes, first = sequences.hashes(), sequences.in_file_order(sequences.rows).tolist()
    columns = (
        sequences.ids,
        sequences.lengths,
        [hashes[place] for place in sequences.places.tolist()],
        [None if own == row else sequences.ids[own] for row, own in enumerate(first)],
        sequences.replaced,
        sequences.descriptions,
        sequences.renamed_from,
    )
    made = pd.DataFrame(dict(zip(COLUMNS, columns, strict=True)))
    if origins is not None:
        made[REUSED_FROM] = pd.array([origins[place] for place in sequences.places.tolist()], dtype="string")
    return made
