"""The scaling model of the benchmarks: held to what several GPUs did, and what it says of larger inputs."""

import argparse
import json
import math

import numpy as np
import pytest
import scaling
from paths import REPOSITORY

RESULTS = REPOSITORY / "benchmarks/results"
# The sample of UniRef90 by its quantiles, as far as results cut it: to 110 or 235 residues.
QUANTILES = ([0, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 1], [12, 55, 71, 96, 139, 189, 245, 476])
CUT = {"uniref90_10000": np.interp(np.linspace(0, 1, 10_000), *QUANTILES).astype(int)}


@pytest.fixture(autouse=True)
def few_are_dealt(monkeypatch):
    """A prediction of so few takes no second."""
    monkeypatch.setattr(scaling, "DEALT", 10_000)


def held(path):
    return list(scaling.held(path, CUT, math.inf))


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*_gpus.json")), ids=lambda path: path.stem)
def test_two_gpus_take_what_was_predicted_from_one_within_a_tenth(path):
    rows = [row for row in held(path) if (row["gpus"], row["basis"]) == (2, scaling.ONE_GPU)]
    assert rows
    for row in rows:
        assert abs(row["makespan_error"]) < 0.1
        assert abs(row["whole_run_error"]) < 0.1


def test_a_prediction_knows_nothing_of_what_it_is_held_to(tmp_path):
    path = RESULTS / "2026-11-26_4xh100_gpus.json"
    result = json.loads(path.read_text())
    for row in result["rows"]:
        if row["gpus"] > 1:
            row |= {"makespan_s": 1.0, "whole_run_s": 2.0, "steady_s": [1.0], "start_s": [0.0]}
    (tmp_path / "changed.json").write_text(json.dumps(result))
    names = ("predicted_makespan_s", "predicted_whole_run_s")
    before, after = ([[row[name] for name in names] for row in held(one)] for one in (path, tmp_path / "changed.json"))
    assert before == after


def test_other_files_and_other_sequences_are_refused(tmp_path):
    with pytest.raises(SystemExit, match="is of uniref90_10000; give these sequences with --fasta"):
        list(scaling.held(RESULTS / "2026-11-26_4xh100_gpus.json", {}, math.inf))
    with pytest.raises(SystemExit, match="is no result of gpus"):
        list(scaling.held(RESULTS / "2026-11-26_h100_neighbors.json", CUT, math.inf))


def predicted(gpus, **changed):
    asked = {"card": "H100", "sequences": 6e7, "pooling": ["mean"], "disk": 2.0, "price": 2.5, "shards": 1}
    lengths = np.random.default_rng(0).integers(50, 800, 1_000)
    args = argparse.Namespace(**{**asked, "shards_per_gpu": 1, **changed})
    return scaling.predict(args, lengths, "650M", gpus)


def test_more_gpus_share_the_work_and_nothing_else():
    one, eight = predicted(1), predicted(8)
    assert eight["embed_h"] == pytest.approx(one["embed_h"] / 8, rel=0.02)
    assert eight["check_merge_h"] == one["check_merge_h"]
    assert eight["cost"] == pytest.approx(one["cost"], rel=0.02)
    assert predicted(1, price=5.0)["cost"] == pytest.approx(2 * one["cost"], rel=0.01)
    assert predicted(1, sequences=6e8)["letters"] == pytest.approx(10 * one["letters"], rel=1e-6)


def test_each_further_shard_of_a_gpu_costs_a_start():
    one, many = predicted(1), predicted(1, shards=500)
    assert many["shards"] == 500
    assert many["gpu_hours"] - one["gpu_hours"] == pytest.approx(499 * one["start_s"] / 3600, abs=0.1)


def test_a_slow_disk_is_shared_by_all_jobs():
    """60 million sequences with every residue's state, 52 TB."""
    slow = [predicted(gpus, pooling=["residues"], disk=1.0)["embed_h"] for gpus in (8, 64)]
    assert slow[1] == pytest.approx(slow[0], rel=0.05)
    assert slow[1] > 5 * predicted(64, pooling=["residues"], disk=1e3)["embed_h"]
