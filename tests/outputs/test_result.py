"""seqmill.open: vectors, residues and records by id, from every kind of result, and what it says where they are not."""

import itertools
import shutil
import threading
from pathlib import Path

import dnabert_reference
import h5py
import numpy as np
import pandas as pd
import pytest
import small_run as steps
from Bio.SeqIO.FastaIO import SimpleFastaParser
from damage import truncate
from embeddings import read_embeddings
from paths import FAMILIES, REPOSITORY
from refusals import refusal

import seqmill

BOTH = ("mean", "residues")


@pytest.fixture(scope="module")
def merged(small_run, tmp_path_factory) -> Path:
    """The folder of the small run's result, and nothing else."""
    folder = tmp_path_factory.mktemp("results")
    for path in (small_run.embeddings, small_run.index):
        shutil.copy(path, folder)
    return folder


@pytest.fixture(scope="module")
def layers(demo_model, small_fasta, tmp_path_factory) -> Path:
    """Two layers of everything, embedded as a file by itself."""
    folder = tmp_path_factory.mktemp("layers") / "out"
    chosen = {"pooling": ("mean", "bos", "residues"), "layers": (3, 6), "index": True}
    assert steps.embed(demo_model, small_fasta, folder, **chosen) == 0
    return folder


def test_a_merged_result_is_read_by_id(merged):
    values = read_embeddings(merged / "embeddings.h5")
    with seqmill.open(merged) as found:
        assert (len(found), found.ids, list(found)) == (24, values["ids"], values["ids"])
        assert found.lengths.tolist() == values["lengths"].tolist()
        assert found.datasets == ["mean"]
        for row, protein in enumerate(values["ids"]):
            assert protein in found
            assert np.array_equal(found[protein], values["mean"][row])
        assert np.array_equal(found.vectors(), values["mean"])
        frame = found.to_frame()
        assert frame.index.tolist() == values["ids"]
        assert np.array_equal(frame.loc[values["ids"][5]].to_numpy(), values["mean"][5])
        assert "nobody" not in found


@pytest.mark.parametrize("path", [lambda folder: folder, lambda folder: str(folder / "embeddings.h5")])
def test_the_index_is_a_table_of_strings(merged, path):
    found = seqmill.open(path(merged))
    assert found.index["id"].tolist() == found.ids
    assert found.index["duplicate_of"].tolist() == [None] * 23 + [found.ids[2]]
    assert {type(text) for text in found.index["description"]} == {str}


def test_attributes_are_in_pythons_own_types(layers):
    found = seqmill.open(layers).attributes
    assert (found["layers"], found["dtype"], found["pooling"]) == ([3, 6], "float32", ["bos", "mean", "residues"])
    assert found["versions"].keys() >= {"torch", "seqmill"}
    assert {type(value) for value in found.values()} == {str, list, dict}


def test_of_several_layers_the_last_one_is_meant_unless_one_is_named(layers):
    values = read_embeddings(layers / "embeddings.h5")
    found = seqmill.open(layers)
    protein = found.ids[4]
    assert np.array_equal(found[protein], values["mean_layer6"][4])
    assert np.array_equal(found.vectors(layer=3), values["mean_layer3"])
    assert np.array_equal(found.vectors("bos"), values["bos_layer6"])
    assert np.array_equal(found.vectors("bos_layer3"), values["bos_layer3"])
    assert np.array_equal(found.vector(protein, "bos", 3), values["bos_layer3"][4])
    start, stop = values["offsets"][4:6]
    assert np.array_equal(found.residues(protein), values["residues_layer6"][start:stop])
    assert np.array_equal(found.residues(protein, layer=3), values["residues_layer3"][start:stop])
    assert found.to_frame(layer=3).shape == (24, 192)


def test_what_is_not_stored_is_said(merged, layers):
    found = seqmill.open(merged)
    assert "holds no residues; embed with model.pooling [mean, residues]" in refusal(found.residues, found.ids[0])
    assert "holds no token_starts; only residues of models" in refusal(found.token_starts, found.ids[0])
    assert refusal(found.vectors, "bos").endswith("holds no bos per sequence; it has mean")
    assert refusal(seqmill.open(layers).vectors, layer=5).endswith("holds no mean of layer 5; it has 3, 6")


def test_without_a_vector_per_protein_residues_are_all(tiny_model, tmp_path):
    (tmp_path / "in.fasta").write_text(">a\nMKV\n>b\nMKVLA\n")
    assert steps.embed(tiny_model, tmp_path / "in.fasta", tmp_path / "out", pooling=("residues",)) == 0
    found = seqmill.open(tmp_path / "out")
    assert (found.residues("a").shape, found.residues("b").shape) == ((3, 16), (5, 16))
    assert "holds residues only; take the mean of `residues(id)`" in refusal(found.__getitem__, "a")
    # A shard has no index of its own.
    assert found.index.to_dict("list") == {"id": ["a", "b"], "length": [3, 5]}


