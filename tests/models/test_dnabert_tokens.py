"""DNABERT's tokens: what the released tokenizer.json has in store for who takes it as it is."""

import json
import shutil

import dnabert_reference
import numpy as np
import pytest

from seqmill.errors import UserError
from seqmill.inputs.alphabet import NUCLEOTIDE
from seqmill.inputs.fasta import Record, read_records
from seqmill.inputs.sequences import Sequences
from seqmill.models import hub
from seqmill.models.dnabert.tokens import CHUNK_LETTERS
from seqmill.models.source import Source

PROTEIN = b"MKTAYIAKQRQISFVKSHFSRQLEERLGLIEVQ"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return dnabert_reference.write(tmp_path_factory.mktemp("dnabert") / "model")


@pytest.fixture(scope="module")
def tokenizer(model):
    return Source.of(hub.resolve(str(model))).tokenizer


def pieces(tokenizer, text):
    """The tokens of one sequence, as text, special ones too."""
    tokens = tokenizer.tokens(Sequences([Record("x", text, None, 0)]))
    out = np.full(tokens.counts[0], -1, tokenizer.dtype)
    tokens.write(0, 1, out)
    return [tokenizer.library.id_to_token(token) for token in out.tolist()]


def read(path, content, invalid="error"):
    path.write_bytes(content)
    return [(record.sequence, record.replaced) for record in read_records(path, NUCLEOTIDE, invalid)]


def test_stored_padding_and_truncation_are_off(model, tokenizer):
    stored = json.loads((model / "tokenizer.json").read_text())
    assert stored["truncation"]["max_length"] == 2000
    assert stored["padding"]["strategy"] == {"Fixed": 2000}
    found = pieces(tokenizer, b"ACGT")
    assert ("".join(found), len(found) <= 6) == ("[CLS]ACGT[SEP]", True)
    found = pieces(tokenizer, b"ACGTTGCA" * 5_000)
    assert "".join(found) == f"[CLS]{'ACGTTGCA' * 5_000}[SEP]"
    assert len(found) > 2_002


def test_each_unknown_letter_is_a_token(tokenizer):
    assert "".join(pieces(tokenizer, b"ACGNNNACG")) == "[CLS]ACG[UNK][UNK][UNK]ACG[SEP]"


@pytest.mark.parametrize(
    "content", [b">x\nacgTTgca\n", b">x\r\nACGT\r\nTGCA\r\n", b">x\nAC GT\n\tTGCA  \n", b">x\nacguugca\n"]
)
def test_lower_case_white_space_line_ends_and_rna_are_the_same_dna(tmp_path, content):
    assert read(tmp_path / "x.fasta", content) == [(b"ACGTTGCA", 0)]


def test_ambiguous_letters_are_refused_or_replaced_as_configured(tmp_path):
    with pytest.raises(UserError, match=r"record 'x' has 'R' at position 3, which is not A, C, G, T, U or N"):
        read(tmp_path / "x.fasta", b">x\nACRYSTT\n")
    assert read(tmp_path / "x.fasta", b">x\nACRYSTT\n", "replace") == [(b"ACNNNTT", 3)]


def test_special_tokens_as_letters_are_no_tokens(tmp_path, tokenizer):
    content = b">x\nACG[SEP]ACG\n"
    with pytest.raises(UserError, match=r"has '\[' at position 4"):
        read(tmp_path / "x.fasta", content)
    ((sequence, _),) = read(tmp_path / "x.fasta", content, "replace")
    assert pieces(tokenizer, sequence).count("[SEP]") == 1


@pytest.mark.parametrize("invalid", ["error", "replace"])
def test_proteins_are_refused(tmp_path, invalid):
    with pytest.raises(UserError, match="record 'x' looks like a protein; this model embeds nucleotides"):
        read(tmp_path / "x.fasta", b">x\n" + PROTEIN + b"\n", invalid)


@pytest.mark.parametrize("content", [b"RYSWKMBDHVN" * 5, b"N" * 60, b"ACGT" * 20, b"GGGGGGGGGGGGGGGGGGGGGGGGGGGG"])
def test_poor_nucleotides_are_no_proteins(tmp_path, content):
    assert len(read(tmp_path / "x.fasta", b">x\n" + content + b"\n", "replace")) == 1


