"""What comes out: every record in input order with its own vectors, however the work was cut."""

import random

import numpy as np
import pandas as pd
import pytest
from embeddings import read_embeddings, relative_error

from seqmill.inputs.alphabet import PROTEIN
from seqmill.inputs.fasta import read_all
from seqmill.outputs.merging import index as merged_index


@pytest.fixture(scope="module")
def usual(small_run):
    """The merged file of a run in two shards with all that is chosen by itself."""
    return read_embeddings(small_run.embeddings)


@pytest.fixture(scope="module")
def three_layers(embed_and_merge, demo_model, small_fasta, tmp_path_factory):
    """Everything that three layers of a model with six have."""
    folder = tmp_path_factory.mktemp("three_layers")
    return embed_and_merge(demo_model, small_fasta, folder, pooling=("mean", "bos", "residues"), layers=(0, 3, -1))


def test_embeddings_are_in_input_order_with_duplicates(small_fasta, usual):
    given = list(read_all([small_fasta], PROTEIN))
    assert sorted(usual) == ["ids", "lengths", "mean"]
    assert usual["ids"] == [protein.id for protein in given]
    assert usual["lengths"].tolist() == [len(protein.sequence) for protein in given]
    assert usual["mean"].shape == (24, 16)
    assert usual["mean"].dtype == np.float32
    assert np.isfinite(usual["mean"]).all()
    # The twin has its sister's vector, and no two others are alike.
    assert len(np.unique(usual["mean"], axis=0)) == 23
    assert usual["mean"][23].tobytes() == usual["mean"][2].tobytes()


def test_index_has_a_row_for_every_record(small_run, usual):
    index = pd.read_parquet(small_run.index)
    special = ("round", "windows", "embedded", "reused_from")
    assert index.columns.tolist() == [name for name in merged_index.COLUMNS if name not in special]
    assert index["id"].tolist() == usual["ids"]
    assert index["length"].tolist() == usual["lengths"].tolist()
    assert index["residues_replaced"].tolist() == [0] * 24
    assert index["duplicate_of"].notna().tolist() == [False] * 23 + [True]
    assert index["duplicate_of"][23] == index["id"][2]
    # Shard and row lead back to where the vector came from.
    parts = [read_embeddings(folder / "embeddings.h5") for folder in small_run.parts]
    for record, vector in zip(index.itertuples(), usual["mean"], strict=True):
        part = parts[record.shard]
        assert part["ids"][record.row] == record.sequence_sha256
        assert part["mean"][record.row].tobytes() == vector.tobytes()


def test_the_order_of_the_input_does_not_matter(usual, embed_and_merge, tiny_model, small_fasta, tmp_path):
    records = [">" + record for record in small_fasta.read_text().split(">")[1:]]
    random.Random(1).shuffle(records)
    (tmp_path / "shuffled.fasta").write_text("".join(records))
    shuffled = embed_and_merge(tiny_model, tmp_path / "shuffled.fasta", tmp_path)
    assert shuffled["ids"] != usual["ids"]
    assert sorted(shuffled["ids"]) == sorted(usual["ids"])
    place = [shuffled["ids"].index(name) for name in usual["ids"]]
    assert shuffled["lengths"][place].tolist() == usual["lengths"].tolist()
    # Not to the last bit: other neighbours in a batch are other shapes for the CPU's matrix products.
    assert relative_error(shuffled["mean"][place], usual["mean"]) <= 1e-6


@pytest.mark.parametrize("batch_size", [1, 600])
def test_the_batch_size_does_not_change_the_result(
    three_layers, embed_and_merge, demo_model, small_fasta, tmp_path, batch_size
):
    found = embed_and_merge(demo_model, small_fasta, tmp_path, batch_size=batch_size)
    assert found["ids"] == three_layers["ids"]
    assert relative_error(found["mean"], three_layers["mean_layer6"]) <= 1e-6


def test_more_shards_than_sequences(usual, embed_and_merge, tiny_model, small_fasta, tmp_path):
    records = [">" + record for record in small_fasta.read_text().split(">")[1:4]]
    (tmp_path / "three.fasta").write_text("".join(records))
    found = embed_and_merge(tiny_model, tmp_path / "three.fasta", tmp_path, count=5)
    assert found["ids"] == usual["ids"][:3]
    assert relative_error(found["mean"], usual["mean"][:3]) <= 1e-6
    assert (tmp_path / "embed/4/meta.json").exists()


def assert_poolings_agree(found, suffixes, width):
    names = [pooling + suffix for pooling in ("mean", "bos", "residues") for suffix in suffixes]
    assert sorted(found) == sorted(["ids", "lengths", "offsets", *names])
    lengths, offsets = found["lengths"], found["offsets"]
    assert offsets.tolist() == [0, *np.cumsum(lengths).tolist()]
    for suffix in suffixes:
        residues = found["residues" + suffix]
        assert residues.shape == (lengths.sum(), width)
        assert found["bos" + suffix].shape == (24, width)
        means = np.array([residues[offsets[i] : offsets[i + 1]].mean(axis=0, dtype=np.float64) for i in range(24)])
        assert relative_error(means, found["mean" + suffix]) <= 1e-6
        # The twin's residues are its sister's, far apart as they stand.
        assert residues[offsets[23] :].tobytes() == residues[offsets[2] : offsets[3]].tobytes()


def test_all_poolings_of_one_layer_merge_rightly(usual, embed_and_merge, tiny_model, small_fasta, tmp_path):
    found = embed_and_merge(tiny_model, small_fasta, tmp_path, pooling=("mean", "bos", "residues"))
    assert_poolings_agree(found, [""], 16)
    assert relative_error(found["mean"], usual["mean"]) <= 1e-6


def test_all_poolings_of_three_layers_merge_rightly(three_layers):
    """That the last layer is the one of a run without others is proved with the batch sizes."""
    assert_poolings_agree(three_layers, ["_layer0", "_layer3", "_layer6"], 192)


def test_layers_and_poolings_are_what_they_say(three_layers):
    """The begin token's embedding is one vector for all sequences; after the layers it is each sequence's own."""
    assert len(np.unique(three_layers["bos_layer0"], axis=0)) == 1
    assert len(np.unique(three_layers["bos_layer6"], axis=0)) == 23
