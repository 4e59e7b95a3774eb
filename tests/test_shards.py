"""Distinct sequences, how they are dealt to shards, and the files that come of it."""

import hashlib
import itertools
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from seqmill import shards, sums
from seqmill.errors import UserError
from seqmill.fasta import Protein, read_all

COLUMNS = ["id", "length", "sequence_sha256", "shard", "row", "duplicate_of", "residues_replaced"]


def proteins(**sequences):
    return [Protein(name, sequence.encode(), Path("x.fasta"), 1) for name, sequence in sequences.items()]


def sha256(sequence):
    return hashlib.sha256(sequence.encode()).hexdigest()


def distinct_of(tmp_path, records):
    with (tmp_path / "spool").open("w+b") as spool:
        return shards.find_distinct(records, spool)


def duplicates(records):
    """The column duplicate_of with None for what is missing; pandas may store that as NaN."""
    return [None if pd.isna(value) else value for value in records["duplicate_of"]]


def loads(lengths, dealt):
    return [shards.predicted_cost(lengths[indices]).sum() for indices in dealt]


def some_lengths(seed, count=500):
    """Lengths as in a proteome: log-normal, median about 270 residues, a tail of thousands."""
    return np.random.default_rng(seed).lognormal(5.6, 0.7, count).astype(np.int64).clip(1)


# Distinct sequences


def test_each_sequence_is_kept_once(tmp_path):
    found = distinct_of(tmp_path, proteins(a="MKT", b="MKV", c="MKT", d="MK", e="MKT"))
    assert found.hashes == [sha256("MKT"), sha256("MKV"), sha256("MK")]
    assert found.residues.tobytes() == b"MKTMKVMK"
    assert found.offsets.tolist() == [0, 3, 6, 8]
    assert found.lengths.tolist() == [3, 3, 2]


def test_every_record_is_in_the_table_in_input_order(tmp_path):
    records = distinct_of(tmp_path, proteins(a="MKT", b="MKV", c="MKT", d="MK", e="MKT")).records
    assert records["id"].tolist() == list("abcde")
    assert records["length"].tolist() == [3, 3, 3, 2, 3]
    assert records["distinct"].tolist() == [0, 1, 0, 2, 0]
    assert duplicates(records) == [None, None, "a", None, "a"]
    assert records["sequence_sha256"].tolist() == [sha256(s) for s in ("MKT", "MKV", "MKT", "MK", "MKT")]


def test_sequences_alike_but_for_case_and_stop_are_duplicates(tmp_path):
    path = tmp_path / "in.fasta"
    path.write_text(">a\nMKTAY\n>b\nmktay*\n>c\nMK\nTAY\n")
    found = distinct_of(tmp_path, read_all([path]))
    assert len(found.hashes) == 1
    assert duplicates(found.records) == [None, "a", "a"]


def test_replaced_residues_are_counted_for_each_record(tmp_path):
    path = tmp_path / "in.fasta"
    path.write_text(">a\nMKJT\n>b\nMKXT\n>c\n1K*T\n")
    found = distinct_of(tmp_path, read_all([path], "replace"))
    assert found.records["residues_replaced"].tolist() == [1, 0, 2]
    # What is replaced becomes X, so a and b are the same sequence from here on.
    assert found.residues.tobytes() == b"MKXTXKXT"
    assert duplicates(found.records) == [None, "a", None]


# Dealing


@pytest.mark.parametrize("count", [1, 2, 3, 8, 64])
@pytest.mark.parametrize("seed", [0, 1])
def test_every_sequence_is_in_exactly_one_shard(count, seed):
    lengths = some_lengths(seed)
    dealt = shards.deal(lengths, count)
    assert len(dealt) == count
    assert sorted(itertools.chain(*(indices.tolist() for indices in dealt))) == list(range(len(lengths)))


@pytest.mark.parametrize("count", [1, 2, 8])
def test_every_shard_is_sorted_longest_first(count):
    lengths = some_lengths(2)
    for indices in shards.deal(lengths, count):
        assert (np.diff(lengths[indices]) <= 0).all()


def test_among_equal_lengths_the_input_order_stays():
    assert [indices.tolist() for indices in shards.deal(np.array([5, 7, 5, 7, 5]), 1)] == [[1, 3, 0, 2, 4]]


