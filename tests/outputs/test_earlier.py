"""Earlier results as sources: what they hold is not computed again, and the result is that of a run from nothing."""

import random
import shutil

import dnabert_reference
import numpy as np
import pandas as pd
import pytest
from embeddings import read_attributes, read_embeddings, read_meta
from paths import REPOSITORY
from small_run import SmallRun, embed

NEW = "MKTAYIAKQRQISFVKSHFSRQLEERLGLIEVQ"


def write(path, records):
    path.write_text("".join(f">{name}\n{sequence}\n" for name, sequence in records))
    return path


@pytest.fixture(scope="module")
def records(small_fasta):
    """Id and sequence of the small input's 24 records."""
    entries = (record.split("\n", 1) for record in small_fasta.read_text().split(">")[1:])
    return [(title.split()[0], sequence.replace("\n", "")) for title, sequence in entries]


def finish(run, *arguments, **settings) -> SmallRun:
    run.embed(*arguments, **settings)
    run.check()
    run.merge()
    return run


def computed(run) -> list[str]:
    return [name for part in run.parts for name in read_embeddings(part / "embeddings.h5")["ids"]]


def assert_as_from_nothing(run, model, fasta, folder, **settings) -> None:
    """The same ids, lengths, datasets and attributes, and values that differ by rounding at most."""
    fresh = finish(SmallRun(folder), model, fasta, **settings)
    found, expected = read_embeddings(run.embeddings), read_embeddings(fresh.embeddings)
    assert found["ids"] == expected.pop("ids")
    assert list(found) == [*expected, "ids"]
    for name, values in expected.items():
        assert (found[name].dtype, found[name].shape) == (values.dtype, values.shape)
        assert np.linalg.norm(found[name] - values) <= 1e-6 * np.linalg.norm(values)
    np.testing.assert_equal(read_attributes(run.embeddings), read_attributes(fresh.embeddings))
    index, whole = pd.read_parquet(run.index), pd.read_parquet(fresh.index)
    columns = whole.columns.drop(["shard", "row"])
    pd.testing.assert_frame_equal(index[columns], whole[columns])
    assert list(index.columns) == [*whole.columns, "reused_from"]


def test_added_removed_moved_and_repeated_records_give_what_a_run_from_nothing_gives(
    small_run, records, tiny_model, tmp_path
):
    changed = [*records[3:], ("new", NEW), ("copy", records[5][1]), ("new_copy", NEW)]
    random.Random(1).shuffle(changed)
    fasta = write(tmp_path / "changed.fasta", changed)
    run = finish(SmallRun(tmp_path / "run"), tiny_model, fasta, [small_run.folder])
    assert_as_from_nothing(run, tiny_model, fasta, tmp_path / "fresh")
    index, old = pd.read_parquet(run.index), pd.read_parquet(small_run.index)
    assert computed(run) == [index["sequence_sha256"][index["id"].tolist().index("new")]]
    # What was taken, and from where, to the last bit.
    vectors, before = read_embeddings(run.embeddings)["mean"], read_embeddings(small_run.embeddings)["mean"]
    is_new = index["id"].isin(["new", "new_copy"])
    assert index["reused_from"].isna().tolist() == is_new.tolist()
    assert set(index["reused_from"].dropna()) == {str(small_run.embeddings)}
    assert (index["shard"][~is_new] == -1).all()
    rows = index["row"][~is_new].to_numpy()
    assert vectors[~is_new].tobytes() == before[rows].tobytes()
    assert old["sequence_sha256"][rows].tolist() == index["sequence_sha256"][~is_new].tolist()


def test_nothing_new_is_a_whole_result(small_run, records, tiny_model, tmp_path):
    fasta = write(tmp_path / "fewer.fasta", records[4:9])
    run = finish(SmallRun(tmp_path / "run"), tiny_model, fasta, [small_run.folder])
    assert computed(run) == []
    assert_as_from_nothing(run, tiny_model, fasta, tmp_path / "fresh")