@pytest.mark.slow
def test_tokens_are_those_of_the_library_one_by_one(model, tokenizer):
    """Across the borders of what is handed over at once, in any order."""
    random = np.random.default_rng(0)
    lengths = [CHUNK_LETTERS + 3, 700, 700, 5_000, 1, 12]
    letters = np.frombuffer(b"ACGTN", np.uint8)
    records = [Record(str(n), random.choice(letters, k).tobytes(), None, 0) for n, k in enumerate(lengths)]
    sequences = Sequences(records)
    tokens = tokenizer.tokens(sequences)
    library = dnabert_reference.tokenizer(model)
    texts = [records[row].sequence.decode() for row in sequences.rows.tolist()]
    expected = [library.encode(text) for text in texts]
    assert tokens.counts.tolist() == [len(found.ids) for found in expected]
    out = np.zeros(int(tokens.counts.sum()), tokenizer.dtype)
    tokens.write(0, len(texts), out)
    assert out.tolist() == [token for found in expected for token in found.ids]
    starts = [place for found in expected for place, _ in found.offsets[1:-1]]
    assert tokens.starts(0, len(texts)).tolist() == starts
    assert tokens.starts(2, 4).tolist() == [place for found in expected[2:4] for place, _ in found.offsets[1:-1]]


def test_no_sequences_are_no_tokens(tokenizer):
    tokens = tokenizer.tokens(Sequences([]))
    assert (len(tokens.counts), len(tokens.starts(0, 0))) == (0, 0)


# Files


def with_tokenizer(model, folder, content=None):
    """A copy of the model with another tokenizer.json, or without."""
    shutil.copytree(model, folder)
    (folder / "tokenizer.json").unlink()
    if content is not None:
        (folder / "tokenizer.json").write_text(content)
    return str(folder)


@pytest.mark.parametrize("content", ["", "{}", "no JSON", '{"version": "1.0", "model": {"type": "BPE"}}'])
def test_an_empty_or_damaged_tokenizer_is_one_sentence(model, tmp_path, content):
    folder = with_tokenizer(model, tmp_path / "m", content)
    with pytest.raises(UserError, match=r"m/tokenizer\.json: (cannot be read \(.*\); get it again|does not belong)"):
        Source.of(hub.resolve(folder))


def test_a_missing_tokenizer_is_one_sentence(model, tmp_path):
    with pytest.raises(UserError, match=r"tokenizer\.json: is missing; .* get it too"):
        Source.of(hub.resolve(with_tokenizer(model, tmp_path / "m")))


def test_a_tokenizer_of_another_model_is_refused(model, tmp_path):
    folder = with_tokenizer(model, tmp_path / "m", (model / "tokenizer.json").read_text())
    fields = json.loads((model / "config.json").read_text())
    (tmp_path / "m/config.json").write_text(json.dumps(fields | {"vocab_size": 100}))
    with pytest.raises(UserError, match=r"tokenizer\.json: does not belong to this model; get both again"):
        Source.of(hub.resolve(folder))


@pytest.mark.parametrize("sequences", [[b"ACGTACGT"], [b"CGT", b"A"]])
def test_tokens_that_lose_letters_are_refused(model, tmp_path, sequences):
    """Some of them, or all of a sequence."""
    stored = json.loads((model / "tokenizer.json").read_text())
    stored["normalizer"] = {"type": "Replace", "pattern": {"String": "A"}, "content": ""}
    tokenizer = Source.of(hub.resolve(with_tokenizer(model, tmp_path / "m", json.dumps(stored)))).tokenizer
    with pytest.raises(UserError, match="do not add up to the letters"):
        tokenizer.tokens(Sequences([Record("x", s, None, 0) for s in sequences])).counts  # noqa: B018 -- it waits for them


def test_the_checksum_covers_the_tokenizer(model, tmp_path):
    stored = (model / "tokenizer.json").read_text()
    folder = with_tokenizer(model, tmp_path / "m", stored.replace('"[MASK]"', '"[MARK]"'))
    changed, original = hub.resolve(folder), hub.resolve(str(model))
    assert changed.files == original.files
    assert changed.tokenizer.keys() == original.tokenizer.keys() == {"tokenizer.json"}
    assert changed.checksum != original.checksum
