"""Disturb the workflow in every way that a cluster does, rerun it, and see that the embeddings are the same each time.

    python tests/faults/campaign.py --runs 200 --seed 1

Each run begins with a copy of a project at some stage, suffers one fault, and is then rerun as a user would: the same
command, `--unlock` where Snakemake asks for it, `--forcerun` where seqmill does. It must end with the content of an
undisturbed run, bit for bit, and leave nothing else behind. Full disks need root, for a small tmpfs.
"""

import argparse
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "workflow"))

import gzip

import h5py
import numpy as np
from Bio.SeqIO.FastaIO import SimpleFastaParser
from conftest import REPOSITORY, Project

RECORDS, SHARDS, BATCH = 150, 2, 800
# Seconds within which a fault strikes after its stage has begun; about as long as the stages take.
STAGE_SECONDS = {"shard": 2.5, "embed": 8.0, "merge": 3.0}
# About what the results take, half of it in the shards and half merged, and a disk that holds them.
DISK_MB, ENOUGH = 60, "160m"
ATTEMPTS = 8
# Shard 0 takes a while, so that faults strike while it computes, and what it has is written down often.
SABOTAGE = {
    "PYTHONPATH": str(REPOSITORY / "tests/sabotage"),
    "SEQMILL_TEST_FLUSH": "0.2",
    "SEQMILL_TEST_SLOW": "0:0.1",
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
    """One disturbed project: `random` decides what happens to it, `notes` tell it."""

    project: Project
    stages: Stages
    random: random.Random
    notes: list[str]


def prepare(folder: Path) -> Stages:
    """Make the projects from real proteins and the demonstration model."""
    fresh = Project.fresh(folder / "fresh")
    with gzip.open(REPOSITORY / "resources/ecoli_k12_UP000000625.fasta.gz", "rt") as handle:
        short = (record for record in SimpleFastaParser(handle) if len(record[1]) <= 400)
        records = list(islice(short, 0, RECORDS * 15, 15))
    (fresh.folder / "proteins.fasta").write_text("".join(f">{title}\n{letters}\n" for title, letters in records))
    (fresh.folder / "config/config.yaml").write_text("{}")
    fresh.configure(
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
        _succeed(project.run(*COMMAND, *arguments))
        stages.append(project)
    fresh, sharded, embedded, finished = stages
    foreign = sharded.copy(folder / "foreign")
    _other_weights(foreign)
    _succeed(foreign.run(*COMMAND))
    return Stages(fresh, sharded, embedded, foreign, finished)


def _succeed(done: subprocess.CompletedProcess[str]) -> None:
    if done.returncode != 0:
        raise Unrecovered(f"a run without a fault failed:\n{done.stdout[-3000:]}")


def _other_weights(project: Project) -> None:
    from safetensors.numpy import load_file, save_file

    source = REPOSITORY / "resources/esm2_t6_3M_demo"
    folder = project.folder / "other_model"
    shutil.copytree(source, folder)
    weights = {name: np.array(values) for name, values in load_file(source / "model.safetensors").items()}
    weights["esm.encoder.layer.0.output.dense.bias"] += 1
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    project.configure(model={"name": "other_model"})


# Faults: each disturbs a run and returns when the disturbed command has ended.


def kill(run: Run) -> None:
    """A signal at a random moment of a stage: to the script alone, to Snakemake alone, or to all."""
    stage = run.random.choice(["shard", "embed", "embed", "embed", "merge"])
    number = run.random.choice([signal.SIGKILL, signal.SIGTERM])
    whom = run.random.choice(["script", "script", "snakemake", "all"])
    delay = run.random.uniform(0, STAGE_SECONDS[stage])
    run.notes.append(f"{number.name} to {whom} {delay:.2f} s into {stage}")
    _begin_at(run, {"shard": "fresh", "embed": "sharded", "merge": "embedded"}[stage])
    process = _start(run)
    script = _wait_for_script(run, process, stage)
    time.sleep(delay)
    if script is not None:
        victims = {"script": [script], "snakemake": [process.pid], "all": _processes(run)}[whom]
        for victim in victims:
            with _gone_is_fine():
                os.kill(victim, number)
    process.communicate(timeout=120)


def twice(run: Run) -> None:
    """A shard that is killed again as soon as it has gone on."""
    run.notes.append("killed twice")
    kill(run)
    process = _start(run)
    script = _wait_for_script(run, process, "embed")
    time.sleep(run.random.uniform(2, STAGE_SECONDS["embed"]))
    if script is not None:
        with _gone_is_fine():
            os.kill(script, signal.SIGKILL)
    process.communicate(timeout=120)


def fill_disk(run: Run) -> None:
    """Results on a file system that is too small, which later grows."""
    size = run.random.randrange(16, DISK_MB * 1024)
    run.notes.append(f"disk of {size} KiB")
    _begin_at(run, run.random.choice(["fresh", "sharded"]))
    results = run.project.folder / "results"
    kept = run.project.folder / "kept"
    if results.exists():
        results.rename(kept)
    results.mkdir()
    _mount(results, f"size={ENOUGH}")
    if kept.exists():
        shutil.copytree(kept, results, dirs_exist_ok=True)
        shutil.rmtree(kept)
    used = sum(path.stat().st_blocks for path in results.rglob("*")) // 2
    _mount(results, f"remount,size={used + size}k")
    done = run.project.run(*COMMAND)
    if done.returncode == 0 and size < DISK_MB * 1024 // 4:
        raise Unrecovered("the disk was not full, so this tested nothing")
    _assert_told(done)
    _mount(results, f"remount,size={ENOUGH}")


def corrupt(run: Run) -> None:
    """One file of the shards flipped, truncated, emptied, lengthened or gone, between two stages."""
    stage = run.random.choice(["sharded", "embedded", "embedded"])
    _begin_at(run, stage)
    results = run.project.folder / "results"
    if stage == "sharded":
        files = [
            *sorted(results.glob("shards/*.fasta")),
            results / "shards/records.parquet",
            results / "shards/SHA256SUMS",
        ]
    else:
        files = [*sorted(results.glob("embed/*/*.h5")), *sorted(results.glob("embed/*/meta.json"))]
        files += sorted(results.glob("embed/*.partial/*.*"))
    _damage(run, run.random.choice(files))
    _assert_told(run.project.run(*COMMAND))


def corrupt_unfinished(run: Run) -> None:
    """What a killed shard left is damaged before it can go on."""
    _begin_at(run, "sharded")
    process = _start(run)
    script = _wait_for_script(run, process, "embed")
    partial = run.project.folder / "results/embed"
    deadline = time.monotonic() + 30
    while not list(partial.glob("*.partial/progress.json")) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(run.random.uniform(0, 2))
    for victim in [script, *_processes(run)]:
        with _gone_is_fine():
            os.kill(victim, signal.SIGKILL)
    process.communicate(timeout=120)
    files = sorted(path for path in partial.glob("*.partial/*") if path.name != "lock")
    if files:
        _damage(run, run.random.choice(files))


def foreign(run: Run) -> None:
    """A folder of another model among the shards, as from a copied results directory."""
    _begin_at(run, "embedded")
    shard = run.random.randrange(SHARDS)
    run.notes.append(f"shard {shard} of another model")
    target = run.project.folder / f"results/embed/{shard}"
    for name in ("embeddings.h5", "meta.json"):
        (target / name).unlink()
        shutil.copy(run.stages.foreign.folder / f"results/embed/{shard}" / name, target / name)
    done = run.project.run(*COMMAND)
    if done.returncode == 0 or "other model weights" not in done.stdout:
        raise Unrecovered(f"a foreign shard was not refused:\n{done.stdout[-2000:]}")


def two_at_once(run: Run) -> None:
    """Two workflows on one directory; perhaps the first one is killed meanwhile."""
    _begin_at(run, run.random.choice(["fresh", "sharded", "embedded"]))
    delay, murder = run.random.uniform(0, 6), run.random.random() < 0.4
    run.notes.append(f"a second workflow after {delay:.1f} s" + (", the first one killed" if murder else ""))
    first = _start(run)
    time.sleep(delay)
    second = _start(run)
    if murder:
        time.sleep(run.random.uniform(0, 4))
        with _gone_is_fine():
            os.kill(first.pid, signal.SIGKILL)
    for process in (first, second):
        process.communicate(timeout=240)


FAULTS: dict[str, Callable[[Run], None]] = {
    function.__name__: function
    for function in (kill, twice, fill_disk, corrupt, corrupt_unfinished, foreign, two_at_once)
}
# How often each is taken.
WEIGHTS = {"kill": 9, "twice": 2, "fill_disk": 4, "corrupt": 4, "corrupt_unfinished": 2, "foreign": 1, "two_at_once": 2}


# What the faults share


def _begin_at(run: Run, stage: str) -> None:
    run.notes.append(f"from {stage}")
    source: Project = getattr(run.stages, stage)
    shutil.copytree(source.folder, run.project.folder, symlinks=True)


def _start(run: Run) -> subprocess.Popen[str]:
    environment = (
        os.environ
        | SABOTAGE
        | {
            "CUDA_VISIBLE_DEVICES": "",
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        }
    )
    # In a file: orphans would hold a pipe open.
    output = (run.project.folder / "disturbed.log").open("a")
    with output:
        return subprocess.Popen(
            [sys.executable, "-m", *COMMAND],
            cwd=run.project.folder,
            env=environment,
            stdout=output,
            stderr=output,
            text=True,
        )


def _processes(run: Run) -> list[int]:
    """Everything that works in the project's folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and int(entry.name) != os.getpid():
            with _gone_is_fine():
                if (entry / "cwd").readlink() == run.project.folder:
                    found.append(int(entry.name))
    return found


def _wait_for_script(run: Run, process: subprocess.Popen[str], stage: str) -> int | None:
    """The process that runs a stage's script; None if the workflow ended without one."""
    while process.poll() is None:
        for pid in _processes(run):
            with _gone_is_fine():
                arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
                if len(arguments) > 1 and arguments[1].endswith(f"scripts/{stage}.py".encode()):
                    return pid
        time.sleep(0.05)
    return None


def _gone_is_fine() -> suppress:
    """A process may end while it is looked at."""
    return suppress(ProcessLookupError, FileNotFoundError, PermissionError)


def _damage(run: Run, path: Path) -> None:
    how = run.random.choice(["flip", "flip", "truncate", "empty", "lengthen", "remove"])
    run.notes.append(f"{how} {path.relative_to(run.project.folder)}")
    if how == "remove":
        path.unlink()
        return
    # Not in place: what is kept to go on with is the same file under another name.
    content = bytearray(path.read_bytes())
    if how == "flip" and content:
        content[run.random.randrange(len(content))] ^= 1 << run.random.randrange(8)
    elif how == "truncate":
        del content[run.random.randrange(max(len(content), 1)) :]
    elif how == "empty":
        content.clear()
    elif how == "lengthen":
        content += b"\0" * run.random.randrange(1, 5000)
    if run.random.random() < 0.5:
        path.unlink()
    path.write_bytes(content)


def _mount(folder: Path, options: str) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], check=True)


