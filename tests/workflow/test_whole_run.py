"""A whole run with Snakemake: its jobs, and that it gives what its steps give without Snakemake."""

import json

import pandas as pd
from embeddings import read_attributes, read_embeddings, read_meta, relative_error

CHECKED = ["shard", "sequences", "residues", "longest", "dtype", "attention", "batch_size"]


def test_every_job_runs_once(first_run):
    project, said = first_run
    jobs = [("check", None), ("embed", "0"), ("embed", "1"), ("merge", None), ("shard", None), ("weights", None)]
    assert project.jobs(said) == jobs


def test_the_steps_without_snakemake_give_the_same(undisturbed, small_run):
    """What tests/outputs proves of the steps holds for the workflow."""
    folder = undisturbed.folder / "results"
    found, expected = read_embeddings(folder / "embeddings.h5"), read_embeddings(small_run.embeddings)
    assert found.keys() == expected.keys()
    assert found["ids"] == expected["ids"]
    assert found["lengths"].tolist() == expected["lengths"].tolist()
    assert found["mean"].dtype == expected["mean"].dtype
    assert relative_error(found["mean"], expected["mean"]) <= 1e-6
    pd.testing.assert_frame_equal(pd.read_parquet(folder / "index.parquet"), pd.read_parquet(small_run.index))
    summary = pd.read_csv(folder / "summary.tsv", sep="\t", dtype={"shard": str})
    pd.testing.assert_frame_equal(summary[CHECKED], small_run.check()[CHECKED])


def test_embeddings_say_how_they_were_made(undisturbed):
    folder = undisturbed.folder / "results"
    attributes = read_attributes(folder / "embeddings.h5")
    assert attributes["checksum"] == json.loads((folder / "weights.json").read_text())["checksum"]
    assert attributes["model"] == "model"
    assert attributes["dtype"] == "float32"
    assert attributes["layers"].tolist() == [1]
    assert list(attributes["pooling"]) == ["mean"]
    assert attributes["attention"] == "PyTorch SDPA"
    assert "torch" in json.loads(attributes["versions"])
    for shard in "01":
        assert read_meta(folder / "embed" / shard)["fingerprint"] == attributes["fingerprint"]
