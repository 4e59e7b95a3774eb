"""Shards that are damaged or do not belong: check and merge find them, and say so."""

import shutil

import damage
import numpy as np
import pandas as pd
import pytest

from seqmill.errors import UserError
from seqmill.outputs import oom_reports, verify

FOREIGN = {
    "weights": (lambda folder: damage.edit_meta(folder, checksum="0" * 64), "other model weights than"),
    "dtype": (lambda folder: damage.edit_meta(folder, dtype="bfloat16"), "other dtype than"),
    "layers": (lambda folder: damage.edit_meta(folder, layers=[3]), "other layers than"),
    "pooling": (lambda folder: damage.edit_meta(folder, pooling=["bos"]), "other pooling than"),
    "fingerprint": (lambda folder: damage.edit_meta(folder, fingerprint="0" * 64), "other settings than"),
    "earlier version": (
        lambda folder: damage.remove_from_meta(folder, "seal", "checksums"),
        "was written by another version of seqmill",
    ),
    "another shard": (
        lambda folder: damage.take_from(folder.parent / "0", folder, "embeddings.h5", "meta.json"),
        "other sequences",
    ),
}

DAMAGED = {
    "no meta.json": (lambda folder: (folder / "meta.json").unlink(), "there is no meta.json"),
    "truncated meta.json": (lambda folder: damage.truncate(folder / "meta.json", 100), "meta.json is damaged"),
    "no JSON object": (lambda folder: (folder / "meta.json").write_text("[]"), "meta.json is damaged"),
    "a changed byte of meta.json": (
        lambda folder: damage.flip_in(folder / "meta.json", "SDPA"),
        "meta.json is damaged",
    ),
    "no embeddings.h5": (lambda folder: (folder / "embeddings.h5").unlink(), "there is no embeddings.h5"),
    "truncated embeddings.h5": (
        lambda folder: damage.truncate(folder / "embeddings.h5", 3000),
        "embeddings.h5 is damaged (Unable to synchronously open file (truncated file",
    ),
    "a longer embeddings.h5": (
        lambda folder: damage.truncate(folder / "embeddings.h5", (folder / "embeddings.h5").stat().st_size + 1),
        "the checksum of its metadata does not match",
    ),
    "embeddings.h5 of another shard": (
        lambda folder: damage.take_from(folder.parent / "0", folder, "embeddings.h5"),
        "the checksum of its metadata does not match",
    ),
    "a flipped bit in a vector": (damage.flip_vector, "the checksum of mean does not match"),
    "a flipped bit in an id": (damage.flip_id, "the checksum of its metadata does not match"),
    "not a number": (damage.write_nan, "(mean of row 3 is not finite)"),
    "another attribute": (
        lambda folder: damage.edit_embeddings(folder, lambda file: file.attrs.update(fingerprint="0" * 64)),
        "the checksum of its metadata does not match",
    ),
    "no vectors in embeddings.h5": (
        lambda folder: damage.edit_embeddings(folder, lambda file: file.pop("mean")),
        "embeddings.h5 is damaged",
    ),
    "no folder": (shutil.rmtree, "there is no meta.json"),
}


def assert_refused_by_check_and_merge(run, says, tamper):
    for refuse in (run.check, run.merge):
        tamper(run.parts[1])
        with pytest.raises(UserError) as refused:
            refuse()
        assert says in str(refused.value)
        assert "embed/1" in str(refused.value)
        assert "\n" not in str(refused.value)
        assert [path.name for path in run.folder.iterdir()] == ["embed"]


@pytest.mark.parametrize(("tamper", "says"), FOREIGN.values(), ids=FOREIGN)
def test_a_shard_that_does_not_belong_is_refused_and_left_alone(copied_run, tamper, says):
    copied_run.check()
    assert_refused_by_check_and_merge(copied_run, says, tamper)
    assert (copied_run.parts[1] / "embeddings.h5").exists()


