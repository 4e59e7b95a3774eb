"""Bad inputs end in one clear sentence, a failing status and nothing that looks like a result; good ones all agree.

Most cases ask the functions that the scripts call; some run the scripts, and a few the whole workflow.
"""

import bz2
import gzip
import json
import lzma
import os
import shutil
import sys
from pathlib import Path

import pandas as pd
import pytest
from safetensors.numpy import load_file, save_file

from seqmill import settings, shards, weights
from seqmill.errors import UserError
from seqmill.fasta import read_all

REPOSITORY = Path(__file__).resolve().parents[1]
SCRIPTS = REPOSITORY / "workflow/scripts"
SCHEMA = REPOSITORY / "workflow/schemas/config.schema.json"

RESIDUES = b"MKTAYIAKQRQISFVKSHFSRQLEERLGLIEVQ"
GOOD = b">a first protein\n" + RESIDUES + b"\n>b second protein\nMKVLAAGG\n"


def refusal(paths, invalid="error"):
    """The sentence that refuses these files."""
    with pytest.raises(UserError) as refused:
        list(read_all(paths, invalid))
    sentence = str(refused.value)
    assert sentence.isprintable(), f"more than one line, or unprintable: {sentence!r}"
    return sentence


def assert_refused(done, sentence):
    """A script or Snakemake ended in failure with that sentence and without a traceback."""
    assert done.returncode != 0
    assert "Traceback" not in done.stdout, done.stdout
    assert sentence in done.stdout, done.stdout


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
    "bare sequence": (RESIDUES + b"\n", "line 1: a FASTA file starts with '>'"),
    "empty": (b"", "the file is empty"),
    "white space": (b" \n\t\n\r\n", "the file is empty"),
    "empty gzip": (gzip.compress(b""), "the file is empty"),
    "UTF-16": (GOOD.decode().encode("utf-16"), "is no text file"),
    "binary": (bytes(range(256)), "is no text file"),
    "gzip twice": (gzip.compress(gzip.compress(GOOD)), "is no text file"),
    "truncated gzip": (gzip.compress(GOOD)[:-12], "gzip data is truncated or damaged"),
    "gzip's first bytes": (gzip.compress(GOOD)[:5], "gzip data is truncated or damaged"),
    "gzip with a wrong checksum": (gzip.compress(GOOD)[:-8] + b"\0" * 8, "gzip data is truncated or damaged"),
    "bzip2": (bz2.compress(GOOD), "is compressed with bzip2"),
    "xz": (lzma.compress(GOOD), "is compressed with xz"),
    "zstd": (b"\x28\xb5\x2f\xfd" + GOOD, "is compressed with zstd"),
    "zip": (b"PK\x03\x04" + GOOD, "is compressed with zip"),
}

# Second records behind a good one: content, id, and what the sentence must say.
BAD_RECORDS = {
    "no sequence": (b">b\n", "b", "has no sequence"),
    "no sequence but a stop": (b">b\n*\n", "b", "has no sequence"),
    "no sequence before another": (b">b\n>c\nMKT\n", "b", "has no sequence"),
    "same id": (b">a again\nMKVLA\n", "a", "repeats the id of"),
    "DNA": (b">b\n" + b"ATGGCTAGCTTACGGATCCA" * 3 + b"\n", "b", "looks like nucleotides"),
    "RNA": (b">b\n" + b"auggcuagcuuacggaucca" * 3 + b"\n", "b", "looks like nucleotides"),
    "DNA with unknown bases": (b">b\n" + b"ATGGCTAGCTTACGGATCNN" * 3 + b"\n", "b", "looks like nucleotides"),
    "J": (b">b\nMKTJA\n", "b", "'J' at position 4, which is no amino acid"),
    "digits": (b">b\n        1 MKTAY\n", "b", "'1' at position 1, which is no amino acid"),
    "gap": (b">b\nMKT--AY\n", "b", "a gap '-' at position 4, as in an alignment"),
    "gap of dots": (b">b\nMKT..AY\n", "b", "a gap '.' at position 4, as in an alignment"),
    "internal stop": (b">b\nMKT*AY*\n", "b", "a stop '*' inside the sequence, at position 4"),
    "header in a sequence": (b">b\nMKT>c\nMKV\n", "b", "'>' at position 4"),
    "null byte": (b">b\nMK\x00TAY\n", "b", "byte 0x00"),
    "latin-1 byte": (b">b\nMK\xe9TAY\n", "b", "byte 0xe9"),
    # Python's str.upper() makes these "SS", "FI" and "I": good residues out of nothing.
    "sharp s": (">b\nMK\u00dfTAY\n".encode(), "b", "at position 3, which is no amino acid"),
    "ligature": (">b\nMK\ufb01TAY\n".encode(), "b", "at position 3, which is no amino acid"),
    "dotless i": (">b\nMK\u0131TAY\n".encode(), "b", "at position 3, which is no amino acid"),
}

