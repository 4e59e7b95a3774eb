"""Files that version 0.1 wrote: shards are checked and merged, a partial result resumes, and new results fit to them."""

import json
import shutil

import h5py
import numpy as np
import pytest
from paths import REPOSITORY
from small_run import embed

from seqmill.outputs import verify
from seqmill.outputs.embedding_file import EmbeddingFile
from seqmill.outputs.merge import merge


@pytest.fixture
def old(tmp_path):
    """A folder of results of version 0.1."""
    shutil.unpack_archive(REPOSITORY / "tests/data/version_0_1.tar.gz", tmp_path)
    return tmp_path


def folders(old):
    return [old / "embed/0", old / "embed/1"]


def assert_same_values(path, expected_path, tolerance=0.0):
    with h5py.File(path) as file, h5py.File(expected_path) as expected:
        assert sorted(file) == sorted(expected)
        for name in file:
            if file[name].dtype.kind == "f":
                np.testing.assert_allclose(file[name][:], expected[name][:], rtol=tolerance, atol=tolerance)
            else:
                assert file[name][:].tolist() == expected[name][:].tolist()
        assert {name: str(value) for name, value in file.attrs.items()} == {
            name: str(value) for name, value in expected.attrs.items()
        }


def test_it_says_nothing_of_its_datasets_and_is_understood(old):
    with h5py.File(old / "embeddings.h5") as file:
        assert not any(file[name].attrs for name in file)
    with EmbeddingFile(old / "embeddings.h5") as file:
        found = [(data.name, data.representation, data.per, data.layer, data.width) for data in file.datasets]
    assert found == [("mean", "mean", "sequence", 1, 16), ("residues", "residues", "token", 1, 16)]


def test_its_shards_are_checked_and_merge_to_the_same(old):
    summary = verify.check(folders(old), [old / "shards/records.parquet"])
    assert summary["sequences"].sum() == 8
    merge(folders(old), [old / "shards/records.parquet"], old / "new.h5", old / "new.parquet")
    assert_same_values(old / "new.h5", old / "embeddings.h5")
    assert (old / "new.parquet").read_bytes() == (old / "index.parquet").read_bytes()


def test_one_of_its_shards_merges_with_a_new_one(old):
    """As after an upgrade in the middle of a run."""
    (old / "embed/1/meta.json").unlink()
    assert embed(old / "model", old / "shards/1.fasta", old / "embed/1", pooling=("mean", "residues")) == 0
    old_meta, new_meta = (json.loads((folder / "meta.json").read_text()) for folder in folders(old))
    assert new_meta["fingerprint"] == old_meta["fingerprint"]
    merge(folders(old), [old / "shards/records.parquet"], old / "new.h5", old / "new.parquet")
    with h5py.File(old / "new.h5") as file, h5py.File(old / "embeddings.h5") as expected:
        for name in ("mean", "residues"):
            np.testing.assert_allclose(file[name][:], expected[name][:], rtol=1e-4, atol=1e-5)


def test_its_partial_result_resumes_or_is_refused_in_one_sentence(old, caplog):
    """It resumes with the same versions of Python, PyTorch and the rest as it was written with."""
    with caplog.at_level("INFO"):
        chosen = {"pooling": ("mean", "residues"), "batch_size": 300}
        assert embed(old / "model", old / "shards/0.fasta", old / "interrupted/0", **chosen) == 0
    resumed = json.loads((old / "interrupted/0/meta.json").read_text())["resumed_after"]
    said = (
        "resuming after 1 of 4 sequences" if resumed else "cannot resume the earlier run (different versions); starting"
    )
    assert said in caplog.text
    with h5py.File(old / "interrupted/0/embeddings.h5") as file, h5py.File(old / "embed/0/embeddings.h5") as expected:
        for name in ("mean", "residues"):
            np.testing.assert_allclose(file[name][:], expected[name][:], rtol=1e-4, atol=1e-5)
