"""Labels of sequences: from a table, or from the headers of the FASTA file (`TARGET=... SET=...`)."""

import logging
from pathlib import Path

import numpy as np
import pandas as pd

from seqmill.errors import UserError, first_line
from seqmill.inputs.record import SHOWN, shown

log = logging.getLogger(__name__)

SPLIT, GROUP = "split", "group"
# What columns of labels are called; else it is the only one there is.
USUAL = ("label", "target")
CLASSIFICATION, REGRESSION = TASKS = ("classification", "regression")
# Whole numbers with at most so many values are classes.
MOST_CLASSES = 10
TRAIN, TEST = "train", "test"
# What chooses the regularisation is a part of the training sequences in any case.
SPLITS = {"training": TRAIN, "val": TRAIN, "valid": TRAIN, "validation": TRAIN, "dev": TRAIN, "testing": TEST}
LISTED = 5


def read(path: Path, column: str | None) -> pd.DataFrame:
    """A table of labels as text: the columns id, label, and, where the file has them, split and group.

    The ids are in the column `id`, or in the first. Rows with an empty label are left out.

    Args:
        path: with tabs, or with commas where its name ends in .csv.
        column: which holds the labels; None is `label`, `target`, or the only other one.

    Raises:
        UserError: there is no such file or column, or an id comes twice.
    """
    try:
        table = pd.read_csv(path, sep="," if ".csv" in path.suffixes else "\t", dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: is not a table of labels ({first_line(error)})") from None
    ids = "id" if "id" in table else table.columns[0]
    others = [name for name in table.columns if name not in (ids, SPLIT, GROUP)]
    label = column or next((name for name in USUAL if name in others), others[0] if len(others) == 1 else None)
    if label is None or label not in others:
        missing = f"has no column {column}" if column else "does not say which column holds the labels"
        advice = f"give --label with one of {', '.join(others)}" if others else "give ids and labels, separated by tabs"
        raise UserError(f"{path}: {missing}; {advice}")
    found = pd.DataFrame({"id": table[ids].str.strip(), "label": table[label].str.strip()})
    for name in (SPLIT, GROUP):
        if name in table:
            found[name] = table[name].str.strip()
    if (twice := found["id"].duplicated()).any():
        name = shown(found["id"][twice].iloc[0], SHOWN)
        raise UserError(f"{path}: '{name}' comes more than once; give each sequence one label")
    return found[found["label"] != ""].reset_index(drop=True)


def from_descriptions(index: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Labels from the headers, as `read` gives them.

    Raises:
        UserError: there are none.
    """
    descriptions = index["description"].fillna("") if "description" in index else pd.Series([""] * len(index))
    parts = {name: descriptions.str.extract(rf"(?:^|\s){name}=(\S+)")[0] for name in ("TARGET", "SET", "VALIDATION")}
    found = pd.DataFrame({"id": index["id"], "label": parts["TARGET"]})
    if parts["SET"].notna().any():
        # biotrainer's: SET=train VALIDATION=True
        found[SPLIT] = parts["SET"].fillna("")
    found = found[found["label"].notna()].reset_index(drop=True)
    if found.empty:
        raise UserError(f"{path}: the headers of its sequences hold no TARGET=...; give a table with --labels")
    return found


def joined(found: pd.DataFrame, index: pd.DataFrame) -> pd.DataFrame:
    """The labels of sequences that are in the result: with `row`, its row there, and its sequence's hash, in the rows' order.

    Raises:
        UserError: none is.
    """
    table = found.merge(pd.DataFrame({"id": index["id"], "row": np.arange(len(index))}), on="id", how="left")
    foreign = table[table["row"].isna()]["id"].tolist()
    if foreign:
        listed = ", ".join(shown(name, SHOWN) for name in foreign[:LISTED]) + (", ..." if len(foreign) > LISTED else "")
        log.warning("%s ids with a label are not in the result: %s", f"{len(foreign):,}", listed)
    table = table[table["row"].notna()].astype({"row": int}).sort_values("row").reset_index(drop=True)
    if table.empty:
        raise UserError(
            "none of the ids with a label is in the result; the ids are the first words of the FASTA's headers"
        )
    log.info("%s sequences have a label, %s have none", f"{len(table):,}", f"{len(index) - len(table):,}")
    return table.assign(sequence=index["sequence_sha256"].to_numpy()[table["row"]])


def task_of(labels: pd.Series) -> str:
    """Classification for words, and for whole numbers of few values; else regression."""
    numbers = pd.to_numeric(labels, errors="coerce")
    if not np.isfinite(numbers).all():
        return CLASSIFICATION
    is_whole = (numbers % 1 == 0).all()
    return CLASSIFICATION if is_whole and numbers.nunique() <= MOST_CLASSES else REGRESSION


def numbers(table: pd.DataFrame) -> np.ndarray:
    """(n,) float64, the labels as numbers.

    Raises:
        UserError: one is not a number.
    """
    values = pd.to_numeric(table["label"], errors="coerce").to_numpy(float)
    if (wrong := np.flatnonzero(~np.isfinite(values))).size:
        row = table.iloc[wrong[0]]
        raise UserError(
            f"the label of '{shown(row['id'], SHOWN)}' is '{row['label']}', which is not a number; see --task"
        )
    return values
