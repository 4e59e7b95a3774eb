"""Resuming inside a shard: what an interrupted job keeps, who may go on from it, and that the result is the same."""

import errno
import fcntl
import json
import os
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import small_run
import torch
from damage import flip_in, flip_vector, truncate
from embeddings import read_embeddings, read_meta
from filelock import FileLock
from paths import INJECTION, SCRIPTS
from processes import Program, wait_until

from seqmill.engine import tuning
from seqmill.engine.pipeline import Pipeline
from seqmill.errors import UserError
from seqmill.outputs import partial

BOTH = ("mean", "residues")
# Small batches, so that there are many: 24 short proteins are about 6,000 tokens.
BATCH = 600


@pytest.fixture(scope="module")
def start_job(tiny_model, small_fasta):
    """Embeds the small input, or another file, into a folder; returns the exit status."""

    def run(folder: Path, fasta: Path = small_fasta, **settings) -> int:
        return small_run.embed(tiny_model, fasta, folder, **{"pooling": BOTH, "batch_size": BATCH, **settings})

    return run


@pytest.fixture
def embed(start_job, tmp_path):
    """Embeds into tmp_path/out, if not another folder."""
    return lambda folder="out", **settings: start_job(tmp_path / folder, **settings)


class Interruption(BaseException):
    """Something that nobody catches."""


def failing_submit(call: int, error: BaseException | None = None):
    """In the place of `Pipeline.submit`: the given call (from 1) raises an error."""
    submit, calls = Pipeline.submit, 0

    def submit_or_fail(self, batch):
        nonlocal calls
        calls += 1
        flight = submit(self, batch)
        if calls == call:
            raise error or Interruption
        return flight

    return submit_or_fail


