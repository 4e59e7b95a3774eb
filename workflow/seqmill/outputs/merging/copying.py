"""Values on their way from the sources of a merge to the merged file, verified as they pass.

They are read and verified by one thread and written by another.
"""

import os
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from seqmill.host_memory import allowed_bytes
from seqmill.outputs import verify
from seqmill.outputs.embedding_file import Damaged, EmbeddingFile, Extent
from seqmill.outputs.layout import offsets
from seqmill.outputs.merging.ahead import ahead
from seqmill.outputs.merging.places import Places
from seqmill.outputs.merging.scatter import Scatter
from seqmill.outputs.names import EMBEDDINGS

# For the values that wait for their places: at most this, and at most such a part of what this process may use.
MEMORY_BYTES = 2**31
MEMORY_SHARE = 0.25
# Records in the order of their arrival, where the values of each are in a block, and the block; see `Scatter.add`.
Arrived = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def copy(places: Places, token_counts: np.ndarray, path: Path, metas: Sequence[verify.Meta]) -> dict[int, str]:
    """Fill the merged file; compare what was read with the checksums of the shards that were read as a whole.

    Args:
        token_counts: (records,) content tokens of each.
        path: of the merged file, laid out.
        metas: of the shards, which are the first sources.

    Returns:
        Sources that are damaged, by number, and how.

    Raises:
        UserError: the disk is full.
    """
    with EmbeddingFile(path) as file:
        extents = file.extents
    # Else Arrow keeps what the ids took.
    pa.default_memory_pool().release_unused()
    memory = min(MEMORY_BYTES, int(MEMORY_SHARE * allowed_bytes()))
    problems: dict[int, str] = {}
    descriptor = os.open(path, os.O_RDWR)
    try:
        for extent in extents.values():
            starts = offsets(extent.dataset.rows(token_counts) * extent.dataset.row_bytes)
            scatter = Scatter(path, descriptor, extent, starts, places.order, memory)
            for arrived in ahead(_arriving(places, extent, metas, problems)):
                scatter.add(*arrived)
            scatter.finish()
    finally:
        os.close(descriptor)
    return problems


def _arriving(
    places: Places, extent: Extent, metas: Sequence[verify.Meta], problems: dict[int, str]
) -> Iterator[Arrived]:
    """One dataset of all sources, for `Scatter.add`; puts what is wrong with a source into `problems`."""
    for number in range(len(places.files)):
        meta = metas[number] if number < len(metas) and places.is_whole(number) else None
        if problem := (yield from _of_source(places, number, extent, meta)):
            problems.setdefault(number, problem)


def _of_source(
    places: Places, number: int, extent: Extent, meta: verify.Meta | None
) -> Generator[Arrived, None, str | None]:
    """One dataset of one source; returns what is wrong with it, or None.

    Args:
        meta: with the checksums, where all of it is copied.
    """
    records, rows = places.of(number)
    name, checksum, problem, done = extent.dataset.name, 0, None, 0
    distinct = rows[np.diff(rows, prepend=-1) > 0]
    try:
        for block in places.files[number].blocks(name, distinct, is_last=meta is not None):
            if (bad := verify.first_not_finite(block, extent.dataset)) is not None:
                problem = problem or verify.not_finite(name, bad)
            if meta is not None:
                checksum += block.checksum()
            last = np.searchsorted(rows, block.rows[-1], side="right")
            own = np.searchsorted(block.rows, rows[done:last])
            yield records[done:last], block.begins[own], block.ends[own], block.content
            done = last
    except Damaged as error:
        return f"{EMBEDDINGS} is damaged ({error})"
    return problem or (verify.differs(meta, name, checksum) if meta is not None else None)
