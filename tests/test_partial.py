"""Resuming inside a shard: what an interrupted job keeps, who may go on from it, and that the result is the same."""

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock

from seqmill import memory, partial, weights
from seqmill.esm2 import ESM2
from seqmill.job import Job, Settings
from seqmill.store import EmbeddingFile

REPOSITORY = Path(__file__).resolve().parents[1]
SABOTAGE = Path(__file__).parent / "sabotage"
BOTH = ("mean", "residues")
# Small batches, so that there are many: 24 short proteins are about 6,000 tokens.
BATCH = 600


@pytest.fixture(scope="module")
def found(demo_model):
    return weights.resolve(str(demo_model))


@pytest.fixture
def embed(found, small_fasta, tmp_path):
    """Embeds the small input, or another file, into tmp_path/out; returns the exit status."""

    def run(fasta: Path = small_fasta, folder: str = "out", **settings) -> int:
        chosen = Settings(**{"device": "cpu", "workers": 0, "pooling": BOTH, "batch_size": BATCH, **settings})
        return Job(fasta, tmp_path / folder, found, chosen, "", time.perf_counter()).run()

    return run


class Interruption(BaseException):
    """Something that nobody catches."""


@pytest.fixture
def fail_at(monkeypatch):
    """Lets the forward of the given call (from 1) raise an error; None heals it."""
    forward = ESM2.forward

    def arm(call: int | None, error: BaseException | None = None) -> None:
        calls = 0

        def failing(self, batch, layers):
            nonlocal calls
            calls += 1
            if calls == call:
                raise error or Interruption
            return forward(self, batch, layers)

        monkeypatch.setattr(ESM2, "forward", failing if call else forward)

    return arm


@pytest.fixture
def interrupted(embed, fail_at):
    """Begins the shard and is stopped in a batch, the sixth unless told otherwise."""

    def run(call: int = 6, **settings) -> None:
        fail_at(call)
        with pytest.raises(Interruption):
            embed(**settings)
        fail_at(None)

    return run


@pytest.fixture(scope="module")
def undisturbed(found, small_fasta, tmp_path_factory):
    """The result of a run that nobody stopped."""
    folder = tmp_path_factory.mktemp("undisturbed") / "out"
    settings = Settings(device="cpu", workers=0, pooling=BOTH, batch_size=BATCH)
    assert Job(small_fasta, folder, found, settings, "", time.perf_counter()).run() == 0
    return folder


def content(folder: Path) -> bytes:
    return (folder / "embeddings.h5").read_bytes()


def meta(folder: Path) -> dict:
    return json.loads((folder / "meta.json").read_text())


def kept(tmp_path: Path) -> dict:
    return json.loads((tmp_path / "out.partial/progress.json").read_text())


def assert_finished(tmp_path: Path, undisturbed: Path, resumed: bool) -> None:
    assert content(tmp_path / "out") == content(undisturbed)
    assert meta(tmp_path / "out")["checksums"] == meta(undisturbed)["checksums"]
    assert (meta(tmp_path / "out")["resumed_after"] > 0) == resumed
    assert not (tmp_path / "out.partial").exists()


def test_an_interrupted_shard_goes_on_to_the_same_bytes(embed, interrupted, undisturbed, tmp_path, caplog):
    interrupted()
    assert list((tmp_path / "out").iterdir()) == []
    done = kept(tmp_path)["done"]
    assert 0 < done < 23
    with caplog.at_level("INFO"):
        assert embed() == 0
    assert f"going on after {done} of 24 sequences" in caplog.text
    assert meta(tmp_path / "out")["resumed_after"] == done
    assert_finished(tmp_path, undisturbed, resumed=True)


def test_it_may_be_interrupted_again_and_again(embed, fail_at, undisturbed, tmp_path):
    for _ in range(3):
        fail_at(4)
        with pytest.raises(Interruption):
            embed()
    fail_at(None)
    assert embed() == 0
    assert_finished(tmp_path, undisturbed, resumed=True)


def test_other_settings_of_speed_go_on_too(embed, interrupted, undisturbed, tmp_path):
    """The rows done are as good as they were; only the others are computed in other batches."""
    interrupted()
    assert embed(batch_size=1500) == 0
    assert meta(tmp_path / "out")["resumed_after"] > 0
    with (
        EmbeddingFile(tmp_path / "out/embeddings.h5") as file,
        EmbeddingFile(undisturbed / "embeddings.h5") as expected,
    ):
        np.testing.assert_allclose(file.values("mean"), expected.values("mean"), rtol=1e-4, atol=1e-5)


def test_automatic_choices_are_those_of_the_interrupted_run(embed, interrupted, undisturbed, tmp_path, monkeypatch):
    """Or other batches would be other roundings."""
    monkeypatch.setattr(memory, "CPU_TOKENS", BATCH)
    interrupted(batch_size=None)
    monkeypatch.setattr(memory, "CPU_TOKENS", 1500)
    assert embed(batch_size=None) == 0
    assert meta(tmp_path / "out")["settings"]["batch_size"] == BATCH
    assert_finished(tmp_path, undisturbed, resumed=True)


