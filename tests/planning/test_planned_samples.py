"""Samples in the configuration: their names and files, sample sheets, and the rounds in which they were added."""

import json

import pytest

from seqmill.errors import UserError
from seqmill.planning.samples import plan_rounds, read_samples, round_of


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in "abc":
        (tmp_path / f"{name}.fasta").write_text(">x\nMKV\n")
    return tmp_path


def sheet(folder, text: str) -> dict:
    (folder / "sheet.tsv").write_bytes(text.encode() if isinstance(text, str) else text)
    return {"fasta": "sheet.tsv"}


def test_one_input_is_no_sample(folder):
    assert read_samples({"fasta": "a.fasta"}, must_exist=True) is None
    assert read_samples({"fasta": ["a.fasta", "b.fasta"]}, must_exist=True) is None


def test_samples_with_one_file_or_several(folder):
    given = {"fasta": {"A": "a.fasta", 2: ["b.fasta", "c.fasta"]}}
    assert read_samples(given, must_exist=True) == {"A": ["a.fasta"], "2": ["b.fasta", "c.fasta"]}


def test_a_sheet_with_more_columns_and_a_sample_with_two_lines(folder):
    given = sheet(folder, "\ufeffnote\tsample\tfasta\r\n-\tA\ta.fasta\r\n-\tB\tb.fasta\r\n-\tA\tc.fasta\r\n")
    assert read_samples(given, must_exist=True) == {"A": ["a.fasta", "c.fasta"], "B": ["b.fasta"]}


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"shards": "a.fasta"}, "'shards' cannot be the name of a sample"),
        ({"a/b": "a.fasta"}, "'a/b' cannot be the name of a sample"),
        ({"..": "a.fasta"}, "'..' cannot be the name of a sample"),
        ({"A": "a.fasta", "a": "b.fasta"}, "differ in upper and lower case only"),
        ({"A": "missing.fasta"}, "configuration: fasta: sample A: there is no file missing.fasta"),
        ({"A": "{x}.fasta"}, "sample A: {x}.fasta holds braces"),
    ],
    ids=str,
)
def test_samples_that_cannot_be(folder, given, says):
    with pytest.raises(UserError) as refused:
        read_samples({"fasta": given}, must_exist=True)
    assert says in str(refused.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("sample,fasta\nA,a.fasta\n", "sheet.tsv: a sample sheet has tabs"),
        ("sample\tpath\nA\ta.fasta\n", "fasta is missing"),
        ("sample\tfasta\nA\n", "sheet.tsv, line 2: sample or fasta is empty"),
        ("sample\tfasta\n", "sheet.tsv: lists no samples"),
        ("", "sheet.tsv: a sample sheet has tabs"),
        ("sample\tfasta\nA\tmissing.fasta\n", "sheet.tsv: sample A: there is no file missing.fasta"),
        (b"PK\x03\x04\xff\xfe\x00", "sheet.tsv: is not a table in text form"),
    ],
    ids=str,
)
def test_sheets_that_cannot_be_read(folder, text, says):
    with pytest.raises(UserError) as refused:
        read_samples(sheet(folder, text), must_exist=True)
    assert says in str(refused.value)


def record(folder, number: int, samples: dict, complete: bool = True) -> None:
    place = folder / f"shards/{number}"
    place.mkdir(parents=True)
    (place / "samples.json").write_text(json.dumps(samples))
    if complete:
        (place / "records.parquet").touch()


def planned(folder, *names: str) -> dict[int, list[str]]:
    rounds = plan_rounds({name: [f"{name}.fasta"] for name in names}, folder / "shards")
    return {number: list(planned.samples) for number, planned in rounds.items()}


def test_the_first_round_has_all_samples(folder):
    assert planned(folder, "a", "b") == {1: ["a", "b"]}


def test_what_is_new_is_a_round_of_its_own(folder):
    record(folder, 1, {"a": ["a.fasta"], "b": ["b.fasta"]})
    assert planned(folder, "c", "a", "b") == {1: ["a", "b"], 2: ["c"]}
    rounds = plan_rounds({"c": ["c.fasta"], "a": ["new.fasta"]}, folder / "shards")
    # The configuration says where a sample is; what it no longer names stays as it was.
    assert rounds[1].samples == {"a": ["new.fasta"], "b": ["b.fasta"]}
    assert (round_of("a", rounds), round_of("c", rounds)) == (1, 2)
    assert rounds[1].flags == ["--sample", "a", "new.fasta", "--sample", "b", "b.fasta"]


def test_a_round_that_must_be_written_anew_drops_what_is_no_longer_wanted(folder):
    record(folder, 1, {"a": ["a.fasta"], "bad": ["bad.fasta"]}, complete=False)
    assert planned(folder, "a") == {1: ["a"]}


def test_rounds_after_one_that_is_gone_are_not_used(folder):
    """They leave out what it had."""
    record(folder, 2, {"b": ["b.fasta"]})
    assert planned(folder, "a", "b") == {1: ["a", "b"]}


def test_a_damaged_record_is_one_sentence(folder):
    record(folder, 1, {"a": ["a.fasta"]})
    (folder / "shards/1/samples.json").write_text("{")
    with pytest.raises(UserError, match=r"samples.json: cannot be read"):
        planned(folder, "a")
