"""A whole run with Snakemake: its jobs, and that it gives what its steps give without Snakemake."""

import json

import pandas as pd
from embeddings import read_attributes, read_embeddings, read_meta, relative_error
from project import Project

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


def test_the_workflow_numbers_them(project: Project, tiny_model):
    (project.folder / "twice.fasta").write_text(">a first\nMKTAYIAKQR\n>a second\nMKVLAAGG\n")
    project.write_config(
        fasta="twice.fasta", shards=1, model={"name": str(tiny_model)}, sequences={"duplicate_ids": "number"}
    )
    done = project.snakemake()
    assert done.returncode == 0, done.stdout
    index = pd.read_parquet(project.folder / "results/index.parquet")
    assert index["id"].tolist() == ["a", "a_2"]
    assert index["description"].tolist() == ["first", "second"]
    assert index["renamed_from"].tolist()[1] == "a"


def test_every_shard_says_how_far_it_is_and_not_in_the_log(first_run):
    project, said = first_run
    for shard in "01":
        count = read_meta(project.folder / "results/embed" / shard)["sequences"]
        assert f"\nshard {shard}: finished, {count} sequences in " in said
        log = (project.folder / f"logs/embed/{shard}.log").read_text()
        assert "done: " in log
        assert "finished" not in log
