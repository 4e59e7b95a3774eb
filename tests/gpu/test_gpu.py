"""What only a CUDA GPU can show: the kernels, the streams and real out-of-memory errors."""

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from common import load_model, read_proteins
from errors import packed_states
from paths import REPOSITORY

from seqmill.engine import memory
from seqmill.engine.pipeline import Pipeline
from seqmill.inputs.sequences import Sequences
from seqmill.kernels import attention
from seqmill.kernels.interface import NotAvailable
from seqmill.kernels.needs import AttentionNeeds
from seqmill.kernels.packing import Packing
from seqmill.outputs.datasets import resolve

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"),
]

DEMO = REPOSITORY / "resources/esm2_t6_3M_demo"
ECOLI = REPOSITORY / "resources/ecoli_k12_UP000000625.fasta.gz"
NEEDS = AttentionNeeds(6, 32)
FLASH = ["torch", *(["flash-attn"] if attention.installed_flash_attn() else [])]


@pytest.fixture(scope="module")
def sequences() -> Sequences:
    return Sequences(read_proteins(ECOLI)[::20])


def residues(sequences: Sequences, device: str, dtype: torch.dtype, kernel: str, compiled: bool = False, **how):
    """Residue states, (total, D) float32 in the file's order."""
    model = load_model(DEMO, dtype, torch.device(device), kernel, compiled)
    return torch.cat(packed_states(model, sequences, torch.device(device), 8192, **how)).numpy()


@pytest.fixture(scope="module")
def expected(sequences) -> np.ndarray:
    return residues(sequences, "cpu", torch.float32, "sdpa")


def check(found: np.ndarray, expected: np.ndarray, overall: float, residue: float) -> None:
    """Relative L2 over all, the worst residue's, and the norms, so that no common factor slips through."""
    error = np.linalg.norm(found - expected, axis=1) / np.linalg.norm(expected, axis=1)
    assert np.linalg.norm(found - expected) / np.linalg.norm(expected) < overall
    assert error.max() < residue
    ratio = np.linalg.norm(found) / np.linalg.norm(expected)
    assert abs(ratio - 1) < overall / 4


@pytest.mark.parametrize("compiled", [False, True], ids=["plain", "fused"])
@pytest.mark.parametrize("kernel", FLASH)
@pytest.mark.parametrize(
    ("dtype", "overall", "residue"),
    [(torch.bfloat16, 0.015, 0.06), (torch.float16, 0.002, 0.006)],
    ids=["bf16", "fp16"],
)
def test_flash_kernels_agree_with_float32(sequences, expected, kernel, compiled, dtype, overall, residue):
    check(residues(sequences, "cuda", dtype, kernel, compiled), expected, overall, residue)


@pytest.mark.parametrize("compiled", [False, True], ids=["plain", "fused"])
def test_standard_attention_agrees_in_float32(sequences, expected, compiled):
    check(residues(sequences, "cuda", torch.float32, "sdpa", compiled), expected, 5e-6, 2e-5)


@pytest.mark.parametrize("compiled", [False, True], ids=["plain", "fused"])
def test_neighbours_and_place_change_no_bit(compiled):
    """With one batch shape a protein's vector is the same to the bit wherever in the batch it lies."""
    proteins = [p for p in read_proteins(ECOLI) if len(p.sequence) == 300]
    assert len(proteins) > 5
    forwards, backwards = (
        residues(Sequences(some), "cuda", torch.bfloat16, "torch", compiled) for some in (proteins, proteins[::-1])
    )
    assert np.array_equal(forwards, backwards.reshape(len(proteins), 300, -1)[::-1].reshape(forwards.shape))


def test_kernels_that_compute_wrong_results_are_not_taken(monkeypatch):
    from seqmill.kernels import triton_operators

    monkeypatch.setattr(triton_operators, "FUSED", triton_operators.FUSED._replace(gelu=torch.relu))
    with pytest.raises(NotAvailable, match="gelu computes wrong results"):
        triton_operators.fused(("gelu", "mean"), torch.device("cuda"), torch.bfloat16, 192, 6, 32)


def test_the_job_goes_on_without_a_compiler(tmp_path):
    status, said = embed(tmp_path, "--compile", "on", TRITON_CACHE_DIR=str(tmp_path / "none"), CC="/bin/false")
    assert status == 0, said
    assert "compilation failed" in said
    assert json.loads((tmp_path / "meta.json").read_text())["settings"]["compile"] is False


def test_the_job_takes_the_kernels(tmp_path):
    status, said = embed(tmp_path, "--compile", "on")
    assert status == 0, said
    assert "compilation failed" not in said
    assert json.loads((tmp_path / "meta.json").read_text())["settings"]["compile"] is True


def test_streams_and_pinning_change_no_bit(sequences):
    runs = [
        residues(sequences, "cuda", torch.bfloat16, "torch", streams=streams, pin_memory=pin)
        for streams, pin in [(3, False), (2, False), (3, True), (2, True)]
    ]
    for other in runs[1:]:
        assert np.array_equal(runs[0], other)


def test_auto_takes_flash_attention_and_says_so(caplog):
    with caplog.at_level(logging.INFO):
        kernel = attention.choose("auto", NEEDS, torch.device("cuda"), torch.bfloat16)
    assert kernel.name == "torch"
    assert f"FlashAttention-2: enabled ({kernel.version})" in caplog.text


