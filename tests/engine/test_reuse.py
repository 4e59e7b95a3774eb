"""`--reuse` of the command embed: what earlier results hold is copied, and the result is that of a run from nothing."""

import damage
import numpy as np
import pandas as pd
import processes
import pytest
from embeddings import read_attributes, read_embeddings, read_meta
from paths import SCRIPTS
from refusals import refusal
from small_run import embed

import seqmill
from seqmill.outputs.partial import Partial

NEW = ">new only here\nMKTAYIAKQRQISFVKSHFSRQLEERLGLIEVQ\n>again\nMKTAYIAKQRQISFVKSHFSRQLEERLGLIEVQ\n"


@pytest.fixture
def more(small_fasta, tmp_path):
    """The small input without its first records, and with a new sequence, twice, in front."""
    records = small_fasta.read_text().split(">")[4:]
    path = tmp_path / "more.fasta"
    path.write_text(NEW + "".join(f">{record}" for record in records))
    return path


def assert_as_from_nothing(folder, fresh) -> None:
    found, expected = (read_embeddings(path / "embeddings.h5") for path in (folder, fresh))
    assert list(found) == list(expected)
    assert found.pop("ids") == expected.pop("ids")
    for name, values in expected.items():
        assert found[name].dtype == values.dtype
        assert np.linalg.norm(found[name] - values) <= 1e-6 * np.linalg.norm(values)
    np.testing.assert_equal(*(read_attributes(path / "embeddings.h5") for path in (folder, fresh)))
    index, whole = (pd.read_parquet(path / "index.parquet") for path in (folder, fresh))
    pd.testing.assert_frame_equal(index[whole.columns], whole)


def test_only_what_is_new_is_computed(small_run, tiny_model, more, tmp_path, monkeypatch):
    computed = []
    write = Partial.write

    def counted(self, count, values, known):
        computed.append(count)
        write(self, count, values, known)

    monkeypatch.setattr(Partial, "write", counted)
    folder = tmp_path / "run"
    assert embed(tiny_model, more, folder, index=True, reuse=(str(small_run.folder),)) == 0
    # The copied ones, then the new one.
    assert computed == [21, 1]
    assert embed(tiny_model, more, tmp_path / "fresh", index=True) == 0
    assert_as_from_nothing(folder, tmp_path / "fresh")
    index = pd.read_parquet(folder / "index.parquet")
    assert index["reused_from"].isna().tolist() == [True, True] + [False] * 21
    assert set(index["reused_from"].dropna()) == {str(small_run.embeddings)}
    meta = read_meta(folder)
    assert (meta["reused_sequences"], meta["resumed_after"], meta["distinct_sequences"]) == (21, 0, 22)
    # It is a source itself, with nothing left to compute, and holds what its checksums say.
    assert embed(tiny_model, more, tmp_path / "next", index=True, reuse=(str(folder),)) == 0
    assert computed[-1] == 22
    assert (tmp_path / "next/embeddings.h5").read_bytes() == (folder / "embeddings.h5").read_bytes()


def test_residues_and_several_layers_are_copied(tiny_model, small_fasta, more, tmp_path):
    chosen = {"index": True, "pooling": ("mean", "residues"), "layers": (0, 1), "dtype": "bfloat16"}
    assert embed(tiny_model, small_fasta, tmp_path / "old", **chosen) == 0
    assert embed(tiny_model, more, tmp_path / "fresh", **chosen) == 0
    reuse = (str(tmp_path / "old"),)
    # Its dtype is that of the earlier result.
    assert embed(tiny_model, more, tmp_path / "run", **{**chosen, "reuse": reuse, "dtype": "auto"}) == 0
    found, old = (read_embeddings(tmp_path / name / "embeddings.h5") for name in ("run", "old"))
    assert found["residues_layer1"][-100:].tobytes() == old["residues_layer1"][-100:].tobytes()
    assert read_attributes(tmp_path / "run/embeddings.h5")["dtype"] == "bfloat16"
    assert list(found) == list(read_embeddings(tmp_path / "fresh/embeddings.h5"))


def test_what_cannot_be_reused_is_refused(small_run, tiny_model, small_fasta, more, tmp_path):
    old = tmp_path / "old"
    assert embed(tiny_model, small_fasta, old, index=True) == 0
    own = refusal(embed, tiny_model, more, old, index=True, reuse=(str(old),))
    assert "is what this run writes itself" in own
    other = refusal(embed, tiny_model, more, tmp_path / "run", index=True, reuse=(str(old),), pooling=("bos",))
    assert "was made with other pooling than this run" in other
    damage.flip_vector(old)
    damaged = refusal(embed, tiny_model, more, tmp_path / "run", index=True, reuse=(str(old),))
    assert "the checksum of mean does not match meta.json" in damaged
    assert not (tmp_path / "run/embeddings.h5").exists()


def test_from_python_and_from_the_command_line(small_run, tiny_model, more, tmp_path):
    made = seqmill.embed(more, model=tiny_model, device="cpu", dataloader_workers=0, reuse=[small_run.folder])
    with made, seqmill.open(small_run.folder) as old:
        assert made.index["reused_from"].notna().sum() == 21
        assert made[old.ids[5]].tobytes() == old[old.ids[5]].tobytes()
    command = [SCRIPTS / "embed.py", "--fasta", more, "--model", tiny_model, "--output", tmp_path / "run"]
    done = processes.run(*command, "--device", "cpu", "--reuse", tmp_path / "nowhere")
    assert done.returncode == 1
    assert f"error: reuse: there is no file or folder {tmp_path / 'nowhere'}" in done.stdout
