"""index.parquet of one file: what the workflow's index says, and only for a file that is no shard."""

import os
from pathlib import Path

import pandas as pd
import processes
import pyarrow.parquet as pq
import pytest
import small_run as steps
from paths import SCRIPTS

from seqmill.errors import UserError
from seqmill.outputs import index
from seqmill.outputs.merging.index import COLUMNS


@pytest.fixture
def embed(tiny_model, small_fasta, tmp_path):
    def run(fasta: Path = small_fasta, **settings) -> Path:
        assert steps.embed(tiny_model, fasta, tmp_path / "out", **{"index": True, **settings}) == 0
        return tmp_path / "out"

    return run


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_it_says_what_the_merged_index_says(embed, small_run):
    own, merged = (pq.read_table(path) for path in (embed() / "index.parquet", small_run.index))
    assert own.column_names == index.COLUMNS
    assert [name for name in COLUMNS if name in index.COLUMNS] == index.COLUMNS
    assert own.schema.remove_metadata() == merged.select(index.COLUMNS).schema.remove_metadata()
    assert own.to_pylist() == merged.select(index.COLUMNS).to_pylist()
    assert own["duplicate_of"].null_count == 23


def test_it_records_what_was_replaced_and_renamed(embed, tmp_path):
    (tmp_path / "in.fasta").write_text(">a first\nMK1V\n>b\nMKXV\n>a\nMKV\n")
    table = pd.read_parquet(embed(tmp_path / "in.fasta", invalid="replace", duplicate_ids="number") / "index.parquet")
    assert table["id"].tolist() == ["a", "b", "a_2"]
    assert table["residues_replaced"].tolist() == [1, 0, 0]
    # As the model sees them, the first two are the same.
    assert table["duplicate_of"].fillna("").tolist() == ["", "a", ""]
    assert table["renamed_from"].fillna("").tolist() == ["", "", "a"]
    assert table["description"].tolist() == ["first", "", ""]


def test_it_has_types_where_there_is_nothing(embed, tmp_path):
    (tmp_path / "in.fasta").write_text("")
    table = pq.read_table(embed(tmp_path / "in.fasta") / "index.parquet")
    assert (table.num_rows, table.column_names) == (0, index.COLUMNS)
    assert str(table.schema.field("length").type) == "int64"


def test_without_an_index_there_is_no_result(embed, monkeypatch, tmp_path):
    def fail(*_):
        raise UserError("the disk is full")

    folder = embed()
    assert names(folder) == ["embeddings.h5", "index.parquet", "meta.json"]
    monkeypatch.setattr(index, "write", fail)
    with pytest.raises(UserError, match="the disk is full"):
        embed()
    # The old files went when the run began.
    assert names(folder) == ["meta.json"]
    monkeypatch.undo()
    assert names(embed()) == ["embeddings.h5", "index.parquet", "meta.json"]
    assert names(embed(index=False)) == ["embeddings.h5", "meta.json"]


@pytest.mark.parametrize("is_shard", [False, True], ids=["a user's file", "a shard"])
def test_the_command_writes_it_for_what_is_no_shard(small_run, tiny_model, tmp_path, is_shard):
    fasta = small_run.folder / "shards/0.fasta"
    flags = ["--fasta", fasta, "--model", tiny_model, "--output", tmp_path / "out", "--dataloader-workers", "0"]
    flags += ["--verify-fasta"] if is_shard else []
    done = processes.run(SCRIPTS / "embed.py", *flags, environment=os.environ | {"CUDA_VISIBLE_DEVICES": ""})
    assert done.returncode == 0, done.stdout
    assert names(tmp_path / "out") == ["embeddings.h5", *([] if is_shard else ["index.parquet"]), "meta.json"]
