"""Shards by the thousand: more than files may be open, more than a command line can name."""

import argparse
import shutil
import subprocess
import sys

import pytest
from embeddings import read_embeddings
from paths import SCRIPTS
from refusals import refusal
from small_run import SmallRun

from seqmill.commands import add_shards, folders_of

OPEN_FILES = 32


@pytest.fixture(scope="module")
def many(tiny_model, tmp_path_factory):
    """Two sequences in twice as many shards as files may be open; all but two shards are empty."""
    folder = tmp_path_factory.mktemp("many")
    (folder / "two.fasta").write_text(">a\nMKTAYIAKQR\n>b\nMKVLAAGG\n")
    made = SmallRun(folder, 3)
    made.embed(tiny_model, folder / "two.fasta")
    for number in range(3, 2 * OPEN_FILES):
        shutil.copytree(made.parts[2], folder / f"embed/{number}")
    return made


def limited(script, *arguments):
    """Run a script that may have few files open."""
    command = ["sh", "-c", f'ulimit -n {OPEN_FILES} && exec "$0" "$@"', sys.executable, SCRIPTS / script, *arguments]
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, timeout=300)


def test_there_may_be_more_shards_than_open_files(many):
    shards = ["--embed", many.folder / "embed", "--shards", 2 * OPEN_FILES, "--records", many.records]
    done = limited("check.py", *shards, "--output", many.folder / "summary.tsv")
    assert done.returncode == 0, done.stderr
    assert len((many.folder / "summary.tsv").read_text().splitlines()) == 2 * OPEN_FILES + 1
    done = limited("merge.py", *shards, "--embeddings", many.embeddings, "--index", many.index)
    assert done.returncode == 0, done.stderr
    found = read_embeddings(many.embeddings)
    assert found["ids"] == ["a", "b"]
    for number, part in enumerate(many.parts[:2]):
        assert read_embeddings(part / "embeddings.h5")["mean"].tobytes() in found["mean"].tobytes(), number


def parsed(*flags):
    parser = argparse.ArgumentParser()
    add_shards(parser)
    return parser.parse_args([*flags, "--records", "r"])


def names(*flags):
    args = parsed(*flags)
    return [str(folder) for folder in folders_of(args, args.folders)]


def test_the_folders_are_named_one_by_one_or_all_in_one():
    assert names("--folders", "b", "a") == ["b", "a"]
    assert names("--embed", "e", "--shards", "3") == ["e/0", "e/1", "e/2"]
    assert names("--embed", "e", "--shards", "2", "--rounds", "2") == ["e/1/0", "e/1/1", "e/2/0", "e/2/1"]


@pytest.mark.parametrize(
    "flags", [["--embed", "e"], ["--embed", "e", "--shards", "0"], ["--folders", "a", "--shards", "1"]]
)
def test_what_does_not_say_how_many_is_refused(flags):
    args = parsed(*flags)
    assert "--shards" in refusal(folders_of, args, args.folders)
