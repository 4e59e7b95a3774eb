"""What all pictures share: colours, letters, how they are saved, and what is shown where one cannot be drawn."""

import textwrap
import warnings
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from seqmill.files import write_atomically

# Told apart by the colour-blind (Okabe and Ito), those that show best on white first.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442")
BLUE, ORANGE, GREEN, PINK, AMBER, SKY, YELLOW = COLORS
GREY, LIGHT, TEXT = "#7F7F7F", "#D0D0D0", "#333333"
# From dark to bright without a change of direction, in black and white, too.
SCALE = "viridis"
WIDTH = 9.0
PNG_DPI = 150
SETTINGS = {
    "figure.dpi": PNG_DPI,
    "savefig.facecolor": "white",
    # DejaVu Sans, which matplotlib brings, and in browsers without it one that is no wider.
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": TEXT,
    "axes.labelcolor": TEXT,
    "axes.edgecolor": GREY,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": TEXT,
    "ytick.color": TEXT,
    # Names and ids may hold dollars.
    "text.parse_math": False,
    # Text that can be searched and edited, and the same bytes each time.
    "svg.fonttype": "none",
    "svg.hashsalt": "seqmill",
}


class NotDrawn(Exception):
    """There is nothing to draw; says why in a sentence."""


def prepare() -> None:
    """Make matplotlib draw as this module says, whatever the user's own matplotlibrc says."""
    matplotlib.rcdefaults()
    matplotlib.rcParams.update(SETTINGS)
    # The SVG shows the letters that matplotlib's own font lacks.
    warnings.filterwarnings("ignore", message="Glyph .* missing from font")


def figure(title: str, about: str = "", height: float = 4.5, width: float = WIDTH) -> Figure:
    """An empty picture with a title, and a line or more below that says what is to be seen; sizes in inches."""
    made = Figure(figsize=(width, height), layout="constrained")
    made.get_layout_engine().set(w_pad=0.12, h_pad=0.1, wspace=0.04, hspace=0.06)
    lines = textwrap.wrap(about, int(width * 13))
    # The layout keeps room for the title only, so the lines below are part of it, empty.
    whole = "\n".join([title, *("" for _ in lines)])
    made.suptitle(whole, x=0.012, ha="left", fontsize=13, fontweight="bold")
    made.text(0.012, 1 - 0.45 / height, "\n".join(lines), ha="left", va="top", fontsize=9.5, color=GREY)
    return made


def note(title: str, reason: str) -> Figure:
    """A picture that says why there is none."""
    return figure(title, reason, height=1.2)


def save(made: Figure, folder: Path, name: str) -> None:
    """Write a picture as SVG and PNG.

    Raises:
        UserError: the disk is full.
    """
    with write_atomically(folder / f"{name}.svg") as temporary:
        made.savefig(temporary, format="svg", dpi=PNG_DPI, metadata={"Date": None})
    with write_atomically(folder / f"{name}.png") as temporary:
        made.savefig(temporary, format="png", dpi=PNG_DPI)


def plain_axes(axes: Axes) -> None:
    """Only a frame's bottom: for bars with their values beside them."""
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.tick_params(length=0)
    axes.set_xticks([])


def shorten(text: str, most: int = 32) -> str:
    """Text in one line of at most so many characters."""
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[: most - 1]}…"
