"""Models that are incomplete, damaged, of another kind, or made to do harm: one sentence refuses each.

Nothing of them is executed, nothing is written, and memory stays bounded.
"""

import io
import json
import os
import pickle
import shutil
import struct
import tarfile
import zipfile
from pathlib import Path

import pytest
import torch
from refusals import GOOD, embed, find_model, listing, little_memory, load_model, refusal, shard, written
from safetensors.torch import load_file, save_file

from seqmill.outputs.datasets import resolve_layers

# Damage


def edit_config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def drop_from_config(folder, key):
    path = folder / "config.json"
    config = json.loads(path.read_text())
    del config[key]
    path.write_text(json.dumps(config))


def truncate(path, size):
    with path.open("rb+") as file:
        file.truncate(size)


def pointer_of_git_lfs(folder):
    """What a clone without git-lfs leaves in place of the weights."""
    text = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 5900000\n"
    (folder / "model.safetensors").write_text(text)


def text_for_pytorch_weights(folder):
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_text("hello")


def one_layer_less(folder):
    """Without the contact head, whose size depends on the number of layers, only left-over weights show the mistake."""
    edit_config(folder, num_hidden_layers=5)
    path = folder / "model.safetensors"
    tensors = load_file(path)
    save_file({name: tensor for name, tensor in tensors.items() if "contact_head" not in name}, path, {"format": "pt"})


class Malicious:
    """Unpickled without care it leaves a file in the working directory."""

    def __reduce__(self):
        return os.system, ("touch pwned",)


def tensors_of(folder):
    return load_file(folder / "model.safetensors")


def as_bin(folder, content, **options):
    (folder / "model.safetensors").unlink()
    torch.save(content, folder / "pytorch_model.bin", **options)
    return folder / "pytorch_model.bin"


def pickled(folder):
    as_bin(folder, {}).write_bytes(pickle.dumps(Malicious()))


def path_traversal(folder):
    with zipfile.ZipFile(as_bin(folder, tensors_of(folder)), "a") as archive:
        archive.writestr("../../pwned", "x")
        archive.writestr("/tmp/pwned", "x")


def tar(folder):
    with tarfile.open(as_bin(folder, {}), "w") as archive:
        for name in ("../pwned", "storages", "tensors", "pickle"):
            member = tarfile.TarInfo(name)
            member.size = 1
            archive.addfile(member, io.BytesIO(b"x"))


def zip_bomb(folder):
    """A few kilobytes that make a string of 64 MB; it could be of any size."""
    with zipfile.ZipFile(as_bin(folder, {}), "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02X\0\0\0\x04" + b"a" * 2**26 + b".")
        archive.writestr("archive/version", "3\n")


def safetensors_header(folder, size, header):
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", size) + header)


def safetensors_of_exabytes(folder):
    header = json.dumps({"a": {"dtype": "F32", "shape": [2**30, 2**28], "data_offsets": [0, 2**60]}}).encode()
    safetensors_header(folder, len(header), header)


def quantised(folder):
    save_file(
        {name: tensor.to(torch.int8) for name, tensor in tensors_of(folder).items()}, folder / "model.safetensors"
    )


def named_pipe(folder):
    (folder / "model.safetensors").unlink()
    os.mkfifo(folder / "model.safetensors")


def dangling_link(folder):
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to("../blobs/none")


def folder_for_weights(folder):
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").mkdir()


def hundred_megabytes_of_config(folder):
    with (folder / "config.json").open("wb") as file:
        file.truncate(10**8)


UNSAFE = "its weights are damaged, or hold more than weights, which can run code, and were not loaded"

