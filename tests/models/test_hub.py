"""Models by name: a hub's ids and cache, and the folders that are taken for them."""

import pytest
from refusals import find_model, load_model, refusal
from safetensors.torch import load_file

from seqmill import files


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
