"""profiles/slurm on a real SLURM, the one that tests/slurm/start.sh sets up: one node, two GPUs that do not exist.

One run of a small input serves most tests. What its jobs asked for is read from SLURM, not from Snakemake.
"""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import h5py
import pytest
import yaml
from Bio.SeqIO.FastaIO import SimpleFastaParser

from seqmill import demand
from seqmill.files import read_json

# start.sh's name for it. Nobody's real cluster is to be asked for GPUs by a test.
CLUSTER = "seqmill-test"
# The test's SLURM has no accounting database, and nobody wants to wait for the first look.
HERE = ("--slurm-status-command", "squeue", "--slurm-init-seconds-before-status-checks", "2")


def is_running():
    command = ["scontrol", "show", "config"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout
    except (OSError, subprocess.SubprocessError):
        return False
    return re.search(rf"^ClusterName\s*= {CLUSTER}$", answer, re.MULTILINE) is not None


needs_slurm = pytest.mark.skipif(not is_running(), reason="tests/slurm/start.sh has not been run")


@dataclass
class SlurmJob:
    """A job as SLURM remembers it.

    Attributes:
        name: rule_<rule>, with the wildcards' values behind it if there are any.
        fields: what `scontrol show job` says of it.
    """

    name: str
    fields: dict[str, str]

    @property
    def gpus(self):
        match = re.fullmatch(r"gres[:/]gpu:(\d+)", self.fields.get("TresPerJob", "gres:gpu:0"))
        return int(match[1])

    @property
    def memory_mb(self):
        return int(self.fields["MinMemoryNode"].removesuffix("M"))

    @property
    def minutes(self):
        hours, minutes, seconds = map(int, self.fields["TimeLimit"].split(":"))
        return hours * 60 + minutes + seconds / 60

    def time(self, event):
        return datetime.fromisoformat(self.fields[f"{event}Time"])


def slurm_jobs(folder):
    """All jobs that were submitted from `folder`, the first one first."""
    command = ["scontrol", "--oneliner", "show", "job"]
    answer = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    jobs = [dict(re.findall(r"(\S+?)=(\S*)", line)) for line in answer.splitlines()]
    return [SlurmJob(fields["Comment"], fields) for fields in jobs if fields.get("WorkDir") == str(folder.resolve())]


def snakemake(project, *arguments):
    """`snakemake --profile slurm`, without the options that tests on one machine add."""
    return project.run(sys.executable, "-m", "snakemake", "--profile", "slurm", *arguments)


def plan(project):
    """What `snakemake --profile slurm -n` would run."""
    done = snakemake(project, "-n")
    assert done.returncode == 0, done.stdout
    return project.jobs(done.stdout)


def edit_profile(project, old, new):
    """Edit the project's own copy of the profile; so far it has a link to the repository's."""
    folder = project.folder / "slurm"
    if folder.is_symlink():
        original = folder.resolve()
        folder.unlink()
        shutil.copytree(original, folder)
    text = (folder / "config.yaml").read_text()
    assert text.count(old) == 1
    (folder / "config.yaml").write_text(text.replace(old, new))


@pytest.fixture(scope="module")
def finished(tmp_path_factory, fresh_project, small_fasta):
    """A project after `snakemake --profile slurm`: 24 proteins in 3 shards, one more than GPUs. Not to be changed."""
    project = fresh_project(tmp_path_factory.mktemp("slurm") / "project")
    shutil.copy(small_fasta, project.folder / "proteins.fasta")
    (project.folder / "config/config.yaml").write_text("{}")
    project.configure(
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
    done = snakemake(project, *HERE)
    assert done.returncode == 0, done.stdout
    return project


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


def test_the_profile_works_in_a_fresh_checkout(project):
    rules = [rule for rule, _ in plan(project)]
    assert rules.count("embed") == 2
    assert {"shard", "weights", "check", "merge"} < set(rules)


@pytest.mark.slurm
@needs_slurm
def test_all_proteins_come_out_in_input_order(finished, small_fasta):
    with small_fasta.open() as handle:
        expected = [title.split()[0] for title, _ in SimpleFastaParser(handle)]
    with h5py.File(finished.folder / "results/embeddings.h5") as file:
        assert file["ids"].asstr()[:].tolist() == expected


@pytest.mark.slurm
@needs_slurm
def test_one_gpu_for_each_embed_job_and_none_for_others(jobs):
    assert {job.name: job.gpus for job in jobs} == {
        "rule_shard": 0,
        "rule_embed_wildcards_0": 1,
        "rule_embed_wildcards_1": 1,
        "rule_embed_wildcards_2": 1,
        "rule_merge": 0,
    }


@pytest.mark.slurm
@needs_slurm
def test_jobs_ask_for_what_the_profile_says(jobs, embed_jobs, finished):
    profile = yaml.safe_load((finished.folder / "slurm/config.yaml").read_text())
    for job in jobs:
        assert job.fields["NumCPUs"] == str(profile["set-threads"]["embed"] if job in embed_jobs else 1)
        if job not in embed_jobs:
            assert job.memory_mb == profile["default-resources"]["mem_mb"]
            assert job.minutes == profile["default-resources"]["runtime"]


@pytest.mark.slurm
@needs_slurm
def test_embed_jobs_ask_for_what_model_and_shard_need(embed_jobs, finished):
    weights = finished.folder / "results/weights.json"
    for shard, job in enumerate(sorted(embed_jobs, key=lambda job: job.name)):
        fasta = finished.folder / f"results/shards/{shard}.fasta"
        assert job.memory_mb == demand.memory_mb(weights, fasta)
        assert job.minutes == demand.runtime_minutes(weights, fasta)


@pytest.mark.slurm
@needs_slurm
def test_a_third_shard_waits_for_one_of_two_gpus(embed_jobs):
    first, second, last = sorted(embed_jobs, key=lambda job: job.time("Start"))
    freed = min(first.time("End"), second.time("End"))
    assert second.time("Start") < freed, "no two shards ran at the same time"
    assert last.time("Submit") < freed, "the third shard came too late to wait for a GPU"
    assert last.time("Start") >= freed


@pytest.mark.slurm
@needs_slurm
def test_performance_settings_reach_embed(finished):
    for shard in range(3):
        used = read_json(finished.folder / f"results/embed/{shard}/meta.json")["settings"]
        assert (used["batch_size"], used["dataloader_workers"], used["streams"]) == (1000, 0, 2)


@pytest.mark.slurm
@needs_slurm
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


@pytest.mark.slurm
@needs_slurm
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
