"""scripts/embed.py as a tool of its own: flags, help, what it writes and what it says."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import h5py
import jsonschema
import numpy as np
import processes
import pytest
from embeddings import read_meta
from paths import SCHEMAS, SCRIPTS
from safetensors.torch import load_file, save_file

EMBED = SCRIPTS / "embed.py"
SEQUENCES = {"short": "MKV", "long": "ACDEFGHIKLMNPQRSTVWY" * 6, "middle": "MKTAYIAKQRQISFVKSHFSRQ"}


def embed(*flags: str | Path) -> subprocess.CompletedProcess:
    """Run the script; all that it says is in `stdout`."""
    # The same on a machine with GPUs.
    return processes.run(EMBED, *flags, environment=os.environ | {"CUDA_VISIBLE_DEVICES": ""})


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
    assert result.returncode == 0, result.stdout
    return folder, result.stdout


FLAGS = [
    "--fasta",
    "--output",
    "--verify-fasta",
    "--model",
    "--revision",
    "--dtype",
    "--layers",
    "--pooling",
    "--storage",
    "--long",
    "--max-length",
    "--overlap",
    "--invalid",
    "--duplicate-ids",
    "--reuse",
    "--weights",
    "--batch-size",
    "--dataloader-workers",
    "--pin-memory",
    "--no-pin-memory",
    "--expandable-segments",
    "--no-expandable-segments",
    "--streams",
    "--attention",
    "--compile",
    "--on-oom",
    "--device",
    "--keep-partial",
    "--overwrite",
    "--verbose",
]


def test_help_says_what_users_need_to_know_without_loading_torch():
    code = (
        f"import sys, runpy; sys.argv = ['embed.py', '--help']\n"
        f"try: runpy.run_path({str(EMBED)!r}, run_name='__main__')\n"
        f"finally: assert 'torch' not in sys.modules"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    lines = result.stdout.splitlines()
    # The text of one flag may name another; those that are explained begin a line, with their opposite behind them.
    explained = [
        flag for line in lines if line.startswith("  -") for flag in re.findall(r"(?:^  |, )(--[a-z-]+)", line)
    ]
    assert [flag for flag in explained if flag != "--help"] == FLAGS
    said = " ".join(result.stdout.split())
    assert re.search(r"--pin-memory.*RAM.*MB", said)
    assert re.search(r"--expandable-segments.*Pascal", said)
    assert result.stderr == ""


def test_results_stand_in_the_order_of_the_file(done):
    folder, _ = done
    assert sorted(path.name for path in folder.iterdir()) == ["embeddings.h5", "index.parquet", "meta.json"]
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
    meta = read_meta(done[0])
    jsonschema.validate(meta, json.loads((SCHEMAS / "meta.schema.json").read_text()))
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
        (["--layers", "7"], "layers: there is no layer 7; this model has 0 (embeddings) to 1 (last)"),
        (["--attention", "flash-attn"], "attention 'flash-attn' does not work here (no CUDA GPU in use"),
        (["--device", "cuda"], "device cuda: PyTorch sees no CUDA GPU here"),
        (["--batch-size", "many"], "'many' is neither auto nor a whole number from 1"),
        (["--batch-size", "0"], "'0' is neither auto nor a whole number from 1"),
        (["--revision", "main"], "is a folder, which has none"),
        (["--fasta", "nothing.fasta"], "nothing.fasta: cannot be read (No such file or directory)"),
    ],
)
def test_mistakes_end_in_one_sentence(fasta, tiny_model, tmp_path, flags, sentence):
    result = embed("--fasta", fasta, "--model", tiny_model, "--output", tmp_path / "out", "--device", "cpu", *flags)
    assert_one_sentence(result.returncode, result.stdout, sentence)
    assert not (tmp_path / "out/embeddings.h5").exists()


def test_the_command_itself_ends_in_one_sentence(fasta, tmp_path):
    """From the shell on, and with all that Python does at its end."""
    command = [sys.executable, EMBED, "--fasta", fasta, "--model", "no/such/folder", "--output", tmp_path / "out"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert_one_sentence(result.returncode, result.stderr, "model no/such/folder: there is no such folder")
    assert result.stdout == ""


def assert_one_sentence(returncode, said, sentence):
    assert returncode in (1, 2)
    assert sentence in said.strip().splitlines()[-1]
    assert "Traceback" not in said


def test_overflow_in_half_precision_names_the_sequence(fasta, demo_model, tmp_path):
    """Weights scaled until float16 overflows: an error, not silent infinities."""
    weights = load_file(demo_model / "model.safetensors")
    weights["esm.encoder.layer.2.output.dense.weight"] *= 6e4
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "config.json").write_text((demo_model / "config.json").read_text())
    result = embed("--fasta", fasta, "--model", tmp_path, "--output", tmp_path / "out", "--dtype", "float16")
    assert result.returncode == 1
    assert "the mean embedding of 'long' is not finite in float16" in result.stdout.strip().splitlines()[-1]
    assert list((tmp_path / "out").iterdir()) == []


def test_the_fasta_is_looked_at_before_the_model(tmp_path):
    """A hub id would be looked for in a network that is not there."""
    for name, content in (("missing.fasta", None), ("reads.fastq", "@read\nACGT\n+\nIIII\n")):
        if content:
            (tmp_path / name).write_text(content)
        result = embed(
            "--fasta", tmp_path / name, "--model", "facebook/esm2_t33_650M_UR50D", "--output", tmp_path / "o"
        )
        assert result.returncode == 1
        assert result.stdout.startswith(f"error: {tmp_path / name}")


def test_a_sequence_that_is_mostly_unknown_is_named_before_the_work(tmp_path, tiny_model):
    (tmp_path / "x.fasta").write_text(f">known\nMKTAYIAKQR\n>unknown\n{'X' * 300}\n")
    result = embed("--fasta", tmp_path / "x.fasta", "--model", tiny_model, "--output", tmp_path / "o")
    assert result.returncode == 0
    assert "WARNING 1 sequence is more than half X, which says nothing: unknown (300 X of 300 letters)" in result.stdout
