"""Results of the shortest and of the longest sequences: one residue, and more than any known protein has."""

import h5py
import numpy as np
import pandas as pd
import pytest
from refusals import embed, find_model, read, shard, written

from seqmill.outputs.merge import merge


def test_many_sequences_of_one_residue(tmp_path, demo_model):
    letters = "ACDEFGHIKLMNPQRSTVWYXBUZO"
    path = written(tmp_path, "".join(f">p{i}\n{letters[i * 7 % 25]}\n" for i in range(5_000)).encode())
    shard(path, 3, tmp_path / "shards")
    table = pd.read_parquet(tmp_path / "shards/records.parquet")
    assert table["shard"].value_counts().to_dict() == {0: 1_800, 1: 1_600, 2: 1_600}
    found = find_model(demo_model)
    folders = [tmp_path / f"{shard}" for shard in range(3)]
    for number, folder in enumerate(folders):
        embed(found, tmp_path / f"shards/{number}.fasta", folder, pooling=("mean", "residues"))
    merge(folders, [tmp_path / "shards/records.parquet"], tmp_path / "all.h5", tmp_path / "index.parquet")
    with h5py.File(tmp_path / "all.h5") as file:
        mean, residues, offsets = file["mean"][:], file["residues"][:], file["offsets"][:]
    assert offsets.tolist() == list(range(5_001))
    # The mean of one residue is that residue's state, and the letters come again after 25 sequences.
    np.testing.assert_allclose(mean, residues, rtol=1e-6)
    assert (mean[:-25] == mean[25:]).all()
    assert len(np.unique(mean, axis=0)) == 25


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory):
    """An ESM-2 of random weights: one layer, one head."""
    import torch
    from transformers import EsmConfig, EsmForMaskedLM

    config = EsmConfig(
        vocab_size=33,
        mask_token_id=32,
        pad_token_id=1,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=64,
        position_embedding_type="rotary",
        emb_layer_norm_before=False,
        token_dropout=True,
    )
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("tiny")
    EsmForMaskedLM(config).save_pretrained(folder)
    return find_model(folder)


GIANTS = {"giant": 144_307, "large": 68_700, "p1": 1, "p300": 300, "p35": 35}


@pytest.fixture(scope="module")
def giants(tmp_path_factory):
    """Sequences of these lengths; the longest is nearly all X."""
    dice = np.random.default_rng(0)
    letters = np.frombuffer(b"ACDEFGHIKLMNPQRSTVWY", np.uint8)
    sequences = {name: dice.choice(letters, length) for name, length in GIANTS.items()}
    sequences["giant"][dice.random(GIANTS["giant"]) < 0.99] = ord("X")
    folder = tmp_path_factory.mktemp("giants")
    content = b"".join(b">%s\n%s\n" % (name.encode(), letters.tobytes()) for name, letters in sequences.items())
    shard(written(folder, content), 2, folder / "shards")
    return folder, {name: letters.tobytes() for name, letters in sequences.items()}


def test_giants_are_dealt_like_any_protein(giants):
    folder, sequences = giants
    table = pd.read_parquet(folder / "shards/records.parquet").set_index("id")
    assert table["length"].to_dict() == GIANTS
    # The giant costs more than all others together.
    assert table["shard"].to_dict() == {"giant": 0, "large": 1, "p300": 1, "p35": 1, "p1": 1}
    dealt = [protein.sequence for shard in "01" for protein in read(folder / f"shards/{shard}.fasta")]
    assert dealt == [sequences[name] for name in ("giant", "large", "p300", "p35", "p1")]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["giant", "large"])
def test_giants_are_embedded_like_any_protein(giants, tiny_model, tmp_path, name):
    _, sequences = giants
    company = {name: sequences[name], "p300": sequences["p300"], "p1": sequences["p1"]}
    path = written(tmp_path, b"".join(b">%s\n%s\n" % (key.encode(), value) for key, value in company.items()))
    alone = written(tmp_path, b">%s\n%s\n" % (name.encode(), sequences[name]), "alone.fasta")
    found = embed(tiny_model, path, tmp_path / "together", pooling=("mean", "residues"))
    assert found["mean"].shape == (3, 16)
    assert found["residues"].shape == (GIANTS[name] + 301, 16)
    assert np.isfinite(found["mean"]).all()
    assert np.isfinite(found["residues"]).all()
    np.testing.assert_array_equal(found["mean"][0], embed(tiny_model, alone, tmp_path / "alone")["mean"][0])
