"""The most similar sequences of a result to each of another one, or of its own: a table, made a stretch of queries at a time."""

import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from seqmill.analysis.similarity import NOTHING, Search, parts
from seqmill.analysis.vectors import Vectors
from seqmill.errors import UserError
from seqmill.inputs.record import HASH, SHOWN, shown
from seqmill.units import GIB

log = logging.getLogger(__name__)

T = TypeVar("T")

# What it may take: of a GPU's free memory, and of the host's.
SHARE, HOST_BYTES = 0.7, GIB
LARGEST_BLOCK, MOST_AT_ONCE = 2**16, 2**13
# Queries whose neighbours are written at a time.
WRITTEN = 50_000
SAY_EVERY_S = 30
SCHEMA = pa.schema(
    {
        "query": pa.large_string(),
        "rank": pa.int32(),
        "neighbor": pa.large_string(),
        "similarity": pa.float32(),
        "query_length": pa.int64(),
        "neighbor_length": pa.int64(),
        "query_description": pa.large_string(),
        "neighbor_description": pa.large_string(),
    }
)


@dataclass(frozen=True)
class Sizes:
    """Rows of the parts that are worked on at once.

    Attributes:
        queries: in one pass over the database.
        block: of the database.
        at_once: queries that are scored against a block.
    """

    queries: int
    block: int
    at_once: int

    @classmethod
    def fitting(cls, device: torch.device, width: int, k: int) -> "Sizes":
        """Those that the device's memory allows."""
        available = SHARE * torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else HOST_BYTES
        # A block is there as stored, in float64 on the way to unit length, and on the host once more, read ahead.
        block = min(max(int(available / 8 / (width * 20)), 256), LARGEST_BLOCK)
        queries = max(int(available / 3 / (width * 4 + k * 16)), 256)
        # The scores, and what finding the best of them takes.
        at_once = min(max(int(available / 4 / (block * 8 + 800 * k)), 64), MOST_AT_ONCE)
        return cls(queries, block, at_once)


def neighbors(
    database: Vectors,
    queries: Vectors | None,
    k: int,
    device: torch.device,
    all_duplicates: bool = False,
    ids: list[str] | None = None,
    sizes: Sizes | None = None,
) -> Iterator[pa.Table]:
    """The k most similar sequences of each query, the best first: tables of SCHEMA.

    Similarity is the cosine, rounded to float32; of equal ones the one that comes first in the file is the better.

    Args:
        queries: of the same width; None: the database's own sequences, each of which is not its own neighbour.
        all_duplicates: of records with the same sequence each can be a neighbour, and not only the first; then a
            record's duplicates are its neighbours, too.
        ids: only these queries.
        sizes: chosen by the device's memory if left out.

    Raises:
        UserError: the widths differ, or there is no such id.
    """
    asked = database if queries is None else queries
    if asked.width != database.width:
        raise UserError(
            f"{asked.path}: its vectors have {asked.width} values, those of {database.path} {database.width}; "
            "embed both with the same model"
        )
    columns = ["id", "length", "description", HASH]
    known = database.records(columns)
    about = known if queries is None else queries.records(columns)
    rows = np.arange(len(asked)) if ids is None else _rows(about, ids, asked)
    first = np.arange(len(database)) if all_duplicates else first_with_sequence(known)
    is_candidate = first == np.arange(len(database))
    own = first if queries is None else np.full(len(asked), -1)
    sizes = sizes or Sizes.fitting(device, database.width, k)
    log.info(
        "%s queries against %s distinct sequences (%s, width %s) on %s, %s at a time",
        *(f"{len(rows):,}", f"{int(is_candidate.sum()):,}", database.dataset.name, database.width, device),
        f"{min(sizes.queries, len(rows)):,}",
    )
    for start in range(0, len(rows), sizes.queries):
        stretch = rows[start : start + sizes.queries]
        vectors = _loaded(asked, stretch, device)
        scores, places = _search(database, vectors, own[stretch], is_candidate, k, device, sizes)
        for at in range(0, len(stretch), WRITTEN):
            part = slice(at, at + WRITTEN)
            yield _table(about, known, stretch[part], scores[part], places[part])


def first_with_sequence(records: pa.Table) -> np.ndarray:
    """(N,) int64, the row of the first record with the same sequence as each; its own where the index does not say."""
    if HASH not in records.column_names:
        return np.arange(len(records))
    codes = records[HASH].combine_chunks().dictionary_encode().indices.to_numpy()
    _, first, number = np.unique(codes, return_index=True, return_inverse=True)
    return first[number]


