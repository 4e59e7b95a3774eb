"""Several threads that write to one file: the same bytes and checksums as one, and what happens when one fails."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from disks import disk

from seqmill.errors import UserError
from seqmill.outputs import layout, writers
from seqmill.outputs.datasets import Dataset
from seqmill.outputs.embedding_file import EmbeddingFile
from seqmill.outputs.writers import Writers

RNG = np.random.default_rng(5)
LENGTHS = RNG.integers(1, 40, 60)
DATASETS = [
    Dataset("mean", "mean", "sequence", 6, 8, np.dtype("f4")),
    Dataset("residues", "residues", "token", 6, 8, np.dtype("f2")),
    Dataset("windows", "windows", "sequence", None, 1, np.dtype("i4")),
]


def new_file(path: Path, lengths: np.ndarray = LENGTHS) -> EmbeddingFile:
    layout.lay_out(
        path, [str(n) for n in range(len(lengths))], lengths, lengths, DATASETS, {"model": "m", "layers": [6]}
    )
    return EmbeddingFile(path, writable=True)


def random_values(dataset: Dataset, lengths: np.ndarray) -> np.ndarray:
    return RNG.integers(0, 100, (int(dataset.rows(lengths).sum()), dataset.width)).astype(dataset.dtype)


ORDERS = {
    "as in the file": (np.arange(60), np.ones(60, dtype=int)),
    "in no order": (RNG.permutation(60), np.ones(60, dtype=int)),
}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("threads", [1, 2, 7])
def test_many_threads_write_the_bytes_and_checksums_of_one(tmp_path, monkeypatch, order, threads):
    rows, copies = ORDERS[order]
    values = {dataset.name: random_values(dataset, LENGTHS[rows]) for dataset in DATASETS}
    with new_file(tmp_path / "one.h5") as one:
        one.write(rows, values)
        expected = {name: one.checksum_of(name, rows, value) for name, value in values.items()}
    monkeypatch.setattr(writers, "PART_BYTES", 200)
    with new_file(tmp_path / "many.h5") as many:
        some = Writers(many)
        some._pool = ThreadPoolExecutor(threads)
        found = {name: some.write(name, rows, copies, value) for name, value in values.items()}
        some.close()
    assert {name: value % 2**64 for name, value in found.items()} == expected
    assert some.written == sum(value.nbytes for value in values.values())
    assert (tmp_path / "many.h5").read_bytes() == (tmp_path / "one.h5").read_bytes()


def test_repeated_sequences_are_written_to_all_their_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(writers, "PART_BYTES", 200)
    lengths = np.repeat([7, 5, 3], [4, 1, 3])
    copies, order = np.array([4, 1, 3]), RNG.permutation(8)
    with new_file(tmp_path / "e.h5", lengths[np.argsort(order)]) as file:
        values = random_values(DATASETS[1], np.array([7, 5, 3]))
        some = Writers(file)
        checksum = some.write("residues", order, copies, values)
        some.close()
        assert checksum % 2**64 == file.checksum("residues", np.arange(8))
        starts, begins = file.starts("residues"), np.repeat([0, 7, 12], copies)
        for row, begin, length in zip(order, begins, lengths, strict=True):
            found = file.values("residues")[starts[row] : starts[row] + length]
            assert np.array_equal(found, values[begin : begin + length])


def test_a_failing_thread_waits_for_the_others(tmp_path, monkeypatch):
    """Whoever is told of the failure closes the file, and uses the memory of the values again."""
    monkeypatch.setattr(writers, "PART_BYTES", 200)
    store, first, running = Writers._store, threading.Event(), []

    def fail_first(self, name, rows, values):
        if 0 in rows:
            first.set()
            raise UserError("the disk is full")
        assert first.wait(30)
        running.append(rows)
        checksum = store(self, name, rows, values)
        running.pop()
        return checksum

    monkeypatch.setattr(Writers, "_store", fail_first)
    with new_file(tmp_path / "e.h5") as file:
        some = Writers(file)
        some._pool = ThreadPoolExecutor(4)
        values = random_values(DATASETS[1], LENGTHS)
        with pytest.raises(UserError, match="the disk is full"):
            some.write("residues", np.arange(60), np.ones(60, dtype=int), values)
        assert running == []
        some.close()


def test_a_disk_that_fills_under_several_threads_is_reported_in_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(writers, "PART_BYTES", 65536)
    lengths = np.full(40, 4096)
    with disk(tmp_path / "small", "size=1m") as folder, new_file(folder / "e.h5", lengths) as file:
        some = Writers(file)
        some._pool = ThreadPoolExecutor(4)
        with pytest.raises(UserError, match=r"small: the disk is full or the quota used up"):
            some.write("residues", np.arange(40), np.ones(40, dtype=int), random_values(DATASETS[1], lengths))
        some.close()
