"""Linear probes: what of some labels can be read from the vectors of each layer and pooling, beside what needs no model."""

import logging
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from seqmill.analysis import composition, folds, labels, scores
from seqmill.analysis.folds import Fold
from seqmill.analysis.labels import CLASSIFICATION, SPLIT
from seqmill.analysis.vectors import Vectors, poolable
from seqmill.errors import UserError
from seqmill.outputs import result
from seqmill.outputs.embedding_file import EmbeddingFile

if TYPE_CHECKING:
    from sklearn.base import BaseEstimator

log = logging.getLogger(__name__)

COMPOSITION, DUMMY = "composition", "dummy"
INNER_FOLDS = 3
# Tried within the training sequences: from much regularisation to little.
C = [1e-4, 1e-3, 1e-2, 1e-1, 1.0]
ALPHA = [1e5, 1e4, 1e3, 1e2, 1e1, 1.0, 1e-1]


@dataclass(frozen=True)
class Task:
    """What is to be predicted, and how it is tested.

    Attributes:
        kind: classification or regression.
        labels: (n,) str or float64.
        groups: (n,) int, what must stay together.
        folds: rows that are trained on and rows that are tested on.
        seed: of what is drawn at random.
    """

    kind: str
    labels: np.ndarray
    groups: np.ndarray
    folds: list[Fold]
    seed: int


@dataclass(frozen=True)
class Probe:
    """The scores of all probes: `by_fold` has a row per probe and fold, `summary` one per probe.

    Attributes:
        main: the score that the summary is about.
    """

    task: Task
    by_fold: pd.DataFrame
    summary: pd.DataFrame
    main: str


def probe(
    embeddings: Path,
    table: Path | None,
    column: str | None = None,
    fasta: list[Path] | None = None,
    kind: str | None = None,
    count: int = 5,
    most: int = 10_000,
    seed: int = 0,
) -> Probe:
    """Score a probe on each dataset with a vector per sequence, on the composition, and on nothing.

    Args:
        embeddings: a folder of results, or its embeddings.h5.
        table, column: see `labels.read`; without a table the labels are in the FASTA's headers.
        fasta: see `composition.of`.
        kind: classification or regression; None decides by the labels.
        count: folds, where the labels have no splits.
        most: sequences that are used at most, which bounds the time.

    Raises:
        UserError: labels and result do not fit, or there are too few.
    """
    with result.open(embeddings) as opened:
        path, index = opened.path, opened.index
    if "sequence_sha256" not in index:
        raise UserError(f"{path}: has no index.parquet beside it, which says which sequences are the same")
    found = labels.read(table, column) if table else labels.from_descriptions(index, path)
    known = folds.without_unplaced(labels.joined(found, index))
    kind = kind or labels.task_of(known["label"])
    known, task = _task(known, kind, count, most, seed)
    known = known.assign(length=index["length"].to_numpy()[known["row"]])
    log.info("%s of %s sequences in %d folds", kind, f"{len(known):,}", len(task.folds))
    counted = composition.of(known, path.parent, fasta or [])
    by_fold = []
    with EmbeddingFile(path) as file:
        stored = poolable(file)
    for dataset in stored:
        with Vectors(path, dataset.representation, dataset.layer) as vectors:
            features = vectors.take(known["row"].to_numpy())
        about = {"dataset": dataset.name, "pooling": dataset.representation, "layer": dataset.layer}
        by_fold += _scored(task, features, about)
    by_fold += _scored(task, counted, {"dataset": COMPOSITION, "pooling": "", "layer": None})
    by_fold += _scored(task, np.zeros((len(known), 0)), {"dataset": DUMMY, "pooling": "", "layer": None})
    main = scores.SCORES[kind][0]
    table = pd.DataFrame(by_fold).astype({"layer": "Int64"})
    return Probe(task, table, _summary(table, kind, len(known)), main)