@pytest.mark.parametrize("count", [2, 3, 8, 16])
@pytest.mark.parametrize("seed", [3, 4])
def test_shards_differ_by_no_more_than_one_short_sequence(count, seed):
    """Whatever is dealt last goes to the smallest shard, so the spread is at most the cost of one sequence."""
    lengths = some_lengths(seed)
    dealt = shards.deal(lengths, count)
    cost = loads(lengths, dealt)
    last = max(shards.predicted_cost(lengths[indices[-1:]])[0] for indices in dealt)
    assert max(cost) - min(cost) <= last
    assert 0 <= shards.imbalance(lengths, dealt) < 0.01
    assert shards.imbalance(lengths, dealt) == pytest.approx(max(cost) / np.mean(cost) - 1)


def test_balance_counts_the_square_of_the_length():
    """One protein of 30,000 residues costs far more than 100 of 300, although the residues are as many."""
    lengths = np.array([30_000] + [300] * 100)
    assert [len(indices) for indices in shards.deal(lengths, 2)] == [1, 100]
    long, short = shards.predicted_cost(lengths[:1]).sum(), shards.predicted_cost(lengths[1:]).sum()
    assert long > 5 * short
    # Were cost linear, 200 short ones would be dealt as 50 to the long one's shard and 150 to the other.
    assert [len(indices) for indices in shards.deal(np.array([30_000] + [300] * 200), 2)] == [1, 200]


def test_cost_grows_faster_than_length_and_counts_special_tokens():
    one, two = shards.predicted_cost(np.array([1_000])), shards.predicted_cost(np.array([2_000]))
    assert 2 * one < two < 4 * one
    # Two special tokens a sequence: many short ones cost more than their residues in one, as long as that is short.
    assert shards.predicted_cost(np.full(10, 5)).sum() > shards.predicted_cost(np.array([50]))[0]


def test_more_shards_than_sequences_leaves_some_empty():
    dealt = shards.deal(np.array([10, 20]), 5)
    assert sorted(indices.tolist() for indices in dealt) == [[], [], [], [0], [1]]
    assert all(indices.dtype == np.int64 for indices in dealt)


def test_dealing_is_the_same_every_time():
    lengths = some_lengths(5)
    first, second = shards.deal(lengths, 7), shards.deal(lengths.copy(), 7)
    assert [indices.tolist() for indices in first] == [indices.tolist() for indices in second]


# Files


@pytest.fixture
def written(tmp_path, small_fasta):
    folder = tmp_path / "shards"
    line = shards.shard(read_all([small_fasta]), 3, folder)
    return folder, line


def test_the_folder_holds_the_shards_and_the_table_and_nothing_else(written):
    folder, line = written
    assert sorted(path.name for path in folder.iterdir()) == [
        "0.fasta",
        "1.fasta",
        "2.fasta",
        "SHA256SUMS",
        "records.parquet",
    ]
    assert line.startswith("24 records, 23 distinct sequences, ")
    assert "\n" not in line


def test_records_parquet_says_where_each_sequence_went(written, small_fasta):
    folder, _ = written
    records = pd.read_parquet(folder / "records.parquet")
    assert records.columns.tolist() == COLUMNS
    given = list(read_all([small_fasta]))
    assert records["id"].tolist() == [protein.id for protein in given]
    assert records["length"].tolist() == [len(protein.sequence) for protein in given]
    dealt = {shard: list(read_all([folder / f"{shard}.fasta"])) for shard in range(3)}
    for protein, record in zip(given, records.itertuples(), strict=True):
        there = dealt[record.shard][record.row]
        assert there.sequence == protein.sequence
        assert there.id == record.sequence_sha256 == hashlib.sha256(protein.sequence).hexdigest()
    places = set(zip(records["shard"], records["row"], strict=True))
    assert len(places) == sum(map(len, dealt.values())) == 23


def test_a_duplicate_points_to_the_first_record_and_shares_its_row(written):
    folder, _ = written
    records = pd.read_parquet(folder / "records.parquet")
    twins = records[records["duplicate_of"].notna()]
    assert twins["id"].tolist() == ["twin"]
    assert twins["duplicate_of"].tolist() == [records["id"][2]]
    same = ["length", "sequence_sha256", "shard", "row"]
    assert records.loc[23, same].tolist() == records.loc[2, same].tolist()


