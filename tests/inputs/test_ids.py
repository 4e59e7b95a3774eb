"""Ids that come more than once: all are named at once, or they get numbers that the index records."""

from pathlib import Path

import pandas as pd
import pytest
from refusals import read, records, refusal, shard, written

from seqmill.planning import config as configuration


def test_one_repeated_id_is_named_with_both_places(tmp_path):
    path = written(tmp_path, b">a\nMKT\n>b\nMKV\n>a again\nMKK\n")
    assert refusal(records, path) == (
        f"{path}, line 5: record 'a' repeats the id of {path}, line 1; give every record its own id, or set "
        "sequences.duplicate_ids to number (--duplicate-ids number)"
    )


def test_all_repeated_ids_are_named_at_once(tmp_path):
    content = b"".join(b">p%d\nMKT\n" % number for number in [*range(12), *range(12), 3])
    sentence = refusal(records, written(tmp_path, content))
    assert "line 25: record 'p0' repeats the id of" in sentence
    shown = ", ".join(f"'p{number}'" for number in range(10))
    assert f"in all 12 ids are repeated: {shown}, ...; give" in sentence


def test_long_ids_make_no_long_sentence(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content = b"".join(b">%s%d\nMKT\n" % (b"x" * 500, number) for number in range(30)) * 2
    assert "in all 30 ids are repeated" in refusal(records, written(Path(), content))


def test_repeated_ids_get_numbers(tmp_path):
    """Also where the number is taken by an id of the file."""
    content = b">a\nM\n>a_2\nMK\n>a\nMKV\n>b\nK\n>a\nMKVL\n>a_2\nV\n"
    found = list(read(written(tmp_path, content), duplicate_ids="number"))
    assert [(record.id, record.renamed_from) for record in found] == [
        ("a", None),
        ("a_2", None),
        ("a_3", "a"),
        ("b", None),
        ("a_4", "a"),
        ("a_2_2", "a_2"),
    ]


def test_numbers_go_on_over_files(tmp_path):
    one, two = (written(tmp_path, b">a\nMKT\n", name) for name in ("one.fasta", "two.fasta"))
    assert [record.id for record in read(one, two, duplicate_ids="number")] == ["a", "a_2"]


def test_descriptions_and_given_ids_are_in_the_table(tmp_path):
    path = written(tmp_path, b">a  first   protein OS=E. coli \nMKT\n>a\nMKV\n>c \xff\xe9t\xc3\xa9\nMKT\n")
    shard(path, 1, tmp_path / "shards", duplicate_ids="number")
    table = pd.read_parquet(tmp_path / "shards/records.parquet")
    assert table["id"].tolist() == ["a", "a_2", "c"]
    assert table["description"].tolist() == ["first   protein OS=E. coli", "", "??t\u00e9"]
    assert [None if pd.isna(given) else given for given in table["renamed_from"]] == [None, "a", None]


@pytest.mark.parametrize(
    ("sequences", "words"),
    [
        ({}, "error"),
        ({"invalid": "replace"}, "replace"),
        ({"duplicate_ids": "number"}, ["error", "--duplicate-ids", "number"]),
    ],
)
def test_the_rule_says_it_to_shard_and_nothing_new_where_it_is_the_default(sequences, words):
    config = configuration.check({"fasta": "x", "sequences": sequences})
    assert configuration.shard_flags(config) == words
