"""What holds for every representation, of every family: its rows, width and dtype, and its way through the files."""

import h5py
import numpy as np
import pytest
import torch
from family_cases import CPU, embed, offers

from seqmill.engine.batching import PackedBatches
from seqmill.engine.pipeline import Pipeline
from seqmill.errors import UserError
from seqmill.inputs import shards
from seqmill.inputs.fasta import read_all
from seqmill.inputs.sample import Sample
from seqmill.inputs.sequences import Sequences
from seqmill.outputs.datasets import resolve
from seqmill.outputs.embedding_file import EmbeddingFile
from seqmill.outputs.merge import merge
from seqmill.outputs.representations import REPRESENTATIONS, SEQUENCE

LENGTHS = [9, 1, 30, 17]

pytestmark = pytest.mark.parametrize("name", REPRESENTATIONS)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_values_have_the_shape_and_type_of_their_dataset(case, name, dtype):
    """Computed in any dtype, by a batch and as stored."""
    dataset = resolve((1,), (name,), case.model.config.width, dtype)[0]
    parts = REPRESENTATIONS[name].parts
    sequences, tokenizer = Sequences(case.records(LENGTHS)), case.model.tokenizer
    (batch,) = PackedBatches(sequences, tokenizer.tokens(sequences), tokenizer, 1_000, fill=True)
    states = torch.randn(1_000, case.model.config.width).to(getattr(torch, dtype))
    found = Pipeline(case.model, CPU, [dataset])._represent(dataset, {1: states}, batch)
    assert found.shape == (dataset.rows(batch.content_counts).sum(), parts * dataset.width)
    assert found.numpy().dtype == dataset.dtype
    assert (REPRESENTATIONS[name].per == SEQUENCE) == (len(found) == len(LENGTHS))


def test_files_and_the_merged_result_hold_what_was_computed(case, name, tmp_path):
    fasta = case.fasta(tmp_path / "x.fasta", LENGTHS)
    if not offers(case, name):
        with pytest.raises(UserError, match=f"pooling {name}: .* has no token (before|behind) a sequence"):
            embed(case, fasta, tmp_path / "0", pooling=(name,))
        return
    shards.shard({None: Sample([fasta], case.family.alphabet)}, 2, tmp_path / "shards", case.family.cost)
    folders = [tmp_path / "0", tmp_path / "1"]
    for shard, folder in enumerate(folders):
        assert embed(case, tmp_path / f"shards/{shard}.fasta", folder, pooling=(name,), layers=(1, 2)) == 0
    merge(folders, [tmp_path / "shards/records.parquet"], tmp_path / "all.h5", tmp_path / "index.parquet")
    datasets = resolve((1, 2), (name,), case.model.config.width, "float32", case.model.tokenizer.single_letters)
    parts = {file.ids()[row]: value for file, row, value in values_of(folders, datasets[0].name)}
    with EmbeddingFile(tmp_path / "all.h5") as merged:
        assert merged.datasets == datasets
        ids = [record.id for record in read_all([fasta], case.family.alphabet)]
        assert merged.ids().tolist() == ids
    hashes = index_of(tmp_path / "index.parquet")
    with h5py.File(tmp_path / "all.h5") as file:
        found = file[datasets[0].name][:]
        assert (found == np.concatenate([parts[digest] for digest in hashes])).all()
        assert not np.array_equal(found, file[datasets[1].name][:])


def values_of(folders, name):
    """(file, row, values) of every sequence of some files."""
    for folder in folders:
        with EmbeddingFile(folder / "embeddings.h5") as file:
            starts, values = file.starts(name), file.values(name)
            for row in range(len(file.lengths)):
                yield file, row, np.array(values[starts[row] : starts[row + 1]])


def index_of(path):
    import pandas as pd

    return pd.read_parquet(path)["sequence_sha256"].tolist()
