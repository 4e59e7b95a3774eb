"""How points are coloured: by a number, on a scale, or by a category, the rare ones together."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from seqmill.outputs.figures import style

# What tables write where they have no value.
MISSING = ("", "na", "n/a", "nan", "none", "null", "-")
# Numbers with so few distinct whole values, a cluster's number say, are names.
MOST_CATEGORIES = len(style.COLORS)
# Positive numbers that differ so much are put on a logarithmic scale.
LOGARITHMIC_FROM = 20
MANY = 200


@dataclass(frozen=True)
class Numbers:
    """Points on a scale.

    Attributes:
        name: what is measured.
        values: (S,) float64, NaN where missing.
    """

    name: str
    values: np.ndarray

    @property
    def known(self) -> np.ndarray:
        return np.isfinite(self.values)

    def limits(self) -> tuple[float, float]:
        """Between which values the scale reaches: of many all but the hundredth at either end, which may be far away."""
        known = self.values[self.known]
        low, high = np.percentile(known, (1, 99) if len(known) >= MANY else (0, 100))
        return (low, high) if high > low else (low - 0.5, high + 0.5)

    @property
    def is_logarithmic(self) -> bool:
        low, high = self.limits()
        return bool(self.values[self.known].min() > 0 and high >= LOGARITHMIC_FROM * low)


@dataclass(frozen=True)
class Categories:
    """Points with a colour each.

    Attributes:
        name: what the categories are of.
        values: (S,) int64, which of `labels`; -1 where missing.
        labels: the most frequent first; the last one may be all others together.
        colors: of each.
    """

    name: str
    values: np.ndarray
    labels: list[str]
    colors: list[str]

    @property
    def known(self) -> np.ndarray:
        return self.values >= 0


Coloring = Numbers | Categories


def by_length(lengths: np.ndarray, members: str) -> Numbers:
    """Colours for sequences of so many letters."""
    return Numbers(f"length ({members})", lengths.astype(np.float64))


def by_column(name: str, values: pd.Series) -> Coloring:
    """Colours for the values of a column, as `metadata.read_column` gives them."""
    texts = values.map(_text)
    known = texts.notna()
    numbers = pd.to_numeric(texts[known].str.replace(",", "", regex=False), errors="coerce").astype(float)
    is_number = known.any() and numbers.notna().all() and np.isfinite(numbers).all()
    is_name = is_number and numbers.nunique() <= MOST_CATEGORIES and (numbers % 1 == 0).all()
    if is_number and not is_name:
        found = np.full(len(values), np.nan)
        found[known.to_numpy()] = numbers
        return Numbers(name, found)
    return _categories(name, texts)


def _text(value: object) -> str | None:
    """A value as text; None where there is none."""
    if value is None or (isinstance(value, float) and np.isnan(value)) or value is pd.NA or value is pd.NaT:
        return None
    text = str(value).strip()
    return None if text.lower() in MISSING else text


def _categories(name: str, texts: pd.Series) -> Categories:
    counts = texts.value_counts()
    # By count, then by name: the same order each time.
    order = sorted(counts.index, key=lambda label: (-counts[label], label))
    most = MOST_CATEGORIES
    shown, rest = (order, 0) if len(order) <= most else (order[:most], len(order) - most)
    places = {label: place for place, label in enumerate(shown)}
    values = texts.map(lambda text: -1 if text is None or pd.isna(text) else places.get(text, len(shown)))
    others = [f"{rest:,} others"] if rest else []
    return Categories(
        name,
        values.to_numpy(np.int64),
        [*shown, *others],
        [*style.COLORS[: len(shown)], *([style.GREY] if rest else [])],
    )


def counts(coloring: Categories, places: Sequence[int]) -> np.ndarray:
    """(labels,) how many of some points have each colour."""
    own = coloring.values[places]
    return np.bincount(own[own >= 0], minlength=len(coloring.labels))
