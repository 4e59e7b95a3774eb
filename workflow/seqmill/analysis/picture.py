"""The picture of a probe: its score by layer, a line for each pooling, and what needs no model."""

from pathlib import Path

import pandas as pd

from seqmill.analysis import scores
from seqmill.analysis.probe import COMPOSITION, DUMMY, Probe
from seqmill.files import write_atomically

# Of Okabe and Ito: told apart by the colour-blind, too.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
FORMATS = ("svg", "png")


def draw(probe: Probe, folder: Path) -> list[Path]:
    """Write probe.svg and probe.png; returns their paths."""
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    table, main = probe.summary.set_index("dataset"), probe.main
    figure = Figure(figsize=(7.5, 4), layout="constrained")
    axes = figure.add_subplot()
    stored = table.drop([COMPOSITION, DUMMY])
    for colour, (pooling, part) in zip(COLOURS * len(stored), stored.groupby("pooling", sort=False), strict=False):
        part = part.sort_values("layer")
        places = part["layer"].astype(float).fillna(0)
        axes.errorbar(
            places, part[main], yerr=part[f"{main}_sd"].fillna(0), color=colour, marker="o", capsize=3, label=pooling
        )
    axes.axhline(table.loc[COMPOSITION, main], color="#555555", linestyle="--", label="composition and length")
    axes.axhline(table.loc[DUMMY, main], color="#999999", linestyle=":", label="no features")
    axes.set(xlabel="layer", ylabel=scores.TITLES[main], title=_title(probe, stored))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside right upper", frameon=False)
    paths = [folder / f"probe.{name}" for name in FORMATS]
    # Text stays text, and the same picture the same bytes.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "seqmill"}):
        for path in paths:
            with write_atomically(path) as temporary:
                kind = path.suffix[1:]
                figure.savefig(temporary, format=kind, dpi=200, metadata={"Date": None} if kind == "svg" else None)
    return paths


def _title(probe: Probe, stored: pd.DataFrame) -> str:
    folds = len(probe.task.folds)
    tested = "train and test" if folds == 1 else f"{folds} folds, with standard deviation"
    return f"Linear probe, {int(stored['n'].iloc[0]):,} sequences, {tested}"
