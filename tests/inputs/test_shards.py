"""Distinct sequences, how they are assigned to shards, and the files that come of it."""

import functools
import gzip
import hashlib
import itertools
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from refusals import GOOD, read, refusal, shard, written

from seqmill.files import sha256 as sha256_of
from seqmill.inputs import blocks, earlier_rounds, hexadecimal, repeats, sha256sums, shards
from seqmill.inputs.distinct import find_distinct
from seqmill.inputs.earlier_rounds import read_records
from seqmill.inputs.hash_index import HashIndex
from seqmill.inputs.sample import Sample
from seqmill.models.esm2.family import COST as predicted_cost

COLUMNS = ["id", "length", "sequence_sha256", "shard", "row", "duplicate_of", "residues_replaced"]
COLUMNS += ["description", "renamed_from"]


def proteins(folder, **sequences):
    return written(folder, "".join(f">{name}\n{sequence}\n" for name, sequence in sequences.items()).encode())


def sha256(sequence):
    return hashlib.sha256(sequence.encode()).hexdigest()


def distinct_of(folder, path, **options):
    """The distinct sequences of a file, and the rows of the first record with each record's sequence."""
    with ExitStack() as stack:
        found = find_distinct({None: Sample([path], **options)}, folder, stack)
        return found, found.records.first().tolist()


def assign(lengths, count):
    return shards.assign(lengths, predicted_cost(lengths), count)


def loads(lengths, assigned):
    return [predicted_cost(lengths[indices]).sum() for indices in assigned]


def some_lengths(seed, count=500):
    """Lengths as in a proteome: log-normal, median about 270 residues, a tail of thousands."""
    return np.random.default_rng(seed).lognormal(5.6, 0.7, count).astype(np.int64).clip(1)


# Distinct sequences


def test_each_sequence_is_kept_once(tmp_path):
    found, _ = distinct_of(tmp_path, proteins(tmp_path, a="MKT", b="MKV", c="MKT", d="MK", e="MKT"))
    assert [row.tobytes().hex() for row in found.hashes] == [sha256("MKT"), sha256("MKV"), sha256("MK")]
    assert found.sequences.to_pylist() == [b"MKT", b"MKV", b"MK"]
    assert found.lengths.tolist() == [3, 3, 2]


def test_every_record_is_in_the_table_in_input_order(tmp_path):
    found, first = distinct_of(tmp_path, proteins(tmp_path, a="MKT", b="MKV", c="MKT", d="MK", e="MKT"))
    assert found.records.ids.to_pylist() == list("abcde")
    assert found.records.lengths.tolist() == [3, 3, 3, 2, 3]
    assert found.records.numbers.tolist() == [0, 1, 0, 2, 0]
    assert first == [0, 1, 0, 3, 0]


def test_sequences_alike_but_for_case_and_stop_are_duplicates(tmp_path):
    path = written(tmp_path, b">a\nMKTAY\n>b\nmktay*\n>c\nMK\nTAY\n")
    found, first = distinct_of(tmp_path, path)
    assert len(found.hashes) == 1
    assert first == [0, 0, 0]


def test_replaced_residues_are_counted_for_each_record(tmp_path):
    path = written(tmp_path, b">a\nMKJT\n>b\nMKXT\n>c\n1K*T\n")
    found, first = distinct_of(tmp_path, path, invalid="replace")
    assert found.records.replaced.tolist() == [1, 0, 2]
    # What is replaced becomes X, so a and b are the same sequence from here on.
    assert found.sequences.to_pylist() == [b"MKXT", b"XKXT"]
    assert first == [0, 0, 2]


# Assigning


@pytest.mark.parametrize("count", [1, 2, 3, 8, 64])
@pytest.mark.parametrize("seed", [0, 1])
def test_every_sequence_is_in_exactly_one_shard(count, seed):
    lengths = some_lengths(seed)
    assigned = assign(lengths, count)
    assert len(assigned) == count
    assert sorted(itertools.chain(*(indices.tolist() for indices in assigned))) == list(range(len(lengths)))


@pytest.mark.parametrize("count", [1, 2, 8])
def test_every_shard_is_sorted_longest_first(count):
    lengths = some_lengths(2)
    for indices in assign(lengths, count):
        assert (np.diff(lengths[indices]) <= 0).all()


def test_among_equal_lengths_the_input_order_stays():
    assert [indices.tolist() for indices in assign(np.array([5, 7, 5, 7, 5]), 1)] == [[1, 3, 0, 2, 4]]


