"""What is trained on and what is tested on: folds in which no sequence, and no group, is on both sides."""

import logging
import warnings

import numpy as np
import pandas as pd

from seqmill.analysis.labels import CLASSIFICATION, GROUP, SPLIT, SPLITS, TEST, TRAIN
from seqmill.errors import UserError
from seqmill.inputs.record import SHOWN, shown

log = logging.getLogger(__name__)

Fold = tuple[np.ndarray, np.ndarray]


def groups_of(table: pd.DataFrame) -> np.ndarray:
    """(n,) int, which sequences must stay together: those of a group where the labels have groups, else the same ones.

    Raises:
        UserError: the same sequence is in two groups.
    """
    if GROUP in table:
        _refuse_apart(table, GROUP)
        # One without a group is a group by itself.
        names = table[GROUP].where(table[GROUP] != "", "\0" + table["sequence"])
        return pd.factorize(names)[0]
    return pd.factorize(table["sequence"])[0]


def without_unplaced(table: pd.DataFrame) -> pd.DataFrame:
    """The table without the sequences that have no split, where others have one; says how many these are."""
    if SPLIT not in table:
        return table
    placed = table[SPLIT] != ""
    if not placed.all():
        log.warning("%s sequences have a label but no split: left out", f"{int((~placed).sum()):,}")
    return table[placed].reset_index(drop=True)


def given(table: pd.DataFrame) -> list[Fold]:
    """The folds that the column `split` asks for: train and test, or a number for each fold.

    Raises:
        UserError: it holds something else, or the same sequence is on both sides.
    """
    splits = table[SPLIT].str.lower().replace(SPLITS)
    table = table.assign(**{SPLIT: splits})
    names = sorted(splits.unique())
    if set(names) <= {TRAIN, TEST}:
        if len(names) < 2:
            raise UserError(f"the column split has no sequence to {({TRAIN, TEST} - set(names)).pop()}")
        tests = [TEST]
    elif all(name.lstrip("-").isdecimal() for name in names) and len(names) > 1:
        tests = sorted(names, key=int)
    else:
        raise UserError(
            f"the column split holds {', '.join(names[:5])}; it must hold train and test, or the number of each fold"
        )
    _refuse_apart(table, SPLIT)
    values = splits.to_numpy()
    return [(np.flatnonzero(values != name), np.flatnonzero(values == name)) for name in tests]


def _refuse_apart(table: pd.DataFrame, column: str) -> None:
    """Refuse the same sequence in two splits or groups."""
    apart = table[table.groupby("sequence")[column].transform("nunique") > 1]
    if apart.empty:
        return
    same = apart[apart["sequence"] == apart["sequence"].iloc[0]].drop_duplicates(column)
    (one, here), (other, there) = same[["id", column]].iloc[:2].itertuples(index=False)
    count = apart["sequence"].nunique()
    raise UserError(
        f"'{shown(one, SHOWN)}' and '{shown(other, SHOWN)}' have the same sequence, but {column} {here} and {there}"
        + (f", and so for {count:,} sequences in all" if count > 1 else "")
        + "; put the same sequence into one"
    )


def made(labels: np.ndarray, groups: np.ndarray, task: str, count: int, seed: int) -> list[Fold]:
    """Folds of about equal size, groups never divided; of classes each fold has its share as far as groups allow."""
    from sklearn.model_selection import GroupKFold, StratifiedGroupKFold

    kind = StratifiedGroupKFold if task == CLASSIFICATION else GroupKFold
    with warnings.catch_warnings():
        # Rare classes, which were looked at before.
        warnings.simplefilter("ignore", UserWarning)
        return list(kind(count, shuffle=True, random_state=seed).split(np.zeros(len(labels)), labels, groups))


def without_rare_classes(table: pd.DataFrame, count: int) -> pd.DataFrame:
    """The table without classes of fewer distinct sequences than there are folds; says which these are.

    Raises:
        UserError: fewer than two classes are left.
    """
    sizes = table.groupby("label")["sequence"].nunique()
    rare = sizes[sizes < count]
    if len(rare):
        log.warning(
            "%s classes have fewer than %d distinct sequences, %s sequences in all, and are left out: %s",
            f"{len(rare):,}",
            count,
            f"{int(table['label'].isin(rare.index).sum()):,}",
            ", ".join(f"{name} ({size})" for name, size in list(rare.items())[:5]) + (", ..." if len(rare) > 5 else ""),
        )
    kept = table[~table["label"].isin(rare.index)].reset_index(drop=True)
    if kept["label"].nunique() < 2:
        raise UserError(
            f"fewer than two classes have {count} distinct sequences each; give more labels, fewer --folds, or --task regression"
        )
    return kept


def sampled(table: pd.DataFrame, groups: np.ndarray, most: int, seed: int) -> np.ndarray:
    """The rows of at most `most` sequences, whole groups drawn at random; all where there are not more."""
    if len(table) <= most:
        return np.arange(len(table))
    order = np.random.default_rng(seed).permutation(groups.max() + 1)
    ends = np.cumsum(np.bincount(groups)[order])
    kept = np.isin(groups, order[: max(int(np.searchsorted(ends, most, side="right")), 1)])
    log.info("%s of %s labelled sequences are drawn at random (--most)", f"{int(kept.sum()):,}", f"{len(table):,}")
    return np.flatnonzero(kept)
