"""A project folder to run Snakemake in, as a user would."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import processes
import yaml
from paths import REPOSITORY

LINKED = ("Snakefile", "workflow", "resources", "envs", "profiles", "slurm")

Jobs = list[tuple[str, str | None]]


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

    def write_config(self, **settings: Any) -> None:
        """A config/config.yaml with these settings alone. No pictures are drawn unless they say so: that takes seconds."""
        (self.folder / "config/config.yaml").write_text("results: {figures: false}")
        self.configure(**settings)

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
        return subprocess.run(
            list(map(str, command)),
            cwd=self.folder,
            env=self.variables(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
        )

    def variables(self) -> dict[str, str]:
        """The environment of its commands."""
        # The tests must give the same on a machine with GPUs, and `python` in the rules must be this one.
        return os.environ | {
            "CUDA_VISIBLE_DEVICES": "",
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            **self.environment,
        }

    def script(self, name: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """Run one of workflow/scripts in the project, spared its imports; see `processes`."""
        script = self.folder / "workflow/scripts" / name
        return processes.run(script, *arguments, folder=self.folder, environment=self.variables())

    def snakemake(self, *arguments: str, profile: str = "profiles/local") -> subprocess.CompletedProcess[str]:
        """Run Snakemake in the project, spared its imports; the jobs that it starts are processes as ever."""
        arguments = ("--profile", profile, "--cores", "2", *arguments)
        return processes.run("snakemake", *arguments, folder=self.folder, environment=self.variables())

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