NO_ID = {
    "no header": b">\nMKTAY\n",
    "space": b"> b\nMKTAY\n",
    "tab": b">\tb\nMKTAY\n",
    "non-breaking space": ">\u00a0b\nMKTAY\n".encode(),
}


@pytest.mark.parametrize(("content", "says"), NO_FASTA.values(), ids=NO_FASTA)
def test_a_file_that_is_no_fasta_is_named(tmp_path, content, says):
    path = tmp_path / "input.fasta"
    path.write_bytes(content)
    sentence = refusal([path])
    assert sentence.startswith(str(path))
    assert says in sentence


@pytest.mark.parametrize(("content", "name", "says"), BAD_RECORDS.values(), ids=BAD_RECORDS)
def test_a_bad_record_is_named_with_file_line_and_id(tmp_path, content, name, says):
    path = tmp_path / "input.fasta"
    path.write_bytes(b">a\n" + RESIDUES[:20] + b"\n" + RESIDUES[20:] + b"\n" + content)
    sentence = refusal([path])
    assert sentence.startswith(f"{path}, line 4: record '{name}' ")
    assert says in sentence


@pytest.mark.parametrize("content", NO_ID.values(), ids=NO_ID)
def test_a_record_without_id_is_named_with_file_and_line(tmp_path, content):
    path = tmp_path / "input.fasta"
    path.write_bytes(b">a\nMKT\n" + content)
    assert refusal([path]).startswith(f"{path}, line 3: the record has no id")


@pytest.mark.parametrize("name", [b"b\xe9ta", b"b\x01ta"], ids=["latin-1", "control character"])
def test_an_id_that_is_not_printable_is_refused(tmp_path, name):
    """HDF5 and Parquet want UTF-8, and no terminal should be sent control characters."""
    path = tmp_path / "input.fasta"
    path.write_bytes(b">a\nMKT\n>" + name + b"\nMKT\n")
    assert "is not printable UTF-8 text" in refusal([path])


def test_an_id_twice_in_two_files_names_both_places(tmp_path):
    one, two = tmp_path / "one.fasta", tmp_path / "two.fasta"
    one.write_bytes(b">x\nMKT\n>y\nMKV\n")
    two.write_bytes(b">z\nMKT\n\n>y\nMKA\n")
    sentence = refusal([one, two])
    assert sentence.startswith(f"{two}, line 4: record 'y' repeats the id of {one}, line 3;")


def test_an_empty_file_among_good_ones_is_refused(tmp_path):
    (tmp_path / "good.fasta").write_bytes(GOOD)
    (tmp_path / "empty.fasta").touch()
    assert refusal([tmp_path / "good.fasta", tmp_path / "empty.fasta"]).startswith(
        f"{tmp_path}/empty.fasta: the file is empty"
    )


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    assert (
        refusal([tmp_path / "missing.fasta"]) == f"{tmp_path}/missing.fasta: cannot be read (No such file or directory)"
    )
    assert refusal([tmp_path]) == f"{tmp_path}: cannot be read (Is a directory)"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_refused(tmp_path):
    path = tmp_path / "input.fasta"
    path.write_bytes(GOOD)
    path.chmod(0)
    assert "cannot be read (Permission denied)" in refusal([path])


def test_replace_makes_odd_letters_x_and_counts_them(tmp_path):
    path = tmp_path / "input.fasta"
    path.write_bytes(b">a\nMKJT-AY\n>b\nMKT*AY*\n>c\nMKXT\n>d\nMK\xe9T\n")
    found = {protein.id: (protein.sequence, protein.replaced) for protein in read_all([path], "replace")}
    assert found == {"a": (b"MKXTXAY", 2), "b": (b"MKTXAY", 1), "c": (b"MKXT", 0), "d": (b"MKXT", 1)}


