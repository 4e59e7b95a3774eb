"""The result file: rows in any order, blocks, checksums, space on the disk, and what a reader learns from it."""

import errno
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest

from seqmill.errors import UserError
from seqmill.outputs import embedding_file, layout
from seqmill.outputs.datasets import Dataset, resolve
from seqmill.outputs.embedding_file import EmbeddingFile

DATASETS = [
    Dataset("mean", "mean", "sequence", 6, 4, np.dtype("f4")),
    Dataset("residues", "residues", "token", 6, 4, np.dtype("f2")),
]
TYPES = ("mean", "residues")


LENGTHS = np.array([2, 1, 3])


RESIDUES = np.arange(24, dtype=np.float16).reshape(6, 4)


def lay_out(path: Path) -> None:
    layout.lay_out(path, ["a", "b", "c"], LENGTHS, LENGTHS, DATASETS, {"model": "m", "layers": [6]})


def fill(file: EmbeddingFile) -> None:
    """Rows in no order."""
    file.write(np.array([2, 0]), {"mean": np.full((2, 4), [[2], [0]]), "residues": RESIDUES[[3, 4, 5, 0, 1]]})
    file.write(np.array([1]), {"mean": np.ones((1, 4)), "residues": RESIDUES[[2]]})


def test_rows_are_written_in_any_order(tmp_path):
    path = tmp_path / "e.h5"
    lay_out(path)
    with EmbeddingFile(path, writable=True) as file:
        fill(file)
    with h5py.File(path) as file:
        assert file["ids"].asstr()[:].tolist() == ["a", "b", "c"]
        assert file["mean"][:, 0].tolist() == [0, 1, 2]
        assert np.array_equal(file["residues"][:], RESIDUES)
        assert file["offsets"][:].tolist() == [0, 2, 3, 6]
        assert file.attrs["model"] == "m"
    with EmbeddingFile(path) as file:
        assert np.array_equal(file.values("residues"), RESIDUES)


def test_blocks_give_what_was_written_in_ascending_order(tmp_path, monkeypatch):
    path = tmp_path / "e.h5"
    lay_out(path)
    monkeypatch.setattr(embedding_file, "BLOCK_BYTES", 24)
    with EmbeddingFile(path, writable=True) as file:
        fill(file)
        blocks = [(rows.tolist(), values.tolist()) for rows, values in file.blocks("residues", np.array([2, 1, 0]))]
        some = [rows.tolist() for rows, _ in file.blocks("mean", np.array([2, 0]))]
    assert blocks == [([0, 1], RESIDUES[:3].tolist()), ([2], RESIDUES[3:].tolist())]
    assert some == [[0], [2]]


def test_every_flipped_bit_changes_a_checksum(tmp_path):
    path = tmp_path / "e.h5"
    lay_out(path)
    with EmbeddingFile(path, writable=True) as file:
        fill(file)

    def sums() -> dict[str, int]:
        with EmbeddingFile(path) as file:
            rows = np.arange(3)
            return {"around": file.metadata_checksum()} | {n: file.checksum(n, rows) for n in TYPES}

    whole, content = sums(), path.read_bytes()
    with EmbeddingFile(path) as file:
        places = {name: range(extent.offset, extent.end) for name, extent in file.extents.items()}
    for place in [*places["mean"], *places["residues"]]:
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        found = sums()
        assert [name for name in whole if found[name] != whole[name]] == [n for n in TYPES if place in places[n]]
    path.write_bytes(content + b"more")
    assert sums()["around"] != whole["around"]


def test_checksums_of_batches_add_up_to_those_of_the_file(tmp_path):
    lay_out(tmp_path / "e.h5")
    with EmbeddingFile(tmp_path / "e.h5", writable=True) as file:
        fill(file)
        parts = file.checksum_of("residues", np.array([2, 0]), RESIDUES[[3, 4, 5, 0, 1]])
        parts += file.checksum_of("residues", np.array([1]), RESIDUES[[2]])
        whole = file.checksum("residues", np.arange(3))
        # Exchanged rows are another file.
        exchanged = file.checksum_of("mean", np.array([0, 1]), file.values("mean")[[1, 0]])
        assert parts % embedding_file.MODULUS == whole
        assert exchanged != file.checksum("mean", np.array([0, 1]))


def test_too_little_space_is_reported(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=2e9))
    with pytest.raises(UserError, match=r"need 2\.6 GB, but the disk has 2\.0 GB free; free some space"):
        layout.check_space(tmp_path, 2_600_000_000)


def test_a_disk_that_fills_up_ends_in_one_sentence(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    lay_out(tmp_path / "e.h5")
    monkeypatch.setattr(os, "pwrite", full)
    sentence = "the disk is full or the quota used up; free some space and run"
    with EmbeddingFile(tmp_path / "e.h5", writable=True) as file, pytest.raises(UserError, match=sentence):
        fill(file)


# What a reader learns of the datasets


def test_a_file_says_what_its_datasets_are(tmp_path):
    lay_out(tmp_path / "e.h5")
    with EmbeddingFile(tmp_path / "e.h5") as file:
        assert file.datasets == DATASETS
    with h5py.File(tmp_path / "e.h5") as file:
        assert dict(file["residues"].attrs) == {"representation": "residues", "per": "token", "layer": 6}


@pytest.mark.parametrize(
    ("layers", "names"),
    [((6,), ("mean", "residues")), ((0, 6), ("mean_layer0", "residues_layer0", "mean_layer6", "residues_layer6"))],
    ids=["one layer", "two layers"],
)
def test_a_file_of_version_0_1_says_it_by_its_names(tmp_path, layers, names):
    """It stored nothing with its datasets, and read the names."""
    datasets = resolve(layers, ("mean", "residues"), 4, "bfloat16")
    assert tuple(dataset.name for dataset in datasets) == names
    layout.lay_out(tmp_path / "e.h5", ["a", "b", "c"], LENGTHS, LENGTHS, datasets, {"layers": list(layers)})
    with h5py.File(tmp_path / "e.h5", "r+") as file:
        for name in names:
            file[name].attrs.clear()
    with EmbeddingFile(tmp_path / "e.h5") as file:
        assert sorted(file.datasets, key=names_of) == sorted(datasets, key=names_of)


def names_of(dataset: Dataset) -> str:
    return dataset.name


def test_rows_per_token_need_not_be_as_many_as_letters(tmp_path):
    path, tokens = tmp_path / "e.h5", np.array([1, 1, 2])
    layout.lay_out(path, ["a", "b", "c"], LENGTHS, tokens, DATASETS, {"layers": [6]})
    with EmbeddingFile(path, writable=True) as file:
        file.write(np.array([2, 0]), {"residues": RESIDUES[[2, 3, 0]]})
        file.write(np.array([1]), {"residues": RESIDUES[[1]]})
        assert (file.lengths.tolist(), file.token_counts.tolist()) == ([2, 1, 3], [1, 1, 2])
        assert np.array_equal(file.values("residues"), RESIDUES[:4])


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_values_per_token_are_stored_in_half_precision_where_computed_so(dtype):
    mean, residues = resolve((6,), ("mean", "residues"), 4, dtype)
    assert mean.dtype == np.float32
    assert residues.dtype == (np.float32 if dtype == "float32" else np.float16)
