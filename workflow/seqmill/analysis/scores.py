"""How good predictions are: the figures of classification and of regression, the main one first."""

import numpy as np
import pandas as pd

from seqmill.analysis.labels import CLASSIFICATION, REGRESSION

# The first is the main one; more is better, but for rmse.
SCORES = {CLASSIFICATION: ("balanced_accuracy", "macro_f1", "roc_auc"), REGRESSION: ("spearman", "r2", "rmse")}
TITLES = {"balanced_accuracy": "balanced accuracy", "spearman": "Spearman correlation"}


def of_classes(labels: np.ndarray, predicted: np.ndarray, second: np.ndarray | None) -> dict[str, float]:
    """Scores of predicted classes.

    Args:
        second: (n,) the score of the second class, of two; None for more, which have no ROC AUC.
    """
    from sklearn import metrics

    classes = np.unique(labels)
    recalls = metrics.recall_score(labels, predicted, labels=classes, average=None, zero_division=0)
    f1 = metrics.f1_score(labels, predicted, labels=classes, average="macro", zero_division=0)
    both = second is not None and len(classes) == 2
    auc = metrics.roc_auc_score(labels, second) if both else np.nan
    return dict(zip(SCORES[CLASSIFICATION], (float(recalls.mean()), float(f1), float(auc)), strict=True))


def of_numbers(labels: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """Scores of predicted numbers; a constant says nothing of their order, so its correlation is 0."""
    ranks = [pd.Series(values).rank().to_numpy() for values in (labels, predicted)]
    has_order = all(np.ptp(values) > 0 for values in ranks)
    spearman = np.corrcoef(*ranks)[0, 1] if has_order else 0.0
    errors, spread = ((labels - predicted) ** 2).sum(), ((labels - labels.mean()) ** 2).sum()
    r2 = 1 - errors / spread if spread > 0 else np.nan
    return dict(
        zip(SCORES[REGRESSION], (float(spearman), float(r2), float(np.sqrt(errors / len(labels)))), strict=True)
    )
