"""How far a job is: predicted by cost, told to those who watch, and seldom in the log."""

import io
import logging
import os
import pty
import re
import subprocess
import sys
import time

import numpy as np
import pytest
from paths import INJECTION, SCRIPTS

from seqmill import progress
from seqmill.files import sha256
from seqmill.inputs import sha256sums
from seqmill.progress import Progress

# A long sequence takes more for each of its residues.
LENGTHS = np.array([30_000, *[300] * 100])
COSTS = LENGTHS * (1 + LENGTHS / 3_000)
OFFSETS = np.concatenate([[0], np.cumsum(LENGTHS)])


@pytest.fixture
def clock(monkeypatch):
    """Stands still unless a test moves it."""

    class Clock:
        now = 0.0

    monkeypatch.setattr(time, "monotonic", lambda: Clock.now)
    return Clock


def test_time_left_is_predicted_by_cost(clock):
    """By residues the 100 short ones would take as long as the long one took."""
    job = Progress()
    job.begin(COSTS, OFFSETS, 0, "residues")
    clock.now = 660.0
    job.add(1)
    assert job.describe() == "1 of 101 sequences, 45 residues/s, 01:06 left"
    clock.now = 726.0
    job.add(100)
    assert job.describe() == "101 of 101 sequences, 83 residues/s, writing the last ones"


def test_time_left_goes_down_while_a_batch_is_computed(clock):
    """Nothing is counted then, and the rate is that of what was."""
    job = Progress()
    job.begin(COSTS, OFFSETS, 0, "residues")
    clock.now = 660.0
    job.add(1)
    for clock.now, left in ((690.0, "00:36"), (720.0, "00:06"), (750.0, "00:00")):
        assert job.describe() == f"1 of 101 sequences, 45 residues/s, {left} left"


def test_what_an_earlier_run_has_done_counts_but_not_for_the_rate(clock):
    job = Progress()
    job.begin(COSTS, OFFSETS, 51, "residues")
    assert job.describe() == "51 of 101 sequences, the longest first (300 residues)"
    clock.now = 10.0
    job.add(10)
    assert job.describe() == "61 of 101 sequences, 300 residues/s, 00:40 left"


@pytest.mark.parametrize("first", [0, 101])
def test_where_nothing_is_left_to_count_there_is_no_bar(first):
    """An empty file, or all that was left was to finish."""
    job = Progress()
    job.on_terminal, job.phase = True, "preparing the files"
    job.begin(COSTS[:first], OFFSETS[: first + 1], first, "residues")
    assert job.bar is None
    assert job.describe() == "preparing the files"


def test_the_log_has_lines_at_growing_intervals(clock, caplog):
    job = Progress()
    job.begin(np.ones(40_000), np.arange(40_001), 0, "residues")
    with caplog.at_level(logging.INFO):
        lines = []
        for second in range(1, 36_001):
            clock.now = float(second)
            job.add(1)
            if len(caplog.records) > len(lines):
                lines.append(second)
    assert lines[:7] == [30, 60, 120, 240, 480, 960, 1560]
    assert set(np.diff(lines[6:])) == {600}


def test_the_log_has_one_line_after_a_batch_that_took_long(clock, caplog):
    job = Progress()
    job.begin(COSTS, OFFSETS, 0, "residues")
    with caplog.at_level(logging.INFO):
        for clock.now in (3_600.0, 3_600.1, 3_600.2, 4_199.0, 4_200.0):
            job.add(1)
    assert [message.split()[0] for message in caplog.messages] == ["1", "5"]


def test_those_who_watch_hear_of_it_from_the_start_to_the_end(monkeypatch):
    monkeypatch.setattr(progress, "FIRST_AFTER_S", 0.01)
    monkeypatch.setattr(progress, "EVERY_S", 0.01)
    read_end, write_end = os.pipe()

    def wait_for(text: str) -> None:
        said = ""
        while text not in said:
            said += os.read(read_end, 4096).decode()

    with Progress("shard 7", write_end) as job:
        wait_for("shard 7: starting\n")
        job.phase = "loading the model"
        wait_for("shard 7: loading the model\n")
        job.begin(COSTS, OFFSETS, 0, "residues")
        wait_for("shard 7: 0 of 101 sequences, the longest first (30,000 residues)\n")
        job.add(1)
        wait_for("shard 7: 1 of 101 sequences, ")
        job.add(100)
    os.close(write_end)
    *_, last = "".join(iter(lambda: os.read(read_end, 4096).decode(), "")).splitlines()
    assert last == "shard 7: finished, 101 sequences in 00:00"
    assert not job.thread.is_alive()


