"""Input without bounds: lines, ids, descriptions and sequences of any length, and gzip that unpacks to gigabytes."""

import gzip
import random

import pytest
from refusals import little_memory, read, records, refusal, shard, written

from seqmill.inputs import fasta

# gzip bombs


def bomb(path, start, endless, gigabytes=4):
    """gzip of `start`, then of one character for gigabytes: in members, which are all alike, to have it in no time."""
    member = gzip.compress(endless * (2**24 // len(endless)))
    with path.open("wb") as file:
        file.write(gzip.compress(start))
        for _ in range(gigabytes * 2**30 // 2**24):
            file.write(member)


BOMBS = {
    "sequence": (b">a\nMKT\n>b long\n", b"M", "line 3: record 'b' has more than 10,000,000 letters"),
    "sequence in short lines": (b">a\nMKT\n>b long\n", b"MK\n", "line 3: record 'b' has more than 10,000,000 letters"),
    "id": (b">a\nMKT\n>", b"b", "line 3: here are more than 15,000,000 characters of description or blank lines"),
    "description": (b">a\nMKT\n>b ", b"b", "line 3: here are more than 15,000,000 characters of description"),
    "no header": (b"", b"M", "line 1: a FASTA file starts with '>', this one with 'MMMM"),
    "zeros": (b"", b"\0", "is not a text file"),
    "blank line": (b"", b" ", "line 1: here are more than 15,000,000 characters of description or blank lines"),
    "empty lines": (b">a\nMKT\n", b"\n", "line 15000003: here are more than 15,000,000 characters of description"),
}
# Millions of lines; with lower bounds these are in test_short_lines_are_counted_together too.
SLOW_BOMBS = ("sequence in short lines", "empty lines")


@pytest.mark.parametrize(
    ("start", "endless", "says"),
    [pytest.param(*case, id=name, marks=[pytest.mark.slow] * (name in SLOW_BOMBS)) for name, case in BOMBS.items()],
)
def test_a_gzip_bomb_is_refused_in_bounded_memory(tmp_path, start, endless, says):
    path = tmp_path / "bomb.fasta.gz"
    bomb(path, start, endless)
    assert path.stat().st_size < 16e6
    with little_memory():
        sentence = refusal(shard, path, 1, tmp_path / "shards")
    assert sentence.startswith(str(path))
    assert says in sentence
    assert list((tmp_path / "shards").iterdir()) == []


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b"MK\n", "line 3: record 'b' has more than 10,000 letters"),
        (b"\n", "line 15005: here are more than 15,000 characters of description or blank lines"),
    ],
    ids=SLOW_BOMBS,
)
def test_short_lines_are_counted_together(tmp_path, monkeypatch, line, says):
    """What is allowed in all, in lines that are each next to nothing; and that much is fine."""
    monkeypatch.setattr(fasta, "MAX_LETTERS", 10_000)
    monkeypatch.setattr(fasta, "MAX_SKIPPED", 15_000)
    start = b">a\nMKT\n>b\nMK\n"
    path = written(tmp_path, start + line * 20_000)
    assert refusal(records, path).startswith(f"{path}, {says}")
    assert [name for name, _ in records(written(tmp_path, start + line * 3_000))] == ["a", "b"]


# Lines


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("length", [fasta.PIECE - 1, fasta.PIECE, fasta.PIECE + 1, 3 * fasta.PIECE])
def test_lines_longer_than_a_piece_are_read_whole(tmp_path, length, end):
    sequence = bytes(random.Random(length).choices(b"ACDEFGHIKLMNPQRSTVWY", k=length))
    path = written(tmp_path, b">a" + end + sequence + end + b">b" + end + b"MKT" + end)
    assert records(path) == [("a", sequence), ("b", b"MKT")]


@pytest.mark.parametrize("invalid", ["error", "replace"])
def test_a_header_sign_at_a_seam_begins_no_record(tmp_path, invalid):
    path = written(tmp_path, b">a\n" + b"M" * fasta.PIECE + b">b MKT\n>c\nMKV\n")
    sentence = refusal(records, path, invalid=invalid)
    assert f"line 1: record 'a' has a '>' at position {fasta.PIECE + 1} of its sequence" in sentence


def test_blank_characters_for_longer_than_a_piece_do_not_matter(tmp_path):
    blank = b" " * (fasta.PIECE + 5)
    path = written(tmp_path, blank + b"\n>a\n" + blank + b"MKT" + blank + b"AY\n" + blank + b"\n>b\nMKV" + blank)
    assert records(path) == [("a", b"MKTAY"), ("b", b"MKV")]


def test_a_million_empty_lines_anywhere_do_not_matter(tmp_path):
    gap = b"\n" * 125_000 + b"\r\n" * 62_500 + b" \n" * 62_500
    path = written(tmp_path, gap + b">a\nMKT\n" + gap + b"AY\n" + gap + b">b\n" + gap + b"MKV\n" + gap)
    found = list(read(path))
    assert [(protein.id, protein.sequence) for protein in found] == [("a", b"MKTAY"), ("b", b"MKV")]
    assert [protein.line for protein in found] == [250_001, 750_004]


# Headers and sequences


def test_long_descriptions_do_not_matter(tmp_path):
    long = b">" * 10_000_000
    path = written(tmp_path, b">a " + long + b"\nMKT\n>b\t" + long + b"\r\nMKV\n>c " + long + b"\r\rMKA\r")
    assert records(path) == [("a", b"MKT"), ("b", b"MKV"), ("c", b"MKA")]


def test_the_longest_id_and_one_beyond_it(tmp_path):
    longest = "i" * (fasta.PIECE - 2)
    assert records(written(tmp_path, f">{longest} x\nMKT\n".encode())) == [(longest, b"MKT")]
    sentence = refusal(records, written(tmp_path, f">a\nMKT\n>{longest}i x\nMKT\n".encode()))
    assert f"line 3: record '{'i' * 60}...' has an id of more than 1,048,574 characters" in sentence


def test_long_ids_are_shortened_in_sentences(tmp_path):
    path = written(tmp_path, b">" + b"i" * 100_000 + b"\nMKT?\n")
    assert refusal(records, path).startswith(f"{path}, line 1: record '{'i' * 60}...' has '?' at position 4")


def test_the_longest_sequence_and_one_beyond_it(tmp_path):
    longest = b"M" * (fasta.MAX_LETTERS - 1)
    assert records(written(tmp_path, b">a\n" + longest + b"\n")) == [("a", longest)]
    path = written(tmp_path, b">a\nMK\n>b\n" + longest + b"MK\n")
    assert refusal(records, path).startswith(f"{path}, line 3: record 'b' has more than 10,000,000 letters")