def test_shard_files_are_longest_first_and_balanced(written):
    folder, _ = written
    lengths = [[len(p.sequence) for p in read_all([folder / f"{shard}.fasta"])] for shard in range(3)]
    assert all(shard == sorted(shard, reverse=True) for shard in lengths)
    costs = [shards.predicted_cost(np.array(shard)).sum() for shard in lengths]
    assert max(costs) < 1.05 * min(costs)


def test_more_shards_than_sequences_writes_empty_files(tmp_path):
    line = shards.shard(iter(proteins(a="MKT", b="MKV")), 4, tmp_path / "shards")
    sizes = [(tmp_path / f"shards/{shard}.fasta").stat().st_size for shard in range(4)]
    assert sorted(map(bool, sizes)) == [False, False, True, True]
    assert "2 distinct sequences" in line


def test_sharding_twice_gives_the_same_bytes(tmp_path, small_fasta):
    for name in ("one", "two"):
        shards.shard(read_all([small_fasta]), 3, tmp_path / name)
    for file in ("0.fasta", "1.fasta", "2.fasta"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
    one, two = (pd.read_parquet(tmp_path / name / "records.parquet") for name in ("one", "two"))
    pd.testing.assert_frame_equal(one, two)


def test_an_error_while_reading_leaves_nothing(tmp_path):
    def broken():
        yield from proteins(a="MKT")
        raise RuntimeError("the disk is on fire")

    with pytest.raises(RuntimeError, match="on fire"):
        shards.shard(broken(), 2, tmp_path / "shards")
    assert list((tmp_path / "shards").iterdir()) == []


def test_the_table_has_the_same_types_with_and_without_duplicates(tmp_path):
    """A column of nothing but None is stored without a type, and tables of two inputs would not fit together."""
    shards.shard(iter(proteins(a="MKT", b="MKV")), 1, tmp_path / "without")
    shards.shard(iter(proteins(a="MKT", b="MKT")), 1, tmp_path / "with")
    without, with_one = (pq.read_schema(tmp_path / name / "records.parquet") for name in ("without", "with"))
    assert without.types == with_one.types


# Checksums


def test_sha256sum_agrees_with_the_checksums(written):
    folder, _ = written
    done = subprocess.run(
        ["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0
    assert done.stdout.splitlines() == [f"{name}: OK" for name in ("0.fasta", "1.fasta", "2.fasta", "records.parquet")]


def test_files_as_written_are_verified(written):
    folder, _ = written
    for name in ("0.fasta", "1.fasta", "2.fasta", "records.parquet"):
        sums.verify(folder / name)


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGES = {
    "a bit flipped": (
        lambda f: flip_a_bit(f / "1.fasta"),
        "1.fasta: is damaged, its SHA-256 is not the one in SHA256SUMS",
    ),
    "truncated": (
        lambda f: (f / "1.fasta").write_bytes(b""),
        "1.fasta: is damaged, its SHA-256 is not the one in SHA256SUMS",
    ),
    "another shard's": (lambda f: shutil.copy(f / "0.fasta", f / "1.fasta"), "1.fasta: is damaged, its SHA-256 is not"),
    "missing": (lambda f: (f / "1.fasta").unlink(), "1.fasta: cannot be read (No such file or directory)"),
    "not listed": (
        lambda f: sums.write(f, ["0.fasta"]),
        "1.fasta: is not listed in the SHA256SUMS beside it",
    ),
    "no checksums": (lambda f: (f / "SHA256SUMS").unlink(), "SHA256SUMS: cannot be read (No such file or directory)"),
    "checksums empty": (lambda f: (f / "SHA256SUMS").write_bytes(b""), "1.fasta: is not listed in the SHA256SUMS"),
    "checksums truncated": (lambda f: (f / "SHA256SUMS").write_bytes(b"0123abcd"), "SHA256SUMS: is damaged"),
    "checksums no text": (lambda f: (f / "SHA256SUMS").write_bytes(b"\xff\xfe\x00"), "SHA256SUMS: is damaged"),
}


@pytest.mark.parametrize(("damage", "says"), DAMAGES.values(), ids=DAMAGES)
def test_damage_to_a_shard_or_its_checksum_is_told(written, damage, says):
    folder, _ = written
    damage(folder)
    with pytest.raises(UserError) as refused:
        sums.verify(folder / "1.fasta")
    assert str(refused.value).startswith(f"{folder}/{says}")
    assert str(refused.value).endswith("; run again with --forcerun shard")