def test_they_hear_of_it_before_anything_slow_begins():
    """Whatever keeps Python from running its other threads then."""
    read_end, write_end = os.pipe()
    Progress("shard 7", write_end).watch()
    assert os.read(read_end, 4096) == b"shard 7: starting\n"


def test_nobody_watching_any_longer_does_no_harm():
    read_end, write_end = os.pipe()
    os.close(read_end)
    with Progress("shard 7", write_end) as job:
        job.begin(COSTS, OFFSETS, 0, "residues")
        job.add(101)
    assert job.descriptor is None


def test_a_job_that_runs_out_of_memory_has_not_finished():
    read_end, write_end = os.pipe()
    with Progress("shard 7", write_end) as job:
        job.begin(COSTS, OFFSETS, 0, "residues")
    os.close(write_end)
    assert b"finished" not in os.read(read_end, 4096)


def test_a_descriptor_that_is_not_open_is_not_used():
    """A file of the result might get its number."""
    read_end, write_end = os.pipe()
    os.close(read_end), os.close(write_end)
    assert Progress("shard 7", write_end).descriptor is None


def test_under_slurm_nobody_watches_but_a_file(tmp_path, monkeypatch):
    """It has the lines of the log already, and shall not have thousands more."""
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    with (tmp_path / "slurm.log").open("w") as file:
        assert Progress("shard 7", file.fileno()).descriptor is None
    terminal, other_end = pty.openpty()
    assert Progress("shard 7", other_end).descriptor == other_end
    os.close(other_end), os.close(terminal)


def test_a_terminal_shows_what_a_job_does_and_then_a_bar(clock, monkeypatch, caplog):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr("sys.stderr", screen := Terminal())
    monkeypatch.setattr(progress, "FIRST_AFTER_S", 0.01)
    monkeypatch.setattr(progress, "EVERY_S", 0.01)
    with caplog.at_level(logging.INFO), Progress() as job:
        job.phase = "loading the model"
        while not caplog.messages:
            job.ended.wait(0.01)
        job.begin(COSTS, OFFSETS, 0, "residues")
        clock.now = 660.0
        job.add(1)
    assert caplog.messages == ["loading the model"]
    assert "  0%|" in screen.getvalue()
    # By residues it would be 50 %.
    assert " 91%|" in screen.getvalue()
    assert "| 1 of 101 sequences, 45 residues/s, " in screen.getvalue()


def test_the_intervals_are_those_that_people_were_promised():
    assert progress.FIRST_AFTER_S < 10
    assert progress.EVERY_S < 10


# Real jobs


@pytest.fixture
def embed(small_fasta, tiny_model, tmp_path):
    """Embeds the small input as a shard with a reader process, whose first batches run out of memory; progress goes to a pipe."""
    fasta = tmp_path / "results/shards/0.fasta"
    fasta.parent.mkdir(parents=True)
    fasta.write_bytes(small_fasta.read_bytes())
    sha256sums.write(fasta.parent, {fasta.name: sha256(fasta)})
    command = [sys.executable, SCRIPTS / "embed.py", "--fasta", fasta, "--verify-fasta", "--model", tiny_model]
    command += ["--output", tmp_path / "results/embed/0", "--device", "cpu", "--dataloader-workers", "1"]
    command += ["--batch-size", "600", "--on-oom", "retry"]
    faults = {"PYTHONPATH": str(INJECTION), "SEQMILL_TEST_OOM": "0:500", "SEQMILL_TEST_RECOMMEND": "450"}

    def run(descriptor: int) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*map(str, command), "--progress-fd", str(descriptor)],
            pass_fds=[descriptor],
            env=os.environ | faults,
            capture_output=True,
            text=True,
        )

    return run


@pytest.mark.slow
def test_lines_go_past_the_log_and_on_in_a_retry(embed):
    read_end, write_end = os.pipe()
    done = embed(write_end)
    os.close(write_end)
    with os.fdopen(read_end) as pipe:
        lines = pipe.read().splitlines()
    assert done.returncode == 0, done.stderr
    assert "retry 1 of 3 in a fresh process" in done.stderr
    assert "shard 0" not in done.stderr
    # Of both processes; how many more there are depends on how long they take.
    assert lines.count("shard 0: starting") >= 2
    assert re.fullmatch(r"shard 0: finished, 23 sequences in \d\d:\d\d", lines[-1])
    assert all(line.startswith("shard 0: ") for line in lines)


@pytest.mark.slow
def test_a_job_goes_on_when_nobody_watches_any_longer(embed):
    read_end, write_end = os.pipe()
    os.close(read_end)
    done = embed(write_end)
    os.close(write_end)
    assert done.returncode == 0, done.stderr