def other_fasta(tmp_path: Path, small_fasta: Path) -> dict:
    (tmp_path / "other.fasta").write_text(small_fasta.read_text() + ">one_more\nMKTAYIAKQR\n")
    return {"fasta": tmp_path / "other.fasta"}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (other_fasta, "sequences"),
        (lambda *_: {"dtype": "bfloat16"}, "fingerprint"),
        (lambda *_: {"layers": (3,)}, "fingerprint"),
        (lambda *_: {"pooling": ("mean",)}, "fingerprint"),
    ],
    ids=["sequences", "dtype", "layers", "pooling"],
)
def test_what_belongs_to_something_else_is_not_used(embed, interrupted, tmp_path, small_fasta, caplog, change, named):
    interrupted()
    changed = change(tmp_path, small_fasta)
    assert embed(**changed) == 0
    assert f"it is of other {named}" in caplog.text
    assert meta(tmp_path / "out")["resumed_after"] == 0
    assert embed(**changed, folder="fresh") == 0
    assert content(tmp_path / "out") == content(tmp_path / "fresh")


def flip(path: Path, place: int) -> None:
    damaged = bytearray(path.read_bytes())
    damaged[place] ^= 1
    path.write_bytes(damaged)


def first_done_value(path: Path) -> int:
    """Where the first value of the longest sequence, which is computed first, stands."""
    with EmbeddingFile(path) as file:
        return file.extents["mean"].offset + int(np.argmax(file.lengths)) * file.extents["mean"].row_bytes


