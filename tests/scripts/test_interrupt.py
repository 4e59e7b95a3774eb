"""Ctrl-C in a terminal, which sends SIGINT to the command and to all processes that it has started."""

import json
import os
import pty
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest
from paths import INJECTION, SCRIPTS

LAST_WORDS = "error: interrupted"


class Terminal:
    """Runs embed.py on the shard of the small input, slowly, in a session of its own with a terminal."""

    def __init__(self, fasta: Path, model: Path, folder: Path):
        # Faults strike only shards, which they know by the name of the file.
        shard = folder / "results/shards/0.fasta"
        shard.parent.mkdir(parents=True)
        shard.write_bytes(fasta.read_bytes())
        command = [sys.executable, SCRIPTS / "embed.py", "--fasta", shard, "--model", model, "--output", folder / "out"]
        command += ["--device", "cpu", "--batch-size", "600", "--dataloader-workers", "2"]
        faults = {"PYTHONPATH": str(INJECTION), "SEQMILL_TEST_SLOW": "0:0.3", "SEQMILL_TEST_FLUSH": "0.1"}
        self.partial = folder / "out.partial"
        self.screen, own = pty.openpty()
        # Without a width there is no bar.
        termios.tcsetwinsize(own, (24, 120))
        self.process = subprocess.Popen(
            list(map(str, command)), env=os.environ | faults, stdout=own, stderr=own, start_new_session=True
        )
        os.close(own)

    def done(self) -> int:
        """How many sequences are saved."""
        progress = self.partial / "progress.json"
        return json.loads(progress.read_text())["done"] if progress.exists() else 0

    def press_ctrl_c(self) -> None:
        os.killpg(self.process.pid, signal.SIGINT)

    def lines(self) -> list[str]:
        """All that it said until its end, without blank lines."""
        said = b""
        try:
            while piece := os.read(self.screen, 4096):
                said += piece
        except OSError:  # how Linux says that nobody has the terminal open any longer
            pass
        os.close(self.screen)
        return [line for line in said.decode().replace("\r", "\n").split("\n") if line.strip()]


@pytest.fixture
def terminal(small_fasta, tiny_model, tmp_path):
    terminal = Terminal(small_fasta, tiny_model, tmp_path)
    yield terminal
    terminal.process.kill()
    terminal.process.wait()


def test_ctrl_c_says_what_is_kept_and_no_more(terminal):
    """Reader processes get the signal, too, and have nothing to say."""
    while not terminal.done():
        assert terminal.process.poll() is None, terminal.lines()
        time.sleep(0.02)
    terminal.press_ctrl_c()
    *earlier, kept, last = terminal.lines()
    assert terminal.process.wait(30) == 1
    assert kept.endswith(f" sequences are saved in {terminal.partial}; the same command resumes")
    assert f" {terminal.done():,} sequences" in kept
    assert last == LAST_WORDS
    # The line before is the bar, as it stood.
    assert "sequences, " in earlier[-1]
    assert not [line for line in earlier if "Traceback" in line or "Error" in line or "Interrupt" in line]


def test_ctrl_c_before_anything_is_computed(terminal):
    """While PyTorch is imported, for one."""
    while not Path(f"/proc/{terminal.process.pid}/maps").read_text().count("libtorch"):
        assert terminal.process.poll() is None, terminal.lines()
        time.sleep(0.01)
    terminal.press_ctrl_c()
    lines = terminal.lines()
    assert terminal.process.wait(30) == 1
    assert lines == [LAST_WORDS]