# What is done to a good model, and what the sentence must say.
BAD_MODELS = {
    # Incomplete or damaged.
    "no folder": (shutil.rmtree, "there is no such folder"),
    "no config.json": (lambda f: (f / "config.json").unlink(), "has no config.json"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "has no weights"),
    "BERT": (
        lambda f: (f / "config.json").write_text('{"model_type": "bert", "hidden_size": 192}'),
        "is of type bert; seqmill supports ESM-2",
    ),
    "ESM-1b without its positions": (
        lambda f: edit_config(f, position_embedding_type="absolute"),
        "lacks the tensor embeddings.position_embeddings.weight",
    ),
    "ESMFold": (lambda f: edit_config(f, is_folding_model=True, esmfold_config={}), "but not an ESM-2"),
    "unknown type": (lambda f: edit_config(f, model_type="nonesuch"), "config.json"),
    "no type": (
        lambda f: (f / "config.json").write_text('{"hidden_size": 192}'),
        "has no config.json, or one without a model_type",
    ),
    "null for a type": (lambda f: edit_config(f, model_type=None), "has no config.json, or one without a model_type"),
    "no sizes": (lambda f: drop_from_config(f, "intermediate_size"), "lacks sizes"),
    "heads that do not fit": (lambda f: edit_config(f, num_attention_heads=7), "lacks sizes"),
    "text for a size": (lambda f: edit_config(f, hidden_size="large"), "lacks sizes"),
    "no heads": (lambda f: edit_config(f, num_attention_heads=0), "lacks sizes"),
    "a fraction of a layer": (lambda f: edit_config(f, num_hidden_layers=5.5), "lacks sizes"),
    "no epsilon": (lambda f: edit_config(f, layer_norm_eps=None), "lacks sizes"),
    "config.json damaged": (lambda f: truncate(f / "config.json", 50), "config.json"),
    "config.json holds a list": (lambda f: (f / "config.json").write_text("[]"), "it is not a JSON object"),
    "truncated weights": (lambda f: truncate(f / "model.safetensors", 100_000), "weights"),
    "empty weights": (lambda f: truncate(f / "model.safetensors", 0), "weights"),
    "pointer of git-lfs": (pointer_of_git_lfs, "weights"),
    "text for PyTorch's weights": (text_for_pytorch_weights, "weights"),
    "weights of another size": (lambda f: edit_config(f, hidden_size=96), "config.json"),
    "more layers than weights": (lambda f: edit_config(f, num_hidden_layers=7), "the checkpoint lacks"),
    "fewer layers than weights": (one_layer_less, "config.json"),
    # Made to do harm.
    "malicious pickle": (lambda f: as_bin(f, {"a": Malicious()}), UNSAFE),
    "malicious pickle of old": (lambda f: as_bin(f, {"a": Malicious()}, _use_new_zipfile_serialization=False), UNSAFE),
    "malicious pickle alone": (pickled, UNSAFE),
    "path traversal": (path_traversal, "the weights cannot be loaded"),
    "tar": (tar, UNSAFE),
    "zip bomb": (zip_bomb, "the weights cannot be loaded (the archive is compressed)"),
    "list of tensors": (lambda f: as_bin(f, [*tensors_of(f).values()]), "something else than named tensors"),
    "names without tensors": (
        lambda f: as_bin(f, dict.fromkeys(tensors_of(f), "x")),
        "something else than named tensors",
    ),
    "numbers for names": (lambda f: as_bin(f, dict(enumerate(tensors_of(f).values()))), "else than named tensors"),
    "header of 2^60 bytes": (lambda f: safetensors_header(f, 2**60, b"{}"), "the weights cannot be loaded"),
    "header of 90 MB in a small file": (lambda f: safetensors_header(f, 90_000_000, b"{}"), "the weights cannot"),
    "deeply nested header": (lambda f: safetensors_header(f, 10**6, b"[" * 10**6), "the weights cannot be loaded"),
    "tensor of 2^60 bytes": (safetensors_of_exabytes, "the weights cannot be loaded"),
    "quantised weights": (quantised, "is of type torch.int8; get weights that are not quantised"),
    "named pipe": (named_pipe, "model.safetensors is not a file, or a broken link"),
    "dangling link": (dangling_link, "model.safetensors is not a file, or a broken link"),
    "folder for weights": (folder_for_weights, "model.safetensors is not a file, or a broken link"),
    "config.json of 100 MB": (
        hundred_megabytes_of_config,
        "config.json cannot be used (it has more than 1,000,000 bytes)",
    ),
    "deeply nested config.json": (
        lambda f: (f / "config.json").write_text("[" * 400_000),
        "config.json cannot be used",
    ),
    "deeply nested objects": (
        lambda f: (f / "config.json").write_text('{"a":' * 100_000),
        "config.json cannot be used",
    ),
    "number of 10,000 digits": (lambda f: (f / "config.json").write_text("9" * 10_000), "config.json cannot be used"),
    "config.json no text": (lambda f: (f / "config.json").write_bytes(b"\x80\xff" * 9), "config.json cannot be used"),
    "size of NaN": (lambda f: edit_config(f, hidden_size=float("nan")), "lacks sizes of the model or has wrong ones"),
    "epsilon of NaN": (lambda f: edit_config(f, layer_norm_eps=float("nan")), "lacks sizes"),
    "negative size": (lambda f: edit_config(f, intermediate_size=-768), "lacks sizes"),
    "10^12 layers": (lambda f: edit_config(f, num_hidden_layers=10**12), "lacks sizes of the model or has wrong ones"),
    "width of 10^30": (lambda f: edit_config(f, hidden_size=10**30, num_attention_heads=1), "or has wrong ones"),
    "list for a type": (lambda f: edit_config(f, model_type=["esm"]), "config.json cannot be used"),
}


@pytest.fixture
def model_copy(demo_model, tmp_path):
    """A copy of the demonstration model to break, in a folder of its own."""
    return Path(shutil.copytree(demo_model, tmp_path / "models/model"))


@pytest.mark.parametrize(("damage", "says"), BAD_MODELS.values(), ids=BAD_MODELS)
def test_a_bad_model_is_refused_and_executes_nothing(model_copy, tmp_path, monkeypatch, damage, says):
    """Be it when it is found, or when it is loaded."""
    monkeypatch.chdir(tmp_path)
    damage(model_copy)
    before = sorted(model_copy.rglob("*")), listing(model_copy.parent)
    with little_memory():
        sentence = refusal(load_model, model_copy)
    assert sentence.startswith(f"model {model_copy}: ")
    assert says in sentence
    assert (sorted(model_copy.rglob("*")), listing(model_copy.parent)) == before
    assert listing(tmp_path)[0] == ["models"]
    assert not Path("/tmp/pwned").exists()


def test_a_bad_model_leaves_no_result(model_copy, tmp_path):
    """The model is found, and its weights have a checksum; that they cannot be loaded shows only when a shard is due."""
    truncate(model_copy / "model.safetensors", 100_000)
    shard(written(tmp_path, GOOD), 1, tmp_path / "shards")
    sentence = refusal(embed, find_model(model_copy), tmp_path / "shards/0.fasta", tmp_path / "out")
    assert sentence.startswith(f"model {model_copy}: ")
    assert list((tmp_path / "out").glob("*")) == []


@pytest.mark.parametrize("layer", [7, -8])
def test_a_layer_that_the_model_lacks_is_refused(layer):
    assert f"there is no layer {layer}; this model has 0 (embeddings) to 6" in refusal(resolve_layers, [layer], 6)