def test_tokens_of_several_letters_say_where_they_begin(tmp_path):
    """DNA in pieces that a tokenizer makes: put together again, they are the sequence."""
    model, fasta = dnabert_reference.write(tmp_path / "model"), FAMILIES / "nucleotides.fasta"
    chosen = {"pooling": ("mean_all", "residues"), "layers": (1, 2), "invalid": "replace"}
    assert steps.embed(model, fasta, tmp_path / "out", **chosen) == 0
    found, library = seqmill.open(tmp_path / "out"), dnabert_reference.tokenizer(model)
    assert found.datasets == [
        "mean_all_layer1",
        "mean_all_layer2",
        "residues_layer1",
        "residues_layer2",
        "token_starts",
    ]
    sequence = next(sequence for name, sequence in SimpleFastaParser(fasta.open()) if name.split()[0] == "phix_500")
    starts = found.token_starts("phix_500")
    pieces = [sequence[start:stop] for start, stop in itertools.pairwise([*starts.tolist(), len(sequence)])]
    assert pieces == library.encode(sequence, add_special_tokens=False).tokens
    for layer in (None, 1):
        assert found.residues("phix_500", layer=layer).shape == (len(starts), 24)
    assert "holds no residues of layer 0; it has 1, 2" in refusal(found.residues, "phix_500", 0)
    assert "holds no token_starts per sequence; it has mean_all" in refusal(found.vectors, "token_starts")


def test_an_unknown_id_names_similar_ones(merged):
    found = seqmill.open(merged)
    known = found.ids[0]
    for wrong in (known[:-1], known[:3] + "_" + known[4:]):
        with pytest.raises(KeyError, match=f"there is no sequence {wrong} among these 24; did you mean .*{known[:3]}"):
            found[wrong]
    with pytest.raises(KeyError, match=r"there is no sequence 17 among these 24"):
        found[17]


def test_files_of_version_0_1_are_read(tmp_path):
    shutil.unpack_archive(REPOSITORY / "tests/data/version_0_1.tar.gz", tmp_path)
    values = read_embeddings(tmp_path / "embeddings.h5")
    found = seqmill.open(tmp_path)
    last = values["ids"][-1]
    assert np.array_equal(found[last], values["mean"][-1])
    assert np.array_equal(found.residues(last), values["residues"][values["offsets"][-2] :])
    assert found.attributes["layers"] == [1]
    assert found.index["id"].tolist() == values["ids"]
    shard = seqmill.open(tmp_path / "embed/0")
    assert shard[shard.ids[0]].shape == (16,)


def test_it_says_what_it_is(layers, merged):
    shown = repr(seqmill.open(layers))
    assert shown.startswith("<Embeddings of 24 sequences: bos_layer3 (24 x 192, float32), ")
    assert "demo in float32" in shown
    found = seqmill.open(merged)
    found.close()
    found.close()
    assert repr(found) == f"<Embeddings of 24 sequences, closed: {merged / 'embeddings.h5'}>"
    with pytest.raises(ValueError, match="are closed; open them again"):
        found.vectors()


def test_threads_read_at_once(layers):
    found, values, wrong = seqmill.open(layers), read_embeddings(layers / "embeddings.h5"), []

    def read(first: int) -> None:
        for row in [*range(first, 24), *range(first)]:
            if not np.array_equal(found[values["ids"][row]], values["mean_layer6"][row]):
                wrong.append(row)

    threads = [threading.Thread(target=read, args=(first,)) for first in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_result_that_is_replaced_is_not_mixed_with_the_new_one(merged, tmp_path):
    shutil.copytree(merged, tmp_path / "out")
    found, late = seqmill.open(tmp_path / "out"), seqmill.open(tmp_path / "out")
    protein = found.ids[0]
    vector = found[protein]
    shutil.copy(tmp_path / "out/embeddings.h5", tmp_path / "new.h5")
    (tmp_path / "new.h5").replace(tmp_path / "out/embeddings.h5")
    assert np.array_equal(found[protein], vector)
    assert "was replaced since it was opened; open it again" in refusal(late.__getitem__, protein)


def repacked(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        values = file["mean"][:]
        del file["mean"]
        file.create_dataset("mean", data=values, compression="gzip")


DAMAGES = {
    "truncated": (lambda path: truncate(path, 100), "is not a result of seqmill, or a damaged one"),
    "text": (lambda path: path.write_text("ids"), "is not a result of seqmill, or a damaged one"),
    "packed": (repacked, "is damaged, or was rewritten by another program; copy the result again"),
    "missing": (lambda path: path.unlink(), "holds no embeddings.h5; is the run finished?"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_no_result_is_refused_in_one_sentence(merged, tmp_path, damage):
    act, sentence = DAMAGES[damage]
    shutil.copytree(merged, tmp_path / "out")
    act(tmp_path / "out/embeddings.h5")
    assert sentence in refusal(seqmill.open, tmp_path / "out")


def test_a_folder_says_what_to_open(merged, tmp_path):
    for name in ("a", "b"):
        shutil.copytree(merged, tmp_path / name)
    assert refusal(seqmill.open, tmp_path).endswith(f"take one of {tmp_path / 'a'}, {tmp_path / 'b'}")
    (tmp_path / "oom.json").write_text("{}")
    assert "holds no result, as memory ran out; oom.json says" in refusal(seqmill.open, tmp_path)
    assert "there is no such file or folder" in refusal(seqmill.open, tmp_path / "nothing")


def test_an_index_of_another_result_is_refused(merged, tmp_path):
    shutil.copytree(merged, tmp_path / "out")
    pd.read_parquet(merged / "index.parquet")[1:].to_parquet(tmp_path / "out/index.parquet")
    found = seqmill.open(tmp_path / "out")
    with pytest.raises(
        seqmill.UserError, match=r"lists other sequences than .*; put the two files of one result together"
    ):
        print(found.index)
