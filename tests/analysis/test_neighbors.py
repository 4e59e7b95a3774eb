"""seqmill neighbors: of a result's own sequences, of another result, of a FASTA file; what is left out, and what is refused."""

import numpy as np
import pandas as pd
import processes
import pytest
import torch
from made_results import write_result
from paths import SCRIPTS
from refusals import refusal, written
from small_run import embed

import seqmill
from seqmill.analysis.neighbors import Sizes
from seqmill.analysis.neighbors import neighbors as tables_of
from seqmill.analysis.vectors import Vectors, poolable
from seqmill.outputs.embedding_file import EmbeddingFile

RANDOM = np.random.default_rng(1)
CPU = torch.device("cpu")
# p0, p1, p2 and p3 point away from one another more and more; the same sequence is p1 and p4.
FEW = np.array([[1, 0], [1, 0.2], [1, 1], [0, 1], [1, 0.2], [0, 0]], np.float32)
SEQUENCES = ["MKA", "MKV", "MKL", "MKI", "MKV", "MKW"]


@pytest.fixture
def few(tmp_path):
    return write_result(tmp_path / "few", {"mean": FEW}, SEQUENCES)


def pairs(table: pd.DataFrame) -> dict[str, list[str]]:
    return table.groupby("query", sort=False)["neighbor"].agg(list).to_dict()


def test_a_record_is_not_its_own_neighbour_and_a_sequence_is_one_once(few):
    table = seqmill.neighbors(few, k=3)
    found = pairs(table)
    assert found["p0"] == ["p1", "p2", "p3"]
    assert found["p1"] == found["p4"] == ["p0", "p2", "p3"]
    first = table.iloc[0]
    assert first["similarity"] == pytest.approx(1 / np.sqrt(1.04))
    assert (first["rank"], first["query_length"], first["neighbor_description"]) == (1, 3, "protein 1")


def test_all_duplicates_can_be_neighbours(few):
    found = pairs(seqmill.neighbors(few, k=2, duplicates="all"))
    assert found["p0"] == ["p1", "p4"]
    assert found["p1"] == ["p4", "p0"]


def test_a_vector_of_zeros_is_like_nothing_and_ties_keep_the_order(few):
    table = seqmill.neighbors(few, k=9, ids=["p5"])
    assert table["neighbor"].tolist() == ["p0", "p1", "p2", "p3"]
    assert table["similarity"].tolist() == [0] * 4


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("sizes", [Sizes(10**6, 10**6, 10**6), Sizes(70, 50, 33), Sizes(256, 512, 64)])
def test_any_sizes_give_the_same_table(tmp_path, dtype, sizes):
    values = (RANDOM.normal(size=16) * 2 + RANDOM.normal(size=(300, 16))).astype(dtype)
    folder = write_result(tmp_path, {"mean_layer1": values[::-1].copy(), "mean_layer2": values})
    unit = values / np.linalg.norm(values.astype(float), axis=1, keepdims=True)
    scores = (unit @ unit.T).astype(np.float32)
    np.fill_diagonal(scores, -np.inf)
    expected = np.argsort(-scores, axis=1, kind="stable")[:, :5]
    with Vectors(folder) as database:
        found = pd.concat([part.to_pandas() for part in tables_of(database, None, 5, CPU, sizes=sizes)])
    assert found["neighbor"].tolist() == [f"p{row}" for row in expected.ravel()]
    assert np.array_equal(found["similarity"], np.take_along_axis(scores, expected, axis=1).ravel())
    other = seqmill.neighbors(folder, k=1, layer=1, ids=["p299"])
    assert other["neighbor"].tolist() == [f"p{299 - expected[0, 0]}"]


def test_another_result_may_ask(few, tmp_path):
    asking = write_result(tmp_path / "asking", {"mean": FEW[[3, 1]]}, ["MKI", "MKV"], ids=["a", "b"])
    table = seqmill.neighbors(few, asking, k=2)
    assert pairs(table) == {"a": ["p3", "p2"], "b": ["p1", "p0"]}
    assert table["similarity"][0] == 1


def test_of_residues_alone_the_means_are_compared(tmp_path):
    states = RANDOM.normal(size=(3 * 6, 4)).astype(np.float16)
    folder = write_result(tmp_path, {}, SEQUENCES, states=states)
    means = states.astype(float).reshape(6, 3, 4).mean(axis=1)
    with Vectors(folder) as vectors:
        np.testing.assert_allclose(vectors.read(1, 6), means[1:], rtol=1e-6)
    table = seqmill.neighbors(folder, k=1, ids=["p0"])
    unit = means / np.linalg.norm(means, axis=1, keepdims=True)
    # p4 has the sequence of p1.
    assert table["similarity"][0] == pytest.approx((unit[[1, 2, 3, 5]] @ unit[0]).max())


