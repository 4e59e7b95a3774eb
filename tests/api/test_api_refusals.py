"""What seqmill.embed refuses, each in one sentence that names what was given, and never a file that nobody knows."""

import numpy as np
import pytest
from Bio.Seq import Seq
from Bio.SeqRecord import SeqRecord
from refusals import refusal

import seqmill
from seqmill.api.settings import checked
from seqmill.inputs.alphabet import PROTEIN
from seqmill.inputs.fasta import MAX_LETTERS, with_own_ids
from seqmill.inputs.given import Given
from seqmill.settings import Settings


def records(sequences, invalid="error", duplicate_ids="error"):
    return list(with_own_ids(Given(sequences).records(PROTEIN, invalid), duplicate_ids))


SEQUENCES = {
    "letter": (
        ["MK", "MK1"],
        "sequence 2 has '1' at position 3, which is not an amino acid; correct it, or give invalid=",
    ),
    "letter by id": (
        {"P1": "MK-V"},
        "sequence 1: record 'P1' has a gap '-' at position 3, as in an alignment; correct",
    ),
    "nothing": (["MK", " "], "sequence 2 has no sequence; remove the record or complete it"),
    "only a stop": ({"a": "*"}, "sequence 1: record 'a' has no sequence"),
    "nucleotides": (
        ["ACGT" * 10],
        "sequence 1 looks like nucleotides; this model embeds proteins, so translate it first",
    ),
    "None": ({"a": None}, "sequence 1 is None; give a string, or a record of Biopython"),
    "number": (["MK", 0.5], "sequence 2 is of type float; give a string"),
    "unknown letters": ([Seq(None, 10)], "sequence 1 has no sequence"),
    "surrogate": (["MK\ud800"], "sequence 1 has '?' at position 3"),
    "numbered id": ({1: "MK"}, "sequence 1: its id is of type int; ids are strings"),
    "empty id": ({"": "MK"}, "sequence 1: its id '' is empty, or has white space around it"),
    "line in an id": (
        {"a\nb": "MK"},
        "sequence 1: its id 'a\\nb' is empty, or has white space around it or characters",
    ),
    "same ids": ([SeqRecord(Seq("MK"), id="a")] * 2, "sequence 2: record 'a' repeats the id of sequence 1; give every"),
    "no sequences": (5, "sequences cannot be of type int; give the path of a FASTA file, a list of sequences"),
    "bytes": (b"MK", "sequences cannot be of type bytes; give"),
    "nothing at all": (None, "sequences cannot be None; give"),
}


@pytest.mark.parametrize("case", SEQUENCES)
def test_sequences_are_checked_as_a_file_is(case):
    given, sentence = SEQUENCES[case]
    assert refusal(records, given).startswith(sentence)


def test_too_long_is_too_long(monkeypatch):
    assert "sequence 1 has more than 10,000,000 letters" in refusal(records, ["M" * (MAX_LETTERS + 1)])


def test_what_a_file_may_have_is_taken():
    found = records({"a b": "mk v\n*", "c": Seq("M1K")}, invalid="replace")
    assert [(record.id, record.sequence, record.replaced) for record in found] == [("a b", b"MKV", 0), ("c", b"MXK", 1)]
    twice = [SeqRecord(Seq("MK"), id="a", description="a of  two")] * 2
    renamed = [(record.id, record.renamed_from, record.description) for record in records(twice, "error", "number")]
    assert renamed == [("a", None, "of two"), ("a_2", "a", "of two")]


VALUES = {
    "bach_size": (600, "there is no setting bach_size; did you mean batch_size?"),
    "fasta": ("x", "there is no setting fasta; there are model, revision,"),
    "batch_size": ("many", "batch_size cannot be 'many'; give auto or a whole number from 1: tokens in a batch"),
    "dtype": ("int8", "dtype cannot be 'int8'; give auto, float32, float16 or bfloat16: what to compute in"),
    "pooling": (
        ["mean", "first"],
        "pooling cannot be ['mean', 'first']; give one or a list of auto, mean, mean_all, max, std, cls, bos, eos, residues",
    ),
    "layers": ([], "layers cannot be []; give last, a number, or a list of numbers: hidden states to take"),
    "compile": ("yes", "compile cannot be 'yes'; give auto, true or false"),
    "pin_memory": (1, "pin_memory cannot be 1; give true or false"),
    "device": (0, "device cannot be 0; give auto, cpu, cuda or cuda:N"),
    "overwrite": ("yes", "overwrite cannot be 'yes'; give true or false"),
}


@pytest.mark.parametrize("name", VALUES)
def test_settings_are_checked_by_the_rules_of_config_yaml(name):
    value, sentence = VALUES[name]
    assert refusal(seqmill.embed, ["MK"], **{name: value}).startswith(sentence)


def test_settings_have_the_values_of_config_yaml_and_those_of_python():
    assert checked({}) == Settings(index=True)
    given = checked({"layers": range(2), "pooling": ("mean", "bos"), "compile": True, "batch_size": np.int64(7)})
    assert (given.layers, given.pooling, given.compile, given.batch_size) == ((0, 1), ("mean", "bos"), "on", 7)
    assert checked({"batch_size": "auto", "layers": "last"}) == Settings(index=True)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ("MKTAYIAK", 'there is no file "MKTAYIAK"; if it is a sequence, give a list: ["MKTAYIAK..."]'),
        ("missing.fasta", "missing.fasta: cannot be read (No such file or directory)"),
    ],
)
def test_a_text_is_the_path_of_a_file(tiny_model, given, sentence):
    assert refusal(seqmill.embed, given, tiny_model) == sentence


def test_other_mistakes_are_those_of_the_command(tiny_model):
    assert "there is no layer 7; this model has 0" in refusal(seqmill.embed, ["MK"], tiny_model, layers=7, device="cpu")
    assert "PyTorch sees" in refusal(seqmill.embed, ["MK"], tiny_model, device="cuda:99")
    said = refusal(seqmill.embed, ["MK"], tiny_model, expandable_segments=True)
    assert said.startswith("expandable_segments comes too late, as PyTorch is imported already; set the variable")
