"""Disturbed runs: the projects they begin with, their processes, and how they recover."""

import gzip
import os
import random
import re
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import h5py
import numpy as np
from Bio.SeqIO.FastaIO import SimpleFastaParser
from paths import DEMO_MODEL, INJECTION, PROTEOME
from project import Project
from safetensors.numpy import load_file, save_file

RECORDS, SHARDS, BATCH = 150, 2, 800
ATTEMPTS = 8
# Shard 0 takes a while, so that faults strike while it computes, and what it has is written down often, by several threads.
INJECTED = {
    "PYTHONPATH": str(INJECTION),
    "SEQMILL_TEST_FLUSH": "0.2",
    "SEQMILL_TEST_SLOW": "0:0.1",
    "SEQMILL_TEST_PART": "20000",
}
COMMAND = ("snakemake", "--profile", "profiles/local", "--cores", "2")


class Unrecovered(Exception):
    """A run that did not end as it must."""


@dataclass
class Stages:
    """Projects at several stages, to be copied and not changed.

    Attributes:
        fresh: nothing has run.
        sharded: before the first embed job.
        embedded: before check.
        foreign: finished, with other weights.
        finished: what all runs must come to.
    """

    fresh: Project
    sharded: Project
    embedded: Project
    foreign: Project
    finished: Project


@dataclass
class Run:
    """One disturbed project: `random` decides what happens to it, `notes` say what did."""

    project: Project
    stages: Stages
    random: random.Random
    notes: list[str]


def prepare(folder: Path) -> Stages:
    """Make the projects from real proteins and the demonstration model."""
    fresh = Project.fresh(folder / "fresh")
    with gzip.open(PROTEOME, "rt") as handle:
        short = (record for record in SimpleFastaParser(handle) if len(record[1]) <= 400)
        records = list(islice(short, 0, RECORDS * 15, 15))
    (fresh.folder / "proteins.fasta").write_text("".join(f">{title}\n{letters}\n" for title, letters in records))
    fresh.write_config(
        fasta="proteins.fasta",
        shards=SHARDS,
        model={"name": "resources/esm2_t6_3M_demo", "pooling": ["mean", "residues"]},
        performance={"batch_size": BATCH},
    )
    stages = [fresh]
    for name, arguments in (
        ("sharded", ["--until", "shard", "weights"]),
        ("embedded", ["--until", "embed"]),
        ("finished", []),
    ):
        project = stages[-1].copy(folder / name)
        _succeed(project.snakemake(*arguments))
        stages.append(project)
    fresh, sharded, embedded, finished = stages
    foreign = sharded.copy(folder / "foreign")
    _other_weights(foreign)
    _succeed(foreign.snakemake())
    return Stages(fresh, sharded, embedded, foreign, finished)


def _succeed(done: subprocess.CompletedProcess[str]) -> None:
    if done.returncode != 0:
        raise Unrecovered(f"a run without a fault failed:\n{done.stdout[-3000:]}")


def _other_weights(project: Project) -> None:
    folder = project.folder / "other_model"
    shutil.copytree(DEMO_MODEL, folder)
    weights = {name: np.array(values) for name, values in load_file(DEMO_MODEL / "model.safetensors").items()}
    weights["esm.encoder.layer.0.output.dense.bias"] += 1
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    project.configure(model={"name": "other_model"})


# Processes


def begin_at(run: Run, stage: str) -> None:
    run.notes.append(f"from {stage}")
    source: Project = getattr(run.stages, stage)
    shutil.copytree(source.folder, run.project.folder, symlinks=True)


def start(run: Run) -> subprocess.Popen[str]:
    # In a file: orphans would hold a pipe open.
    output = (run.project.folder / "disturbed.log").open("a")
    with output:
        return subprocess.Popen(
            [sys.executable, "-m", *COMMAND],
            cwd=run.project.folder,
            env=run.project.variables() | INJECTED,
            stdout=output,
            stderr=output,
            text=True,
        )


def processes_of(run: Run) -> list[int]:
    """Everything that works in the project's folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and int(entry.name) != os.getpid():
            with gone_is_fine():
                if (entry / "cwd").readlink() == run.project.folder:
                    found.append(int(entry.name))
    return found


def wait_for_script(run: Run, process: subprocess.Popen[str], stage: str) -> int | None:
    """The process that runs a stage's script; None if the workflow ended without one."""
    while process.poll() is None:
        for pid in processes_of(run):
            with gone_is_fine():
                arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
                if len(arguments) > 2 and arguments[1].endswith(b"/seqmill") and arguments[2] == stage.encode():
                    return pid
        time.sleep(0.05)
    return None


def gone_is_fine() -> suppress:
    """A process may end while it is looked at."""
    return suppress(ProcessLookupError, FileNotFoundError, PermissionError)


def assert_one_sentence(done: subprocess.CompletedProcess[str]) -> None:
    """A failure comes with a sentence and without a traceback."""
    if done.returncode == 0:
        return
    if "Traceback (most recent call last)" in done.stdout or "error: " not in done.stdout:
        raise Unrecovered(f"no clear sentence:\n{done.stdout[-4000:]}")


# Recovery


def recover(run: Run) -> int:
    """Do as the messages say until the workflow is through; returns how many commands that took."""
    forced: list[str] = []
    for attempt in range(1, ATTEMPTS + 1):
        done = run.project.snakemake(*forced)
        if done.returncode == 0:
            return attempt
        if "LockException" in done.stdout:
            # As a user would: see that nothing runs any more, then unlock.
            _wait_for_orphans(run)
            run.project.snakemake("--unlock")
        advice = re.search(r"--forcerun (\w+)", done.stdout)
        forced = ["--forcerun", advice[1]] if advice else []
    raise Unrecovered(f"still failing after {ATTEMPTS} commands:\n{done.stdout[-4000:]}")


def _wait_for_orphans(run: Run) -> None:
    """Until Snakemake itself is gone; what it started may go on."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        commands = []
        for pid in processes_of(run):
            with gone_is_fine():
                commands.append(Path(f"/proc/{pid}/cmdline").read_bytes())
        if not any(b"-m\0snakemake" in command for command in commands):
            return
        time.sleep(0.2)


def compare(run: Run) -> None:
    """The content of an undisturbed run, bit for bit, and the same files."""
    found, expected = (project.folder / "results" for project in (run.project, run.stages.finished))
    with h5py.File(found / "embeddings.h5") as file, h5py.File(expected / "embeddings.h5") as reference:
        if set(file) != set(reference):
            raise Unrecovered(f"datasets {sorted(file)}")
        for name in reference:
            if file[name][:].tobytes() != reference[name][:].tobytes() and not np.array_equal(
                file[name][:], reference[name][:]
            ):
                raise Unrecovered(f"dataset {name} differs")
        if {k: str(v) for k, v in file.attrs.items()} != {k: str(v) for k, v in reference.attrs.items()}:
            raise Unrecovered("attributes differ")
    if (found / "index.parquet").read_bytes() != (expected / "index.parquet").read_bytes():
        raise Unrecovered("index.parquet differs")
    if extra := set(run.project.results()) ^ set(run.stages.finished.results()):
        raise Unrecovered(f"other files: {sorted(extra)}")