def interrupt(start_job, folder: Path, call: int = 6, **settings) -> None:
    """Begin the shard and be stopped in a batch."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Pipeline, "submit", failing_submit(call))
        with pytest.raises(Interruption):
            start_job(folder, **settings)


@pytest.fixture
def fail_at(monkeypatch):
    """Lets the batch of the given number (from 1) raise an error; None heals it."""
    submit = Pipeline.submit

    def arm(call: int | None, error: BaseException | None = None) -> None:
        monkeypatch.setattr(Pipeline, "submit", submit)
        if call:
            monkeypatch.setattr(Pipeline, "submit", failing_submit(call, error))

    return arm


@pytest.fixture(scope="module")
def stopped_in_sixth_batch(start_job, tmp_path_factory):
    """What a job that was stopped in its sixth batch leaves. Not to be changed."""
    folder = tmp_path_factory.mktemp("interrupted")
    interrupt(start_job, folder / "out")
    return folder


@pytest.fixture
def interrupted(stopped_in_sixth_batch, tmp_path):
    """tmp_path/out and out.partial as a job left them that was stopped in its sixth batch."""
    shutil.copytree(stopped_in_sixth_batch, tmp_path, dirs_exist_ok=True)


@pytest.fixture(scope="module")
def undisturbed(start_job, tmp_path_factory):
    """The result of a run that nobody stopped."""
    folder = tmp_path_factory.mktemp("undisturbed") / "out"
    assert start_job(folder) == 0
    return folder


def content(folder: Path) -> bytes:
    return (folder / "embeddings.h5").read_bytes()


def kept(tmp_path: Path) -> dict:
    return json.loads((tmp_path / "out.partial/progress.json").read_text())


def assert_finished(tmp_path: Path, undisturbed: Path, resumed: bool) -> None:
    assert content(tmp_path / "out") == content(undisturbed)
    assert read_meta(tmp_path / "out")["checksums"] == read_meta(undisturbed)["checksums"]
    assert (read_meta(tmp_path / "out")["resumed_after"] > 0) == resumed
    assert not (tmp_path / "out.partial").exists()


def assert_nearly_the_same(folder: Path, expected: Path) -> None:
    """Rows that were computed in other batches are rounded otherwise."""
    found, wanted = (read_embeddings(each / "embeddings.h5")["mean"] for each in (folder, expected))
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("interrupted")
def test_an_interrupted_shard_goes_on_to_the_same_bytes(embed, undisturbed, tmp_path, caplog):
    assert list((tmp_path / "out").iterdir()) == []
    done = kept(tmp_path)["done"]
    assert 0 < done < 22
    with caplog.at_level("INFO"):
        assert embed() == 0
    assert f"resuming after {done} of 23 sequences" in caplog.text
    assert read_meta(tmp_path / "out")["resumed_after"] == done
    assert_finished(tmp_path, undisturbed, resumed=True)


def test_ctrl_c_says_what_is_saved(embed, fail_at, tmp_path, caplog):
    fail_at(4, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        embed()
    saved = f"{kept(tmp_path)['done']} sequences are saved in {tmp_path / 'out.partial'}; the same command resumes"
    assert saved in caplog.text


def test_it_may_be_interrupted_again_and_again(embed, fail_at, undisturbed, tmp_path):
    for _ in range(3):
        fail_at(4)
        with pytest.raises(Interruption):
            embed()
    fail_at(None)
    assert embed() == 0
    assert_finished(tmp_path, undisturbed, resumed=True)


@pytest.mark.usefixtures("interrupted")
def test_other_settings_of_speed_go_on_too(embed, undisturbed, tmp_path):
    """The rows done are as good as they were; only the others are computed in other batches."""
    assert embed(batch_size=1500) == 0
    assert read_meta(tmp_path / "out")["resumed_after"] > 0
    assert_nearly_the_same(tmp_path / "out", undisturbed)


def test_automatic_choices_are_those_of_the_interrupted_run(start_job, embed, undisturbed, tmp_path, monkeypatch):
    """Or other batches would be other roundings."""
    monkeypatch.setattr(tuning, "CPU_TOKENS", BATCH)
    interrupt(start_job, tmp_path / "out", batch_size=None)
    monkeypatch.setattr(tuning, "CPU_TOKENS", 1500)
    assert embed(batch_size=None) == 0
    assert read_meta(tmp_path / "out")["settings"]["batch_size"] == BATCH
    assert_finished(tmp_path, undisturbed, resumed=True)


def other_fasta(tmp_path: Path, small_fasta: Path) -> dict:
    (tmp_path / "other.fasta").write_text(small_fasta.read_text() + ">one_more\nMKTAYIAKQR\n")
    return {"fasta": tmp_path / "other.fasta"}


@pytest.mark.usefixtures("interrupted")
@pytest.mark.parametrize(
    ("change", "named"),
    [
        (other_fasta, "sequences"),
        (lambda *_: {"dtype": "bfloat16"}, "fingerprint"),
        (lambda *_: {"layers": (0,)}, "fingerprint"),
        (lambda *_: {"pooling": ("mean",)}, "fingerprint"),
    ],
    ids=["sequences", "dtype", "layers", "pooling"],
)
def test_what_belongs_to_something_else_is_not_used(embed, tmp_path, small_fasta, caplog, change, named):
    changed = change(tmp_path, small_fasta)
    assert embed(**changed) == 0
    assert f"cannot resume the earlier run (different {named})" in caplog.text
    assert read_meta(tmp_path / "out")["resumed_after"] == 0
    assert embed("fresh", **changed) == 0
    assert content(tmp_path / "out") == content(tmp_path / "fresh")


def flip_row_done(folder: Path) -> None:
    """The longest sequence is computed first."""
    flip_vector(folder, int(np.argmax(read_embeddings(folder / "embeddings.h5")["lengths"])))


DAMAGES = {
    "row": flip_row_done,
    "attribute": lambda folder: flip_in(folder / "embeddings.h5", "PyTorch SDPA"),
    "truncated": lambda folder: truncate(folder / "embeddings.h5", 3000),
    "no embeddings": lambda folder: (folder / "embeddings.h5").unlink(),
    "empty progress": lambda folder: (folder / "progress.json").write_text(""),
    "other progress": lambda folder: (folder / "progress.json").write_text('{"version": 2}'),
    "no progress": lambda folder: (folder / "progress.json").unlink(),
}


@pytest.mark.usefixtures("interrupted")
@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_what_is_damaged_is_not_used(embed, undisturbed, tmp_path, damage):
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
    assert [oom["batch_size"] for oom in read_meta(tmp_path / "out")["out_of_memory"]] == [BATCH, 500]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["embeddings.h5", "meta.json"]
    assert_nearly_the_same(tmp_path / "out", undisturbed)


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


def begin(fasta: Path, model: Path, folder: Path, *flags: str, **environment: str) -> Program:
    """Start embed.py, with faults that the environment asks for."""
    # They strike only shards, which they know by the name of the file.
    shard = folder.parent / "results/shards/0.fasta"
    shard.parent.mkdir(parents=True, exist_ok=True)
    shard.write_bytes(fasta.read_bytes())
    command = [SCRIPTS / "embed.py", "--fasta", shard, "--model", model, "--output", folder, "--device", "cpu"]
    command += ["--batch-size", str(BATCH), "--pooling", *BOTH, "--dataloader-workers", "1", *flags]
    variables = os.environ | {"PYTHONPATH": str(INJECTION), "CUDA_VISIBLE_DEVICES": ""} | environment
    return Program(*command, environment=variables)


def test_sigterm_keeps_what_is_finished(embed, small_fasta, tiny_model, undisturbed, tmp_path, caplog):
    """Clusters send it before they kill: nothing that is computed is lost, however long ago the last flush was."""
    batches = tmp_path / "devices/0"
    batches.parent.mkdir()
    slowly = {"SEQMILL_TEST_SLOW": "0:0.2", "SEQMILL_TEST_DEVICES": str(batches.parent)}
    program = begin(small_fasta, tiny_model, tmp_path / "out", **slowly)
    wait_until(lambda: batches.exists() and len(batches.read_text().splitlines()) > 3, program)
    assert kept(tmp_path)["done"] == 0
    program.signal(signal.SIGTERM)
    ended = program.wait(30)
    assert ended.returncode == 128 + signal.SIGTERM
    assert "ended by SIGTERM" in ended.stdout
    assert_goes_on(embed, tmp_path, undisturbed, caplog)


def test_sigkill_keeps_what_was_flushed(embed, small_fasta, tiny_model, undisturbed, tmp_path, caplog):
    slowly = {"SEQMILL_TEST_SLOW": "0:0.2", "SEQMILL_TEST_FLUSH": "0.1"}
    program = begin(small_fasta, tiny_model, tmp_path / "out", **slowly)
    progress = tmp_path / "out.partial/progress.json"
    wait_until(lambda: progress.exists() and kept(tmp_path)["done"] > 0, program)
    program.signal(signal.SIGKILL)
    assert program.wait(30).returncode == -signal.SIGKILL
    assert_goes_on(embed, tmp_path, undisturbed, caplog)


def assert_goes_on(embed, tmp_path, undisturbed, caplog):
    done = kept(tmp_path)["done"]
    assert 0 < done < 23
    with caplog.at_level("INFO"):
        assert embed() == 0
    assert f"resuming after {done} of 23 sequences" in caplog.text
    assert_finished(tmp_path, undisturbed, resumed=True)


def test_retries_go_on_in_fresh_processes(small_fasta, tiny_model, tmp_path):
    """Batches of the asked-for size run out of memory, those of the recommended size do not."""
    oom = {"SEQMILL_TEST_OOM": "0:500", "SEQMILL_TEST_RECOMMEND": "450"}
    done = begin(small_fasta, tiny_model, tmp_path / "out", "--on-oom", "retry", **oom).wait(60)
    assert done.returncode == 0, done.stdout
    assert "retry 1 of 3 in a fresh process, batch size 450" in done.stdout
    assert read_meta(tmp_path / "out")["settings"]["batch_size"] == 450
    assert [oom["batch_size"] for oom in read_meta(tmp_path / "out")["out_of_memory"]] == [BATCH]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["embeddings.h5", "index.parquet", "meta.json"]


def test_three_retries_in_vain_end_in_a_diagnosis(small_fasta, tiny_model, tmp_path):
    """Begun as what the second retry starts; the third, which it starts, is the last."""
    oom = {"SEQMILL_TEST_OOM": "0:1", "SEQMILL_TEST_RECOMMEND": "450"}
    flags = ["--on-oom", "retry", "--retry", "2"]
    done = begin(small_fasta, tiny_model, tmp_path / "out", *flags, **oom).wait(60)
    assert done.returncode == 3, done.stdout
    assert "retry 3 of 3 in a fresh process" in done.stdout
    assert done.stdout.count("in a fresh process") == 1
    diagnosis = json.loads((tmp_path / "out/oom.json").read_text())
    assert (diagnosis["batch_size"], diagnosis["earlier"]) == (450, [BATCH])


def test_a_finished_result_of_other_settings_is_replaced_only_on_request(embed, tmp_path, small_fasta):
    assert embed(pooling=("mean",)) == 0
    before = content(tmp_path / "out")
    others = {
        "pooling": {"pooling": ("mean", "bos")},
        "dtype, layers": {"pooling": ("mean",), "dtype": "bfloat16", "layers": (0,)},
        "sequences": {"pooling": ("mean",), **other_fasta(tmp_path, small_fasta)},
    }
    for named, changed in others.items():
        with pytest.raises(UserError, match=f"out: holds a finished result of other {named}; give another folder"):
            embed(**changed)
        assert content(tmp_path / "out") == before
    # The same again is no other result, and a damaged one is none.
    assert embed(pooling=("mean",)) == 0
    assert content(tmp_path / "out") == before
    assert embed(pooling=("mean", "bos"), overwrite=True) == 0
    assert read_meta(tmp_path / "out")["datasets"] == ["mean", "bos"]
    (tmp_path / "out/meta.json").write_text("{")
    assert embed(pooling=("mean",)) == 0
    assert content(tmp_path / "out") == before
