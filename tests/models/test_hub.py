"""Models by name: a hub's ids and cache, and the folders that are taken for them."""

import os

import pytest
from paths import SCRIPTS
from refusals import find_model, load_model, refusal, run_python
from safetensors.torch import load_file

from seqmill import files
from seqmill.models import hub, registry


def test_a_missing_folder_that_looks_like_a_hub_id_is_called_a_folder_too(tmp_path, monkeypatch):
    """A misspelt resources/esm2_t6_3M_dem has the form of a hub id; advice on the hub alone leads astray."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "resources").mkdir()
    sentence = refusal(find_model, "resources/esm2_t6_3M_dem")
    assert "model resources/esm2_t6_3M_dem: there is no such folder" in sentence


def test_a_hub_model_that_cannot_be_had_says_how_to_bring_it(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert "hf download facebook/esm2_t6_8M_UR50D" in refusal(find_model, "facebook/esm2_t6_8M_UR50D")


def test_a_revision_of_a_folder_is_refused(demo_model):
    sentence = refusal(find_model, demo_model, "main")
    assert f"model.revision is set, but {demo_model} is a folder" in sentence


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_weights_that_are_links_work(demo_model, tmp_path, kind):
    """A hub's cache holds links to blobs whose names have no suffix."""
    import torch

    folder, blobs = tmp_path / "snapshot", tmp_path / "blobs"
    folder.mkdir()
    blobs.mkdir()
    contents = {"config.json": (demo_model / "config.json").read_bytes()}
    if kind == "safetensors":
        contents["model.safetensors"] = (demo_model / "model.safetensors").read_bytes()
    else:
        torch.save(load_file(demo_model / "model.safetensors"), tmp_path / "bin")
        contents["pytorch_model.bin"] = (tmp_path / "bin").read_bytes()
    for name, content in contents.items():
        (tmp_path / "blob").write_bytes(content)
        blob = blobs / files.sha256(tmp_path / "blob")
        (tmp_path / "blob").rename(blob)
        (folder / name).symlink_to(f"../blobs/{blob.name}")
    loaded = load_model(folder)
    assert loaded.config.layer_count == 6


@pytest.mark.parametrize("name", ["facebook/esm2_t33_650M_UR50D", "facebook/esm2_t12_35M_UR50D", "somebody/model"])
def test_a_hub_that_does_not_answer_is_no_traceback(tmp_path, name):
    """Whether its commit is known, so that the cache is asked first, or not."""
    variables = {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path)}
    command = [SCRIPTS / "weights.py", "--model", name, "--output", tmp_path / "weights.json"]
    done = run_python(*command, env={**os.environ, **variables})
    assert done.returncode == 1
    assert done.stderr.startswith(
        f"error: model {name}: is not in this machine's cache and the hub cannot be reached; "
    )
    assert f"'hf download {name} --revision" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("facebook/esm2_t33_650M_UR50", "facebook/esm2_t33_650M_UR50D"),
        ("facebook/esm2_t6_8M_UR5OD", "facebook/esm2_t6_8M_UR50D"),
        ("facebok/esm2_t48_15B_UR50D", "facebook/esm2_t48_15B_UR50D"),
    ],
)
def test_a_mistyped_hub_id_is_recognised(monkeypatch, tmp_path, name, meant):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert refusal(find_model, name).endswith(f"did you mean {meant}?")


def test_a_published_hub_id_is_not_taken_for_another():
    assert [hub._likely(name) for name in registry.hub_ids()] == [None] * len(registry.hub_ids())
    assert hub._likely("somebody/esm2_t33_650M_finetuned") is None