@pytest.mark.parametrize("bad", ["DNA", "no sequence", "same id"])
def test_replace_is_no_excuse_for_what_is_no_letter(tmp_path, bad):
    path = tmp_path / "input.fasta"
    content, _, says = BAD_RECORDS[bad]
    path.write_bytes(b">a\nMKT\n" + content)
    assert says in refusal([path], "replace")


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
    path = tmp_path / "input.fasta"
    path.write_bytes(b">a\n" + sequence + b"\n")
    assert [protein.sequence for protein in read_all([path])] == [sequence]


# Good inputs in all the ways in which people have them.

WAYS = {
    "one line": GOOD,
    "gzip": gzip.compress(GOOD),
    "gzip in several members": gzip.compress(GOOD[:30]) + gzip.compress(GOOD[30:]),
    "wrapped": b">a first protein\n" + RESIDUES[:10] + b"\n" + RESIDUES[10:] + b"\n>b second protein\nMKVL\nAAGG\n",
    "Windows": GOOD.replace(b"\n", b"\r\n"),
    "old Mac": GOOD.replace(b"\n", b"\r"),
    "no last line end": GOOD.rstrip(),
    "blank lines": b"\n\n" + GOOD.replace(b">b", b"\n\n>b") + b"\n\n",
    "lower case": b">a first protein\n" + RESIDUES.lower() + b"\n>b second protein\nmkvlaagg\n",
    "stops": GOOD.replace(b"\n>", b"*\n>").rstrip() + b"*\n",
    "stop on a line of its own": GOOD + b"*\n",
    "byte order mark": b"\xef\xbb\xbf" + GOOD,
    "latin-1 in a description": GOOD.replace(b"first", b"f\xe9rst"),
    "tab in a header": GOOD.replace(b"a first", b"a\tfirst"),
    "no description": GOOD.replace(b" first protein", b"").replace(b" second protein", b""),
    "spaces in the sequence": GOOD.replace(b"MKVL", b"MK VL "),
    "'>' in a description": GOOD.replace(b"first", b"first > all"),
}


@pytest.mark.parametrize("content", WAYS.values(), ids=WAYS)
def test_good_inputs_give_the_same_records(tmp_path, content):
    path = tmp_path / "input"
    path.write_bytes(content)
    found = list(read_all([path]))
    assert [(p.id, p.sequence, p.replaced) for p in found] == [("a", RESIDUES, 0), ("b", b"MKVLAAGG", 0)]


def test_several_files_are_read_in_their_order(tmp_path):
    first, second = GOOD.split(b">b")
    (tmp_path / "two.fasta").write_bytes(b">b" + second)
    (tmp_path / "one.fasta.gz").write_bytes(gzip.compress(first))
    found = list(read_all([tmp_path / "two.fasta", tmp_path / "one.fasta.gz"]))
    assert [(p.id, p.sequence, p.path.name) for p in found] == [
        ("b", b"MKVLAAGG", "two.fasta"),
        ("a", RESIDUES, "one.fasta.gz"),
    ]


def test_letters_that_esm2_has_tokens_for_are_kept(tmp_path):
    path = tmp_path / "input.fasta"
    path.write_bytes(b">a\nACDEFGHIKLMNPQRSTVWYXBUZO\n")
    (protein,) = read_all([path])
    assert (protein.sequence, protein.replaced) == (b"ACDEFGHIKLMNPQRSTVWYXBUZO", 0)


# The scripts


@pytest.mark.parametrize("case", ["FASTQ", "truncated gzip", "empty"])
def test_shard_ends_in_one_line_and_writes_nothing(project, case):
    content, says = NO_FASTA[case]
    (project.folder / "input.fasta").write_bytes(content)
    done = project.run(
        sys.executable, SCRIPTS / "shard.py", "--fasta", "input.fasta", "--shards", "2", "--output", "shards"
    )
    assert_refused(done, says)
    assert done.returncode == 1
    assert done.stdout.count("\n") == 1
    assert done.stdout.startswith("error: input.fasta")
    assert list((project.folder / "shards").iterdir()) == []


def test_shard_writes_nothing_when_the_last_record_is_bad(project):
    """Whatever comes before it is good, and many records long."""
    records = b"".join(b">p%d\nMKTAYIAK\n" % number for number in range(1000))
    (project.folder / "input.fasta").write_bytes(records + b">last\nMK-T\n")
    done = project.run(
        sys.executable, SCRIPTS / "shard.py", "--fasta", "input.fasta", "--shards", "2", "--output", "shards"
    )
    assert_refused(done, "error: input.fasta, line 2001: record 'last' has a gap '-' at position 3")
    assert list((project.folder / "shards").iterdir()) == []


