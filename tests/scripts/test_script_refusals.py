"""How the scripts end at bad input: status 1, one line, and nothing that looks like a result.

That every other bad input is refused by what the scripts call is in the tests of inputs and models.
"""

import os
import subprocess
import sys

import pytest
from refusals import SCRIPTS, run_python, run_shard, written


def assert_one_line(done, start):
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith(start)
    assert done.stderr.count("\n") == 1


def test_shard_writes_nothing_when_the_last_record_is_bad(tmp_path):
    """Whatever comes before it is good, and many records long."""
    good = b"".join(b">p%d\nMKTAYIAK\n" % number for number in range(1000))
    written(tmp_path, good + b">last\nMK-T\n")
    done = run_shard("input.fasta", "shards", cwd=tmp_path)
    assert_one_line(done, "error: input.fasta, line 2001: record 'last' has a gap '-' at position 3")
    assert list((tmp_path / "shards").iterdir()) == []


def test_a_pipe_for_a_file_is_refused(tmp_path):
    done = run_shard("/dev/stdin", tmp_path / "shards", stdin=subprocess.PIPE)
    assert_one_line(done, "error: /dev/stdin: is a pipe or a device; write the sequences to a file and give that\n")


def test_weights_ends_in_one_line_and_writes_nothing(tmp_path):
    written(tmp_path, b"{}", "config.json")
    done = run_python(SCRIPTS / "weights.py", "--model", tmp_path, "--output", tmp_path / "weights.json")
    assert_one_line(done, f"error: model {tmp_path}: has no weights")
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


def test_a_reader_that_has_seen_enough_is_no_error(small_run):
    command = f"{sys.executable} {SCRIPTS / 'show.py'} --embeddings {small_run.embeddings} --index {small_run.index} | head -1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_what_show_says_of_reading_is_python_that_runs(small_run):
    done = run_python(SCRIPTS / "show.py", "--embeddings", small_run.embeddings, "--index", small_run.index)
    said = done.stdout.strip().splitlines()
    assert said[-1].endswith("and run: snakemake --profile profiles/local")
    program = "\n".join(line.strip() for line in said if line.startswith("    "))
    assert program.count("import") == 2
    program += "\nassert (e.vectors() == vectors).all() and e.ids == index.id.tolist()"
    environment = os.environ | {"PYTHONPATH": str(SCRIPTS.parent)}
    assert run_python("-c", program, env=environment).returncode == 0


@pytest.mark.parametrize("sample", [["A"], ["A", "other.fasta"], ["A", "input.fasta", "--sample", "A", "input.fasta"]])
def test_samples_that_do_not_fit_the_files_are_refused(tmp_path, sample):
    written(tmp_path, b">a\nMKTAYIAK\n")
    flags = ["--fasta", "input.fasta", "--shards", "1", "--output", "shards", "--sample", *sample]
    done = run_python(SCRIPTS / "shard.py", *flags, cwd=tmp_path)
    assert_one_line(done, "error: --sample: name each sample once, with its files")
