"""Records in columns are what the careful reader finds, or are refused in its words."""

import gzip
import random
from dataclasses import replace

import numpy as np
import pytest
from paths import PROTEOME
from refusals import GOOD, written

from seqmill.errors import UserError
from seqmill.inputs import blocks, columns, fasta
from seqmill.inputs.alphabet import NUCLEOTIDE, PROTEIN

ODD = [
    b">",
    b"\n",
    b"\r\n",
    b"\r",
    b" ",
    b"\t",
    b"\v",
    b"\f",
    b"\x1c",
    b"\0",
    b"*",
    b"-",
    b".",
    b"\xff",
    b"\xef\xbb\xbf",
]
ODD += ["é".encode(), "\u00a0".encode(), "\u202e".encode(), b"J", b"U", b"X", b"1"]
HEADERS = [b">a", b">b some text", b">c\ttext ", b">d  two  blanks", b">e|1_2 > f"]
LINE_ENDS = [b"\n", b"\n", b"\r\n", b"\r", b"\n\n"]
LETTERS = {"protein": [b"MKTAY", b"mkv", b"X", b"ACDEFGHIK" * 9], "bases": [b"ACGT", b"acgu", b"N", b"ACGTACGTA" * 9]}
ALPHABETS = {
    "protein": PROTEIN,
    "nucleotide": NUCLEOTIDE,
    "short": replace(PROTEIN, longest=160),
    "unknown decoys": replace(PROTEIN, decoys=None),
}


def outcome(records):
    """What was read, or the sentence in which it was refused."""
    try:
        return [(r.id, r.sequence, r.replaced, r.description) for r in records]
    except UserError as error:
        return str(error)


def fast(path, alphabet=PROTEIN, invalid="error"):
    for found in columns.read(path, alphabet, invalid):
        parts = (found.ids, found.sequences, found.replaced, found.descriptions)
        for name, sequence, replaced, description in zip(*(column.tolist() for column in parts), strict=True):
            yield fasta.Record(name, sequence, path, 0, replaced, description)


def assert_alike(path, alphabet=PROTEIN, invalid="error"):
    found = outcome(fast(path, alphabet, invalid))
    assert found == outcome(fasta.read_records(path, alphabet, invalid)), path.read_bytes()
    return found


def small_blocks(monkeypatch, size):
    monkeypatch.setattr(blocks, "BLOCK_BYTES", size)
    monkeypatch.setattr(blocks, "MAX_BLOCKS", 10**6)


def odd_file(dice, letters):
    """FASTA as it is, but for some places in which there is anything."""
    pieces = [dice.choice([b"", b"\xef\xbb\xbf", b"\n \n"])]
    for _ in range(dice.randint(1, 12)):
        lines = [dice.choice(HEADERS), *(dice.choice(letters) for _ in range(dice.choice([1, 1, 2, 3])))]
        pieces += [part for line in lines for part in (line, dice.choice(LINE_ENDS))]
        pieces.insert(-1, dice.choice([b"", b"", b"*"]))
    for _ in range(dice.choice([0, 0, 1, 2, 5])):
        pieces.insert(dice.randrange(len(pieces) + 1), dice.choice(ODD))
    return b"".join(pieces)


def compare_odd_files(folder, monkeypatch, seed, count):
    dice, refused = random.Random(seed), 0
    for _ in range(count):
        small_blocks(monkeypatch, dice.choice([1, 5, 40, 2**20]))
        name, alphabet = dice.choice(list(ALPHABETS.items()))
        content = odd_file(dice, LETTERS["bases" if name == "nucleotide" else "protein"])
        path = written(folder, gzip.compress(content) if dice.random() < 0.1 else content)
        found = assert_alike(path, alphabet, dice.choice(["error", "replace"]))
        refused += isinstance(found, str)
    assert 0.2 * count < refused < 0.9 * count


def test_odd_files_are_read_or_refused_alike(tmp_path, monkeypatch):
    compare_odd_files(tmp_path, monkeypatch, 0, 600)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 11))
