"""Jobs that are killed again and again while several threads write: nothing that was counted is missing, and the end is the same."""

import json
import os
import random
import signal
import time
from pathlib import Path

import pytest
import small_run
from embeddings import read_meta
from paths import INJECTION, SCRIPTS
from processes import Program, wait_until

SETTINGS = {"pooling": ("mean", "residues"), "batch_size": 600}
# A batch is 600 tokens, and 16 numbers of 4 bytes each: several parts of a sequence or two. Each takes a while.
FAULTS = {"SEQMILL_TEST_PART": "5000", "SEQMILL_TEST_FLUSH": "0.02", "SEQMILL_TEST_SLOW": "0:0.2"}


@pytest.fixture(scope="module")
def undisturbed(tiny_model, small_fasta, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed") / "out"
    assert small_run.embed(tiny_model, small_fasta, folder, **SETTINGS) == 0
    return folder


def begin(fasta: Path, model: Path, folder: Path) -> Program:
    # Faults strike only shards, which they know by the name of the file.
    shard = folder.parent / "results/shards/0.fasta"
    shard.parent.mkdir(parents=True, exist_ok=True)
    shard.write_bytes(fasta.read_bytes())
    command = [SCRIPTS / "embed.py", "--fasta", shard, "--model", model, "--output", folder, "--device", "cpu"]
    command += ["--batch-size", "600", "--pooling", "mean", "residues", "--dataloader-workers", "1"]
    variables = os.environ | {"PYTHONPATH": str(INJECTION), "CUDA_VISIBLE_DEVICES": ""} | FAULTS
    return Program(*command, environment=variables)


def saved(progress: Path) -> int:
    return json.loads(progress.read_text())["done"] if progress.exists() else 0


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["SIGKILL", "SIGTERM"])
@pytest.mark.parametrize("seed", range(3))
def test_killed_jobs_go_on_to_the_same_bytes(tiny_model, small_fasta, undisturbed, tmp_path, number, seed):
    draw, progress = random.Random(seed), tmp_path / "out.partial/progress.json"
    done = []
    for _ in range(3):
        program = begin(small_fasta, tiny_model, tmp_path / "out")
        wait_until(lambda: saved(progress) > max(done, default=0), program)
        time.sleep(draw.uniform(0, 0.15))
        program.signal(number)
        assert program.wait(60).returncode in (-signal.SIGKILL, 128 + signal.SIGTERM)
        done.append(saved(progress))
        # What is left must not end before the signal comes.
        if done[-1] > 12:
            break
    assert small_run.embed(tiny_model, small_fasta, tmp_path / "out", **SETTINGS) == 0
    assert read_meta(tmp_path / "out")["resumed_after"] == done[-1] > 0
    assert read_meta(tmp_path / "out")["checksums"] == read_meta(undisturbed)["checksums"]
    found, expected = ((folder / "embeddings.h5").read_bytes() for folder in (tmp_path / "out", undisturbed))
    assert found == expected
