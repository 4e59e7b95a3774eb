"""FASTA files as people have them: good ones all agree, and one clear sentence says what is wrong with the others."""

import bz2
import gzip
import lzma
import os
import random

import pytest
from refusals import GOOD, RECORDS, REPOSITORY, read, records, refusal, written

from seqmill.errors import UserError

PROTEOME = REPOSITORY / "resources/ecoli_k12_UP000000625.fasta.gz"

# Files that are no protein FASTA: content, and what the sentence must say.
NO_FASTA = {
    "FASTQ": (b"@read1\nACGTACGT\n+\nIIIIIIII\n", "line 1: this looks like FASTQ"),
    "FASTQ after blank lines": (b"\n\n@read1\nACGT\n+\nIIII\n", "line 3: this looks like FASTQ"),
    "FASTQ in gzip": (gzip.compress(b"@read1\nACGT\n+\nIIII\n"), "line 1: this looks like FASTQ"),
    "GenBank": (b"LOCUS       NC_000913   4641652 bp    DNA\nDEFINITION  E. coli\n", "line 1: this looks like GenBank"),
    "UniProt text": (b"ID   INSA9_ECOLI   Reviewed;   91 AA.\n", "line 1: this looks like EMBL or UniProt text"),
    "HTML": (b"<!DOCTYPE html>\n<html><body>404 Not Found</body></html>\n", "line 1: this looks like HTML"),
    "PDF": (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj\n", "line 1: this looks like PDF"),
    "PDB": (b"HEADER    OXYGEN TRANSPORT    1ABC\nATOM      1  N   MET A   1\n", "line 1: this looks like PDB"),
    "PDB without a header": (
        b"ATOM      1  N   MET A   1\n",
        "line 1: a FASTA file starts with '>', this one with 'ATOM",
    ),
    "Clustal": (b"CLUSTAL W (1.83) multiple sequence alignment\n", "line 1: this looks like Clustal alignment"),
    "Stockholm": (b"# STOCKHOLM 1.0\n", "line 1: this looks like Stockholm alignment"),
    "JSON": (b'{"a": "MKT"}\n', "line 1: this looks like JSON"),
    "table": (b"id,sequence\na,MKTAY\n", "line 1: a FASTA file starts with '>', this one with 'id,sequence'"),
    "bare sequence": (b"MKTAYIAKQRQISFVKSHFSRQLEERLGLIEVQ\n", "line 1: a FASTA file starts with '>'"),
    "empty": (b"", "the file is empty"),
    "white space": (b" \n\t\n\r\n", "the file is empty"),
    "empty gzip": (gzip.compress(b""), "the file is empty"),
    "UTF-16": (GOOD.decode().encode("utf-16"), "is not a text file"),
    "binary": (bytes(range(256)), "is not a text file"),
    "gzip twice": (gzip.compress(gzip.compress(GOOD)), "is not a text file"),
    "gzip with a wrong checksum": (gzip.compress(GOOD)[:-8] + b"\0" * 8, "gzip data is truncated or damaged"),
    "bzip2": (bz2.compress(GOOD), "is compressed with bzip2"),
    "xz": (lzma.compress(GOOD), "is compressed with xz"),
    "zstd": (b"\x28\xb5\x2f\xfd" + GOOD, "is compressed with zstd"),
    "zip": (b"PK\x03\x04" + GOOD, "is compressed with zip"),
}


@pytest.mark.parametrize(("content", "says"), NO_FASTA.values(), ids=NO_FASTA)
def test_a_file_that_is_no_fasta_is_named(tmp_path, content, says):
    path = written(tmp_path, content)
    sentence = refusal(records, path)
    assert sentence.startswith(str(path))
    assert says in sentence


@pytest.mark.parametrize("invalid", ["error", "replace"])
@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-16", "utf-32"])
def test_text_in_other_encodings_is_refused(tmp_path, encoding, invalid):
    for content in (GOOD.decode().encode(encoding), gzip.compress(GOOD.decode().encode(encoding))):
        refusal(records, written(tmp_path, content), invalid=invalid)


# Good inputs in all the ways in which people have them.

WAYS = {
    "one line": GOOD,
    "gzip": gzip.compress(GOOD),
    "gzip in several members": gzip.compress(GOOD[:30]) + gzip.compress(GOOD[30:]),
    "wrapped": GOOD.replace(b"AYI", b"AY\nI").replace(b"LAA", b"L\nAA"),
    "Windows": GOOD.replace(b"\n", b"\r\n"),
    "old Mac": GOOD.replace(b"\n", b"\r"),
    "no last line end": GOOD.rstrip(),
    "blank lines": b"\n\n" + GOOD.replace(b">b", b"\n\n>b") + b"\n\n",
    "lower case": GOOD.replace(b"MKTAYIAKQR", b"mktayiakqr").replace(b"MKVLAAGG", b"mkvlaagg"),
    "stops": GOOD.replace(b"\n>", b"*\n>").rstrip() + b"*\n",
    "stop on a line of its own": GOOD + b"*\n",
    "byte order mark": b"\xef\xbb\xbf" + GOOD,
    "latin-1 in a description": GOOD.replace(b"first", b"f\xe9rst"),
    "null bytes in a description": GOOD.replace(b"first protein", b"\0fi\0rst\0"),
    "tab in a header": GOOD.replace(b"a first", b"a\tfirst"),
    "no description": GOOD.replace(b" first protein", b"").replace(b" second protein", b""),
    "spaces in the sequence": GOOD.replace(b"MKVL", b"MK VL "),
    "'>' in a description": GOOD.replace(b"first", b"first > all"),
}


@pytest.mark.parametrize("content", WAYS.values(), ids=WAYS)
def test_good_inputs_give_the_same_records(tmp_path, content):
    found = list(read(written(tmp_path, content, "input")))
    assert [(p.id, p.sequence, p.replaced) for p in found] == [(*record, 0) for record in RECORDS]


def test_line_ends_of_all_kinds_in_one_file(tmp_path):
    assert records(written(tmp_path, b">a\rMK\r\nTA\nYI\r>b\n\rMKV\r\n\r\n")) == [("a", b"MKTAYI"), ("b", b"MKV")]


# Several files


def test_several_files_are_read_in_their_order(tmp_path):
    first, second = GOOD.split(b">b")
    two = written(tmp_path, b">b" + second, "two.fasta")
    one = written(tmp_path, gzip.compress(first), "one.fasta.gz")
    found = list(read(two, one))
    assert [(p.id, p.sequence, p.path.name) for p in found] == [
        (*RECORDS[1], "two.fasta"),
        (*RECORDS[0], "one.fasta.gz"),
    ]


def test_an_id_twice_in_two_files_names_both_places(tmp_path):
    one = written(tmp_path, b">x\nMKT\n>y\nMKV\n", "one.fasta")
    two = written(tmp_path, b">z\nMKT\n\n>y\nMKA\n", "two.fasta")
    sentence = refusal(records, one, two)
    assert sentence.startswith(f"{two}, line 4: record 'y' repeats the id of {one}, line 3;")


def test_an_empty_file_among_good_ones_is_refused(tmp_path):
    good, empty = written(tmp_path, GOOD), written(tmp_path, b"", "empty.fasta")
    assert refusal(records, good, empty).startswith(f"{empty}: the file is empty")


# Records

# Second records behind a good one: content, id, and what the sentence must say.
BAD_RECORDS = {
    "no sequence": (b">b\n", "b", "has no sequence"),
    "no sequence but a stop": (b">b\n*\n", "b", "has no sequence"),
    "no sequence before another": (b">b\n>c\nMKT\n", "b", "has no sequence"),
    "same id": (b">a again\nMKVLA\n", "a", "repeats the id of"),
}
NO_ID = {
    "no header": b">\nMKTAY\n",
    "space": b"> b\nMKTAY\n",
    "tab": b">\tb\nMKTAY\n",
    "non-breaking space": ">\u00a0b\nMKTAY\n".encode(),
}


@pytest.mark.parametrize("invalid", ["error", "replace"])
@pytest.mark.parametrize(("content", "name", "says"), BAD_RECORDS.values(), ids=BAD_RECORDS)
def test_a_bad_record_is_named_with_file_line_and_id(tmp_path, content, name, says, invalid):
    """Whatever becomes of odd letters: these are none."""
    path = written(tmp_path, b">a\nMKTAYIAKQR\nQISFVKSHFS\n" + content)
    sentence = refusal(records, path, invalid=invalid)
    assert sentence.startswith(f"{path}, line 4: record '{name}' ")
    assert says in sentence


@pytest.mark.parametrize("content", NO_ID.values(), ids=NO_ID)
def test_a_record_without_id_is_named_with_file_and_line(tmp_path, content):
    path = written(tmp_path, b">a\nMKT\n" + content)
    assert refusal(records, path).startswith(f"{path}, line 3: the record has no id")


@pytest.mark.parametrize(
    "name",
    [b"\0", b"a\0", b"a\0b", b"b\x01ta", b"b\xe9ta", b"\xff\xfe", b"b\x1b[31m", "b\u202eb".encode(), b"b\x7f"],
)
def test_ids_that_no_terminal_should_see_are_refused(tmp_path, name):
    """HDF5 and Parquet want UTF-8, and no terminal should be sent control characters."""
    path = written(tmp_path, b">a\nMKT\n>" + name + b" x\nMKT\n")
    assert "is not printable UTF-8 text" in refusal(records, path)


# What is no file, or cannot be read


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    missing = tmp_path / "missing.fasta"
    assert refusal(records, missing) == f"{missing}: cannot be read (No such file or directory)"
    assert refusal(records, tmp_path) == f"{tmp_path}: cannot be read (Is a directory)"


def test_a_file_that_may_not_be_read_is_refused(tmp_path):
    path = written(tmp_path, GOOD)
    path.chmod(0)
    is_root = os.geteuid() == 0
    if is_root:
        # As nobody; root may read everything.
        os.seteuid(65534)
    try:
        sentence = refusal(records, path)
    finally:
        if is_root:
            os.seteuid(0)
    assert sentence == f"{path}: cannot be read (Permission denied)"


@pytest.mark.parametrize("path", ["/dev/zero", "/dev/null"])
def test_devices_and_pipes_are_refused(path):
    assert refusal(records, path) == f"{path}: is a pipe or a device; write the sequences to a file and give that"


def test_a_named_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.fasta")
    assert "is a pipe or a device" in refusal(records, tmp_path / "pipe.fasta")


def test_links_are_followed_to_files_only(tmp_path):
    written(tmp_path, GOOD, "good.fasta")
    for name, target in (("good", "good.fasta"), ("dangling", "nowhere"), ("circular", "circular")):
        (tmp_path / name).symlink_to(target)
    assert records(tmp_path / "good") == RECORDS
    assert "cannot be read (No such file or directory)" in refusal(records, tmp_path / "dangling")
    assert "cannot be read (Too many levels of symbolic links)" in refusal(records, tmp_path / "circular")


# Damage


def test_gzip_cut_off_anywhere_is_refused(tmp_path):
    """Two members; only between them a cut leaves a whole file behind."""
    first, second = gzip.compress(GOOD[:28]), gzip.compress(GOOD[28:])
    content = first + second
    for stop in range(2, len(content)):
        path = written(tmp_path, content[:stop])
        if stop == len(first):
            assert records(path) == RECORDS[:1]
        else:
            assert refusal(records, path).startswith(f"{path}: the gzip data is truncated or damaged")
    assert records(written(tmp_path, content)) == RECORDS


@pytest.mark.parametrize("share", [0.001, 0.5, 0.999])
def test_a_large_gzip_cut_off_in_its_middle_is_refused(tmp_path, share):
    content = PROTEOME.read_bytes()
    path = written(tmp_path, content[: int(share * len(content))])
    assert "the gzip data is truncated or damaged" in refusal(records, path)


def test_damaged_gzip_and_damaged_text_are_read_or_refused(tmp_path):
    """Bytes changed at random: no exception but the one with a sentence."""
    dice = random.Random(0)
    sentences = []
    for source in (GOOD, gzip.compress(GOOD)):
        for _ in range(200):
            content = bytearray(source)
            for _ in range(dice.randint(1, 4)):
                content[dice.randrange(len(content))] = dice.randrange(256)
            try:
                found = records(written(tmp_path, bytes(content)), invalid=dice.choice(["error", "replace"]))
                assert all(name and sequence for name, sequence in found)
            except UserError as error:
                sentences.append(str(error))
    assert 100 < len(sentences) < 400
    assert all(sentence.startswith(f"{tmp_path}/input.fasta") for sentence in sentences)
    assert all(sentence.isprintable() for sentence in sentences)
