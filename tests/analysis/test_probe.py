"""seqmill probe: scores that are computed by hand here, folds that divide no sequence, labels of all kinds, refusals."""

import gzip

import numpy as np
import pandas as pd
import processes
import pytest
from made_results import write_result
from paths import SCRIPTS
from refusals import refusal
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from seqmill.analysis import composition, folds, labels, picture
from seqmill.analysis.probe import probe

RANDOM = np.random.default_rng(2)
COUNT = 90
LETTERS = np.array(list("ACDEFGHIKLMNPQRSTVWY"))
SEQUENCES = ["M" + "".join(RANDOM.choice(LETTERS, RANDOM.integers(8, 30))) for _ in range(COUNT - 10)]
# The last ten are copies.
SEQUENCES += SEQUENCES[:10]
VALUES = RANDOM.normal(size=(COUNT, 4)).astype(np.float32)
VALUES[-10:] = VALUES[:10]
NUMBERS = VALUES @ [2.0, -1.0, 0.5, 0.0] + 0.3 * RANDOM.normal(size=COUNT)
NOISE = RANDOM.normal(size=(COUNT, 4)).astype(np.float32)
CLASSES = np.where(NUMBERS > 0, "in", "out")


@pytest.fixture(autouse=True)
def few_regularisations(monkeypatch):
    """To choose from, which takes most of the time."""
    monkeypatch.setattr("seqmill.analysis.probe.C", [1e-2, 1.0])
    monkeypatch.setattr("seqmill.analysis.probe.ALPHA", [1e2, 1.0])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Layer 2 knows the labels, layer 1 does not."""
    folder = tmp_path_factory.mktemp("made")
    return write_result(folder, {"mean_layer1": NOISE, "mean_layer2": VALUES}, SEQUENCES)


def write_labels(path, given, **columns):
    table = pd.DataFrame({"id": [f"p{n}" for n in range(len(given))], "label": given, **columns})
    table.to_csv(path, sep="," if path.suffix == ".csv" else "\t", index=False)
    return path


def standardised(train, test):
    mean, deviation = train.mean(axis=0), train.std(axis=0)
    return (train - mean) / deviation, (test - mean) / deviation


def split_of(count):
    """Copies are where their originals are."""
    return ["test" if n % (COUNT - 10) % 3 == 0 else "train" for n in range(count)]


def test_a_regression_has_the_score_of_a_ridge_by_hand(folder, tmp_path):
    split = split_of(COUNT)
    table = write_labels(tmp_path / "labels.tsv", NUMBERS, split=split)
    found = probe(folder, table, fasta=[folder / "input.fasta"])
    row = found.by_fold[found.by_fold["dataset"] == "mean_layer2"].iloc[0]
    test = np.array(split) == "test"
    train_x, test_x = standardised(VALUES[~test].astype(float), VALUES[test].astype(float))
    predicted = Ridge(row["regularisation"]).fit(train_x, NUMBERS[~test]).predict(test_x)
    ranks = [pd.Series(values).rank() for values in (predicted, NUMBERS[test])]
    assert row["spearman"] == pytest.approx(np.corrcoef(*ranks)[0, 1])
    assert row["rmse"] == pytest.approx(np.sqrt(np.mean((predicted - NUMBERS[test]) ** 2)))
    assert row["r2"] == pytest.approx(1 - np.mean((predicted - NUMBERS[test]) ** 2) / NUMBERS[test].var())
    assert (row["n_train"], row["n_test"], row["features"]) == ((~test).sum(), test.sum(), 4)
    scores = found.summary.set_index("dataset")["spearman"]
    assert scores["mean_layer2"] > 0.9 > 0.5 > abs(scores["mean_layer1"])
    assert (scores["dummy"], len(found.task.folds)) == (0, 1)


def test_a_classification_has_the_scores_of_a_logistic_regression_by_hand(folder, tmp_path):
    table = write_labels(tmp_path / "labels.csv", CLASSES)
    found = probe(folder, table, fasta=[folder / "input.fasta"], count=3)
    assert (found.task.kind, found.main) == ("classification", "balanced_accuracy")
    rows = found.by_fold[found.by_fold["dataset"] == "mean_layer2"]
    for (train, test), row in zip(found.task.folds, rows.to_dict("records"), strict=True):
        train_x, test_x = standardised(VALUES[train].astype(float), VALUES[test].astype(float))
        model = LogisticRegression(C=row["regularisation"], class_weight="balanced", max_iter=1000)
        model.fit(train_x, CLASSES[train])
        expected = balanced_accuracy_score(CLASSES[test], model.predict(test_x))
        assert row["balanced_accuracy"] == pytest.approx(expected)
        assert row["roc_auc"] == pytest.approx(roc_auc_score(CLASSES[test], model.predict_proba(test_x)[:, 1]))
    summary = found.summary.set_index("dataset")
    assert summary.loc["mean_layer2", "balanced_accuracy"] == pytest.approx(rows["balanced_accuracy"].mean())
    assert summary.loc["mean_layer2", ["fold_1", "fold_2", "fold_3"]].tolist() == rows["balanced_accuracy"].tolist()
    assert summary.loc["dummy", "balanced_accuracy"] == 0.5
    assert [path.name for path in picture.draw(found, tmp_path)] == ["probe.svg", "probe.png"]
    assert "balanced accuracy" in (tmp_path / "probe.svg").read_text()
    assert (tmp_path / "probe.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("kind", labels.TASKS)
@pytest.mark.parametrize("column", ["sequence", "group"])
def test_no_sequence_and_no_group_is_on_both_sides(kind, column):
    table = pd.DataFrame({"id": range(COUNT), "sequence": SEQUENCES})
    if column == "group":
        table["group"] = [f"g{n % (COUNT - 10) // 4}" for n in range(COUNT)]
    wanted = CLASSES if kind == labels.CLASSIFICATION else NUMBERS
    made = folds.made(wanted, folds.groups_of(table), kind, 4, 0)
    assert sorted(np.concatenate([test for _, test in made])) == list(range(COUNT))
    for train, test in made:
        assert not set(table[column][train]) & set(table[column][test])


def test_labels_may_be_in_the_headers(tmp_path):
    said = [
        f"TARGET={number:.3f} SET={'test' if part == 'test' else 'train'}"
        for number, part in zip(NUMBERS, split_of(COUNT), strict=True)
    ]
    folder = write_result(tmp_path, {"mean": VALUES}, SEQUENCES, said)
    found = probe(folder, None, fasta=[folder / "input.fasta"])
    assert (found.task.kind, len(found.task.folds), len(found.task.labels)) == ("regression", 1, COUNT)
    assert found.summary["spearman"][0] > 0.9


def test_what_has_no_label_or_no_sequence_is_counted_and_told(folder, tmp_path, caplog):
    given = [*CLASSES[:60], "rare", "", *["in"] * 28, "out", "out"]
    table = write_labels(tmp_path / "labels.tsv", given)
    with caplog.at_level("INFO"):
        found = probe(folder, table, fasta=[folder / "input.fasta"], count=3)
    assert "2 ids with a label are not in the result: p90, p91" in caplog.text
    assert "89 sequences have a label, 1 have none" in caplog.text
    assert (
        "1 classes have fewer than 3 distinct sequences, 1 sequences in all, and are left out: rare (1)" in caplog.text
    )
    assert found.summary["n"].unique().tolist() == [88]


def test_time_is_bounded_by_drawing_whole_groups():
    table = pd.DataFrame({"sequence": SEQUENCES})
    groups = folds.groups_of(table)
    drawn, again = (folds.sampled(table, groups, 50, 0) for _ in range(2))
    assert np.array_equal(drawn, again)
    assert 48 <= len(drawn) <= 50
    assert not set(groups[drawn]) & set(np.delete(groups, drawn))
    assert len(folds.sampled(table, groups, COUNT, 0)) == COUNT


def test_composition_comes_from_the_fasta_or_from_the_shards(folder, tmp_path):
    index = pd.read_parquet(folder / "index.parquet").rename(columns={"sequence_sha256": "sequence"})
    packed = tmp_path / "input.fasta.gz"
    packed.write_bytes(gzip.compress((folder / "input.fasta").read_bytes()))
    found = composition.of(index, tmp_path, [packed])
    shares = np.array([[letters.count(chr(65 + n)) / len(letters) for n in range(26)] for letters in SEQUENCES])
    assert found[:, :26] == pytest.approx(shares)
    assert found[:, 26] == pytest.approx(np.log(index["length"].to_numpy()))

    assert "give --fasta with the file that was embedded" in refusal(composition.of, index, tmp_path, [])
    (tmp_path / "shards").mkdir()
    records = (
        f">{name}\n{letters}\n" for name, letters in dict(zip(index["sequence"], SEQUENCES, strict=True)).items()
    )
    (tmp_path / "shards/0.fasta").write_text("".join(records))
    (tmp_path / "shards/1.fasta").write_text("")
    assert np.array_equal(composition.of(index, tmp_path, []), found)
    # That of a sample is one folder up.
    assert np.array_equal(composition.of(index, tmp_path / "sample", []), found)


def test_the_same_sequence_on_both_sides_of_a_split_is_refused(folder, tmp_path):
    split = split_of(COUNT)
    split[0], split[80] = "train", "test"
    table = write_labels(tmp_path / "labels.tsv", NUMBERS, split=split)
    said = refusal(probe, folder, table, fasta=[folder / "input.fasta"])
    assert said == "'p0' and 'p80' have the same sequence, but split train and test; put the same sequence into one"


def test_labels_that_do_not_fit_are_refused_in_a_sentence(folder, tmp_path):
    path = tmp_path / "labels.tsv"

    def said(text, *arguments, **options):
        path.write_text(text)
        return refusal(probe, folder, path, *arguments, **options)

    def rows(values, names="p{}"):
        return "".join(f"{names.format(n)}\t{value}\n" for n, value in enumerate(values))

    assert "give --label with one of a, b" in said("id\ta\tb\np0\t1\t2\n")
    assert "has no column c; give --label with one of a, b" in said("id\ta\tb\np0\t1\t2\n", "c")
    assert "'p0' comes more than once" in said("id\ta\np0\t1\np0\t2\n")
    assert "none of the ids" in said("id\ta\nx\t1\n")
    assert "all labels are the same" in said("id\ta\n" + rows([1.5] * 30))
    assert "the label of 'p1' is 'b', which is not a number" in said(
        "id\ta\n" + rows(["1", "b"] * 5), kind="regression"
    )
    assert "fewer than two classes have 5 distinct" in said("id\ta\n" + rows(["x", "y"]))
    assert "3 distinct sequences with a label, fewer than folds (5)" in said("id\ta\n" + rows([0.1, 0.2, 0.3]))
    assert "the column split holds later" in said("id\ta\tsplit\n" + rows([f"{n / 7}\tlater" for n in range(9)]))
    assert "has no sequence to test" in said("id\ta\tsplit\n" + rows([f"{n / 7}\ttrain" for n in range(9)]))
    assert "is not a table of labels" in refusal(probe, folder, tmp_path / "none.tsv")
    assert "hold no TARGET=" in refusal(probe, folder, None)
    table = write_labels(path, NUMBERS)
    other = tmp_path / "other.fasta"
    other.write_text(">p0\nMKV\n")
    assert "'p0' has 3 letters, not" in refusal(probe, folder, table, fasta=[other])


@pytest.mark.slow
def test_the_command_writes_tables_and_a_picture(folder, tmp_path):
    table = write_labels(tmp_path / "labels.tsv", NUMBERS)
    flags = ["--embeddings", folder, "--labels", table, "--fasta", folder / "input.fasta", "--folds", "2"]
    done = processes.run(SCRIPTS / "probe.py", *flags, "--output", tmp_path / "out")
    assert done.returncode == 0, done.stdout
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "folds.tsv",
        "probe.png",
        "probe.svg",
        "probe.tsv",
    ]
    summary = pd.read_csv(tmp_path / "out/probe.tsv", sep="\t")
    assert summary["dataset"].tolist() == ["mean_layer1", "mean_layer2", "composition", "dummy"]
    assert summary["layer"].tolist()[:2] == [1, 2]
    assert f"mean_layer2    mean      2         4 {COUNT}" in done.stdout