@pytest.mark.parametrize("count", [2, 3, 8, 16])
@pytest.mark.parametrize("seed", [3, 4])
def test_shards_differ_by_no_more_than_one_short_sequence(count, seed):
    """Whatever is assigned last goes to the smallest shard, so the spread is at most the cost of one sequence."""
    lengths = some_lengths(seed)
    assigned = assign(lengths, count)
    cost = loads(lengths, assigned)
    last = max(predicted_cost(lengths[indices[-1:]])[0] for indices in assigned)
    assert max(cost) - min(cost) <= last
    assert 0 <= shards.imbalance(predicted_cost(lengths), assigned) < 0.01
    assert shards.imbalance(predicted_cost(lengths), assigned) == pytest.approx(max(cost) / np.mean(cost) - 1)


def test_balance_counts_the_square_of_the_length():
    """One protein of 30,000 residues costs far more than 100 of 300, although the residues are as many."""
    lengths = np.array([30_000] + [300] * 100)
    assert [len(indices) for indices in assign(lengths, 2)] == [1, 100]
    long, short = predicted_cost(lengths[:1]).sum(), predicted_cost(lengths[1:]).sum()
    assert long > 5 * short
    # If cost were linear, 200 short ones would be assigned as 50 to the long one's shard and 150 to the other.
    assert [len(indices) for indices in assign(np.array([30_000] + [300] * 200), 2)] == [1, 200]


def test_cost_grows_faster_than_length_and_counts_special_tokens():
    one, two = predicted_cost(np.array([1_000])), predicted_cost(np.array([2_000]))
    assert 2 * one < two < 4 * one
    # Two special tokens a sequence: many short ones cost more than their residues in one, as long as that is short.
    assert predicted_cost(np.full(10, 5)).sum() > predicted_cost(np.array([50]))[0]


def test_more_shards_than_sequences_leaves_some_empty():
    assigned = assign(np.array([10, 20]), 5)
    assert sorted(indices.tolist() for indices in assigned) == [[], [], [], [0], [1]]
    assert all(indices.dtype == np.int64 for indices in assigned)


def test_assigning_is_the_same_every_time():
    lengths = some_lengths(5)
    first, second = assign(lengths, 7), assign(lengths.copy(), 7)
    assert [indices.tolist() for indices in first] == [indices.tolist() for indices in second]


# Files


@pytest.fixture
def sharded(tmp_path, small_fasta):
    folder = tmp_path / "shards"
    line = shard(small_fasta, 3, folder)
    return folder, line


def test_the_folder_holds_the_shards_and_the_table_and_nothing_else(sharded):
    folder, line = sharded
    assert sorted(path.name for path in folder.iterdir()) == [
        "0.fasta",
        "1.fasta",
        "2.fasta",
        "SHA256SUMS",
        "records.parquet",
    ]
    assert line.startswith("24 records, 23 distinct sequences, ")
    assert "\n" not in line


def test_records_parquet_says_where_each_sequence_went(sharded, small_fasta):
    folder, _ = sharded
    records = read_records(folder / "records.parquet")
    assert records.columns.tolist() == COLUMNS
    given = list(read(small_fasta))
    assert records["id"].tolist() == [protein.id for protein in given]
    assert records["length"].tolist() == [len(protein.sequence) for protein in given]
    assigned = {shard: list(read(folder / f"{shard}.fasta")) for shard in range(3)}
    for protein, record in zip(given, records.itertuples(), strict=True):
        there = assigned[record.shard][record.row]
        assert there.sequence == protein.sequence
        assert there.id == record.sequence_sha256 == hashlib.sha256(protein.sequence).hexdigest()
    places = set(zip(records["shard"], records["row"], strict=True))
    assert len(places) == sum(map(len, assigned.values())) == 23


def test_a_duplicate_points_to_the_first_record_and_shares_its_row(sharded):
    folder, _ = sharded
    records = read_records(folder / "records.parquet")
    twins = records[records["duplicate_of"].notna()]
    assert twins["id"].tolist() == ["twin"]
    assert twins["duplicate_of"].tolist() == [records["id"][2]]
    same = ["length", "sequence_sha256", "shard", "row"]
    assert records.loc[23, same].tolist() == records.loc[2, same].tolist()


def test_shard_files_are_longest_first_and_balanced(sharded):
    folder, _ = sharded
    lengths = [[len(p.sequence) for p in read(folder / f"{shard}.fasta")] for shard in range(3)]
    assert all(shard == sorted(shard, reverse=True) for shard in lengths)
    costs = [predicted_cost(np.array(shard)).sum() for shard in lengths]
    assert max(costs) < 1.05 * min(costs)


def test_more_shards_than_sequences_writes_empty_files(tmp_path):
    line = shard(proteins(tmp_path, a="MKT", b="MKV"), 4, tmp_path / "shards")
    sizes = [(tmp_path / f"shards/{shard}.fasta").stat().st_size for shard in range(4)]
    assert sorted(map(bool, sizes)) == [False, False, True, True]
    assert "2 distinct sequences" in line