def test_auto_falls_back_in_float32_and_warns(caplog):
    kernel = attention.choose("auto", NEEDS, torch.device("cuda"), torch.float32)
    assert kernel.name == "sdpa"
    assert "FlashAttention-2 not available (it has no float32 kernel" in caplog.text


def test_a_kernel_that_computes_something_else_is_passed_over(monkeypatch):
    monkeypatch.setattr(attention, "_torch_flash", lambda query, *_: torch.zeros_like(query))
    monkeypatch.setattr(attention, "installed_flash_attn", lambda: None)
    assert attention.choose("auto", NEEDS, torch.device("cuda"), torch.bfloat16).name == "sdpa"


def test_pytorchs_kernel_is_the_one_behind_its_public_function():
    from torch.nn.attention.varlen import varlen_attn

    qkv = torch.randn(300, 3, 4, 64, device="cuda", dtype=torch.bfloat16).unbind(1)
    cu_seqlens = torch.tensor([0, 200, 300], dtype=torch.int32, device="cuda")
    own = attention._torch_flash(*qkv, Packing(cu_seqlens, 200, np.array([200, 100])), 0.1)
    with torch.inference_mode():
        assert torch.equal(own, varlen_attn(*qkv, cu_seqlens, cu_seqlens, 200, 200, scale=0.1))


def test_a_second_job_measures_nothing_again(tmp_path):
    """And chooses the same; its kernels are tried out nevertheless."""
    cache = {"TRITON_CACHE_DIR": str(tmp_path / "cache")}
    said = [embed(tmp_path / name, "--compile", "on", **cache)[1] for name in ("one", "two")]
    settings = [json.loads((tmp_path / name / "meta.json").read_text())["settings"] for name in ("one", "two")]
    assert settings[0] == settings[1]
    assert "times as fast here as" in said[0]
    assert "times as fast here as" not in said[1]
    (remembered,) = (tmp_path / "cache/seqmill").iterdir()
    faster = json.loads(remembered.read_text())["found"]["attention"]
    assert settings[1]["attention"] == {"torch": "PyTorch built-in", "triton": "seqmill's Triton kernel"}[faster]


def test_expandable_segments_reach_the_allocator():
    code = (
        "from seqmill.engine import allocator; allocator.configure(True); import torch;"
        "x = torch.empty(1 << 25, device='cuda'); assert torch.cuda.memory_snapshot()[0]['is_expandable']"
    )
    environment = {**os.environ, "PYTHONPATH": f"{REPOSITORY / 'workflow'}:{os.environ.get('PYTHONPATH', '')}"}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)


def embed(folder: Path, *flags: str, limit_gib: float | None = None, **variables: str) -> tuple[int, str]:
    environment = os.environ | variables
    if limit_gib is not None:
        share = limit_gib * 2**30 / torch.cuda.get_device_properties(0).total_memory
        environment["PYTORCH_CUDA_ALLOC_CONF"] = f"per_process_memory_fraction:{share:.7f}"
    command = [sys.executable, REPOSITORY / "workflow/scripts/embed.py", "--fasta", ECOLI, "--model", DEMO]
    done = subprocess.run([*command, "--output", folder, *flags], env=environment, capture_output=True, text=True)
    return done.returncode, done.stderr


def test_out_of_memory_is_diagnosed_and_the_recommendation_works(tmp_path):
    status, said = embed(tmp_path, "--batch-size", "400000", limit_gib=1)
    assert status == 3, said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["oom.json"]
    found = json.loads((tmp_path / "oom.json").read_text())
    assert found["status"] == "oom"
    assert found["batch_size"] == 400000
    assert found["longest_sequence"] == 2358
    assert found["requested_bytes"] > 10 * 2**20
    assert 0 < found["peak_allocated_bytes"] <= found["peak_reserved_bytes"] <= 2**30
    recommended = found["recommended_batch_size"]
    assert 20_000 < recommended < 400_000
    assert "set performance.batch_size to" in said
    status, said = embed(tmp_path, "--batch-size", str(recommended), limit_gib=1)
    assert status == 0, said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["embeddings.h5", "index.parquet", "meta.json"]


def test_whole_proteome_on_the_gpu(tmp_path):
    status, said = embed(tmp_path, "--pooling", "mean", "residues", "--pin-memory", "--dtype", "float16")
    assert status == 0, said
    meta = json.loads((tmp_path / "meta.json").read_text())
    assert meta["residues"] == 1_353_365
    assert meta["settings"]["attention"] != "PyTorch SDPA"
    with h5py.File(tmp_path / "embeddings.h5") as file:
        offsets, means = file["offsets"][:], file["mean"][:]
        for row in (0, 17, 4351):
            own = file["residues"][offsets[row] : offsets[row + 1]].astype(np.float32).mean(0)
            assert np.linalg.norm(own - means[row]) < 1e-3 * np.linalg.norm(means[row])


def test_memory_fit_predicts_a_larger_batch():
    device = torch.device("cuda")
    model = load_model(DEMO, torch.bfloat16, device, "torch")
    pipeline = Pipeline(model, device, resolve((6,), ("mean",), 192, "bfloat16"))
    fit = memory.measure(pipeline.probe, device)
    torch.cuda.reset_peak_memory_stats(device)
    pipeline.probe(100_000)
    assert torch.cuda.max_memory_reserved(device) == pytest.approx(fit.peak(100_000), rel=0.25)
