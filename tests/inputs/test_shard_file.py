"""A shard that was verified is read at once, and is the same as record by record; anything else is read carefully."""

from dataclasses import replace

import numpy as np
import pytest
from refusals import refusal, shard, written

from seqmill.inputs import sha256sums
from seqmill.inputs.alphabet import NUCLEOTIDE, PROTEIN
from seqmill.inputs.fasta import read_records
from seqmill.inputs.sequences import Sequences
from seqmill.inputs.shard_file import ShardFile, parse

ATTRIBUTES = ("replaced", "places", "rows", "copies", "letters", "offsets", "lengths")


@pytest.fixture(scope="module")
def path(tmp_path_factory, small_fasta):
    folder = tmp_path_factory.mktemp("shards")
    shard(small_fasta, 2, folder)
    return folder / "1.fasta"


def test_it_is_the_same_as_record_by_record(path):
    expected = Sequences(list(read_records(path, PROTEIN)))
    found = Sequences.of_shard(ShardFile(path).take(PROTEIN))
    for name in ATTRIBUTES:
        one, other = getattr(found, name), getattr(expected, name)
        assert one.dtype == other.dtype, name
        assert np.array_equal(one, other), name
    for name in ("ids", "descriptions", "renamed_from", "known"):
        assert getattr(found, name) == getattr(expected, name), name
    assert found.digest() == expected.digest()
    assert found.hashes() == expected.hashes()
    assert (len(found), found.distinct) == (len(expected), expected.distinct)
    assert found.rows_of(2, 5).tolist() == expected.rows_of(2, 5).tolist()


OTHER = {
    "nothing": lambda content: b"",
    "no last line end": lambda content: content[:-1],
    "a blank line": lambda content: content + b"\n",
    "Windows line ends": lambda content: content.replace(b"\n", b"\r\n"),
    "lower case": lambda content: content.lower(),
    "a stop": lambda content: content[:-1] + b"*\n",
    "a space": lambda content: content[:-2] + b" A\n",
    "shortest first": lambda content: b"".join(b">" + part for part in content.split(b">")[:0:-1]),
    "a record twice": lambda content: content[: content.index(b"\n>") + 1] + content,
    "a description": lambda content: content.replace(b"\n", b" x\n", 1),
    "another id": lambda content: b">" + b"x" * 64 + content[65:],
    "no header": lambda content: b"x" + content[1:],
    "an id in capitals": lambda content: b">" + b"A" * 64 + content[65:],
    "digits in a sequence": lambda content: content[:-2] + b"0\n",
    "letters of a sequence in an id": lambda content: b">" + b"A" * 5 + content[6:66] + b"01234" + content[71:],
    "wrapped": lambda content: content[:-3] + b"\n" + content[-3:],
    "no sequence": lambda content: content + b">" + b"0" * 64 + b"\n\n",
}


@pytest.mark.parametrize("change", OTHER.values(), ids=OTHER)
def test_what_is_no_shard_is_left_to_the_careful_reader(path, change):
    assert parse(path.read_bytes(), PROTEIN) is not None
    assert parse(change(path.read_bytes()), PROTEIN) is None


def test_what_an_alphabet_has_to_say_is_left_to_the_careful_reader(tmp_path, path):
    content = path.read_bytes()
    assert parse(content, NUCLEOTIDE) is None
    assert parse(content, replace(PROTEIN, longest=content.index(b"\n", 66) - 67)) is None
    assert parse(content, replace(PROTEIN, longest=content.index(b"\n", 66) - 66)) is not None
    bases = b">" + b"0" * 64 + b"\n" + b"ACGT" * 20 + b"\n"
    assert parse(bases, NUCLEOTIDE) is not None
    assert parse(bases, PROTEIN) is None


def test_a_damaged_shard_is_refused(tmp_path):
    damaged = written(tmp_path, b">x\nMKT\n", "0.fasta")
    sha256sums.write(tmp_path, {"0.fasta": "0" * 64})
    assert "0.fasta: is damaged, its SHA-256 is not the one in SHA256SUMS" in refusal(ShardFile, damaged)
