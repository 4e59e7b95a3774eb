"""The SLURM that start.sh sets up, and projects that run on it."""

import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import datetime

import pytest
from paths import INJECTION

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


def note_devices(project):
    """Have each batch note the GPUs that its job was given, from now on; see `devices`."""
    folder = project.folder / "devices"
    folder.mkdir(exist_ok=True)
    project.environment |= {"PYTHONPATH": str(INJECTION), "SEQMILL_TEST_DEVICES": str(folder)}


def devices(project, shard):
    """What `CUDA_VISIBLE_DEVICES` said to each batch of the shard so far, all runs in one."""
    path = project.folder / f"devices/{shard}"
    return path.read_text().splitlines() if path.exists() else []


def sequences(project, shard):
    return (project.folder / f"results/shards/{shard}.fasta").read_text().count(">")


def log(project, shard):
    return (project.folder / f"logs/embed/{shard}.log").read_text()


def done_shards(project):
    return sorted(path.parent.name for path in project.folder.glob("results/embed/*/meta.json"))


def wait_for(condition, run):
    """Wait until it holds, or until the run is over; that one has a time limit."""
    while not condition() and not run.done():
        time.sleep(0.5)


def cancel_when_busy(project, shard, run):
    """`scancel` a shard's job when it has finished two batches."""
    wait_for(lambda: len(devices(project, shard)) > 2, run)
    for job in slurm_jobs(project.folder):
        if job.name == f"rule_embed_wildcards_{shard}":
            subprocess.run(["scancel", job.fields["JobId"]], check=True)