def _rows(records: pa.Table, ids: list[str], asked: Vectors) -> np.ndarray:
    places = pc.index_in(pa.array(ids, pa.large_string()), records["id"].combine_chunks().cast(pa.large_string()))
    if places.null_count:
        missing = ids[pc.indices_nonzero(places.is_null())[0].as_py()]
        raise UserError(
            f"{asked.path}: there is no sequence '{shown(missing, SHOWN)}'; see the ids in its index.parquet"
        )
    return places.to_numpy().astype(np.int64)


def _loaded(asked: Vectors, rows: np.ndarray, device: torch.device) -> torch.Tensor:
    """(R, width) float32 on the device; the host holds a part of them at a time."""
    loaded = torch.empty((len(rows), asked.width), device=device)
    for start in range(0, len(rows), WRITTEN):
        part = slice(start, start + WRITTEN)
        loaded[part] = torch.from_numpy(asked.take(rows[part])).to(device)
    return loaded


def _search(
    database: Vectors,
    queries: torch.Tensor,
    own: np.ndarray,
    is_candidate: np.ndarray,
    k: int,
    device: torch.device,
    sizes: Sizes,
) -> tuple[np.ndarray, np.ndarray]:
    """(Q, k) float32 similarities and (Q, k) rows of the database; -inf where there are not so many."""
    rows = torch.from_numpy(own).to(device)
    with _full_precision():
        search = Search(queries, rows, k, at_once=sizes.at_once)
        _add_all(search, database, is_candidate, sizes, device)
        # What float64 takes is twice as large.
        for again in search.uncertain().split(max(sizes.queries // 4, 1)):
            if not len(again):
                break
            log.debug("%s queries have too many rows that are equally similar: once more in float64", f"{len(again):,}")
            second = Search(queries[again], rows[again], k, double=True, at_once=max(sizes.at_once // 3, 1))
            _add_all(second, database, is_candidate, sizes, device)
            search.best[again] = second.best
    scores, places = parts(search.best)
    return scores.cpu().numpy(), places.cpu().numpy()


def _add_all(search: Search, database: Vectors, is_candidate: np.ndarray, sizes: Sizes, device: torch.device) -> None:
    """Search the whole database; the next block is read while one is searched."""

    def read(number: int) -> tuple[np.ndarray, np.ndarray]:
        first, last = number * sizes.block, min((number + 1) * sizes.block, len(database))
        kept = np.flatnonzero(is_candidate[first:last])
        values = database.read(first, last)
        return first + kept, values if len(kept) == len(values) else values[kept]

    count = -(-len(database) // sizes.block)
    said = time.monotonic()
    for number, (rows, values) in enumerate(_ahead(read, count)):
        search.add(torch.from_numpy(rows).to(device), torch.from_numpy(values).to(device))
        if time.monotonic() - said > SAY_EVERY_S:
            said = time.monotonic()
            log.info(
                "%.0f%% of the database searched for %s queries", 100 * (number + 1) / count, f"{len(search.own):,}"
            )


def _ahead(read: Callable[[int], T], count: int) -> Iterator[T]:
    """`read(0)` to `read(count - 1)`; the next one is read while the caller works."""
    with ThreadPoolExecutor(1) as pool:
        upcoming = pool.submit(read, 0) if count else None
        for number in range(count):
            current = upcoming.result()
            if number + 1 < count:
                upcoming = pool.submit(read, number + 1)
            yield current


@contextmanager
def _full_precision() -> Iterator[None]:
    """Products of float32 in float32, whatever the program has chosen."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.inference_mode():
            yield
    finally:
        torch.set_float32_matmul_precision(before)


def _table(about: pa.Table, known: pa.Table, rows: np.ndarray, scores: np.ndarray, places: np.ndarray) -> pa.Table:
    """A row for each neighbour of the queries `rows`."""
    query, rank = np.nonzero(scores > NOTHING)
    asked, found = about.take(rows[query]), known.take(places[query, rank])
    columns = [
        asked["id"],
        rank + 1,
        found["id"],
        scores[query, rank],
        asked["length"],
        found["length"],
        _descriptions(asked),
        _descriptions(found),
    ]
    arrays = [column if isinstance(column, pa.ChunkedArray) else pa.array(column) for column in columns]
    return pa.table(arrays, names=SCHEMA.names).cast(SCHEMA)


def _descriptions(records: pa.Table) -> pa.ChunkedArray | pa.Array:
    if "description" not in records.column_names:
        return pa.array([""] * len(records), pa.large_string())
    return records["description"].fill_null("")
