"""The letters of a sequence: those that are kept, those that are refused or replaced, and what is no protein."""

import pytest
from refusals import read, records, refusal, written

DNA = b"ATGGCTAGCTTACGGATCCA" * 3

# Sequences of a record, and what the sentence must say.
BAD_LETTERS = {
    "DNA": (DNA, "looks like nucleotides"),
    "RNA": (b"auggcuagcuuacggaucca" * 3, "looks like nucleotides"),
    "DNA with unknown bases": (b"ATGGCTAGCTTACGGATCNN" * 3, "looks like nucleotides"),
    "J": (b"MKTJA", "'J' at position 4, which is not an amino acid"),
    "digits": (b"        1 MKTAY", "'1' at position 1, which is not an amino acid"),
    "gap": (b"MKT--AY", "a gap '-' at position 4, as in an alignment"),
    "gap of dots": (b"MKT..AY", "a gap '.' at position 4, as in an alignment"),
    "internal stop": (b"MKT*AY*", "a stop '*' inside the sequence, at position 4"),
    "header in a sequence": (b"MKT>c\nMKV", "'>' at position 4"),
    "null byte": (b"MK\x00TAY", "byte 0x00"),
    "latin-1 byte": (b"MK\xe9TAY", "byte 0xe9"),
    # Python's str.upper() makes these "SS", "FI" and "I": good residues out of nothing.
    "sharp s": ("MK\u00dfTAY".encode(), "at position 3, which is not an amino acid"),
    "ligature": ("MK\ufb01TAY".encode(), "at position 3, which is not an amino acid"),
    "dotless i": ("MK\u0131TAY".encode(), "at position 3, which is not an amino acid"),
}


@pytest.mark.parametrize(("sequence", "says"), BAD_LETTERS.values(), ids=BAD_LETTERS)
def test_a_bad_letter_is_named_with_file_line_and_id(tmp_path, sequence, says):
    path = written(tmp_path, b">a\nMKTAYIAKQR\nQISFVKSHFS\n>b\n" + sequence + b"\n")
    sentence = refusal(records, path)
    assert sentence.startswith(f"{path}, line 4: record 'b' ")
    assert says in sentence


def test_replace_makes_odd_letters_x_and_counts_them(tmp_path):
    path = written(tmp_path, b">a\nMKJT-AY\n>b\nMKT*AY*\n>c\nMKXT\n>d\nMK\xe9T\n")
    found = {protein.id: (protein.sequence, protein.replaced) for protein in read(path, invalid="replace")}
    assert found == {"a": (b"MKXTXAY", 2), "b": (b"MKTXAY", 1), "c": (b"MKXT", 0), "d": (b"MKXT", 1)}


def test_replace_is_no_excuse_for_nucleotides(tmp_path):
    assert "looks like nucleotides" in refusal(records, written(tmp_path, b">b\n" + DNA + b"\n"), invalid="replace")


def test_a_header_without_its_line_end_before_it_is_never_made_residues(tmp_path):
    path = written(tmp_path, b">a\nMKT>b\nMKV\n")
    assert "has a '>' at position 4" in refusal(records, path, invalid="replace")
    # A byte order mark stays where files that begin with one are joined.
    joined = written(tmp_path, b">a\nMKT\n\xef\xbb\xbf>b\nMKV\n")
    assert "line 1: record 'a' has a '>' at position 7" in refusal(records, joined, invalid="replace")


@pytest.mark.parametrize(
    "sequence",
    [
        b"NNNNNNNNNNNNNNNNNNNNNNNNNNNN",
        b"AAAAAAAAAAGGGGGGGGGGAAAAAAAAAA",
        b"TATATATATATATATATATATATATATA",
        b"GAGAGSGAGAGSGAGAGYGAGAGCTGAT",
        b"ACGT",
    ],
)
def test_low_complexity_proteins_are_no_nucleotides(tmp_path, sequence):
    assert records(written(tmp_path, b">a\n" + sequence + b"\n")) == [("a", sequence)]


def test_letters_that_esm2_has_tokens_for_are_kept(tmp_path):
    (protein,) = read(written(tmp_path, b">a\nACDEFGHIKLMNPQRSTVWYXBUZO\n"))
    assert (protein.sequence, protein.replaced) == (b"ACDEFGHIKLMNPQRSTVWYXBUZO", 0)


def test_white_space_of_unicode_in_a_sequence_is_dropped(tmp_path):
    assert records(written(tmp_path, ">a\nMK\u00a0TA\u2028Y\u3000\n".encode())) == [("a", b"MKTAY")]
