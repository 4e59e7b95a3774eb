"""What plans learn from finished shards: where these are, and what they tell of attention and of the rest."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from paths import DEMO_MODEL, REPOSITORY

from seqmill.planning import cards, devices, earlier, outline
from seqmill.planning import config as configuration
from seqmill.planning.earlier import Run
from seqmill.planning.rates import RATES, Speed, Work

MODEL = outline.of("facebook/esm2_t33_650M_UR50D", None, REPOSITORY / "none")
H100 = cards.known("H100")
SPEED = Speed(H100.half, H100.copy, RATES["gpu"]["shares"])
DEVICE = "NVIDIA H100 80GB HBM3, 79 GiB, capability 9.0"


def work(tokens, count=10_000):
    """Of so many sequences of so many tokens each, on average; their lengths differ by a third."""
    lengths = tokens * np.random.default_rng(tokens).uniform(0.66, 1.34, count)
    return Work.of(MODEL.config, lengths, 33, 2)


def runs(lengths, rest=1.2, attention=1.2, noise=0.0):
    """Shards for which attention and the rest took so many times as long as the rates say."""
    random, found = np.random.default_rng(0), []
    for tokens in lengths:
        wanted = work(tokens)
        alone = replace(wanted, products=0.0, moved=0.0, passes=0.0)
        seconds = rest * (SPEED.seconds(wanted) - SPEED.seconds(alone)) + attention * SPEED.seconds(alone)
        found.append(Run(DEVICE, 0, 9.0, seconds * (1 + noise * random.uniform(-1, 1)), wanted))
    return found


def test_shards_of_different_lengths_tell_attention_and_the_rest_apart():
    speed, is_told = earlier.speed_of(runs([100, 300, 600, 1500, 3000], 1.1, 1.8, noise=0.02), SPEED)
    assert is_told
    for tokens in (50, 400, 8_000):
        (expected,) = runs([tokens], 1.1, 1.8)
        assert speed.seconds(work(tokens)) == pytest.approx(expected.steady_s, rel=0.05)
    found, before = (devices.par_tokens(each, MODEL.config, 2) for each in (speed, SPEED))
    assert found == pytest.approx(before * 1.1 / 1.8, rel=0.1)


@pytest.mark.parametrize(
    "found",
    [
        pytest.param(runs([100, 300, 3000], 1.1, 1.8), id="too few"),
        pytest.param(runs([300, 310, 320, 330, 340], 1.1, 1.8, noise=0.02), id="alike"),
        pytest.param(runs([100, 300, 600, 1500], 1.2, 1.2, noise=0.1), id="noise and no more"),
        pytest.param(runs([2000], 1.1, 1.8), id="one"),
    ],
)
def test_where_shards_do_not_tell_them_apart_both_take_as_much_longer(found):
    speed, is_told = earlier.speed_of(found, SPEED)
    assert not is_told
    times = sum(run.steady_s for run in found) / sum(SPEED.seconds(run.work) for run in found)
    assert speed.seconds(work(500)) == pytest.approx(times * SPEED.seconds(work(500)))
    assert speed.shares == SPEED.shares


def test_shards_that_took_less_the_longer_they_were_are_not_believed():
    odd = [replace(run, steady_s=60.0) for run in runs([100, 300, 600, 1500, 3000])]
    assert not earlier.speed_of(odd, SPEED)[1]


def write(folder: Path, lengths, **more):
    """The meta.json of a shard that took 1.1 times as long as by the rates, and attention 1.8 times."""
    found, counts = runs([lengths], 1.1, 1.8)[0], lengths * np.random.default_rng(lengths).uniform(0.66, 1.34, 10_000)
    timings = {"load_s": 9.0, "steady_s": found.steady_s, "close_s": 0.0, "compute_s": found.steady_s}
    flops = (found.work.products + found.work.attention) / found.steady_s
    meta = {
        **{"model": {"name": MODEL.name}, "dtype": "bfloat16", "resumed_after": 0, "out_of_memory": [], "layers": [33]},
        **{"device": DEVICE, "timings": timings, "sequences": 10_000, "residues": counts.sum() - 20_000},
        **{"model_flops_per_s": flops, "tokens": counts.sum(), "tokens_squared": (counts**2).sum(), **more},
    }
    folder.mkdir(parents=True)
    (folder / "meta.json").write_text(json.dumps({name: value for name, value in meta.items() if value is not None}))


def test_tokens_that_an_older_version_did_not_record_follow_from_its_operations(tmp_path):
    write(tmp_path / "new", 500)
    write(tmp_path / "old", 500, tokens=None, tokens_squared=None)
    (new,), (old,) = (earlier.find([tmp_path / name], MODEL, "bfloat16") for name in ("new", "old"))
    assert old.work.products == pytest.approx(new.work.products, rel=1e-6)
    assert old.work.attention == pytest.approx(new.work.attention, rel=1e-6)


def test_a_plan_learns_from_results_that_it_reuses_too(tmp_path):
    """A run's folder, the file of another, a sample of a third, and what the command embed has written."""
    write(tmp_path / "results/embed/0", 100)
    write(tmp_path / "2023/embed/0", 3_000)
    write(tmp_path / "2024/embed/1/0", 300)
    write(tmp_path / "2024/embed/1/1", 1_500)
    write(tmp_path / "alone", 600)
    (tmp_path / "2024/patient_1").mkdir()
    (tmp_path / "2023/embeddings.h5").write_bytes(b"")
    reuse = [str(tmp_path / name) for name in ("2023/embeddings.h5", "2024/patient_1", "alone")]
    config = {"fasta": "x.fasta", "model": {"name": MODEL.name}, "reuse": reuse}
    device = devices.on_card(H100, configuration.check(config), MODEL, tmp_path / "results", 1)
    assert device.basis.startswith(
        "from 5 finished shards on such a card, by which attention takes as long as all else at 2,"
    )
    assert device.basis.endswith("tokens (shards are dealt by 3,000)")
    (expected,) = runs([800], 1.1, 1.8)
    assert device.speed.seconds(work(800)) == pytest.approx(expected.steady_s, rel=0.02)
    assert device.start_s == 9


def test_shards_of_another_model_teach_nothing(tmp_path):
    write(tmp_path / "embed/0", 100)
    assert not earlier.find([tmp_path], outline.of(str(DEMO_MODEL), None, tmp_path), "bfloat16")
    assert not earlier.find([tmp_path], MODEL, "float16")
    assert len(earlier.find([tmp_path, tmp_path / "none"], MODEL, "bfloat16")) == 1