def _assert_told(done: subprocess.CompletedProcess[str]) -> None:
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
        done = run.project.run(*COMMAND, *forced)
        if done.returncode == 0:
            return attempt
        if "LockException" in done.stdout:
            # As a user would: see that nothing runs any more, then unlock.
            _wait_for_orphans(run)
            run.project.run(*COMMAND, "--unlock")
        advice = re.search(r"--forcerun (\w+)", done.stdout)
        forced = ["--forcerun", advice[1]] if advice else []
    raise Unrecovered(f"still failing after {ATTEMPTS} commands:\n{done.stdout[-4000:]}")


def _wait_for_orphans(run: Run) -> None:
    """Until Snakemake itself is gone; what it started may go on."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        commands = []
        for pid in _processes(run):
            with _gone_is_fine():
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


def suffer(stages: Stages, folder: Path, fault: str, seed: str) -> dict[str, object]:
    """One run from its fault to the comparison; what happened, for a table."""
    run = Run(Project(folder), stages, random.Random(seed), [])
    row: dict[str, object] = {"seed": seed, "fault": fault}
    begun = time.monotonic()
    try:
        FAULTS[fault](run)
        row["commands"] = recover(run)
        compare(run)
        row["ended"] = "same"
        row["resumed"] = sum(
            json.loads(path.read_text())["resumed_after"] > 0 for path in folder.glob("results/embed/*/meta.json")
        )
    except Unrecovered as error:
        row["ended"] = str(error)
    except Exception:
        row["ended"] = f"the campaign itself failed:\n{traceback.format_exc()}"
    finally:
        for victim in _processes(run):
            with _gone_is_fine():
                os.kill(victim, signal.SIGKILL)
        if (folder / "results").is_mount():
            subprocess.run(["umount", "--lazy", folder / "results"], check=True)
    if row["ended"] == "same":
        shutil.rmtree(folder, ignore_errors=True)
    return row | {"what": ", ".join(run.notes), "seconds": round(time.monotonic() - begun)}


def can_mount() -> bool:
    """Whether this process may mount a tmpfs."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder]
        if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode != 0:
            return False
        subprocess.run(["umount", folder], check=True)
        return True


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--seed", default="1")
    parser.add_argument("--jobs", type=int, default=1, help="runs at once [%(default)s]")
    parser.add_argument("--faults", nargs="+", choices=FAULTS, help="only these")
    parser.add_argument("--output", type=Path, help="a JSON line per run")
    parser.add_argument("--folder", type=Path, help="where to work; runs that fail stay there [a temporary folder]")
    args = parser.parse_args()
    kinds = args.faults or [fault for fault in FAULTS if fault != "fill_disk" or can_mount()]
    draw = random.Random(args.seed)
    faults = draw.choices(kinds, [WEIGHTS[kind] for kind in kinds], k=args.runs)
    folder = (args.folder or Path(tempfile.mkdtemp(prefix="seqmill-faults-"))).resolve()
    stages = prepare(folder)
    rows = []
    with ThreadPoolExecutor(args.jobs) as pool:
        tasks = [
            pool.submit(suffer, stages, folder / str(number), fault, f"{args.seed}.{number}")
            for number, fault in enumerate(faults)
        ]
        for task in tasks:
            rows.append(task.result())
            print(json.dumps(rows[-1]), flush=True)
            if args.output:
                args.output.write_text("".join(json.dumps(row) + "\n" for row in rows))
    failed = [row for row in rows if row["ended"] != "same"]
    print(f"{len(rows)} runs ({dict(Counter(faults))}), {len(failed)} ended otherwise than an undisturbed one")
    print(f"{sum(bool(row.get('resumed')) for row in rows)} of them went on inside a shard")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
