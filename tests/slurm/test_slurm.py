"""profiles/slurm on a real SLURM, the one that tests/slurm/start.sh sets up: one node, two GPUs that do not exist.

One run of a small input serves most tests. What its jobs asked for is read from SLURM, not from Snakemake.
"""

import gzip
import os
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations, islice
from pathlib import Path

import pytest
import yaml
from Bio.SeqIO.FastaIO import SimpleFastaParser
from cluster import (
    HERE,
    cancel_when_busy,
    devices,
    done_shards,
    edit_profile,
    log,
    needs_slurm,
    note_devices,
    plan,
    sequences,
    slurm_jobs,
    snakemake,
    wait_for,
)
from embeddings import assert_same_embeddings, read_embeddings, read_meta
from paths import PROTEOME

from seqmill.planning import resources as demand

pytestmark = [pytest.mark.slurm, needs_slurm]

PROTEINS = 120
CHECK, MERGE = (("check", None), ("merge", None))


def embeddings(project):
    return project.folder / "results/embeddings.h5"


@pytest.fixture(scope="module")
def finished(tmp_path_factory, fresh_project):
    """A project after `snakemake --profile slurm`: 3 shards, one more than GPUs. Not to be changed."""
    project = fresh_project(tmp_path_factory.mktemp("slurm") / "project")
    with gzip.open(PROTEOME, "rt") as handle:
        short = (f">{title}\n{sequence}\n" for title, sequence in SimpleFastaParser(handle) if len(sequence) <= 200)
        (project.folder / "proteins.fasta").write_text("".join(islice(short, PROTEINS)))
    project.write_config(
        fasta="proteins.fasta",
        model={"name": "resources/esm2_t6_3M_demo"},
        # None of them the default.
        performance={"batch_size": 1000, "dataloader_workers": 0, "streams": 2},
    )
    # One shard per GPU, and the nodes have not as many as the machine where snakemake runs: what it counted must hold.
    nvidia_smi = project.folder / "bin/nvidia-smi"
    nvidia_smi.parent.mkdir()
    nvidia_smi.write_text('#!/bin/sh\n[ -z "$SLURM_JOB_ID" ] && for i in 0 1 2; do echo "GPU $i: none really"; done\n')
    nvidia_smi.chmod(0o755)
    project.environment["PATH"] = f"{nvidia_smi.parent}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    note_devices(project)
    done = snakemake(project, *HERE)
    assert done.returncode == 0, done.stdout
    return project


def without_embeddings(finished, folder):
    """A copy of the project as it was before its first embed job."""
    project = finished.copy(folder)
    project.environment = dict(finished.environment)
    for name in ("results/embed", "devices"):
        shutil.rmtree(project.folder / name)
    for name in ("embeddings.h5", "index.parquet", "summary.tsv"):
        (project.folder / "results" / name).unlink()
    note_devices(project)
    return project


@pytest.fixture(scope="module")
def interrupting(finished, tmp_path_factory):
    """A project and its run, under way: shard 0 is too slow for its time limit, shard 1 is cancelled by hand."""
    project = without_embeddings(finished, tmp_path_factory.mktemp("interrupted") / "project")
    # A protein a batch, and half as long again as SLURM may take to notice: a minute, then it looks every half minute.
    project.configure(performance={"batch_size": 1})
    project.environment["SEQMILL_TEST_SLOW"] = "0,1:4"
    edit_profile(project, "    # runtime: 720", "    runtime: 1")
    # start.sh's SLURM knows this one.
    edit_profile(project, "  # slurm_account: my_account", "  slurm_account: lab")
    with ThreadPoolExecutor() as pool:
        run = pool.submit(snakemake, project, *HERE)
        pool.submit(cancel_when_busy, project, 1, run)
        # Before others take the GPUs: this is what the tests wait for.
        wait_for(lambda: devices(project, 0) and devices(project, 1), run)
        yield project, run


@pytest.fixture(scope="module")
def interrupted(interrupting):
    """The project and what Snakemake said, after the run. Not to be changed."""
    project, run = interrupting
    return project, run.result()


@pytest.fixture
def project_to_edit(finished, tmp_path):
    """A copy of the finished project, for a test to change."""
    project = finished.copy(tmp_path / "project")
    project.environment = finished.environment
    return project


@pytest.fixture(scope="module")
def jobs(finished):
    return slurm_jobs(finished.folder)


@pytest.fixture(scope="module")
def embed_jobs(jobs):
    return [job for job in jobs if job.name.startswith("rule_embed_")]


def test_all_proteins_come_out_in_input_order(finished):
    with (finished.folder / "proteins.fasta").open() as handle:
        expected = [title.split()[0] for title, _ in SimpleFastaParser(handle)]
    assert read_embeddings(embeddings(finished))["ids"] == expected


def test_one_gpu_for_each_embed_job_and_none_for_others(jobs):
    assert {job.name: job.gpus for job in jobs} == {
        "rule_shard": 0,
        "rule_embed_wildcards_0": 1,
        "rule_embed_wildcards_1": 1,
        "rule_embed_wildcards_2": 1,
        "rule_merge": 0,
    }


def test_jobs_ask_for_what_the_profile_says(jobs, embed_jobs, finished):
    profile = yaml.safe_load((finished.folder / "slurm/config.yaml").read_text())
    for job in jobs:
        assert job.fields["NumCPUs"] == str(profile["set-threads"]["embed"] if job in embed_jobs else 1)
        if job not in embed_jobs:
            assert job.memory_mb == profile["default-resources"]["mem_mb"]
            assert job.minutes == profile["default-resources"]["runtime"]


