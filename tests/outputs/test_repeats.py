"""Sequences that come more than once in one file: computed once, stored for every record, verified for every record."""

import json
from pathlib import Path

import numpy as np
import pytest
import small_run
from damage import flip_vector
from embeddings import read_embeddings, read_meta
from paths import SCHEMAS
from refusals import refusal

from seqmill.engine.pipeline import Pipeline
from seqmill.inputs.alphabet import PROTEIN
from seqmill.inputs.fasta import Record, read_records
from seqmill.inputs.sequences import Sequences
from seqmill.outputs import embedding_file, layout, verify
from seqmill.outputs.embedding_file import EmbeddingFile

BOTH = ("mean", "residues")


def sequences(*letters: str) -> Sequences:
    return Sequences([Record(str(n), text.encode(), Path("x.fasta"), 1) for n, text in enumerate(letters)])


@pytest.fixture(scope="module")
def fastas(small_fasta, tmp_path_factory) -> dict[str, Path]:
    """`once` has 23 distinct proteins, `often` each of them up to three times, in no order."""
    once = list({record.sequence: record for record in read_records(small_fasta, PROTEIN)}.values())
    some = [*once, *once[::2], *once[::3]]
    often = [some[n] for n in np.random.default_rng(0).permutation(len(some))]
    folder = tmp_path_factory.mktemp("fastas")
    for name, records in {"once": once, "often": often}.items():
        text = "".join(f">{name}_{n}\n{record.sequence.decode()}\n" for n, record in enumerate(records))
        (folder / f"{name}.fasta").write_text(text)
    return {name: folder / f"{name}.fasta" for name in ("once", "often")}


@pytest.fixture(scope="module")
def embed(tiny_model, fastas):
    def run(name: str, folder: Path, **settings) -> Path:
        chosen = {"pooling": BOTH, "batch_size": 600, **settings}
        assert small_run.embed(tiny_model, fastas[name], folder, **chosen) == 0
        return folder

    return run


@pytest.fixture(scope="module")
def done(embed, tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("done")
    return {name: embed(name, folder / name) for name in ("once", "often")}


def by_sequence(fasta: Path, folder: Path) -> dict[bytes, list[tuple[bytes, bytes]]]:
    """The bytes of each record's vector and residues, by its sequence."""
    found = read_embeddings(folder / "embeddings.h5")
    values: dict[bytes, list[tuple[bytes, bytes]]] = {}
    for row, record in enumerate(read_records(fasta, PROTEIN)):
        own = found["residues"][found["offsets"][row] : found["offsets"][row + 1]]
        assert len(own) == len(record.sequence)
        values.setdefault(record.sequence, []).append((found["mean"][row].tobytes(), own.tobytes()))
    return values


def test_each_is_computed_once_and_in_the_order_of_the_lengths():
    found = sequences("MKV", "MKTAY", "MKV", "MKL", "MKTAY", "MKV")
    assert found.letters.tobytes() == b"MKTAYMKVMKL"
    assert (len(found), found.distinct) == (6, 3)
    assert (found.rows.tolist(), found.copies.tolist()) == ([1, 0, 3], [2, 3, 1])
    assert found.places.tolist() == [1, 0, 1, 2, 0, 1]
    assert found.lengths.tolist() == [3, 5, 3, 3, 5, 3]
    assert found.rows_of(0, 2).tolist() == [1, 4, 0, 2, 5]
    assert sequences().rows.tolist() == []


def test_files_that_differ_in_who_has_which_sequence_differ():
    assert sequences("MA", "MC", "MA").digest() != sequences("MA", "MC", "MC").digest()


def test_every_record_has_the_bytes_that_its_sequence_has_alone(fastas, done):
    once, often = (by_sequence(fastas[name], done[name]) for name in ("once", "often"))
    assert once.keys() == often.keys()
    assert all(set(values) == set(once[sequence]) for sequence, values in often.items())
    assert max(map(len, often.values())) == 3


def test_blocks_smaller_than_a_batch_give_the_same_file(embed, done, tmp_path, monkeypatch):
    monkeypatch.setattr(embedding_file, "BLOCK_BYTES", 10_000)
    folder = embed("often", tmp_path / "out")
    assert (folder / "embeddings.h5").read_bytes() == (done["often"] / "embeddings.h5").read_bytes()


def test_meta_counts_records_and_keeps_to_its_schema(done):
    import jsonschema

    metas = {name: read_meta(folder) for name, folder in done.items()}
    for meta in metas.values():
        jsonschema.validate(meta, json.loads((SCHEMAS / "meta.schema.json").read_text()))
    assert "distinct_sequences" not in metas["once"]
    assert (metas["often"]["sequences"], metas["often"]["distinct_sequences"]) == (43, 23)
    assert metas["often"]["batches"] == metas["once"]["batches"]


def test_the_checksums_are_those_of_all_records(embed, tmp_path):
    folder = embed("often", tmp_path / "out")
    meta = read_meta(folder)
    with EmbeddingFile(folder / "embeddings.h5") as file:
        verify.verify_values(file, meta)
    # The last of three records with one sequence.
    flip_vector(folder, 42)
    with EmbeddingFile(folder / "embeddings.h5") as file, pytest.raises(verify.Unusable, match="checksum of mean"):
        verify.verify_values(file, meta)


class Interruption(BaseException):
    """Something that nobody catches."""


def interrupt(embed, folder: Path) -> None:
    submit, calls = Pipeline.submit, []

    def submit_or_fail(self, batch):
        calls.append(batch)
        if len(calls) == 6:
            raise Interruption
        return submit(self, batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Pipeline, "submit", submit_or_fail)
        with pytest.raises(Interruption):
            embed("often", folder)


def test_an_interrupted_run_goes_on_to_the_same_bytes(embed, done, tmp_path, caplog):
    interrupt(embed, tmp_path / "out")
    kept = json.loads((tmp_path / "out.partial/progress.json").read_text())["done"]
    with caplog.at_level("INFO"):
        embed("often", tmp_path / "out")
    assert f"resuming after {kept} of 23 sequences" in caplog.text
    assert (tmp_path / "out/embeddings.h5").read_bytes() == (done["often"] / "embeddings.h5").read_bytes()
    assert read_meta(tmp_path / "out")["checksums"] == read_meta(done["often"])["checksums"]


def test_damage_to_any_record_is_noticed_before_going_on(embed, fastas, tmp_path, caplog):
    interrupt(embed, tmp_path / "out")
    lengths = read_embeddings(tmp_path / "out.partial/embeddings.h5")["lengths"]
    longest = np.flatnonzero(lengths == lengths.max())
    assert len(longest) > 1
    flip_vector(tmp_path / "out.partial", int(longest[-1]))
    embed("often", tmp_path / "out")
    assert "cannot resume the earlier run (it is damaged: checksum of mean); starting over" in caplog.text


def test_all_records_need_space(embed, tiny_model, fastas, tmp_path, monkeypatch):
    residues = sum(len(record.sequence) for record in read_records(fastas["often"], PROTEIN))
    needed = residues * 16 * 4 + 43 * 16 * 4
    usage = type("Usage", (), {"free": needed - 1})
    monkeypatch.setattr(layout.shutil, "disk_usage", lambda _: usage)
    said = refusal(small_run.embed, tiny_model, fastas["often"], tmp_path / "out", pooling=BOTH, batch_size=600)
    assert "the embeddings need" in said
    usage.free = needed
    embed("often", tmp_path / "out")
