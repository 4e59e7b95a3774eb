"""Files that are there whole or not at all, and what becomes of those that were not finished."""

import signal

import pytest
from refusals import WORKFLOW, run_python

from seqmill import files


def test_leftovers_of_a_killed_writer_go_with_the_next_one(tmp_path):
    program = f"""
import os, signal, sys
sys.path.insert(0, {str(WORKFLOW)!r})
from pathlib import Path
from seqmill.files import write_atomically
with write_atomically(Path({str(tmp_path / "[0].json")!r})) as temporary:
    temporary.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert run_python("-c", program).returncode == -signal.SIGKILL
    (leftover,) = tmp_path.iterdir()
    assert leftover.read_text() == "half"
    others = [".0.json.7.tmp", ".[0].json.x.tmp", ".[0].json.gz.7.tmp", "[0].json.7.tmp"]
    for name in others:
        (tmp_path / name).touch()
    files.write_json(tmp_path / "[0].json", 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*others, "[0].json"])


def test_what_was_there_stays_when_a_writer_fails(tmp_path):
    files.write_json(tmp_path / "x.json", 1)
    with pytest.raises(TypeError):
        files.write_json(tmp_path / "x.json", {1, 2})
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]
    assert files.read_json(tmp_path / "x.json") == 1
