"""Paths in the configuration: they lead to files, and Snakemake can take them."""

import os
from pathlib import Path

import pytest
from refusals import GOOD, refusal, written

from seqmill.planning import paths


@pytest.mark.parametrize(
    "path", ["a{x}.fasta", "{{x}}.fasta", "{", "a}.fasta", "a\nb.fasta", "a\x1b[31m.fasta", "a\0b.fasta"]
)
def test_paths_that_snakemake_cannot_take_are_refused(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    if "\0" not in path:
        written(tmp_path, GOOD, path)
        (tmp_path / "models" / path).mkdir(parents=True)
    says = "braces" if "{" in path or "}" in path else "a line end or another control character"
    sentence = refusal(paths.fasta_files, {"fasta": [path]})
    assert sentence.startswith("configuration: fasta: ")
    assert says in sentence
    sentence = refusal(paths.model_files, f"models/{path}")
    assert sentence.startswith("configuration: model.name: ")
    assert says in sentence


def test_paths_to_something_else_than_a_file_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    Path("folder").mkdir()
    Path("dangling").symlink_to("nowhere")
    Path("circular").symlink_to("circular")
    for path in ("pipe", "folder", "/dev/zero", "/dev/null"):
        assert f"fasta: {path} is a folder, a pipe or a device" in refusal(paths.fasta_files, {"fasta": path})
    for path in ("dangling", "circular", "missing", "x" * 300):
        assert f"fasta: there is no file {path} to read (" in refusal(paths.fasta_files, {"fasta": path})