def test_many_odd_files_are_read_or_refused_alike(tmp_path, monkeypatch, seed):
    compare_odd_files(tmp_path, monkeypatch, seed, 5_000)


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_blocks_may_end_anywhere(tmp_path, monkeypatch, end):
    lines = [b"", b">a one > two ", b"mkta", b"YIAK*", b">b", b"MKV LAAGG", b"", b">c\t>", b"MKTA", b">d", b"M"]
    path = written(tmp_path, b"\xef\xbb\xbf" + end.join(lines))
    for size in range(1, path.stat().st_size + 2):
        small_blocks(monkeypatch, size)
        found = assert_alike(path)
        assert [name for name, *_ in found] == ["a", "b", "c", "d"]


@pytest.mark.parametrize("size", [3_000, 2**24])
def test_a_proteome_is_read_alike(monkeypatch, size):
    monkeypatch.setattr(blocks, "BLOCK_BYTES", size)
    assert len(assert_alike(PROTEOME)) == 4_352


def test_only_what_is_unusual_is_read_one_by_one(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(
        columns, "read_record", lambda content, *_: seen.append(content) or fasta.read_record(content, *_)
    )
    usual = b">a first \t  protein  \nMKTAY\nIAKQR*\n>b\r\nmkv\r\n\r\n"
    path = written(
        tmp_path, usual + b">c gr\xc3\xa4n\nMKT\n>d\nMK T\n>e\nM**\n" + GOOD.replace(b">a", b">f").replace(b">b", b">g")
    )
    assert len(assert_alike(path)) == 7
    assert [content[:2] for content in seen] == [b">c", b">d", b">e"]


def test_records_that_are_unusual_stand_where_they_were(tmp_path, monkeypatch):
    """Alone in a block, too, and longer or shorter than what they stand for."""
    lines = [b">a", b"MKT", b">gr\xc3\xbcn", b"MKV", b">c d", b"M K T A Y", b">e \xe2\x82\xac", b"mj", b">f", b"MKVL"]
    path = written(tmp_path, b"\n".join(lines) + b"\n")
    for size in (1, 20, 2**20):
        small_blocks(monkeypatch, size)
        assert assert_alike(path, invalid="replace") == [
            ("a", b"MKT", 0, ""),
            ("grün", b"MKV", 0, ""),
            ("c", b"MKTAY", 0, "d"),
            ("e", b"MX", 1, "€"),
            ("f", b"MKVL", 0, ""),
        ]


def test_a_record_is_refused_where_it_is_and_what_comes_before_is_read(tmp_path, monkeypatch):
    """The careful reader goes on behind the blocks that were read."""
    small_blocks(monkeypatch, 30)
    path = written(tmp_path, GOOD + b">c\nMKT\n>d\nMK-T\n>e\nMKT\n")
    found = []
    with pytest.raises(UserError, match="line 7: record 'd' has a gap"):
        found.extend(fast(path))
    assert [record.id for record in found] == ["a", "b", "c"]


def test_nothing_that_may_look_like_another_kind_is_passed_over():
    """Lengths around those by which it is seen, with as few letters of a protein as it takes."""
    dice = random.Random(0)
    sequences = []
    for _ in range(2_000):
        length = dice.choice([19, 20, 63, 64, 65, 511, 512, 513, 900, 2_000])
        others = int(length * dice.choice([0, 0.04, 0.049, 0.05, 0.051, 0.06, 0.5]))
        letters = dice.choices(b"ACGT", k=length - others) + dice.choices(b"LMW", k=others)
        dice.shuffle(letters) if dice.random() < 0.5 else letters.reverse()
        sequences.append(bytes(letters))
    offsets = np.cumsum([0, *map(len, sequences)])
    suspects = set(PROTEIN.suspects(np.frombuffer(b"".join(sequences), np.uint8), offsets).tolist())
    mistaken = {row for row, sequence in enumerate(sequences) if PROTEIN.mistaken(sequence)}
    assert mistaken <= suspects
    assert 100 < len(mistaken) <= len(suspects) < 0.9 * len(sequences)
