"""A map of the embeddings: sequences with similar embeddings are near one another."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as parquet
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator

from seqmill.outputs.embedding_file import EmbeddingFile
from seqmill.outputs.figures import colors, metadata, style, vectors
from seqmill.outputs.figures.colors import Categories, Coloring, Numbers
from seqmill.outputs.figures.projection import Plane, project
from seqmill.outputs.figures.vectors import SEED, Sample
from seqmill.outputs.figures.words import counted

TITLE = "Map of the embeddings"
# Fewer points stay shapes in an SVG; more become one image, or the file would be large.
SHAPES = 500
BLOCK_ROWS = 1_000_000


def draw(embeddings: Path, index: Path, members: str, table: Path | None = None, column: str | None = None) -> Figure:
    """Principal components, beside them UMAP where it is installed; coloured by length or by a column of a table.

    Args:
        members: what the letters are: residues, or bases.
        table, column: see `metadata.read_column`; both or neither.

    Raises:
        NotDrawn: there are too few sequences, or nothing to tell them apart.
        UserError: the table has no such column.
    """
    with EmbeddingFile(embeddings) as file:
        sample = vectors.take(file)
        coloring: Coloring = colors.by_length(file.lengths[sample.rows], members)
        total = len(file.lengths)
    if table is not None and column is not None:
        coloring = colors.by_column(column, metadata.read_column(table, column, read_ids(index, sample.rows)))
    return picture(project(sample.values), coloring, sample, total)


def read_ids(index: Path, rows: np.ndarray) -> list[str]:
    """The ids of some rows, ascending, of an `index.parquet`, which is read block by block."""
    found: list[str] = []
    first = 0
    for block in parquet.ParquetFile(index).iter_batches(BLOCK_ROWS, columns=["id"]):
        own = rows[np.searchsorted(rows, first) : np.searchsorted(rows, first + len(block))] - first
        found += block["id"].take(own).to_pylist()
        first += len(block)
    return found


def picture(planes: list[Plane], coloring: Coloring, sample: Sample, total: int) -> Figure:
    """The planes side by side, with one legend.

    Args:
        total: sequences in the result.
    """
    made = style.figure(
        TITLE, _about(coloring, sample, total), height=6.2, width=style.WIDTH * (1 + 0.6 * (len(planes) - 1))
    )
    for axes, plane in zip(np.atleast_1d(made.subplots(1, len(planes))), planes, strict=True):
        _scatter(axes, plane, coloring)
    last = made.axes[-1]
    if isinstance(coloring, Categories):
        _legend(last, coloring)
    else:
        _scale(made, coloring)
    return made


def _about(coloring: Coloring, sample: Sample, total: int) -> str:
    of = "" if len(sample.rows) == total else f", a random sample of {total:,}"
    about = f"{counted(len(sample.rows), 'sequences')}{of}, by {sample.source}; coloured by {style.shorten(coloring.name, 60)}"
    missing = int((~coloring.known).sum())
    if missing == len(sample.rows):
        about += ", for which the table has no value of any of these ids"
    elif missing and isinstance(coloring, Numbers):
        about += f" (light grey: {missing:,} without a value)"
    return about


def _scatter(axes: Axes, plane: Plane, coloring: Coloring) -> None:
    count = len(plane.places)
    look = {
        "s": float(np.clip(30_000 / count, 2.0, 45.0)),
        "alpha": float(np.clip(0.35 + 500 / count, 0.35, 0.9)),
        "linewidths": 0,
        "rasterized": count > SHAPES,
    }
    # In random order, so that no colour covers the others; those without a value below all.
    order = np.random.default_rng(SEED).permutation(count)
    known = coloring.known[plane.places[order]]
    missing, shown = order[~known], order[known]
    axes.scatter(*plane.points[missing].T, color=style.LIGHT, **look)
    axes.scatter(*plane.points[shown].T, **_colors(coloring, plane.places[shown]), **look)
    axes.set_title(
        plane.method if count == len(coloring.known) else f"{plane.method} of {count:,}", fontsize=10, loc="left"
    )
    axes.set_xlabel(plane.axes[0])
    axes.set_ylabel(plane.axes[1])
    axes.set_xticks([])
    axes.set_yticks([])
    axes.margins(0.04)


def _colors(coloring: Coloring, places: np.ndarray) -> dict:
    if isinstance(coloring, Categories):
        return {"color": np.array(coloring.colors, dtype=object)[coloring.values[places]].tolist()}
    if not len(places):
        return {"color": style.LIGHT}
    return {"c": coloring.values[places], "cmap": style.SCALE, "norm": _norm(coloring)}


def _norm(coloring: Numbers) -> Normalize:
    return (LogNorm if coloring.is_logarithmic else Normalize)(*coloring.limits())


def _legend(axes: Axes, coloring: Categories) -> None:
    found = colors.counts(coloring, np.arange(len(coloring.values)))
    labels = [f"{style.shorten(label)} ({count:,})" for label, count in zip(coloring.labels, found, strict=True)]
    entries = list(zip(labels, coloring.colors, strict=True))
    if missing := int((~coloring.known).sum()):
        entries.append((f"no value ({missing:,})", style.LIGHT))
    dots = [Line2D([], [], marker="o", linestyle="", color=color, label=label) for label, color in entries]
    axes.legend(
        handles=dots,
        title=style.shorten(coloring.name),
        loc="upper left",
        bbox_to_anchor=(1.0, 1.0),
        frameon=False,
        alignment="left",
        borderaxespad=0,
    )


def _scale(made: Figure, coloring: Numbers) -> None:
    if not coloring.known.any():
        return
    low, high = coloring.limits()
    known = coloring.values[coloring.known]
    beyond = {(True, True): "both", (True, False): "min", (False, True): "max"}
    bar = made.colorbar(
        ScalarMappable(_norm(coloring), style.SCALE),
        ax=made.axes,
        extend=beyond.get((known.min() < low, known.max() > high), "neither"),
        fraction=0.04,
        pad=0.02,
    )
    if coloring.is_logarithmic:
        bar.ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    bar.set_label(f"{style.shorten(coloring.name, 60)}{', logarithmic' if coloring.is_logarithmic else ''}")
    bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
    bar.ax.yaxis.set_minor_formatter(FuncFormatter(lambda value, _: ""))
