"""What embed jobs ask of their hosts."""

import math

import pandas as pd
import pytest
from paths import FAMILIES

from seqmill.models import hub
from seqmill.models.weights import Weights
from seqmill.planning import resources as demand


@pytest.fixture
def sparse(tmp_path):
    """Makes files of any size that take no room, and gives their paths."""

    def make(name, size):
        path = tmp_path / name
        with path.open("wb") as file:
            file.truncate(size)
        return str(path)

    return make


@pytest.fixture
def record(tmp_path, sparse):
    """A model of 650 million parameters in two files."""
    for name in ("a.bin", "b.bin"):
        sparse(name, 1_300_000_000)
    Weights("a model", None, str(tmp_path), dict.fromkeys(("a.bin", "b.bin"), "0"), "0").save(tmp_path / "weights.json")
    return str(tmp_path / "weights.json")


@pytest.fixture
def shard(tmp_path):
    """Makes shard 0 of two, of so many sequences of a length, with its table of records; gives its path."""

    def make(count, length):
        folder = tmp_path / f"of_{length}"
        folder.mkdir()
        (folder / "0.fasta").touch()
        numbers = range(2 * count)
        table = pd.DataFrame({"length": length, "shard": [n % 2 for n in numbers], "row": [n // 2 for n in numbers]})
        # Duplicates, which no shard has twice.
        pd.concat([table, table[:10]]).to_parquet(folder / "records.parquet")
        return str(folder / "0.fasta")

    return make


def test_memory_holds_pytorch_the_weights_and_the_shard(record, shard):
    # 2.4 bytes a letter and 780 a sequence.
    assert demand.memory_mb(record, shard(100_000, 1_000)) == 8_000 + 3_900 + 240 + 78


def test_without_a_table_a_shard_is_of_proteins_of_300_residues(record, sparse):
    path = sparse("0.fasta", 367 * 1_000_000)
    assert demand.memory_mb(record, path) == 8_000 + 3_900 + 720 + 780


def test_a_damaged_table_counts_for_none(record, sparse):
    path = sparse("0.fasta", 367 * 1_000_000)
    sparse("records.parquet", 1_000)
    assert demand.memory_mb(record, path) == 8_000 + 3_900 + 720 + 780


def test_a_round_of_samples_has_shards_of_its_own(tmp_path, record):
    folder = tmp_path / "2"
    folder.mkdir()
    (folder / "0.fasta").touch()
    # A sequence of round 1 at the same place, and one that an earlier result has.
    lengths, rounds, shards = [3_000_000, 7_000_000, 9_000_000], [2, 1, 2], [0, 0, -1]
    table = pd.DataFrame({"length": lengths, "round": rounds, "shard": shards, "row": 0})
    table.to_parquet(folder / "records.parquet")
    assert demand.memory_mb(record, str(folder / "0.fasta")) == math.ceil(8_000 + 3_900 + 7.2 + 0.00078)


def test_time_is_a_slow_gpus(record, shard):
    # 302 million tokens, and a tenth of that for attention, x 2 x 650e6 parameters at 20e12 operations a second.
    minutes = 1e5 * 302 * (1 + 302 / 3000) * 2 * 650e6 / 20e12 / 60
    assert demand.runtime_minutes(record, shard(100_000, 300)) == math.ceil(30 + minutes) == 67


def test_another_attempt_asks_for_more(record, sparse):
    shard = sparse("0.fasta", 1_000_000)
    for ask in (demand.memory_mb, demand.runtime_minutes):
        assert ask(record, shard, attempt=3) == 3 * ask(record, shard) > 0


@pytest.mark.parametrize("missing", ["weights.json", "0.fasta"])
def test_what_is_not_there_yet_is_named_as_snakemake_knows_it(record, sparse, tmp_path, missing):
    """Only then does Snakemake take the error for `to be determined`."""
    shard = sparse("0.fasta", 1)
    (tmp_path / missing).unlink()
    for ask in (demand.memory_mb, demand.runtime_minutes):
        with pytest.raises(FileNotFoundError) as error:
            ask(record, shard)
        assert error.value.filename == str(tmp_path / missing)


def test_a_record_that_is_of_no_use_is_left_to_embed(record, sparse, tmp_path):
    shard = sparse("0.fasta", 0)
    (tmp_path / "a.bin").unlink()
    assert demand.memory_mb(record, shard) == 8_000 + 1_950
    (tmp_path / "weights.json").write_text("{}")
    assert (demand.memory_mb(record, shard), demand.runtime_minutes(record, shard)) == (8_000, 30)


# Families


@pytest.mark.parametrize(
    ("folder", "parameters", "tokens"),
    [("dnabert-s-tiny", 644_832, 475 / 4.75 + 2), ("esmc-hf-tiny", 450_912, 475 + 2), ("esm1b-tiny", 307_104, 475 + 2)],
)
def test_time_follows_what_the_family_makes_of_letters(tmp_path, shard, monkeypatch, folder, parameters, tokens):
    """Files that hold more than is loaded count by what is loaded, and letters by the tokens that they become."""
    hub.resolve(str(FAMILIES / folder)).save(tmp_path / "weights.json")
    # So slow that it can be told from nothing.
    monkeypatch.setattr(demand, "FLOPS_PER_S", 1e6)
    minutes = demand.runtime_minutes(tmp_path / "weights.json", shard(1_000, 475)) - 30
    assert minutes == pytest.approx(1_000 * tokens * 2 * parameters / 1e6 / 60, rel=0.2)


def test_long_sequences_take_longer_for_attention(tmp_path, shard, monkeypatch):
    hub.resolve(str(FAMILIES / "dnabert-s-tiny")).save(tmp_path / "weights.json")
    monkeypatch.setattr(demand, "FLOPS_PER_S", 1e6)
    short, long = (
        demand.runtime_minutes(tmp_path / "weights.json", shard(950_000 // length, length)) - 30
        for length in (475, 95_000)
    )
    # Of 102 and 20,002 tokens: attention costs as much as the rest at 2,500.
    assert long / short == pytest.approx(
        (20_002 * 10) * (1 + 20_002 / 2500) / (102 * 2_000) / (1 + 102 / 2500), rel=1e-2
    )


@pytest.mark.parametrize(
    ("shards", "gpus", "present", "expected"),
    [
        (8, 2, 2, 2),
        (3, 2, 2, 1),
        (2, 2, 2, 0),
        # On a machine without GPUs jobs take no lock.
        (8, 2, 0, 0),
        # A run that may use two of four GPUs must not take a third.
        (8, 2, 4, 0),
        (8, 0, 0, 0),
    ],
)
def test_jobs_stand_by_where_gpus_are_locked(monkeypatch, shards, gpus, present, expected):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    monkeypatch.setattr(demand, "listed_gpus", lambda: present)
    assert demand.standing_by(shards, gpus) == expected


def test_none_stands_by_for_the_only_gpu_of_a_slurm_job(monkeypatch):
    """It is taken without a lock."""
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    monkeypatch.setattr(demand, "listed_gpus", lambda: 1)
    assert demand.standing_by(8, 1) == 0
    monkeypatch.setattr(demand, "listed_gpus", lambda: 2)
    assert demand.standing_by(8, 2) == 2


@pytest.mark.parametrize(
    ("cores", "shards", "at_once", "expected"),
    [(16, 8, 4, 4), (16, 2, 4, 8), (16, 8, 0, 2), (2, 8, 4, 1), (None, 8, 4, 8)],
)
def test_jobs_at_once_share_the_cores(cores, shards, at_once, expected):
    assert demand.threads_per_shard(cores, shards, at_once) == expected
