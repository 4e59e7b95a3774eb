"""What embed jobs ask of their hosts."""

import pytest

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


def test_memory_holds_pytorch_the_weights_and_the_shard(record, sparse):
    shard = sparse("0.fasta", 200_000_000)
    assert demand.memory_mb(record, shard) == 8_000 + 3_900 + 1_000


def test_time_is_a_slow_gpus(record, sparse):
    shard = sparse("0.fasta", 1_200_000_000)
    # 1.2e9 residues x 2 x 650e6 parameters at 20e12 operations a second are 1,300 minutes.
    assert demand.runtime_minutes(record, shard) == 30 + 1_300


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