def test_replaced_letters_are_counted_in_the_table(tmp_path):
    (tmp_path / "input.fasta").write_bytes(b">a\nMKJT-AY\n>b\nMKXTXAY\n")
    shards.shard(read_all([tmp_path / "input.fasta"], "replace"), 1, tmp_path / "shards")
    records = pd.read_parquet(tmp_path / "shards/records.parquet")
    assert records["residues_replaced"].tolist() == [2, 0]
    assert (tmp_path / "shards/0.fasta").read_text().splitlines()[1:] == ["MKXTXAY"]


# Models


@pytest.fixture
def model_copy(demo_model, tmp_path):
    """A copy of the demonstration model to break."""
    return Path(shutil.copytree(demo_model, tmp_path / "model"))


def edit_config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def drop_from_config(folder, key):
    path = folder / "config.json"
    config = json.loads(path.read_text())
    del config[key]
    path.write_text(json.dumps(config))


def truncate(path, size):
    with path.open("rb+") as file:
        file.truncate(size)


def model_refusal(folder):
    """The sentence that refuses this model, be it when it is found, or when it is loaded."""
    import torch

    from seqmill import model

    with pytest.raises(UserError) as refused:  # noqa: PT012 -- whichever of the three notices
        found = weights.resolve(str(folder))
        config = model.read_config(found)
        model.load(found, config, torch.float32, torch.device("cpu"), "auto")
    sentence = str(refused.value)
    assert sentence.isprintable(), f"more than one line, or unprintable: {sentence!r}"
    assert sentence.startswith(f"model {folder}: ")
    return sentence


def pointer_of_git_lfs(folder):
    """What a clone without git-lfs leaves in place of the weights."""
    text = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 5900000\n"
    (folder / "model.safetensors").write_text(text)


def text_for_pytorch_weights(folder):
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_text("hello")


def one_layer_less(folder):
    """Without the contact head, whose size depends on the number of layers, only left-over weights show the mistake."""
    edit_config(folder, num_hidden_layers=5)
    path = folder / "model.safetensors"
    tensors = load_file(path)
    save_file({name: tensor for name, tensor in tensors.items() if "contact_head" not in name}, path, {"format": "pt"})


BAD_MODELS = {
    "no folder": (shutil.rmtree, "there is no such folder"),
    "no config.json": (lambda folder: (folder / "config.json").unlink(), "has no config.json"),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), "has no weights"),
    "BERT": (
        lambda folder: (folder / "config.json").write_text('{"model_type": "bert", "hidden_size": 192}'),
        "is of type bert; seqmill supports ESM-2",
    ),
    "ESM-1b": (lambda folder: edit_config(folder, position_embedding_type="absolute"), "but no ESM-2"),
    "ESMFold": (lambda folder: edit_config(folder, is_folding_model=True, esmfold_config={}), "but no ESM-2"),
    "unknown type": (lambda folder: edit_config(folder, model_type="nonesuch"), "config.json"),
    "no type": (
        lambda folder: (folder / "config.json").write_text('{"hidden_size": 192}'),
        "config.json",
    ),
    "no sizes": (lambda folder: drop_from_config(folder, "intermediate_size"), "lacks sizes"),
    "heads that do not fit": (lambda folder: edit_config(folder, num_attention_heads=7), "lacks sizes"),
    "text for a size": (lambda folder: edit_config(folder, hidden_size="large"), "lacks sizes"),
    "no heads": (lambda folder: edit_config(folder, num_attention_heads=0), "lacks sizes"),
    "a fraction of a layer": (lambda folder: edit_config(folder, num_hidden_layers=5.5), "lacks sizes"),
    "no epsilon": (lambda folder: edit_config(folder, layer_norm_eps=None), "lacks sizes"),
    "config.json damaged": (lambda folder: truncate(folder / "config.json", 50), "config.json"),
    "config.json holds a list": (lambda folder: (folder / "config.json").write_text("[]"), "config.json"),
    "truncated weights": (lambda folder: truncate(folder / "model.safetensors", 100_000), "weights"),
    "empty weights": (lambda folder: truncate(folder / "model.safetensors", 0), "weights"),
    "pointer of git-lfs": (pointer_of_git_lfs, "weights"),
    "text for PyTorch's weights": (text_for_pytorch_weights, "weights"),
    "weights of another size": (lambda folder: edit_config(folder, hidden_size=96), "config.json"),
    "more layers than weights": (lambda folder: edit_config(folder, num_hidden_layers=7), "the checkpoint lacks"),
    "fewer layers than weights": (one_layer_less, "config.json"),
}


