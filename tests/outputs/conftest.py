"""What the tests of results share."""

from pathlib import Path
from typing import Any

import pytest
from embeddings import read_embeddings
from small_run import SmallRun


@pytest.fixture(scope="session")
def embed_and_merge():
    """Runs all steps on a FASTA file in a folder; returns what stands in the merged file."""

    def run(model: Path, fasta: Path, folder: Path, count: int = 2, **settings: Any) -> dict[str, Any]:
        small_run = SmallRun(folder, count)
        small_run.embed(model, fasta, **settings)
        small_run.check()
        small_run.merge()
        return read_embeddings(small_run.embeddings)

    return run


@pytest.fixture
def copied_run(small_run, tmp_path):
    """Copies of the shards' folders, for a test to change."""
    return small_run.copy(tmp_path / "run")