def test_the_first_of_several_results_counts_and_each_may_be_of_the_command_embed(
    small_run, records, tiny_model, tmp_path
):
    given = write(tmp_path / "embedded.fasta", [*records[:2], ("new", NEW), ("again", NEW)])
    assert embed(tiny_model, given, tmp_path / "embedded", index=True) == 0
    fasta = write(tmp_path / "all.fasta", [*records, ("last", NEW)])
    for order in ([small_run.folder, tmp_path / "embedded"], [tmp_path / "embedded", small_run.folder]):
        run = finish(SmallRun(tmp_path / f"from_{order[0].name}"), tiny_model, fasta, order)
        assert computed(run) == []
        index = pd.read_parquet(run.index)
        assert index["reused_from"][0] == str(order[0] / "embeddings.h5")
        assert index["reused_from"][24] == str(tmp_path / "embedded/embeddings.h5")
        # A result that was made so is a source like any other.
        next_run = finish(SmallRun(tmp_path / f"after_{order[0].name}"), tiny_model, fasta, [run.folder])
        assert (
            read_embeddings(next_run.embeddings)["mean"].tobytes() == read_embeddings(run.embeddings)["mean"].tobytes()
        )


def test_every_layer_and_representation_is_taken(records, demo_model, tmp_path):
    chosen = {"layers": (0, 3, -1), "pooling": ("mean", "bos", "residues")}
    old = finish(SmallRun(tmp_path / "old"), demo_model, write(tmp_path / "old.fasta", records[:4]), **chosen)
    fasta = write(tmp_path / "new.fasta", [("new", NEW), *records[1:5], ("twin", records[2][1])])
    run = finish(SmallRun(tmp_path / "run"), demo_model, fasta, [old.folder], **chosen)
    assert len(computed(run)) == 2
    assert_as_from_nothing(run, demo_model, fasta, tmp_path / "fresh", **chosen)


def test_tokens_of_several_bases_are_taken_with_their_places(tmp_path):
    model = dnabert_reference.write(tmp_path / "model")
    sequences = [("a", "ACGTTGCANNGGCATTACGGATTACA" * 3), ("b", "TTTTACGACGGATCCATG" * 5), ("c", "GATTACA" * 9)]
    chosen = {"pooling": ("mean_all", "residues")}
    old = finish(SmallRun(tmp_path / "old"), model, write(tmp_path / "old.fasta", sequences[:2]), **chosen)
    fasta = write(tmp_path / "new.fasta", sequences[::-1])
    run = finish(SmallRun(tmp_path / "run"), model, fasta, [old.folder], **chosen)
    assert len(computed(run)) == 1
    assert "token_starts" in read_embeddings(run.embeddings)
    assert_as_from_nothing(run, model, fasta, tmp_path / "fresh", **chosen)


def test_a_result_of_version_0_1_is_taken(tmp_path):
    shutil.unpack_archive(REPOSITORY / "tests/data/version_0_1.tar.gz", tmp_path)
    fasta = tmp_path / "more.fasta"
    fasta.write_text((tmp_path / "input.fasta").read_text() + f">new\n{NEW}\n")
    chosen = {"pooling": ("mean", "residues")}
    run = finish(SmallRun(tmp_path / "run"), tmp_path / "model", fasta, [tmp_path], **chosen)
    assert len(computed(run)) == 1
    found, old = read_embeddings(run.embeddings), read_embeddings(tmp_path / "embeddings.h5")
    assert found["mean"][: len(old["mean"])].tobytes() == old["mean"].tobytes()
    assert found["residues"][: len(old["residues"])].tobytes() == old["residues"].tobytes()


def test_dtype_auto_is_that_of_the_earlier_result(records, tiny_model, tmp_path):
    half = finish(SmallRun(tmp_path / "half"), tiny_model, write(tmp_path / "old.fasta", records[:3]), dtype="bfloat16")
    fasta = write(tmp_path / "new.fasta", records[:4])
    run = finish(SmallRun(tmp_path / "run"), tiny_model, fasta, [half.folder])
    assert {read_meta(part)["dtype"] for part in run.parts} == {"bfloat16"}
    assert read_attributes(run.embeddings)["dtype"] == "bfloat16"
