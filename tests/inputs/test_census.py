"""Counting what is in FASTA files, fast: the same as what is read carefully."""

import gzip
import hashlib
import itertools

import pytest
from paths import PROTEOME
from refusals import refusal

from seqmill.inputs import blocks, census
from seqmill.inputs.alphabet import NUCLEOTIDE, PROTEIN
from seqmill.inputs.fasta import read_records


def expected(path, alphabet=PROTEIN):
    records = list(read_records(path, alphabet, "replace"))
    return (
        len(records),
        sum(len(r.sequence) for r in records),
        sorted({r.sequence: len(r.sequence) for r in records}.values()),
    )


def counted(*paths, alphabet=PROTEIN):
    found = census.take(paths, alphabet)
    return found.records, found.letters, sorted(found.lengths.tolist())


def test_a_proteome_has_what_careful_reading_finds():
    assert counted(PROTEOME) == expected(PROTEOME)
    found = census.take([PROTEOME], PROTEIN)
    longest = sorted((r for r in read_records(PROTEOME, PROTEIN)), key=lambda r: -len(r.sequence))[: census.NAMED]
    assert [name for _, name in found.longest] == [record.id for record in longest]
    assert found.id_bytes == sum(len(record.id) for record in read_records(PROTEOME, PROTEIN))


@pytest.mark.parametrize("size", [1, 2, 7, 64, 1_000])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_records_may_begin_and_end_anywhere_in_a_block(tmp_path, monkeypatch, size, end):
    monkeypatch.setattr(blocks, "BLOCK_BYTES", size)
    monkeypatch.setattr(blocks, "MAX_BLOCKS", 10**6)
    path = tmp_path / "small.fasta"
    lines = ["", ">a one > two", "mkta", "YIAK*", ">b", "MKV LAAGG", "", ">c >", "MKTAYIAK", ">d", "M"]
    path.write_bytes(b"\xef\xbb\xbf" + end.join(lines).encode())
    assert counted(path) == expected(path) == (4, 8 + 8 + 8 + 1, [1, 8, 8])


def test_files_count_together_and_compressed_ones_too(tmp_path):
    first, second = tmp_path / "a.fasta", tmp_path / "b.fasta"
    first.write_text(">a\nMKTA\n>b\nMKTAY\n")
    second.write_bytes(gzip.compress(b">c\nMKTA\n") + gzip.compress(b">d\nMKT\n"))
    assert counted(first, second) == (4, 16, [3, 4, 5])


def test_rna_is_dna(tmp_path):
    path = tmp_path / "a.fna"
    path.write_text(">a\nACGU\n>b\nacgt\n")
    assert counted(path, alphabet=NUCLEOTIDE) == (2, 8, [4])


def test_what_earlier_rounds_have_is_left_out(tmp_path):
    path = tmp_path / "a.fasta"
    path.write_text(">a\nMKTA\n>b\nMKTAY\n")
    known = census.keys([hashlib.sha256(sequence).hexdigest() for sequence in (b"MKTA", b"MKKK")])
    found = census.take([path], PROTEIN, known)
    assert (found.lengths.tolist(), found.known, found.records) == ([5], 1, 2)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "the file is empty"),
        (b"MKTA\n", "a FASTA file starts with '>'"),
        (b">a\n" + b"ACGT" * 10, "record 'a' looks like nucleotides"),
        (gzip.compress(b">a\nMKTA\n" * 10_000)[:-20], "gzip data is truncated or damaged"),
    ],
)
def test_bad_files_are_refused_in_a_sentence(tmp_path, content, sentence):
    path = tmp_path / "bad.fasta"
    path.write_bytes(content)
    assert sentence in refusal(census.take, [path], PROTEIN)


def test_a_record_without_end_is_refused_before_it_fills_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 1_000)
    path = tmp_path / "endless.fasta"
    path.write_text(">first\nMKTA\n>endless\n" + "MK" * 10_000)
    assert "record 'endless' has more than 10,000,000 letters" in refusal(census.take, [path], PROTEIN)


def test_a_file_that_is_not_there_is_named(tmp_path):
    assert "none.fasta: cannot be read" in refusal(census.take, [tmp_path / "none.fasta"], PROTEIN)


def test_memory_is_blocks_and_not_records(tmp_path, monkeypatch):
    """What is kept of a block are numbers."""
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 500)
    found = list(itertools.islice(blocks.read(PROTEOME), 50))
    assert max(map(len, found)) < 5_000
    assert sum(block.count(b"\n>") for block in found) < 5 * len(found)
