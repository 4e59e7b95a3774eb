"""What the tests share: the demonstration model, a small real input, and a project folder to run Snakemake in."""

import gzip
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import yaml
from Bio.SeqIO.FastaIO import SimpleFastaParser

REPOSITORY = Path(__file__).resolve().parents[1]
LINKED = ("Snakefile", "workflow", "resources", "envs", "profiles", "slurm")

NETWORK = "SEQMILL_NETWORK_TESTS" in os.environ
if not NETWORK:
    # Before anything imports huggingface_hub: no test may reach for the network unasked.
    os.environ["HF_HUB_OFFLINE"] = "1"

Jobs = list[tuple[str, str | None]]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("network") and not NETWORK:
            item.add_marker(pytest.mark.skip(reason="reaches for a model hub; set SEQMILL_NETWORK_TESTS to run it"))


class Project:
    """A working directory that looks like a fresh checkout, with a configuration of its own.

    Attributes:
        folder: where it lies.
        environment: variables that its commands see besides this process's.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.environment: dict[str, str] = {}

    @classmethod
    def fresh(cls, folder: Path) -> "Project":
        folder.mkdir(parents=True)
        for name in LINKED:
            (folder / name).symlink_to(REPOSITORY / name)
        shutil.copytree(REPOSITORY / "config", folder / "config")
        return cls(folder)

    def copy(self, folder: Path) -> "Project":
        """The project as it stands, results and Snakemake's records included, somewhere else."""
        shutil.copytree(self.folder, folder, symlinks=True)
        return Project(folder)

    def configure(self, **edits: Any) -> None:
        """Edit config/config.yaml as a user would: `configure(shards=2, model={"dtype": "float32"})`.

        A section's keys are changed one by one; its others stay.
        """
        path = self.folder / "config/config.yaml"
        config = yaml.safe_load(path.read_text())
        for key, value in edits.items():
            config[key] = {**(config.get(key) or {}), **value} if isinstance(value, dict) else value
        path.write_text(yaml.safe_dump(config))

    def run(self, *command: str | Path) -> subprocess.CompletedProcess[str]:
        """Run a command in the project; its standard error is in `stdout` too, where it happened."""
        # The tests must give the same on a machine with GPUs, and `python` in the rules must be this one.
        environment = os.environ | {
            "CUDA_VISIBLE_DEVICES": "",
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            **self.environment,
        }
        return subprocess.run(
            list(map(str, command)),
            cwd=self.folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
        )

    def snakemake(self, *arguments: str, profile: str = "profiles/local") -> subprocess.CompletedProcess[str]:
        return self.run(sys.executable, "-m", "snakemake", "--profile", profile, "--cores", "2", *arguments)

    @staticmethod
    def jobs(output: str) -> Jobs:
        """The jobs that Snakemake says it runs, or would run: (rule, shard or None), sorted, without `all`."""
        found = []
        for rule, block in re.findall(r"^(?:local)?rule (\w+):\n((?:    .*\n)*)", output, re.MULTILINE):
            shard = re.search(r"^    wildcards: shard=(\d+)$", block, re.MULTILINE)
            if rule != "all":
                found.append((rule, shard[1] if shard else None))
        return sorted(found)

    def plan(self, *arguments: str) -> Jobs:
        """What a dry run would run."""
        done = self.snakemake("--dry-run", *arguments)
        assert done.returncode == 0, done.stdout
        found = self.jobs(done.stdout)
        # Else a new way to print jobs would look like an empty plan.
        assert bool(found) != ("Nothing to be done" in done.stdout), done.stdout
        return found

    def results(self) -> list[str]:
        """All files under results/, relative to it, but for Snakemake's own marks in directories."""
        folder = self.folder / "results"
        paths = (path for path in folder.rglob("*") if path.is_file() and path.name != ".snakemake_timestamp")
        return sorted(str(path.relative_to(folder)) for path in paths)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project.fresh(tmp_path / "project")


@pytest.fixture(scope="session")
def fresh_project() -> Callable[[Path], Project]:
    """Makes more projects, for fixtures that live longer than a test."""
    return Project.fresh


@pytest.fixture(scope="session")
def demo_model() -> Path:
    return REPOSITORY / "resources/esm2_t6_3M_demo"


@pytest.fixture(scope="session")
def small_fasta(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 records: 23 real proteins of 400 residues at most in no order of length, the third one again as the last."""
    with gzip.open(REPOSITORY / "resources/ecoli_k12_UP000000625.fasta.gz", "rt") as handle:
        short = (record for record in SimpleFastaParser(handle) if len(record[1]) <= 400)
        records = list(islice(short, 0, 23 * 12, 12))
    records.append(("twin the same protein under another name", records[2][1]))
    path = tmp_path_factory.mktemp("input") / "small.fasta"
    path.write_text("".join(f">{title}\n{sequence}\n" for title, sequence in records))
    return path
