"""What the tests of the workflow share: a finished project. Those that change something work on a copy of its folder."""

import shutil

import pytest
from project import Project

FINISHED = ("embeddings.h5", "index.parquet", "summary.tsv")


@pytest.fixture(scope="session")
def first_run(tmp_path_factory, small_fasta, tiny_model):
    """A project and what Snakemake said of its one whole run: 24 records, 2 shards, on the CPU."""
    project = Project.fresh(tmp_path_factory.mktemp("undisturbed") / "project")
    shutil.copy(small_fasta, project.folder / "proteins.fasta")
    shutil.copytree(tiny_model, project.folder / "model")
    project.write_config(fasta="proteins.fasta", shards=2, model={"name": "model"})
    # The command as users give it.
    done = project.run("snakemake", "--profile", "profiles/local", "--cores", "2")
    assert done.returncode == 0, done.stdout
    return project, done.stdout


@pytest.fixture(scope="session")
def undisturbed(first_run):
    """The project after that run. Not to be changed."""
    return first_run[0]


@pytest.fixture
def finished(undisturbed, tmp_path):
    """A copy of the finished project, for a test to change."""
    return undisturbed.copy(tmp_path / "project")


@pytest.fixture
def sharded(finished):
    """The project before its first embed job."""
    shutil.rmtree(finished.folder / "results/embed")
    for name in FINISHED:
        (finished.folder / "results" / name).unlink()
    return finished
