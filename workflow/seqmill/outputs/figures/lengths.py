"""How long the sequences are: of all records, and how many of the letters are in sequences of which length."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as parquet
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from seqmill.outputs.figures import style
from seqmill.outputs.figures.words import counted, percent

TITLE = "Lengths of the sequences"
# What may have happened to a record, in the order of the columns of `Lengths.counts`, and its colour.
KINDS = {"whole": style.BLUE, "in windows": style.AMBER, "truncated": style.ORANGE}
LEAST_BINS, BINS = 8, 60
# From this ratio of the longest to the shortest on, lengths are drawn on a logarithmic scale.
LOGARITHMIC_FROM = 10
BLOCK_ROWS = 1_000_000


@dataclass(frozen=True)
class Lengths:
    """How often each length comes.

    Attributes:
        values: (L,) int64, the distinct lengths in letters, ascending.
        counts: (L, 3) int64, the records of each that were embedded as KINDS says.
    """

    values: np.ndarray
    counts: np.ndarray

    @property
    def records(self) -> int:
        return int(self.counts.sum())

    @property
    def letters(self) -> int:
        return int(self.values @ self.counts.sum(1))

    def quantile(self, share: float) -> int:
        """The length that this share of the records does not exceed."""
        upto = np.cumsum(self.counts.sum(1))
        return int(self.values[np.searchsorted(upto, share * upto[-1])])

    def binned(self, edges: np.ndarray, in_letters: bool) -> np.ndarray:
        """(bins, 3) records between each two edges, or their letters."""
        weights = self.counts * self.values[:, None] if in_letters else self.counts
        return np.stack([np.histogram(self.values, edges, weights=column)[0] for column in weights.T], axis=1)


def count(index: Path) -> Lengths:
    """Read the lengths from an `index.parquet`, block by block."""
    file = parquet.ParquetFile(index)
    # Not in the files of earlier versions.
    columns = ["length", *({"windows", "embedded"} & set(file.schema_arrow.names))]
    found = [Counter(), Counter(), Counter()]
    for block in file.iter_batches(BLOCK_ROWS, columns=columns):
        table = {name: block[name].to_numpy(zero_copy_only=False) for name in columns}
        lengths = table["length"]
        # Neither is known of a record where the columns are empty.
        windowed = table["windows"] > 1 if "windows" in table else np.zeros(len(lengths), bool)
        truncated = table["embedded"] < lengths if "embedded" in table else np.zeros(len(lengths), bool)
        kinds = np.where(windowed, 1, np.where(truncated, 2, 0))
        for kind, counter in enumerate(found):
            values, counts = np.unique(lengths[kinds == kind], return_counts=True)
            counter.update(dict(zip(values.tolist(), counts.tolist(), strict=True)))
    values = sorted(set().union(*found))
    counts = [[counter[value] for counter in found] for value in values]
    return Lengths(np.array(values, np.int64), np.array(counts, np.int64).reshape(-1, 3))


def edges(lengths: Lengths) -> tuple[np.ndarray, bool]:
    """The edges of the bins, between whole numbers, and whether they are on a logarithmic scale."""
    least, most = int(lengths.values[0]), int(lengths.values[-1])
    is_logarithmic = most >= LOGARITHMIC_FROM * max(least, 1)
    bins = int(np.clip(2 * lengths.records**0.5, LEAST_BINS, BINS))
    if is_logarithmic:
        points = np.geomspace(max(least, 1), most + 1, bins + 1)
    else:
        points = np.linspace(least, most + 1, min(bins, most + 1 - least) + 1)
    return np.unique(np.round(points)) - 0.5, is_logarithmic


def draw(lengths: Lengths, members: str, limit: int | None = None) -> Figure:
    """Two histograms, of the records and of their letters.

    Args:
        members: what the letters are: residues, or bases.
        limit: see `album.Result`.

    Raises:
        NotDrawn: there are no sequences.
    """
    if not lengths.records:
        raise style.NotDrawn("the result holds no sequences")
    median, longest = lengths.quantile(0.5), int(lengths.values[-1])
    about = (
        f"{counted(lengths.records, 'sequences')} with {lengths.letters:,} {members}; half of them have at most {median:,}, "
        f"the longest has {longest:,}"
    )
    if limit and longest > limit:
        longer = int(lengths.counts[lengths.values > limit].sum())
        about += f"; {percent(longer / lengths.records)} are longer than the {limit:,} that the model was trained on"
    made = style.figure(TITLE, about, height=5.6)
    upper, lower = made.subplots(2, 1, sharex=True)
    at, is_logarithmic = edges(lengths)
    for axes, in_letters, label in ((upper, False, "sequences"), (lower, True, members)):
        _histogram(axes, lengths, at, in_letters)
        axes.set_ylabel(f"{label} per bar")
        axes.axvline(median, color=style.TEXT, linewidth=1, linestyle="--", label=f"median {median:,}")
        if limit and at[0] < limit < at[-1]:
            axes.axvline(limit, color=style.PINK, linewidth=1.5, linestyle=":", label=f"trained on up to {limit:,}")
    if is_logarithmic:
        lower.set_xscale("log")
        lower.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        # Within a decade the minor ticks would have labels, too.
        lower.xaxis.set_minor_formatter(NullFormatter())
    lower.set_xlim(at[0], at[-1])
    lower.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    lower.set_xlabel(f"length ({members}{', logarithmic' if is_logarithmic else ''})")
    # Over the lines, which would run through its words.
    upper.legend(loc="best", framealpha=0.9, edgecolor="none")
    return made


def _histogram(axes: Axes, lengths: Lengths, at: np.ndarray, in_letters: bool) -> None:
    """Bars, one upon the other, of the kinds that there are."""
    heights = lengths.binned(at, in_letters)
    below = np.zeros(len(heights))
    for kind, (name, color) in enumerate(KINDS.items()):
        if total := int(lengths.counts[:, kind].sum()):
            # Where all are whole there is nothing to tell apart.
            label = f"{name}: {counted(total, 'sequences')}" if total < lengths.records or kind else None
            axes.bar(
                at[:-1],
                heights[:, kind],
                np.diff(at),
                below,
                align="edge",
                color=color,
                label=label,
                edgecolor="white",
                linewidth=0.3,
            )
            below += heights[:, kind]
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