@pytest.mark.parametrize(("tamper", "says"), DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_shard_is_removed_to_be_done_again(copied_run, small_run, tamper, says):
    def restore_and_tamper(folder):
        shutil.copytree(small_run.parts[1], folder, dirs_exist_ok=True)
        tamper(folder)

    assert_refused_by_check_and_merge(copied_run, says, restore_and_tamper)
    assert not copied_run.parts[1].exists()
    assert (copied_run.parts[0] / "embeddings.h5").exists()


@pytest.mark.parametrize("dtype", ["f2", "f4"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_seen(dtype, bad):
    values = np.array([[0, -65504, 65504, 6e-8]], dtype)
    assert verify.all_finite(values)
    assert not verify.all_finite(np.vstack([values, np.full(4, bad, dtype)]))
    assert verify.all_finite(values[:0])


def test_all_damaged_shards_are_named_at_once(copied_run):
    for folder in copied_run.parts:
        damage.flip(folder / "embeddings.h5", -1)
    with pytest.raises(UserError, match=r"^2 of 2 shards are missing or damaged.*embed/0: .*embed/1: "):
        copied_run.check()


@pytest.mark.parametrize("content", ["", "{}", '{"status": "oom"'])
def test_a_damaged_diagnosis_is_named(copied_run, tmp_path, content):
    (copied_run.parts[1] / "oom.json").write_text(content)
    with pytest.raises(UserError, match=r"embed/1/oom.json: is damaged or of another version; remove"):
        oom_reports.collect(copied_run.parts, tmp_path / "oom")
    assert copied_run.parts[0].exists()


def test_a_folder_too_few_is_refused(copied_run):
    """Or the rows of the shard left out would hold whatever memory held."""
    copied_run.parts.pop()
    with pytest.raises(UserError, match="assigns sequences to shard 1, but 1 folders were given"):
        copied_run.check()


def test_a_shard_of_another_input_is_refused(copied_run, embed_and_merge, tiny_model, tmp_path):
    """Folders left by an earlier input, as after a copied results directory."""
    (tmp_path / "other.fasta").write_text(">a\nMKTAYIAKQR\n>b\nMKVLAAGG\n")
    embed_and_merge(tiny_model, tmp_path / "other.fasta", tmp_path)
    copied_run.parts[1] = tmp_path / "embed/1"
    with pytest.raises(UserError, match="other sequences than this shard of the input"):
        copied_run.check()


def test_the_scripts_refuse_with_one_sentence(project, copied_run):
    """What stands on the screen, and that nothing is left that looks like a result."""
    shutil.copytree(copied_run.folder / "embed", project.folder / "embed")
    damage.edit_meta(project.folder / "embed/1", checksum="0" * 64)
    before = set(project.folder.iterdir())
    inputs = ["--folders", "embed/0", "embed/1", "--records", copied_run.records]
    check = project.script("check.py", *inputs, "--oom", "o", "--output", "s.tsv")
    merge = project.script("merge.py", *inputs, "--embeddings", "e.h5", "--index", "i.parquet")
    for done in (check, merge):
        assert done.returncode == 1
        assert done.stdout == (
            "error: embed/1 was made with other model weights than embed/0; run again with --forcerun embed\n"
        )
    assert set(project.folder.iterdir()) == before


def test_summary_has_a_row_for_every_shard(small_run):
    summary = small_run.check()
    index = pd.read_parquet(small_run.index).drop_duplicates("sequence_sha256")
    assert summary["shard"].tolist() == ["0", "1"]
    assert summary["sequences"].tolist() == index["shard"].value_counts().sort_index().tolist()
    assert summary["residues"].tolist() == index.groupby("shard")["length"].sum().tolist()
    assert summary["longest"].tolist() == index.groupby("shard")["length"].max().tolist()


def test_what_a_cpu_cannot_measure_is_left_out_of_the_summary_on_the_terminal(small_run):
    said = verify.shown(small_run.check())
    assert "None" not in said
    assert "NaN" not in said
    heading = said.splitlines()[0].split()
    assert heading[:4] == ["shard", "sequences", "residues", "longest"]
    assert not {"utilisation", "peak_GiB"} & set(heading)
