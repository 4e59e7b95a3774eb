"""Values on their way to the merged file: in blocks and regions of any size, and with more shards than files may be open."""

import h5py
import numpy as np
import pandas as pd
import pytest
from damage import flip
from embeddings import read_embeddings
from small_run import SmallRun

from seqmill.errors import UserError
from seqmill.inputs import hexadecimal, record_table
from seqmill.outputs import layout, source
from seqmill.outputs.datasets import Dataset
from seqmill.outputs.embedding_file import EmbeddingFile
from seqmill.outputs.merging import copying, scatter
from seqmill.outputs.source import Source

LENGTHS = np.array([9, 7, 7, 5, 3, 1])
RESIDUES = np.random.default_rng(0).normal(size=(LENGTHS.sum(), 3)).astype(np.float16)


@pytest.fixture(scope="module")
def several(tiny_model, small_fasta, tmp_path_factory):
    """A run with values per sequence and per residue, in three shards."""
    made = SmallRun(tmp_path_factory.mktemp("several"), 3)
    made.embed(tiny_model, small_fasta, pooling=("mean", "residues"), long="window", max_length=200, overlap=20)
    made.merge()
    return made


@pytest.fixture
def file(tmp_path):
    dataset = Dataset("residues", "residues", "token", 1, 3, np.dtype(np.float16))
    layout.lay_out(tmp_path / "e.h5", list("abcdef"), LENGTHS, LENGTHS, [dataset], {"layers": [1]})
    with EmbeddingFile(tmp_path / "e.h5", writable=True) as opened:
        opened.write(np.arange(6), {"residues": RESIDUES})
    return Source(opened)


# What is held at once: nearly nothing, a part of each dataset, everything.
@pytest.mark.parametrize("memory", [1, 2_000, 10**7])
@pytest.mark.parametrize("long_bytes", [1, 10**9], ids=["written one by one", "in regions"])
@pytest.mark.parametrize("read_bytes", [300, 16 * 2**20])
def test_the_result_has_the_same_bytes_however_it_is_cut(
    several, tmp_path, monkeypatch, memory, long_bytes, read_bytes
):
    for module in (source, scatter):
        monkeypatch.setattr(module, "READ_BYTES", read_bytes)
    monkeypatch.setattr(scatter, "LONG_BYTES", long_bytes)
    monkeypatch.setattr(copying, "MEMORY_BYTES", memory)
    monkeypatch.setattr(record_table, "ROWS", 7)
    again = several.copy(tmp_path / "run")
    again.merge()
    assert again.embeddings.read_bytes() == several.embeddings.read_bytes()
    assert pd.read_parquet(again.index).equals(pd.read_parquet(several.index))


def test_every_record_has_what_its_shard_holds(several):
    merged, index = read_embeddings(several.embeddings), pd.read_parquet(several.index)
    parts = [read_embeddings(folder / "embeddings.h5") for folder in several.parts]
    for number, record in enumerate(index.itertuples()):
        part = parts[record.shard]
        assert merged["mean"][number].tobytes() == part["mean"][record.row].tobytes()
        first, last = merged["offsets"][number : number + 2]
        start, stop = part["offsets"][record.row : record.row + 2]
        assert merged["residues"][first:last].tobytes() == part["residues"][start:stop].tobytes()
        assert record.windows == part["windows"][record.row, 0]


@pytest.mark.parametrize("rows", [[], [0], [5], [0, 1, 2, 3, 4, 5], [1, 2, 5], [0, 3]])
@pytest.mark.parametrize("gap", [0, 20, 10**6])
@pytest.mark.parametrize("read_bytes", [1, 60, 10**6])
def test_blocks_hold_the_sequences_that_were_asked_for(file, monkeypatch, rows, gap, read_bytes):
    monkeypatch.setattr(source, "READ_BYTES", read_bytes)
    monkeypatch.setattr(source, "GAP_BYTES", gap)
    found, starts = {}, layout.offsets(LENGTHS)
    for block in file.blocks("residues", np.array(rows, dtype=np.int64)):
        for row, begin, end in zip(*(part.tolist() for part in block[:3]), strict=True):
            found[row] = block.content[begin:end].tobytes()
    assert list(found) == rows
    assert all(found[row] == RESIDUES[starts[row] : starts[row + 1]].tobytes() for row in rows)


def test_of_two_sequences_far_apart_nothing_between_is_read(file, monkeypatch):
    monkeypatch.setattr(source, "GAP_BYTES", 0)
    (block,) = file.blocks("residues", np.array([0, 5]))
    assert len(block.content) == (9 + 1) * 6


def test_an_index_in_several_row_groups_is_read_as_one(several, tmp_path, monkeypatch):
    again = several.copy(tmp_path / "run")
    monkeypatch.setattr(record_table, "ROWS", 5)
    again.merge()
    found = pd.read_parquet(again.index)
    assert found.dtypes.equals(pd.read_parquet(several.index).dtypes)
    assert len(found) == 24


def test_hashes_are_the_same_as_digits_and_as_bytes(several):
    (table,) = record_table.batches(several.records, ["sequence_sha256"])
    text, binary = hexadecimal.with_text(table), hexadecimal.with_bytes(table)
    assert [value.hex() for value in binary["sequence_sha256"].to_pylist()] == text["sequence_sha256"].to_pylist()
    assert hexadecimal.with_text(binary).equals(text)
    assert hexadecimal.with_bytes(text).equals(binary)


def test_a_damaged_shard_is_found_while_it_is_copied_in_pieces(several, tmp_path, monkeypatch):
    monkeypatch.setattr(source, "READ_BYTES", 300)
    again = several.copy(tmp_path / "run")
    with h5py.File(again.parts[1] / "embeddings.h5") as file:
        place = file["residues"].id.get_offset() + 1_000
    flip(again.parts[1] / "embeddings.h5", place)
    with pytest.raises(UserError, match=r"embed/1: embeddings.h5 is damaged \(the checksum of residues does not"):
        again.merge()
    assert not again.embeddings.exists()
    assert not again.parts[1].exists()