@pytest.mark.parametrize(("damage", "says"), BAD_MODELS.values(), ids=BAD_MODELS)
def test_a_bad_model_is_refused(model_copy, damage, says):
    damage(model_copy)
    assert says in model_refusal(model_copy)


@pytest.mark.parametrize("layer", [7, -8])
def test_a_layer_that_the_model_lacks_is_refused(layer):
    from seqmill import model

    with pytest.raises(UserError, match=f"there is no layer {layer}; this model has 0 .* to 6"):
        model.resolve_layers([layer], 6)


def test_a_missing_folder_that_looks_like_a_hub_id_is_called_a_folder_too(tmp_path, monkeypatch):
    """A misspelt resources/esm2_t6_3M_dem has the form of a hub id; advice on the hub alone leads astray."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "resources").mkdir()
    with pytest.raises(UserError, match="model resources/esm2_t6_3M_dem: there is no such folder"):
        weights.resolve("resources/esm2_t6_3M_dem")


def test_a_hub_model_that_cannot_be_had_says_how_to_bring_it(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError) as refused:
        weights.resolve("facebook/esm2_t6_8M_UR50D")
    assert "hf download facebook/esm2_t6_8M_UR50D" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_revision_of_a_folder_is_refused(demo_model):
    with pytest.raises(UserError, match=r"model\.revision is set, but .* is a folder"):
        weights.resolve(str(demo_model), "main")


@pytest.mark.parametrize("case", ["no folder", "no config.json", "no weights"])
def test_weights_ends_in_one_line_and_writes_nothing(project, model_copy, case):
    damage, says = BAD_MODELS[case]
    damage(model_copy)
    done = project.run(sys.executable, SCRIPTS / "weights.py", "--model", model_copy, "--output", "weights.json")
    assert_refused(done, says)
    assert done.stdout.count("\n") == 1
    assert done.stdout.startswith(f"error: model {model_copy}: ")
    assert not (project.folder / "weights.json").exists()


def test_embed_ends_in_a_clear_last_line_and_writes_no_result(project, model_copy, small_fasta):
    truncate(model_copy / "model.safetensors", 100_000)
    done = project.run(
        sys.executable,
        *(SCRIPTS / "embed.py", "--fasta", small_fasta, "--model", model_copy),
        *("--output", "out", "--device", "cpu", "--dataloader-workers", "0"),
    )
    assert_refused(done, f"error: model {model_copy}: ")
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1].startswith(f"error: model {model_copy}: ")
    assert list((project.folder / "out").glob("*")) == []


# The configuration

BAD_CONFIGURATIONS = {
    "misspelt key": ({"performance": {"batchsize": 5}}, "performance.batchsize; did you mean performance.batch_size?"),
    "misspelt section": ({"performence": {}}, "there is no key performence; did you mean performance?"),
    "misspelt model key": ({"model": {"layer": 3}}, "there is no key model.layer; did you mean model.layers?"),
    "key in the wrong place": ({"batch_size": 5}, "there is no key batch_size"),
    "word for a number": (
        {"performance": {"batch_size": "large"}},
        "performance.batch_size cannot be 'large'; give auto",
    ),
    "zero shards": ({"shards": 0}, "shards cannot be 0; give auto (one per GPU) or a whole number from 1"),
    "fraction of a shard": ({"shards": 1.5}, "shards cannot be 1.5"),
    "true shards": ({"shards": True}, "shards cannot be True"),
    "negative workers": ({"performance": {"dataloader_workers": -1}}, "performance.dataloader_workers cannot be -1"),
    "other dtype": ({"model": {"dtype": "bf16"}}, "model.dtype cannot be 'bf16'; give one of auto, float32"),
    "other pooling": ({"model": {"pooling": ["mean", "max"]}}, "model.pooling"),
    "no pooling": ({"model": {"pooling": []}}, "model.pooling cannot be []"),
    "four streams": ({"performance": {"streams": 4}}, "performance.streams cannot be 4; give 2 or 3"),
    "yes for true": ({"performance": {"pin_memory": "yes please"}}, "performance.pin_memory cannot be 'yes please'"),
    "text for a section": ({"model": "facebook/esm2_t6_8M_UR50D"}, "model cannot be 'facebook/esm2_t6_8M_UR50D'"),
    "number for a file": ({"fasta": 3}, "fasta cannot be 3; give the path of a protein FASTA file"),
    "no files": ({"fasta": []}, "fasta cannot be []"),
}


@pytest.mark.parametrize(("edit", "says"), BAD_CONFIGURATIONS.values(), ids=BAD_CONFIGURATIONS)
def test_a_bad_configuration_is_refused(edit, says):
    with pytest.raises(UserError) as refused:
        settings.check({"fasta": "x.fasta"} | edit, SCHEMA)
    sentence = str(refused.value)
    assert sentence.startswith("configuration: ")
    assert says in sentence
    assert sentence.isprintable()


def test_a_configuration_without_input_is_refused():
    with pytest.raises(UserError, match=r"^configuration: fasta is missing; "):
        settings.check({}, SCHEMA)


def test_a_section_with_every_key_commented_out_means_the_defaults():
    """YAML reads `performance:` with nothing behind it as null."""
    config = {"fasta": "x.fasta"}
    assert settings.check(config | {"performance": None, "model": None}, SCHEMA) == settings.check(config, SCHEMA)


def test_checking_fills_in_defaults_and_leaves_its_argument_alone():
    given = {"fasta": "x.fasta", "model": {"dtype": "float32"}}
    checked = settings.check(given, SCHEMA)
    assert given == {"fasta": "x.fasta", "model": {"dtype": "float32"}}
    assert checked["model"]["dtype"] == "float32"
    assert checked["model"]["pooling"] == ["mean"]
    assert checked["performance"]["batch_size"] == "auto"


# The whole workflow


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        ({"fasta": "missing.fasta"}, "there is no file missing.fasta"),
        ({"fasta": "config"}, "config"),
        (BAD_CONFIGURATIONS["misspelt key"]),
        (BAD_CONFIGURATIONS["word for a number"]),
    ],
    ids=["missing FASTA", "folder as FASTA", "misspelt key", "wrong type"],
)
def test_snakemake_refuses_a_bad_configuration_before_any_job(project, edit, says):
    project.configure(**edit)
    done = project.snakemake()
    assert_refused(done, says)
    assert project.jobs(done.stdout) == []
    assert project.results() == []


def test_snakemake_refuses_malformed_yaml(project):
    (project.folder / "config/config.yaml").write_text("fasta: [proteins.fasta\nmodel: {name: x")
    done = project.snakemake()
    assert_refused(done, "Config file is not valid JSON or YAML")
    assert project.results() == []


def test_snakemake_stops_at_a_bad_input(project):
    (project.folder / "reads.fasta").write_bytes(NO_FASTA["FASTQ"][0])
    project.configure(fasta="reads.fasta", shards=2, model={"name": "resources/esm2_t6_3M_demo"})
    done = project.snakemake()
    assert_refused(done, "error: reads.fasta, line 1: this looks like FASTQ")
    assert {rule for rule, _ in project.jobs(done.stdout)} <= {"shard", "weights"}
    assert set(project.results()) <= {"weights.json"}


def test_snakemake_stops_at_a_missing_model(project, small_fasta):
    project.configure(fasta=str(small_fasta), shards=2, model={"name": "./models/esm2"})
    done = project.snakemake()
    assert_refused(done, "error: model ./models/esm2: there is no such folder")
    assert {rule for rule, _ in project.jobs(done.stdout)} <= {"shard", "weights"}
    assert not {"weights.json", "embeddings.h5"} & set(project.results())


def test_snakemake_shows_why_a_model_cannot_be_used(project, model_copy, small_fasta):
    """A model of another family; the sentence must be on the screen, and not only in a log somewhere."""
    damage, says = BAD_MODELS["BERT"]
    damage(model_copy)
    project.configure(fasta=str(small_fasta), shards=1, model={"name": str(model_copy)})
    done = project.snakemake()
    assert_refused(done, says)
    assert not [name for name in project.results() if name.startswith("emb")]
