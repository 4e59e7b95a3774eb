"""The faults: each disturbs a run and returns when the disturbed command has ended."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from runs import (
    SHARDS,
    Run,
    Unrecovered,
    assert_one_sentence,
    begin_at,
    gone_is_fine,
    processes_of,
    start,
    wait_for_script,
)

# Seconds within which a fault strikes after its stage has begun; about as long as the stages take.
STAGE_SECONDS = {"shard": 2.5, "embed": 8.0, "merge": 3.0}
# About what the results take, half of it in the shards and half merged, and a disk that holds them.
DISK_MB, ENOUGH = 60, "160m"


def kill(run: Run) -> None:
    """A signal at a random moment of a stage: to the script alone, to Snakemake alone, or to all."""
    stage = run.random.choice(["shard", "embed", "embed", "embed", "merge"])
    number = run.random.choice([signal.SIGKILL, signal.SIGTERM])
    whom = run.random.choice(["script", "script", "snakemake", "all"])
    delay = run.random.uniform(0, STAGE_SECONDS[stage])
    run.notes.append(f"{number.name} to {whom} {delay:.2f} s into {stage}")
    begin_at(run, {"shard": "fresh", "embed": "sharded", "merge": "embedded"}[stage])
    process = start(run)
    script = wait_for_script(run, process, stage)
    time.sleep(delay)
    if script is not None:
        pids = {"script": [script], "snakemake": [process.pid], "all": processes_of(run)}[whom]
        for pid in pids:
            with gone_is_fine():
                os.kill(pid, number)
    process.communicate(timeout=120)


def twice(run: Run) -> None:
    """A shard that is killed again as soon as it has gone on."""
    run.notes.append("killed twice")
    kill(run)
    process = start(run)
    script = wait_for_script(run, process, "embed")
    time.sleep(run.random.uniform(2, STAGE_SECONDS["embed"]))
    if script is not None:
        with gone_is_fine():
            os.kill(script, signal.SIGKILL)
    process.communicate(timeout=120)


def fill_disk(run: Run) -> None:
    """Results on a file system that is too small, which later grows."""
    size = run.random.randrange(16, DISK_MB * 1024)
    run.notes.append(f"disk of {size} KiB")
    begin_at(run, run.random.choice(["fresh", "sharded"]))
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
    done = run.project.snakemake()
    if done.returncode == 0 and size < DISK_MB * 1024 // 4:
        raise Unrecovered("the disk was not full, so this tested nothing")
    assert_one_sentence(done)
    _mount(results, f"remount,size={ENOUGH}")


def corrupt(run: Run) -> None:
    """One file of the shards flipped, truncated, emptied, lengthened or gone, between two stages."""
    stage = run.random.choice(["sharded", "embedded", "embedded"])
    begin_at(run, stage)
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
    assert_one_sentence(run.project.snakemake())


def corrupt_unfinished(run: Run) -> None:
    """What a killed shard left is damaged before it can go on."""
    begin_at(run, "sharded")
    process = start(run)
    wait_for_script(run, process, "embed")
    partial = run.project.folder / "results/embed"
    deadline = time.monotonic() + 30
    while not list(partial.glob("*.partial/progress.json")) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(run.random.uniform(0, 2))
    for pid in processes_of(run):
        with gone_is_fine():
            os.kill(pid, signal.SIGKILL)
    process.communicate(timeout=120)
    files = sorted(path for path in partial.glob("*.partial/*") if path.name != "lock")
    if files:
        _damage(run, run.random.choice(files))


def foreign(run: Run) -> None:
    """A folder of another model among the shards, as from a copied results directory."""
    begin_at(run, "embedded")
    shard = run.random.randrange(SHARDS)
    run.notes.append(f"shard {shard} of another model")
    target = run.project.folder / f"results/embed/{shard}"
    for name in ("embeddings.h5", "meta.json"):
        (target / name).unlink()
        shutil.copy(run.stages.foreign.folder / f"results/embed/{shard}" / name, target / name)
    done = run.project.snakemake()
    if done.returncode == 0 or "other model weights" not in done.stdout:
        raise Unrecovered(f"a foreign shard was not refused:\n{done.stdout[-2000:]}")


def two_at_once(run: Run) -> None:
    """Two workflows on one directory; perhaps the first one is killed meanwhile."""
    begin_at(run, run.random.choice(["fresh", "sharded", "embedded"]))
    delay, kill_first = run.random.uniform(0, 6), run.random.random() < 0.4
    run.notes.append(f"a second workflow after {delay:.1f} s" + (", the first one killed" if kill_first else ""))
    first = start(run)
    time.sleep(delay)
    second = start(run)
    if kill_first:
        time.sleep(run.random.uniform(0, 4))
        with gone_is_fine():
            os.kill(first.pid, signal.SIGKILL)
    for process in (first, second):
        process.communicate(timeout=240)


FAULTS: dict[str, Callable[[Run], None]] = {
    function.__name__: function
    for function in (kill, twice, fill_disk, corrupt, corrupt_unfinished, foreign, two_at_once)
}
# How often each is taken.
FREQUENCIES = {
    "kill": 9,
    "twice": 2,
    "fill_disk": 4,
    "corrupt": 4,
    "corrupt_unfinished": 2,
    "foreign": 1,
    "two_at_once": 2,
}


# What they share


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


def can_mount() -> bool:
    """Whether this process may mount a tmpfs."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder]
        if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode != 0:
            return False
        subprocess.run(["umount", folder], check=True)
        return True
