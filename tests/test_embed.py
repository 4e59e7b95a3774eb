"""scripts/embed.py as a tool of its own: flags, help, what it writes and what it says."""

import json
import re
import subprocess
import sys
from pathlib import Path

import h5py
import jsonschema
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
EMBED = ROOT / "workflow/scripts/embed.py"
SEQUENCES = {"short": "MKV", "long": "ACDEFGHIKLMNPQRSTVWY" * 6, "middle": "MKTAYIAKQRQISFVKSHFSRQ"}


def embed(*flags: str | Path) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, EMBED, *flags], capture_output=True, text=True)


@pytest.fixture(scope="module")
def fasta(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("input") / "three.fasta"
    path.write_text("".join(f">{name} of three\n{letters}\n" for name, letters in SEQUENCES.items()))
    return path


@pytest.fixture(scope="module")
def done(fasta, demo_model, tmp_path_factory) -> tuple[Path, str]:
    """A run with every pooling and two layers: its folder and what it said."""
    folder = tmp_path_factory.mktemp("done")
    (folder / "oom.json").write_text("{}")
    flags = ["--pooling", "mean", "bos", "residues", "--layers", "3", "-1", "--verbose", "--batch-size", "64"]
    result = embed("--fasta", fasta, "--model", demo_model, "--output", folder, *flags)
    assert result.returncode == 0, result.stderr
    return folder, result.stderr


def test_help_tells_what_users_need_to_know_without_loading_torch():
    code = (
        f"import sys, runpy; sys.argv = ['embed.py', '--help']\n"
        f"try: runpy.run_path({str(EMBED)!r}, run_name='__main__')\n"
        f"finally: assert 'torch' not in sys.modules"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    said = " ".join(result.stdout.split())
    for flag in [
        "--fasta",
        "--output",
        "--model",
        "--revision",
        "--dtype",
        "--layers",
        "--pooling",
        "--batch-size",
        "--dataloader-workers",
        "--pin-memory",
        "--no-pin-memory",
        "--expandable-segments",
        "--no-expandable-segments",
        "--streams",
        "--attention",
        "--compile",
        "--device",
        "--verbose",
    ]:
        assert flag in said
    assert re.search(r"--pin-memory.*RAM.*MB", said)
    assert re.search(r"--expandable-segments.*Pascal", said)
    assert result.stderr == ""


def test_results_stand_in_the_order_of_the_file(done):
    folder, _ = done
    assert sorted(path.name for path in folder.iterdir()) == ["embeddings.h5", "meta.json"]
    with h5py.File(folder / "embeddings.h5") as file:
        assert file["ids"].asstr()[:].tolist() == list(SEQUENCES)
        assert file["lengths"][:].tolist() == [len(letters) for letters in SEQUENCES.values()]
        assert file["mean_layer6"].shape == (3, 192)
        assert file["residues_layer3"].shape == (sum(map(len, SEQUENCES.values())), 192)
        offsets = file["offsets"][:]
        for layer in (3, 6):
            for row in range(3):
                own = file[f"residues_layer{layer}"][offsets[row] : offsets[row + 1]].mean(0)
                assert np.allclose(own, file[f"mean_layer{layer}"][row], rtol=1e-4, atol=1e-5)
        assert not np.allclose(file["mean_layer3"][:], file["mean_layer6"][:])


def test_meta_keeps_to_its_schema_and_records_what_ran(done):
    meta = json.loads((done[0] / "meta.json").read_text())
    jsonschema.validate(meta, json.loads((ROOT / "workflow/schemas/meta.schema.json").read_text()))
    assert meta["layers"] == [3, 6]
    assert meta["settings"]["batch_size"] == 64
    assert meta["settings"]["attention"] == "PyTorch SDPA"
    assert meta["sequences"] == 3
    assert meta["batches"] == 2
    with h5py.File(done[0] / "embeddings.h5") as file:
        assert file.attrs["fingerprint"] == meta["fingerprint"]
        assert file.attrs["checksum"] == meta["checksum"]


def test_the_start_states_every_setting_and_why(done):
    said = done[1]
    for line in (
        r"model +\S+ \(a folder, checksum [0-9a-f]{12}\)",
        r"dtype +float32 \(auto because this runs on the CPU\)",
        r"attention +PyTorch SDPA \(auto because",
        r"batch_size +64 tokens \(as requested\)",
        r"dataloader_workers +\d+ \(auto because \d+ CPUs",
        r"pin_memory +off",
        r"streams +3",
        r"allocator +expandable_segments:False",
        r"WARNING FlashAttention-2 not available \(no CUDA GPU in use",
    ):
        assert re.search(line, said), line
    for operation in ("copy in", "compute", "copy out"):
        assert f"batch 1: {operation}" in said


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--model", "no/such/folder"], "model no/such/folder: there is no such folder"),
        (["--layers", "7"], "layers: there is no layer 7; this model has 0 (embeddings) to 6 (last)"),
        (["--attention", "flash-attn"], "attention 'flash-attn' does not work here (no CUDA GPU in use"),
        (["--device", "cuda"], "device cuda: PyTorch sees no CUDA GPU here"),
        (["--batch-size", "many"], "'many' is neither auto nor a whole number from 1"),
        (["--batch-size", "0"], "'0' is neither auto nor a whole number from 1"),
        (["--revision", "main"], "is a folder, which has none"),
        (["--fasta", "nothing.fasta"], "nothing.fasta: cannot be read (No such file or directory)"),
    ],
)
def test_mistakes_end_in_one_sentence(fasta, demo_model, tmp_path, flags, sentence):
    result = embed("--fasta", fasta, "--model", demo_model, "--output", tmp_path / "out", "--device", "cpu", *flags)
    assert result.returncode in (1, 2)
    assert sentence in result.stderr.strip().splitlines()[-1]
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "out/embeddings.h5").exists()


def test_overflow_in_half_precision_names_the_sequence(fasta, demo_model, tmp_path):
    """Weights scaled until float16 overflows: an error, not silent infinities."""
    from safetensors.torch import load_file, save_file

    weights = load_file(demo_model / "model.safetensors")
    weights["esm.encoder.layer.2.output.dense.weight"] *= 6e4
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "config.json").write_text((demo_model / "config.json").read_text())
    result = embed("--fasta", fasta, "--model", tmp_path, "--output", tmp_path / "out", "--dtype", "float16")
    assert result.returncode == 1
    assert "the mean embedding of 'long' is not finite in float16" in result.stderr.strip().splitlines()[-1]
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("requirements", ["requirements.txt", "requirements-test.txt", "requirements-dev.txt"])
def test_requirements_are_pinned(requirements):
    lines = (ROOT / "envs" / requirements).read_text().splitlines()
    pins = [line for line in lines if not line.startswith(("#", "-"))]
    assert pins
    assert all(re.fullmatch(r"[a-z0-9-]+==[0-9.]+", pin) for pin in pins)


def test_conda_environment_has_the_same_pins():
    import yaml

    environment = yaml.safe_load((ROOT / "envs/seqmill.yaml").read_text())
    (wheels,) = [part["pip"] for part in environment["dependencies"] if isinstance(part, dict)]
    requirements = (ROOT / "envs/requirements.txt").read_text().splitlines()
    assert wheels == [line for line in requirements if not line.startswith(("#", "-"))]


def test_tables_of_speed_are_those_of_the_results():
    import table

    text = (ROOT / "README.md").read_text()
    assert "| seqmill |" in text
    assert table.updated(text) == text, "run python benchmarks/table.py"