def test_sharding_twice_gives_the_same_bytes(tmp_path, small_fasta):
    for name in ("one", "two"):
        shard(small_fasta, 3, tmp_path / name)
    for file in ("0.fasta", "1.fasta", "2.fasta"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
    one, two = (pd.read_parquet(tmp_path / name / "records.parquet") for name in ("one", "two"))
    pd.testing.assert_frame_equal(one, two)


def test_an_error_while_reading_leaves_nothing(tmp_path, monkeypatch):
    def broken(_):
        yield b"\n>a\nMKT\n"
        raise RuntimeError("the disk is on fire")

    monkeypatch.setattr(blocks, "read", broken)
    with pytest.raises(RuntimeError, match="on fire"):
        shard(tmp_path / "input.fasta", 2, tmp_path / "shards")
    assert list((tmp_path / "shards").iterdir()) == []


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"@read1\nACGT\n+\nIIII\n", "line 1: this looks like FASTQ"),
        (gzip.compress(GOOD)[:-12], "gzip data is truncated or damaged"),
        (b"", "the file is empty"),
    ],
    ids=["FASTQ", "truncated gzip", "empty"],
)
def test_a_bad_input_leaves_nothing(tmp_path, content, says):
    assert says in refusal(shard, written(tmp_path, content), 2, tmp_path / "shards")
    assert list((tmp_path / "shards").iterdir()) == []


def test_replaced_letters_are_counted_in_the_table(tmp_path):
    path = written(tmp_path, b">a\nMKJT-AY\n>b\nMKXTXAY\n")
    shard(path, 1, tmp_path / "shards", invalid="replace")
    records = pd.read_parquet(tmp_path / "shards/records.parquet")
    assert records["residues_replaced"].tolist() == [2, 0]
    assert (tmp_path / "shards/0.fasta").read_text().splitlines()[1:] == ["MKXTXAY"]


def test_the_table_has_the_same_types_with_and_without_duplicates(tmp_path):
    """A column of nothing but None is stored without a type, and tables of two inputs would not fit together."""
    shard(proteins(tmp_path, a="MKT", b="MKV"), 1, tmp_path / "without")
    shard(proteins(tmp_path, a="MKT", b="MKT"), 1, tmp_path / "with")
    without, with_one = (pq.read_schema(tmp_path / name / "records.parquet") for name in ("without", "with"))
    assert without.types == with_one.types


def test_hashes_are_bytes_and_tables_with_text_are_read_as_ever(sharded):
    """As earlier versions wrote them."""
    folder, _ = sharded
    path = folder / "records.parquet"
    assert pq.read_schema(path).field("sequence_sha256").type == pa.binary(32)
    now, bytes_now, places = (
        read_records(path),
        hexadecimal.with_bytes(pq.read_table(path)),
        earlier_rounds.distinct(path, 1),
    )
    now.to_parquet(path, index=False)
    assert pq.read_schema(path).field("sequence_sha256").type != pa.binary(32)
    sha256sums.write(folder, {path.name: sha256_of(path)})
    pd.testing.assert_frame_equal(read_records(path), now)
    pd.testing.assert_frame_equal(earlier_rounds.distinct(path, 1), places)
    assert (
        hexadecimal.with_bytes(pq.read_table(path))
        .column("sequence_sha256")
        .equals(bytes_now.column("sequence_sha256"))
    )
    assert read_records(path, ["length", "round"]).columns.tolist() == ["length"]


def test_the_folder_is_listed_for_all_shards_together(tmp_path, small_fasta, monkeypatch):
    folder, listed = tmp_path / "shards", []
    folder.mkdir()
    for name in (".7.fasta.123.tmp", ".records.parquet.5.tmp", ".other.fasta.123.tmp"):
        (folder / name).touch()
    iterdir = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda path: listed.append(path) or iterdir(path))
    shard(small_fasta, 20, folder)
    assert listed.count(folder) == 2
    assert {path.name for path in iterdir(folder) if path.name.startswith(".")} == {".other.fasta.123.tmp"}


def test_hashes_and_ids_whose_keys_are_the_same_are_compared(tmp_path, small_fasta, monkeypatch):
    shard(small_fasta, 3, tmp_path / "one")
    monkeypatch.setattr(repeats, "keys", lambda names: np.zeros(len(names), np.int64))
    poor = functools.partial(HashIndex, lambda hashes: (hashes[:, 0] % 2).astype(np.uint64))
    monkeypatch.setattr("seqmill.inputs.distinct.HashIndex", poor)
    shard(small_fasta, 3, tmp_path / "two")
    assert (tmp_path / "one/SHA256SUMS").read_text() == (tmp_path / "two/SHA256SUMS").read_text()