def _task(known: pd.DataFrame, kind: str, count: int, most: int, seed: int) -> tuple[pd.DataFrame, Task]:
    """The sequences that are used, and what is asked of them."""
    if count < 2:
        raise UserError(f"--folds is {count}; give a number from 2")
    if kind == CLASSIFICATION and SPLIT not in known:
        known = folds.without_rare_classes(known, count)
    known = known.iloc[folds.sampled(known, folds.groups_of(known), most, seed)].reset_index(drop=True)
    groups = folds.groups_of(known)
    if (distinct := len(np.unique(groups))) < count:
        raise UserError(
            f"there are {distinct} distinct sequences with a label, fewer than folds ({count}); give more labels"
        )
    values = known["label"].to_numpy(str) if kind == CLASSIFICATION else labels.numbers(known)
    if len(np.unique(values)) < 2:
        raise UserError("all labels are the same; there is nothing to predict")
    parts = folds.given(known) if SPLIT in known else folds.made(values, groups, kind, count, seed)
    for number, (train, _) in enumerate(parts, 1):
        if len(np.unique(groups[train])) < INNER_FOLDS or len(np.unique(values[train])) < 2:
            raise UserError(f"fold {number}: its {len(train)} training sequences are too few, or all of one label")
    return known, Task(kind, values, groups, parts, seed)


def _scored(task: Task, features: np.ndarray, about: dict[str, Any]) -> list[dict[str, Any]]:
    """The scores of one kind of features in each fold; features of no width are the dummy's."""
    started, rows = time.monotonic(), []
    for number, (train, test) in enumerate(task.folds, 1):
        model = _fitted(task, features, train)
        chosen = model.best_params_.popitem()[1] if hasattr(model, "best_params_") else np.nan
        row = {"fold": number, "n_train": len(train), "n_test": len(test), "regularisation": chosen}
        rows.append({**about, "features": features.shape[1], **row, **_tested(task, model, features[test], test)})
    main = scores.SCORES[task.kind][0]
    mean = np.mean([row[main] for row in rows])
    log.info("%s: %s %.3f (%.1f s)", about["dataset"], scores.TITLES[main], mean, time.monotonic() - started)
    return rows


def _tested(task: Task, model: "BaseEstimator", features: np.ndarray, test: np.ndarray) -> dict[str, float]:
    labels, predicted = task.labels[test], model.predict(features)
    if task.kind != CLASSIFICATION:
        return scores.of_numbers(labels, predicted)
    second = model.predict_proba(features)[:, 1] if len(model.classes_) == 2 else None
    return scores.of_classes(labels, predicted, second)


def _fitted(task: Task, features: np.ndarray, train: np.ndarray) -> "BaseEstimator":
    """A model of the training sequences alone: its scaling, its regularisation and its weights."""
    from sklearn.dummy import DummyClassifier, DummyRegressor
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.model_selection import GridSearchCV

    given, wanted = features[train].astype(np.float64), task.labels[train]
    if not features.shape[1]:
        return (DummyClassifier() if task.kind == CLASSIFICATION else DummyRegressor()).fit(given, wanted)
    model, grid = linear(task.kind)
    inner = folds.made(wanted, task.groups[train], task.kind, INNER_FOLDS, task.seed)
    scoring = "balanced_accuracy" if task.kind == CLASSIFICATION else "r2"
    with warnings.catch_warnings():
        # Of classes that an inner fold lacks, and of weak regularisation, which is then not chosen.
        warnings.simplefilter("ignore", UserWarning)
        warnings.simplefilter("ignore", ConvergenceWarning)
        return GridSearchCV(model, grid, scoring=scoring, cv=inner).fit(given, wanted)


def linear(kind: str) -> tuple["BaseEstimator", dict[str, list[float]]]:
    """The linear model on standardised features, and the regularisations to choose from."""
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if kind == CLASSIFICATION:
        model = LogisticRegression(class_weight="balanced", max_iter=1000)
        return make_pipeline(StandardScaler(), model), {"logisticregression__C": C}
    return make_pipeline(StandardScaler(), Ridge()), {"ridge__alpha": ALPHA}


def _summary(by_fold: pd.DataFrame, kind: str, n: int) -> pd.DataFrame:
    """A row per probe: means over the folds, then the main score of each fold, the baselines last."""
    main, *others = scores.SCORES[kind]
    by_name = by_fold.groupby("dataset", sort=False)
    table = by_name[["pooling", "layer", "features"]].first()
    table["n"] = n
    table[main], table[f"{main}_sd"] = by_name[main].mean(), by_name[main].std()
    for name in others:
        if by_fold[name].notna().any():
            table[name] = by_name[name].mean()
    table["above_composition"] = table[main] - table.loc[COMPOSITION, main]
    for number, part in by_fold.groupby("fold"):
        table[f"fold_{number}"] = part.set_index("dataset")[main]
    return table.reset_index()
