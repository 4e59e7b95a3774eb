"""Locks on GPUs: one job a GPU, and a lock that ends with its holder."""

import errno
import multiprocessing
from threading import Timer
from types import SimpleNamespace

import pytest
import torch
from filelock import FileLock

from seqmill import locks
from seqmill.engine import lease as leases
from seqmill.engine.lease import lease
from seqmill.errors import UserError


def hold(path: str, ready, done) -> None:
    with FileLock(path):
        ready.set()
        done.wait(30)


def test_a_taken_gpu_is_left_alone_until_its_holder_ends(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(locks, "POLL_SECONDS", 0.05)
    context = multiprocessing.get_context("spawn")
    ready, done = context.Event(), context.Event()
    holder = context.Process(target=hold, args=(str(tmp_path / "0.lock"), ready, done))
    holder.start()
    assert ready.wait(30)
    taken, free = tmp_path / "0.lock", tmp_path / "1.lock"
    assert locks.acquire_any({0: taken, 1: free}, "waiting")[0] == 1
    assert "waiting" not in caplog.text
    # However the holder ends, the kernel frees its lock.
    Timer(0.5, holder.kill).start()
    with caplog.at_level("INFO"):
        key, lock = locks.acquire_any({0: taken}, "waiting for 100 % of it")
    holder.join()
    assert (key, lock.path) == (0, taken)
    # Said once, however often it looks.
    assert caplog.text.count("waiting for 100 % of it") == 1


@pytest.fixture
def two_gpus(tmp_path, monkeypatch):
    """PyTorch sees two GPUs that are not there."""
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    monkeypatch.setattr(leases, "LOCKS", tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: SimpleNamespace(uuid=f"GPU-{index}"))


def test_two_jobs_never_share_a_gpu_and_a_freed_one_is_taken_again(two_gpus):
    with lease("auto") as first:
        with lease("auto") as second:
            assert {first.index, second.index} == {0, 1}
        with lease("auto") as third:
            assert third == second


def test_a_job_whose_gpu_slurm_chose_takes_no_lock(two_gpus, monkeypatch, tmp_path):
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with lease("auto") as first, lease("auto") as second:
        assert first.index == second.index == 0
    assert list(tmp_path.iterdir()) == []
    # In an allocation with several, jobs of a local run still have to share them out.
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with lease("auto") as first, lease("auto") as second:
        assert {first.index, second.index} == {0, 1}


def test_a_lock_folder_of_somebody_else_is_reported(two_gpus, monkeypatch, tmp_path):
    monkeypatch.setattr(leases, "LOCKS", tmp_path / "nowhere")
    with pytest.raises(UserError, match="cannot create the GPU lock files"), lease("auto"):
        pass


def test_devices_that_are_not_there_are_refused():
    if torch.cuda.is_available():
        pytest.skip("this machine has one")
    with lease("auto") as device:
        assert device.type == "cpu"
    with pytest.raises(UserError, match="PyTorch sees no CUDA GPU"), lease("cuda"):
        pass


def test_a_lock_file_that_cannot_be_locked_is_named(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(FileLock, "acquire", refuse)
    with pytest.raises(UserError, match=r"gpu.lock: cannot be locked \(Permission denied\); remove it"):
        locks.acquire(tmp_path / "gpu.lock", "waiting")
