"""Earlier results that cannot be used: each is refused in a sentence, and stays as it is."""

import shutil

import damage
import h5py
import pandas as pd
import pytest
from embeddings import read_embeddings
from refusals import refusal
from small_run import SmallRun, embed

from seqmill.outputs import earlier, reused
from seqmill.outputs.embedding_file import EmbeddingFile
from seqmill.planning import config as configuration
from seqmill.planning import reuse as planning


@pytest.fixture
def old(small_run, tmp_path):
    """A copy of a merged result, for a test to change."""
    folder = tmp_path / "old"
    folder.mkdir()
    for path in (small_run.embeddings, small_run.index):
        shutil.copy(path, folder)
    return folder


def places(*given) -> None:
    files = earlier.located(given)
    earlier.common_attributes(files)
    reused.places(files)


def cut_off(folder) -> None:
    path = folder / "embeddings.h5"
    with EmbeddingFile(path) as file:
        damage.truncate(path, file.extents["mean"].end - 4)


def other_index(folder) -> None:
    path = folder / "index.parquet"
    pd.read_parquet(path).iloc[::-1].to_parquet(path, index=False)


def strip_attributes(folder) -> None:
    damage.edit_embeddings(folder, lambda file: file.attrs.pop("fingerprint"))


def drop_hashes(folder) -> None:
    path = folder / "index.parquet"
    pd.read_parquet(path).drop(columns="sequence_sha256").to_parquet(path, index=False)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda folder: shutil.rmtree(folder), "there is no file or folder"),
        (lambda folder: (folder / "embeddings.h5").unlink(), "holds no embeddings.h5"),
        (lambda folder: (folder / "index.parquet").unlink(), "has no index.parquet beside it"),
        (lambda folder: damage.truncate(folder / "index.parquet", 500), "index.parquet: cannot be read"),
        (lambda folder: damage.truncate(folder / "embeddings.h5", 500), "is not a result of seqmill, or a damaged one"),
        (cut_off, "damaged"),
        (other_index, "lists other sequences than embeddings.h5 beside it"),
        (drop_hashes, "has no column sequence_sha256"),
        (strip_attributes, "does not say what it was made with"),
    ],
    ids=range(9),
)
def test_what_is_no_whole_result_is_refused_when_the_input_is_split(old, change, says):
    change(old)
    sentence = refusal(places, old)
    assert str(old) in sentence
    assert says in sentence


def test_results_of_different_settings_are_refused(small_run, tiny_model, small_fasta, tmp_path):
    assert embed(tiny_model, small_fasta, tmp_path / "bos", index=True, pooling=("mean", "bos")) == 0
    sentence = refusal(places, small_run.folder, tmp_path / "bos")
    assert sentence == (
        f"reuse: {tmp_path / 'bos/embeddings.h5'} was made with other pooling than {small_run.embeddings}; use the same "
        "settings, or take it out of the list"
    )


@pytest.mark.parametrize(
    ("chosen", "says"),
    [
        ({"pooling": ("bos",)}, "was made with other pooling than this run"),
        ({"layers": (0,)}, "was made with other layers than this run"),
        ({"dtype": "bfloat16"}, "was made with other dtype than this run"),
    ],
    ids=str,
)
def test_other_settings_are_refused_before_anything_is_computed(
    small_run, tiny_model, small_fasta, tmp_path, chosen, says
):
    run = SmallRun(tmp_path / "run")
    assert says in refusal(run.embed, tiny_model, small_fasta, [small_run.folder], **chosen)
    assert not list(run.folder.rglob("*.h5"))


def test_another_model_is_refused_before_anything_is_computed(small_run, demo_model, small_fasta, tmp_path):
    run = SmallRun(tmp_path / "run")
    sentence = refusal(run.embed, demo_model, small_fasta, [small_run.folder], layers=(1,))
    assert f"reuse: {small_run.embeddings} was made with other model weights than this run" in sentence