def test_embed_jobs_ask_for_what_model_and_shard_need(embed_jobs, finished):
    weights = finished.folder / "results/weights.json"
    for shard, job in enumerate(sorted(embed_jobs, key=lambda job: job.name)):
        fasta = finished.folder / f"results/shards/{shard}.fasta"
        assert job.memory_mb == demand.memory_mb(weights, fasta)
        assert job.minutes == demand.runtime_minutes(weights, fasta)


def test_a_third_shard_waits_for_one_of_two_gpus(embed_jobs):
    first, second, last = sorted(embed_jobs, key=lambda job: job.time("Start"))
    freed = min(first.time("End"), second.time("End"))
    assert second.time("Start") < freed, "no two shards ran at the same time"
    assert last.time("Submit") < freed, "the third shard came too late to wait for a GPU"
    assert last.time("Start") >= freed


def test_jobs_that_run_at_once_have_a_gpu_each(embed_jobs, finished):
    given = {}
    for job in embed_jobs:
        (given[job.name],) = set(devices(finished, job.name.removeprefix("rule_embed_wildcards_")))
    assert set(given.values()) == {"0", "1"}
    for job, other in combinations(embed_jobs, 2):
        if job.time("Start") < other.time("End") and other.time("Start") < job.time("End"):
            assert given[job.name] != given[other.name]


def test_performance_settings_reach_embed(finished):
    for shard in range(3):
        used = read_meta(finished.folder / f"results/embed/{shard}")["settings"]
        assert (used["batch_size"], used["dataloader_workers"], used["streams"]) == (1000, 0, 2)


def test_out_of_memory_fails_only_that_shard(finished, interrupting, tmp_path):
    """While the other run waits for its time limit."""
    project = without_embeddings(finished, tmp_path / "project")
    project.environment["SEQMILL_TEST_OOM"] = "1:500"
    failed = snakemake(project, *HERE)
    assert failed.returncode == 1
    assert project.jobs(failed.stdout) == [CHECK, ("embed", "0"), ("embed", "1"), ("embed", "2")]
    lines = failed.stdout.splitlines()
    title = lines.index("error: 1 of 3 shards ran out of memory:")
    assert lines[title + 2].split()[:2] == ["1", "1000"]
    assert "Traceback" not in failed.stdout
    assert done_shards(project) == ["0", "2"]

    project.configure(performance={"batch_size": 400})
    again = snakemake(project, *HERE)
    assert again.returncode == 0, again.stdout
    assert project.jobs(again.stdout) == [CHECK, ("embed", "1"), MERGE]
    assert read_meta(project.folder / "results/embed/1")["settings"]["batch_size"] == 400
    assert_same_embeddings(embeddings(project), embeddings(finished))


def test_edits_of_speed_and_memory_run_nothing_again(project_to_edit):
    project_to_edit.configure(performance={"batch_size": 2000, "pin_memory": True})
    edit_profile(project_to_edit, "    # mem_mb: 32000", "    mem_mb: 64000")
    edit_profile(project_to_edit, "    # runtime: 720", "    runtime: 90")
    edit_profile(project_to_edit, "embed: 8", "embed: 4")
    assert plan(project_to_edit) == []
    project_to_edit.configure(model={"pooling": "bos"})
    assert [job for job in plan(project_to_edit) if job[0] == "embed"] == [
        ("embed", "0"),
        ("embed", "1"),
        ("embed", "2"),
    ]


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (
            "    # slurm_partition: gpu",
            "    slurm_partition: nosuch",
            "set-resources: embed: slurm_partition is 'nosuch'",
        ),
        ("  # slurm_account: my_account", "  slurm_account: nosuch", "default-resources: slurm_account is 'nosuch'"),
    ],
    ids=["partition", "account"],
)
def test_a_wrong_partition_or_account_is_one_sentence(project_to_edit, old, new, says):
    edit_profile(project_to_edit, old, new)
    done = snakemake(project_to_edit, "--forcerun", "embed", *HERE)
    assert done.returncode == 1
    # Said once, and last.
    assert [line for line in done.stdout.splitlines() if "nosuch" in line] == [done.stdout.splitlines()[-1]]
    assert done.stdout.splitlines()[-1].startswith("error: slurm/config.yaml, or the profile in its place: " + says)
    assert "Traceback" not in done.stdout
    assert "Error in rule" not in done.stdout
    assert slurm_jobs(project_to_edit.folder) == []


def test_the_time_limit_and_scancel_fail_only_their_shards(interrupted):
    project, failed = interrupted
    assert failed.returncode == 1
    # The logs of failed jobs come along and name them once more.
    assert set(project.jobs(failed.stdout)) == {("embed", "0"), ("embed", "1"), ("embed", "2")}
    assert "SLURM status is: 'TIMEOUT'" in failed.stdout
    assert "DUE TO TIME LIMIT" in failed.stdout
    assert "SLURM status is: 'CANCELLED'" in failed.stdout
    assert "Traceback" not in failed.stdout
    assert done_shards(project) == ["2"]
    assert {job.fields["Account"] for job in slurm_jobs(project.folder)} == {"lab"}


def test_the_next_run_goes_on_with_what_was_interrupted(interrupted, finished, tmp_path):
    project = interrupted[0].copy(tmp_path / "project")
    project.environment = dict(finished.environment)
    shutil.rmtree(project.folder / "devices")
    note_devices(project)
    done = snakemake(project, *HERE)
    assert done.returncode == 0, done.stdout
    assert project.jobs(done.stdout) == [CHECK, ("embed", "0"), ("embed", "1"), MERGE]
    assert_same_embeddings(embeddings(project), embeddings(finished))
    for shard in (0, 1):
        assert "resuming after" in log(project, shard)
        # A batch was one protein.
        assert 0 < len(devices(project, shard)) < sequences(project, shard)
