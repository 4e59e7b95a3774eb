"""The package as users install it: in an environment of its own, away from the checkout. Minutes and a package index, so slow."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from embeddings import read_attributes, read_embeddings
from paths import REPOSITORY, SCRIPTS

from seqmill import __version__

pytestmark = pytest.mark.slow


def run(*command: str | Path, folder: Path) -> str:
    """What a command says, which neither finds the checkout nor anything that the tests' environment adds to Python."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        command, cwd=folder, env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    # A copy: a build leaves files beside its source, and takes up what an earlier one has left there.
    source = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, source)
    shutil.copytree(REPOSITORY / "workflow", source / "workflow", ignore=shutil.ignore_patterns("__pycache__"))
    run(sys.executable, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", "dist", ".", folder=source)
    (wheel,) = (source / "dist").iterdir()
    return wheel


@pytest.fixture(scope="module")
def commands(wheel, tmp_path_factory) -> Path:
    """The commands of an environment that holds the wheel and what it depends on, at the versions that are tested."""
    folder = tmp_path_factory.mktemp("installed")
    run(sys.executable, "-m", "venv", "environment", folder=folder)
    commands = folder / "environment/bin"
    pins = REPOSITORY / "envs/requirements.txt"
    run(commands / "python", "-m", "pip", "install", "--constraint", pins, wheel, folder=folder)
    return commands


def test_dependencies_are_complete_and_the_workflow_is_an_extra(commands, tmp_path):
    run(commands / "python", "-m", "pip", "check", folder=tmp_path)
    find = "import importlib.util; print(importlib.util.find_spec('snakemake'))"
    assert run(commands / "python", "-c", find, folder=tmp_path).strip() == "None"


def test_it_is_the_installed_library_that_runs(commands, tmp_path):
    assert run(commands / "seqmill", "--version", folder=tmp_path) == f"seqmill {__version__}\n"
    where = run(commands / "python", "-c", "import seqmill; print(seqmill.__file__)", folder=tmp_path)
    assert commands.parent in Path(where.strip()).parents


def test_it_gives_the_bytes_that_the_checkout_gives(commands, demo_model, small_fasta, tmp_path):
    work = ["--fasta", small_fasta, "--model", demo_model, "--device", "cpu", "--pooling", "mean", "bos", "residues"]
    run(commands / "seqmill", "embed", *work, "--output", "installed", folder=tmp_path)
    run(sys.executable, SCRIPTS / "embed.py", *work, "--output", "checkout", folder=tmp_path)
    installed, checkout = (tmp_path / name / "embeddings.h5" for name in ("installed", "checkout"))
    found, expected = read_embeddings(installed), read_embeddings(checkout)
    assert found.keys() == expected.keys() >= {"ids", "lengths", "mean", "bos", "residues", "offsets"}
    assert found.pop("ids") == expected.pop("ids")
    for name, values in expected.items():
        assert found[name].dtype == values.dtype
        assert found[name].tobytes() == values.tobytes(), name
    attributes, wanted = read_attributes(installed), read_attributes(checkout)
    # The tests' environment has packages more, Triton among them.
    del attributes["versions"], wanted["versions"]
    np.testing.assert_equal(attributes, wanted)