@pytest.fixture
def ready(old, tiny_model, small_fasta, tmp_path):
    """A run that takes all but its one new sequence from an earlier result, before its merge."""
    fasta = tmp_path / "more.fasta"
    fasta.write_text(small_fasta.read_text() + ">new\nMKTAYIAKQRQISFVKSHFSRQ\n")
    run = SmallRun(tmp_path / "run", count=1)
    run.embed(tiny_model, fasta, [old])
    run.check()
    return run


def assert_merge_refuses(run, old, says) -> None:
    before = {path: path.read_bytes() for path in old.iterdir()}
    sentence = refusal(run.merge)
    assert str(old) in sentence
    assert says in sentence
    assert not run.embeddings.exists()
    # Unlike a damaged shard, which is removed to be computed again, it is the user's own.
    assert {path: path.read_bytes() for path in old.iterdir()} == before
    assert run.parts[0].exists()


def test_merge_refuses_an_earlier_result_that_is_no_longer_what_it_was(ready, old, small_run, tiny_model, tmp_path):
    whole = tmp_path / "whole"
    shutil.copytree(old, whole)

    def put_back():
        shutil.rmtree(old, ignore_errors=True)
        shutil.copytree(whole, old)

    damage.write_nan(old)
    assert_merge_refuses(ready, old, "mean of row 3 is not finite")
    put_back()
    with h5py.File(old / "embeddings.h5", "a") as file:
        file.attrs["dtype"] = "float16"
    assert_merge_refuses(ready, old, "was made with other dtype than this run")
    put_back()
    path = old / "index.parquet"
    index = pd.read_parquet(path)
    index["sequence_sha256"] = index["sequence_sha256"].iloc[::-1].to_numpy()
    index.to_parquet(path, index=False)
    assert_merge_refuses(ready, old, "holds other sequences than when the shards were made")
    shutil.rmtree(old)
    assert "there is no file or folder" in refusal(ready.merge)
    put_back()
    ready.merge()
    assert len(read_embeddings(ready.embeddings)["ids"]) == 25


@pytest.mark.parametrize("damaged", ["values", "meta.json"])
def test_the_checksums_of_the_command_embed_are_compared(tiny_model, small_fasta, tmp_path, damaged):
    old = tmp_path / "old"
    assert embed(tiny_model, small_fasta, old, index=True) == 0
    run = SmallRun(tmp_path / "run", count=1)
    run.embed(tiny_model, small_fasta, [old])
    if damaged == "values":
        damage.flip_vector(old)
        assert_merge_refuses(run, old, "the checksum of mean does not match meta.json")
    else:
        damage.truncate(old / "meta.json", 50)
        assert_merge_refuses(run, old, "meta.json is damaged")


# Planning


def planned(given, own=(), **model) -> str:
    config = configuration.check({"fasta": "x.fasta", "reuse": given, "model": model})
    return refusal(planning.check, config, planning.earlier_results(config), own)


def test_planning_refuses_what_it_can_see(small_run, tmp_path):
    folder, file = str(small_run.folder), small_run.embeddings
    assert "there is no file or folder nowhere" in planned("nowhere")
    assert f"{file} was made with model.dtype float32, and this configuration asks for float16" in planned(
        [folder], dtype="float16"
    )
    assert "was made with model.pooling [mean], and this configuration asks for [bos, mean]" in planned(
        [folder], pooling=["mean", "bos"]
    )
    (tmp_path / "link").symlink_to(folder)
    assert "is what this run writes itself" in planned(str(tmp_path / "link"), [file])
    config = configuration.check({"fasta": "x.fasta", "reuse": [folder]})
    planning.check(config, planning.earlier_results(config), [tmp_path / "embeddings.h5"])


def test_paths_are_given_in_several_ways():
    for given, paths in ((None, []), ([], []), ("a", ["a"]), (["a", "-b"], ["a", "./-b"])):
        config = configuration.check({"fasta": "x.fasta", "reuse": given})
        assert planning.earlier_results(config) == paths
    assert "reuse" in refusal(configuration.check, {"fasta": "x.fasta", "reuse": 3})
    assert "holds braces" in refusal(planning.earlier_results, {"reuse": ["{a}"]})
