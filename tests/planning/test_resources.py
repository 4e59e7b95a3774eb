"""What embed jobs ask of their hosts."""

import pandas as pd
import pytest
from paths import FAMILIES

from seqmill.inputs import sha256sums
from seqmill.models import hub, registry
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


# Families


@pytest.mark.parametrize(
    ("folder", "parameters", "letters_per_token"),
    [("dnabert-s-tiny", 644_832, 4.75), ("esmc-hf-tiny", 450_912, 1), ("esm1b-tiny", 307_104, 1)],
)
def test_time_follows_what_the_family_makes_of_letters(tmp_path, sparse, folder, parameters, letters_per_token):
    """Files that hold more than is loaded count by what is loaded, and letters by the tokens that they become."""
    weights = hub.resolve(str(FAMILIES / folder))
    weights.save(tmp_path / "weights.json")
    shard = sparse("0.fasta", 10**13)
    expected = 10**13 / letters_per_token * 2 * parameters / 20e12 / 60
    assert demand.runtime_minutes(tmp_path / "weights.json", shard) == pytest.approx(30 + expected, rel=1e-3)


def test_long_sequences_take_longer_for_attention(tmp_path, sparse):
    """By the lengths in the table of records, where there is one."""
    hub.resolve(str(FAMILIES / "dnabert-s-tiny")).save(tmp_path / "weights.json")
    minutes = []
    for length, count in ((475, 20_000), (95_000, 100)):
        folder = tmp_path / f"of_{length}"
        folder.mkdir()
        sparse(f"of_{length}/0.fasta", length * count)
        about = {"sequence_sha256": [str(n) for n in range(2 * count)], "length": length, "row": 0}
        table = pd.DataFrame(about | {"shard": [n % 2 for n in range(2 * count)]})
        table.to_parquet(folder / "records.parquet")
        sha256sums.write(folder, ["records.parquet"])
        minutes.append(demand._tokens(folder / "0.fasta", registry.by_name("DNABERT")))
    # 100 and 20,000 tokens: attention costs as much as the rest at 2,500.
    assert minutes[0] == pytest.approx(20_000 * 102 * (1 + 102 / 2500), rel=1e-6)
    assert minutes[1] == pytest.approx(100 * 20_002 * (1 + 20_002 / 2500), rel=1e-6)