@pytest.mark.slow
def test_a_fasta_file_is_embedded_as_the_result_was(small_run, small_fasta, tmp_path):
    """Each finds itself; the twin finds the first record with its sequence."""
    done = processes.run(
        SCRIPTS / "neighbors.py",
        *("--embeddings", small_run.folder, "--queries", small_fasta, "--k", "2", "--device", "cpu"),
        *("--output", tmp_path / "out/found.tsv"),
    )
    assert done.returncode == 0, done.stdout
    table = pd.read_csv(tmp_path / "out/found.tsv", sep="\t")
    best = table[table["rank"] == 1]
    assert len(table) == 48
    assert best["neighbor"].tolist()[:-1] == best["query"].tolist()[:-1]
    assert best["neighbor"].tolist()[-1] == best["query"].tolist()[2]
    assert (best["similarity"] > 1 - 1e-6).all()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["found.tsv"]


def test_tables_hold_any_description(tmp_path):
    said = ['"quoted" at first', "a\ttab", 'in "the" middle', "", "ünïcode", "'"]
    folder = write_result(tmp_path, {"mean": FEW}, SEQUENCES, said)
    for name in ("table.tsv", "table.parquet"):
        assert seqmill.neighbors(folder, k=2, output=tmp_path / name) is None
    text = pd.read_csv(tmp_path / "table.tsv", sep="\t", keep_default_na=False)
    table = pd.read_parquet(tmp_path / "table.parquet")
    pd.testing.assert_frame_equal(table, seqmill.neighbors(folder, k=2))
    assert text["neighbor_description"].tolist() == [d.replace("\t", " ") for d in table["neighbor_description"]]
    assert np.array_equal(text["similarity"].astype(np.float32), table["similarity"])


def test_what_cannot_be_answered_is_refused_in_a_sentence(few, small_run, tmp_path):
    neighbors = seqmill.neighbors
    assert "there is no sequence 'p9'" in refusal(neighbors, few, ids=["p1", "p9"])
    assert "holds no bos per sequence; it has mean" in refusal(neighbors, few, pooling="bos")
    assert "holds no mean of layer 7; it has 1" in refusal(neighbors, few, layer=7)
    assert "k is 0" in refusal(neighbors, few, k=0)
    assert "ends in .tsv or .parquet" in refusal(neighbors, few, output=tmp_path / "table.xlsx")
    assert "there is no such file or folder" in refusal(neighbors, tmp_path / "none")
    assert "ids: give a list" in refusal(neighbors, few, ids="p1")
    assert "made with another model" in refusal(neighbors, few, small_run.folder)
    other = write_result(tmp_path / "other", {"mean": np.ones((2, 3), np.float32)}, ["MKI", "MKV"])
    assert "3 values, those of" in refusal(neighbors, few, other)
    bad = write_result(tmp_path / "bad", {"mean": FEW * np.float32(np.nan)}, SEQUENCES)
    assert "row 0 is not finite" in refusal(neighbors, bad)


def test_a_model_that_is_not_there_or_another_is_refused(few, tiny_model, tmp_path):
    fasta = written(tmp_path, b">a\nMKTAYIAK\n")
    missing = write_result(tmp_path / "missing", {"mean": FEW}, SEQUENCES, model=str(tmp_path / "gone"))
    assert "if it was moved, give its folder with --model" in refusal(seqmill.neighbors, missing, fasta)
    assert "is another one than that of" in refusal(seqmill.neighbors, few, fasta, model=tiny_model)
    windows = write_result(tmp_path / "windows", {"mean": FEW}, SEQUENCES, model=str(tiny_model), long="window")
    assert "is another one than" in refusal(seqmill.neighbors, windows, fasta)
    assert "cannot be read" in refusal(seqmill.neighbors, few, tmp_path / "none.fasta")


def test_what_was_done_to_sequences_is_no_vector(tmp_path, tiny_model):
    """A result in windows stores how many there were, a number per sequence."""
    fasta = tmp_path / "x.fasta"
    fasta.write_text(f">long\n{'MKVLAT' * 10}\n>short\nMKV\n")
    for pooling, expected in ((("mean", "max"), ["mean", "max"]), (("residues",), ["residues"])):
        folder = tmp_path / pooling[0]
        assert embed(tiny_model, fasta, folder, pooling=pooling, long="window", max_length=20) == 0
        with EmbeddingFile(folder / "embeddings.h5") as file:
            assert "windows" in file.extents
            assert sorted(dataset.name for dataset in poolable(file)) == sorted(expected)
