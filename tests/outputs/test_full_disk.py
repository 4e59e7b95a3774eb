"""Disks that are full or read-only: one sentence says so, and nothing is left that looks like a result."""

import errno
from contextlib import suppress
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from disks import disk
from refusals import (
    GOOD,
    WORKFLOW,
    embed,
    find_model,
    refusal,
    run_python,
    run_shard,
    shard,
    written,
)

from seqmill.errors import is_disk_full
from seqmill.outputs.merge import merge as merge_shards

FULL = "the disk is full or the quota used up; free some space and run the same command again"


@pytest.fixture
def small(tmp_path):
    """A disk of 1 MiB."""
    with disk(tmp_path / "small", "size=1m") as folder:
        yield folder


@pytest.fixture
def full(small):
    """A disk without room for another byte."""
    with (small / "filler").open("wb", buffering=0) as file:
        for size in (4096, 1):
            with suppress(OSError):
                while True:
                    file.write(b"x" * size)
    return small


def fasta_of(tmp_path, count):
    """So many distinct sequences of about 100 residues."""
    letters = str.maketrans("0123456789", "ACDEFGHIKL")
    sequences = (f"{'MKTAYIAKQR' * 10}{number}".translate(letters) for number in range(count))
    return written(tmp_path, "".join(f">p{i}\n{sequence}\n" for i, sequence in enumerate(sequences)).encode())


def assert_no_shards(folder):
    assert not (folder / "SHA256SUMS").exists()
    assert not list(folder.glob(".*"))


def test_shard_on_a_full_disk_ends_in_one_sentence(small, tmp_path):
    """The sequences still fit, the shards and the table do not."""
    done = run_shard(fasta_of(tmp_path, 5_000), small / "shards")
    assert done.returncode == 1
    assert done.stderr == f"error: {small / 'shards'}: {FULL}\n"
    assert_no_shards(small / "shards")


def test_sequences_on_a_full_disk_end_in_one_sentence(small, tmp_path):
    """Already the sequences do not fit."""
    path = fasta_of(tmp_path, 40_000)
    assert refusal(shard, path, 1, small / "shards") == f"{small / 'shards'}: {FULL}"
    assert_no_shards(small / "shards")


def test_weights_on_a_full_disk_end_in_one_sentence(full, demo_model):
    assert refusal(find_model(demo_model).save, full / "weights.json") == f"{full}: {FULL}"
    assert [path.name for path in full.iterdir()] == ["filler"]


def test_merge_on_a_full_disk_ends_in_one_sentence(full, demo_model, tmp_path):
    shard(written(tmp_path, GOOD), 1, tmp_path / "shards")
    embed(find_model(demo_model), tmp_path / "shards/0.fasta", tmp_path / "0")
    merge = (
        [tmp_path / "0"],
        [tmp_path / "shards/records.parquet"],
        tmp_path / "embeddings.h5",
        full / "index.parquet",
    )
    assert refusal(merge_shards, *merge) == f"{full}: {FULL}"
    assert [path.name for path in full.iterdir()] == ["filler"]


def test_messages_on_a_full_disk_end_in_one_sentence(tmp_path):
    with Path("/dev/full").open("w") as device:
        done = run_shard(written(tmp_path, GOOD), tmp_path / "shards", stdout=device)
    assert done.returncode == 1
    assert done.stderr == f"error: {FULL}\n"


def test_a_log_on_a_full_disk_prints_no_tracebacks(tmp_path):
    """The log's own disk is full, and standard error then goes elsewhere: nothing about the log is to be seen."""
    program = f"""
import logging, sys
sys.path.insert(0, {str(WORKFLOW)!r})
from seqmill import cli
seen, sys.stderr = sys.stderr, open("/dev/full", "w", buffering=1)
cli.set_up_logging()
sys.stderr = seen
logging.getLogger("seqmill").info("this line has no room")
print("went on")
"""
    done = run_python("-c", program)
    assert (done.returncode, done.stdout, done.stderr.count("Logging error")) == (0, "went on\n", 0)


def test_a_full_disk_is_known_however_a_library_says_it(full):
    frame = pd.DataFrame({"a": np.arange(10_000)})
    writes = [
        lambda: (full / "text").write_text("x" * 10_000),
        lambda: h5py.File(full / "new.h5", "w"),
        lambda: frame.to_parquet(full / "new.parquet"),
        lambda: frame.to_csv(full / "new.csv"),
    ]
    for write in writes:
        with pytest.raises(OSError, match="No space left") as failed:
            write()
        assert is_disk_full(failed.value)


# As h5py says it where it flushes.
FLUSH = "Unable to synchronously flush file (file write failed: time = Sun Nov 22 19:18:26 2026\n, filename = 'a.h5', file descriptor = 3, errno = {}, error message = '...', buf = 0x55672688f620)"


@pytest.mark.parametrize(
    ("error", "full"),
    [
        (OSError(errno.EDQUOT, "Disk quota exceeded"), True),
        (RuntimeError(FLUSH.format(errno.ENOSPC)), True),
        (RuntimeError(FLUSH.format(errno.EDQUOT)), True),
        (RuntimeError(FLUSH.format(errno.EIO)), False),
        (OSError(errno.EIO, "Input/output error"), False),
        (ValueError("28"), False),
    ],
)
def test_a_full_disk_is_distinguished_from_other_failures(error, full):
    assert is_disk_full(error) is full
    later = ValueError("while it was cleaned up")
    later.__context__ = error
    assert is_disk_full(later) is full


def test_a_folder_that_cannot_be_written_ends_in_one_sentence(tmp_path, small_fasta):
    with disk(tmp_path / "read-only", "ro,size=64k") as folder:
        done = run_shard(small_fasta, folder / "out")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(f"error: {folder}/out: Read-only file system; give this user")
    assert "Traceback" not in done.stderr
