"""What the tests share: two models, a small real input, and a project folder to run Snakemake in."""

import gzip
import json
import os
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import pytest
from Bio.SeqIO.FastaIO import SimpleFastaParser
from paths import DEMO_MODEL, PROTEOME
from project import Project

NETWORK = "SEQMILL_NETWORK_TESTS" in os.environ
if not NETWORK:
    # Before anything imports huggingface_hub: no test may reach for the network unasked.
    os.environ["HF_HUB_OFFLINE"] = "1"
# Before anything imports torch: its threads would burn the CPU while they wait for one another, and where another process
# wants the same cores, as here, small batches then take twenty times as long.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
if "PYTEST_XDIST_WORKER" in os.environ:
    # As many processes as cores are at work already.
    os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("network") and not NETWORK:
            item.add_marker(pytest.mark.skip(reason="reaches for a model hub; set SEQMILL_NETWORK_TESTS to run it"))


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project.fresh(tmp_path / "project")


@pytest.fixture(scope="session")
def fresh_project() -> Callable[[Path], Project]:
    """Makes more projects, for fixtures that live longer than a test."""
    return Project.fresh


@pytest.fixture(scope="session")
def demo_model() -> Path:
    """Six layers and trained weights: for what depends on numbers."""
    return DEMO_MODEL


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demonstration model cut down to its first layer and 16 channels in 2 heads: for all that no weights change."""
    from safetensors.numpy import load_file, save_file

    config = json.loads((DEMO_MODEL / "config.json").read_text())
    sizes = {config["hidden_size"]: 16, config["intermediate_size"]: 64}
    sizes[config["num_hidden_layers"] * config["num_attention_heads"]] = 2
    config |= {"hidden_size": 16, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    weights = {
        name: values[tuple(slice(sizes.get(size, size)) for size in values.shape)].copy()
        for name, values in load_file(DEMO_MODEL / "model.safetensors").items()
        if ".layer." not in name or ".layer.0." in name
    }
    folder = tmp_path_factory.mktemp("model") / "tiny"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.fixture(scope="session")
def small_fasta(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 records: 23 real proteins of 400 residues at most in no order of length, the third one again as the last."""
    with gzip.open(PROTEOME, "rt") as handle:
        short = (record for record in SimpleFastaParser(handle) if len(record[1]) <= 400)
        records = list(islice(short, 0, 23 * 12, 12))
    records.append(("twin the same protein under another name", records[2][1]))
    path = tmp_path_factory.mktemp("input") / "small.fasta"
    path.write_text("".join(f">{title}\n{sequence}\n" for title, sequence in records))
    return path


@pytest.fixture(scope="session")
def small_run(tiny_model: Path, small_fasta: Path, tmp_path_factory: pytest.TempPathFactory):
    """The small input in two shards: embedded, checked and merged without Snakemake. Not to be changed."""
    # Only here: most tests need no PyTorch.
    from small_run import SmallRun

    run = SmallRun(tmp_path_factory.mktemp("small_run"))
    run.embed(tiny_model, small_fasta)
    run.check()
    run.merge()
    return run