DAMAGES = {
    "row": lambda folder: flip(folder / "embeddings.h5", first_done_value(folder / "embeddings.h5")),
    "attribute": lambda folder: flip(
        folder / "embeddings.h5", (folder / "embeddings.h5").read_bytes().index(b"PyTorch SDPA")
    ),
    "truncated": lambda folder: os.truncate(folder / "embeddings.h5", 3000),
    "no embeddings": lambda folder: (folder / "embeddings.h5").unlink(),
    "empty progress": lambda folder: (folder / "progress.json").write_text(""),
    "other progress": lambda folder: (folder / "progress.json").write_text('{"version": 2}'),
    "no progress": lambda folder: (folder / "progress.json").unlink(),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_what_is_damaged_is_not_used(embed, interrupted, undisturbed, tmp_path, damage):
    interrupted()
    damage(tmp_path / "out.partial")
    assert embed() == 0
    assert_finished(tmp_path, undisturbed, resumed=False)


def test_after_an_out_of_memory_a_smaller_batch_goes_on(embed, fail_at, tmp_path, undisturbed):
    fail_at(6, torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."))
    assert embed() == 3
    diagnosis = json.loads((tmp_path / "out/oom.json").read_text())
    assert diagnosis["completed_share"] > 0.2
    assert diagnosis["earlier"] == []
    assert kept(tmp_path)["choices"] == {}
    fail_at(3, torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.00 GiB."))
    assert embed(batch_size=500) == 3
    assert json.loads((tmp_path / "out/oom.json").read_text())["earlier"] == [BATCH]
    fail_at(None)
    assert embed(batch_size=300) == 0
    assert [oom["batch_size"] for oom in meta(tmp_path / "out")["out_of_memory"]] == [BATCH, 500]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["embeddings.h5", "meta.json"]
    with (
        EmbeddingFile(tmp_path / "out/embeddings.h5") as file,
        EmbeddingFile(undisturbed / "embeddings.h5") as expected,
    ):
        np.testing.assert_allclose(file.values("mean"), expected.values("mean"), rtol=1e-4, atol=1e-5)


def test_a_job_killed_when_it_has_just_finished_has_nothing_to_compute(embed, fail_at, undisturbed, tmp_path):
    assert embed(keep_partial=True) == 0
    # One file under two names.
    assert (tmp_path / "out/embeddings.h5").stat().st_ino == (tmp_path / "out.partial/embeddings.h5").stat().st_ino
    for path in (tmp_path / "out").iterdir():
        path.unlink()
    fail_at(1)
    assert embed() == 0
    assert_finished(tmp_path, undisturbed, resumed=True)


def test_a_file_system_without_hard_links_will_do(embed, undisturbed, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    assert embed(keep_partial=True) == 0
    assert content(tmp_path / "out") == content(undisturbed)


def test_a_failing_flush_ends_the_job(embed, tmp_path, monkeypatch):
    """Rows that cannot be written down would be lost with the next interruption."""
    monkeypatch.setattr(partial, "FLUSH_SECONDS", 0.01)
    flush, calls = partial.Partial.flush, 0

    def full(self, sync=True):
        nonlocal calls
        if self.file is not None:
            calls += 1
            if calls > 1:
                raise OSError(errno.ENOSPC, "No space left on device")
        flush(self, sync)

    monkeypatch.setattr(partial.Partial, "flush", full)
    with pytest.raises(OSError, match="No space left"):
        embed()
    assert not (tmp_path / "out/embeddings.h5").exists()


def test_a_file_system_without_locks_will_do(embed, undisturbed, tmp_path, monkeypatch, caplog):
    def refuse(*_, **__):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(FileLock, "acquire", refuse)
    assert embed() == 0
    assert "the file system has no locks" in caplog.text
    assert_finished(tmp_path, undisturbed, resumed=False)


def test_a_second_process_waits_for_the_first(embed, undisturbed, tmp_path, caplog, monkeypatch):
    (tmp_path / "out.partial").mkdir()
    # What waits sleeps; then the other one ends.
    with (tmp_path / "out.partial/lock").open("w") as holder, caplog.at_level("INFO"):
        fcntl.flock(holder, fcntl.LOCK_EX)
        monkeypatch.setattr(time, "sleep", lambda _: fcntl.flock(holder, fcntl.LOCK_UN))
        assert embed() == 0
    assert "another process works on this shard: waiting" in caplog.text
    assert_finished(tmp_path, undisturbed, resumed=False)


# The script, and real signals


def start(fasta: Path, model: Path, folder: Path, *flags: str, **environment: str) -> subprocess.Popen:
    # Only a FASTA under this name is sabotaged.
    shard = folder.parent / "results/shards/0.fasta"
    shard.parent.mkdir(parents=True, exist_ok=True)
    shard.write_bytes(fasta.read_bytes())
    command = [sys.executable, REPOSITORY / "workflow/scripts/embed.py", "--fasta", shard, "--model", model]
    command += ["--output", folder, "--device", "cpu", "--batch-size", str(BATCH), "--pooling", *BOTH]
    command += ["--dataloader-workers", "1", *flags]
    variables = os.environ | {"PYTHONPATH": str(SABOTAGE), "CUDA_VISIBLE_DEVICES": ""} | environment
    return subprocess.Popen(command, env=variables, stderr=subprocess.PIPE, text=True)


def wait_for_rows(folder: Path, process: subprocess.Popen) -> None:
    """Until something is written down; the process must have set SEQMILL_TEST_FLUSH."""
    path = folder / "progress.json"
    while not path.exists() or json.loads(path.read_text())["done"] == 0:
        assert process.poll() is None
        time.sleep(0.1)


def test_sigterm_keeps_what_is_finished(small_fasta, demo_model, undisturbed, tmp_path):
    process = start(small_fasta, demo_model, tmp_path / "out", SEQMILL_TEST_SLOW="0:0.5", SEQMILL_TEST_FLUSH="0.1")
    wait_for_rows(tmp_path / "out.partial", process)
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=30)[1]
    assert process.returncode == 128 + signal.SIGTERM
    assert "ended by SIGTERM" in said
    done = kept(tmp_path)["done"]
    assert done > 0
    again = start(small_fasta, demo_model, tmp_path / "out")
    assert f"going on after {done} of 24 sequences" in again.communicate(timeout=60)[1]
    assert again.returncode == 0
    assert_finished(tmp_path, undisturbed, resumed=True)


def test_sigkill_keeps_what_was_flushed(small_fasta, demo_model, undisturbed, tmp_path):
    sabotage = {"SEQMILL_TEST_SLOW": "0:0.5", "SEQMILL_TEST_FLUSH": "0.1"}
    process = start(small_fasta, demo_model, tmp_path / "out", **sabotage)
    wait_for_rows(tmp_path / "out.partial", process)
    process.kill()
    process.communicate(timeout=30)
    again = start(small_fasta, demo_model, tmp_path / "out")
    assert f"going on after {kept(tmp_path)['done']} of 24 sequences" in again.communicate(timeout=60)[1]
    assert_finished(tmp_path, undisturbed, resumed=True)


def test_retries_go_on_in_fresh_processes(small_fasta, demo_model, tmp_path):
    """Batches of the asked-for size run out of memory, those of the recommended size do not."""
    sabotage = {"SEQMILL_TEST_OOM": "0:500", "SEQMILL_TEST_RECOMMEND": "450"}
    process = start(small_fasta, demo_model, tmp_path / "out", "--on-oom", "retry", **sabotage)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 0, said
    assert "retry 1 of 3 in a fresh process, batch size 450" in said
    assert meta(tmp_path / "out")["settings"]["batch_size"] == 450
    assert [oom["batch_size"] for oom in meta(tmp_path / "out")["out_of_memory"]] == [BATCH]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["embeddings.h5", "meta.json"]


def test_three_retries_in_vain_end_in_a_diagnosis(small_fasta, demo_model, tmp_path):
    sabotage = {"SEQMILL_TEST_OOM": "0:1", "SEQMILL_TEST_RECOMMEND": "450"}
    process = start(small_fasta, demo_model, tmp_path / "out", "--on-oom", "retry", **sabotage)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 3, said
    assert said.count("in a fresh process") == 3
    diagnosis = json.loads((tmp_path / "out/oom.json").read_text())
    assert (diagnosis["batch_size"], diagnosis["earlier"]) == (450, [BATCH, 450, 450])
