"""The exact search: whatever the blocks, it finds what comparing all with all finds."""

import numpy as np
import pytest
import torch

from seqmill.analysis.similarity import GROUP, Search, best, keys, parts

RANDOM = np.random.default_rng(0)


def brute_force(queries: np.ndarray, database: np.ndarray, own: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """(Q, k) float32 similarities and rows by a stable sort of all; -inf where there are not so many."""
    unit = [rows / np.where(norms > 0, norms, 1) for rows, norms in map(with_norms, (queries, database))]
    scores = (unit[0] @ unit[1].T).astype(np.float32)
    asked = np.flatnonzero(own >= 0)
    scores[asked, own[asked]] = -np.inf
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    found = np.take_along_axis(scores, order, axis=1)
    missing = ((0, 0), (0, k - found.shape[1]))
    return np.pad(found, missing, constant_values=-np.inf), np.pad(order, missing)


def with_norms(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    rows = rows.astype(np.float64)
    return rows, np.linalg.norm(rows, axis=1, keepdims=True)


def searched(queries, database, own, k, block, at_once=50, double=False):
    search = Search(torch.tensor(queries), torch.tensor(own), k, double, at_once)
    for start in range(0, len(database), block):
        rows = torch.arange(start, min(start + block, len(database)))
        search.add(rows, torch.tensor(database)[rows])
    return search, *(part.numpy() for part in parts(search.best))


def assert_same(found, places, expected, rows):
    assert np.array_equal(found, expected)
    there = expected > -np.inf
    assert np.array_equal(places[there], rows[there])


def clustered(count: int, width: int) -> np.ndarray:
    """Vectors that point nearly the same way, as those of proteins do, with copies, a multiple and two zeros."""
    values = (RANDOM.normal(size=width) * 3 + RANDOM.normal(size=(count, width))).astype(np.float32)
    values[10], values[-1], values[20] = values[5], values[5], 2 * values[7]
    values[3] = values[count // 2] = 0
    return values


@pytest.mark.parametrize("block", [1_500, 700, 64, 33])
@pytest.mark.parametrize("double", [False, True])
def test_any_blocks_give_what_brute_force_gives(block, double):
    database = clustered(1_500, 24)
    queries, own = database[:200], np.arange(200)
    _, found, places = searched(queries, database, own, 7, block, double=double)
    assert_same(found, places, *brute_force(queries, database, own, 7))


def test_there_may_be_fewer_than_k():
    database = clustered(60, 8)
    own = np.full(60, -1)
    _, found, places = searched(database, database, own, 100, 16)
    assert_same(found, places, *brute_force(database, database, own, 100))
    assert (found > -np.inf).sum(axis=1).tolist() == [60] * 60


def test_what_is_more_alike_than_float32_can_tell_is_searched_again():
    """Differences far below the rounding of a product: only the second search can be sure, and it is right."""
    centre = RANDOM.normal(size=32)
    database = (centre + 1e-6 * RANDOM.normal(size=(2_000, 32))).astype(np.float32)
    queries, own = database[:20], np.arange(20)
    search, _, _ = searched(queries, database, own, 5, 2_000)
    assert search.uncertain().tolist() == list(range(20))
    _, found, places = searched(queries, database, own, 5, 500, double=True)
    assert_same(found, places, *brute_force(queries, database, own, 5))


def test_queries_that_are_well_apart_are_certain():
    database = RANDOM.normal(size=(3_000, 48)).astype(np.float32)
    search, _, _ = searched(database[:100], database, np.arange(100), 5, 1_000)
    assert len(search.uncertain()) == 0


@pytest.mark.parametrize("count", [1, 3, 40])
def test_the_best_of_a_row_are_the_leftmost_of_equal_ones(count):
    scores = torch.tensor(RANDOM.integers(0, 6, (30, 64 * GROUP)), dtype=torch.float32)
    scores[0] = -torch.inf
    values, columns = best(scores, count)
    expected = np.argsort(-scores.numpy(), axis=1, kind="stable")[:, :count]
    assert np.array_equal(columns.numpy(), expected)
    assert np.array_equal(values.numpy(), np.take_along_axis(scores.numpy(), expected, axis=1))


def test_keys_hold_scores_and_places():
    scores = torch.tensor([-torch.inf, -1.0, -1e-30, -0.0, 0.0, 1e-30, 1.0, torch.inf])
    places = torch.tensor([0, 2**32 - 1, 5, 7, 7, 3, 2**31, 1])
    made = keys(scores, places)
    assert [torch.equal(*pair) for pair in zip(parts(made), (scores, places), strict=True)] == [True, True]
    assert made.tolist() == sorted(made.tolist())
    assert keys(scores[4:5], places[:1]) > keys(scores[4:5], places[2:3])
