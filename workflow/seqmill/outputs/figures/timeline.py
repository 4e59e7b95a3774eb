"""Which shard ran when on which device, and how evenly the work was shared."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from seqmill.outputs.figures import style
from seqmill.outputs.figures.shards import Shard
from seqmill.outputs.figures.words import counted, percent, seconds, unit_of

TITLE = "Shards over time"
PARTS = {"starting": style.AMBER, "computing": style.BLUE, "closing": style.PINK}
# Time in which no shard ran is left out where it is more than this share of the time in which some did.
LONGEST_PAUSE = 0.1
# Rows of which each has its own label, and shards that have their name on the bar.
LABELLED_ROWS, NAMED = 40, 200


@dataclass(frozen=True)
class Bar:
    """One shard on the time axis.

    Attributes:
        row: counted from the top.
        begin: seconds since the first shard began, pauses left out.
    """

    shard: Shard
    row: int
    begin: float


@dataclass(frozen=True)
class Plan:
    """What is drawn.

    Attributes:
        rows: the place of each row; shards that ran at once in one place have several rows.
        pauses: where time was left out, and how much, in seconds.
    """

    bars: list[Bar]
    rows: list[str]
    pauses: list[tuple[float, float]]

    @property
    def makespan(self) -> float:
        return max(bar.begin + bar.shard.duration for bar in self.bars)

    @property
    def busy(self) -> float:
        """The share of all rows' time in which a shard ran."""
        total = self.makespan * len(self.rows)
        return sum(bar.shard.duration for bar in self.bars) / total if total else 1.0


def plan(shards: Sequence[Shard]) -> Plan:
    """Give each shard a row and a beginning."""
    begins, pauses = _without_pauses(shards)
    rows: list[str] = []
    # When each row is free again.
    free: list[float] = []
    bars = []
    places = sorted({shard.place for shard in shards})
    for place in places:
        own = sorted((begin, number) for number, begin in enumerate(begins) if shards[number].place == place)
        first = len(rows)
        for begin, number in own:
            row = next((row for row in range(first, len(rows)) if free[row] <= begin), None)
            if row is None:
                row = len(rows)
                rows.append(place)
                free.append(0.0)
            free[row] = begin + shards[number].duration
            bars.append(Bar(shards[number], row, begin))
    return Plan(bars, rows, pauses)


def _without_pauses(shards: Sequence[Shard]) -> tuple[list[float], list[tuple[float, float]]]:
    """When each shard began, counted from the first, with long pauses left out; and those, see `Plan`."""
    order = sorted(range(len(shards)), key=lambda number: shards[number].started)
    stretches: list[tuple[float, float]] = []
    for number in order:
        begin, end = shards[number].started, shards[number].started + shards[number].duration
        if stretches and begin <= stretches[-1][1]:
            stretches[-1] = (stretches[-1][0], max(end, stretches[-1][1]))
        else:
            stretches.append((begin, end))
    longest = LONGEST_PAUSE * sum(end - begin for begin, end in stretches)
    starts, ends = [begin for begin, _ in stretches], [end for _, end in stretches]
    gaps = [begin - end for begin, end in zip(starts[1:], ends[:-1], strict=True)]
    skipped = np.cumsum([starts[0], *(gap if gap > longest else 0.0 for gap in gaps)])
    pauses = [
        (end - skipped[n], gap) for n, (end, gap) in enumerate(zip(ends[:-1], gaps, strict=True)) if gap > longest
    ]
    of = np.searchsorted(starts, [shard.started for shard in shards], side="right") - 1
    return [float(shard.started - skipped[n]) for shard, n in zip(shards, of.tolist(), strict=True)], pauses


def draw(shards: Sequence[Shard]) -> Figure:
    """A row per device, a bar per shard.

    Raises:
        NotDrawn: no meta.json was given.
    """
    if not shards:
        raise style.NotDrawn("no meta.json of a shard was given")
    planned = plan(shards)
    unit, name = unit_of(planned.makespan)
    height = 2.1 + min(0.4 * len(planned.rows), 16)
    made = style.figure(TITLE, _about(planned, shards), height=height)
    axes = made.subplots()
    _bars(axes, planned, unit)
    axes.set_xlabel(f"{name} since the first shard began{', pauses left out' if planned.pauses else ''}")
    axes.set_xlim(0, max(planned.makespan / unit, 1e-6) * 1.005)
    axes.set_ylim(len(planned.rows) - 0.4, -0.6)
    _label_rows(axes, planned, {shard.place: shard for shard in shards})
    for at, gap in planned.pauses:
        axes.axvline(at / unit, color=style.TEXT, linewidth=1, linestyle=":")
        if len(planned.pauses) <= 6:
            label = f" {seconds(gap)} later"
            axes.text(at / unit, -0.55, label, fontsize=8, color=style.TEXT, ha="left", va="bottom")
    legend = [Patch(color=color, label=part) for part, color in PARTS.items()]
    axes.legend(handles=legend, loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, borderaxespad=0)
    return made


def _about(planned: Plan, shards: Sequence[Shard]) -> str:
    devices = len({shard.place for shard in shards})
    is_gpu = any(shard.is_gpu for shard in shards)
    where = counted(devices, "GPUs") if is_gpu else "the CPU" if devices == 1 else f"the CPUs of {devices} machines"
    about = (
        f"{counted(len(shards), 'shards')} on {where}, from the first start to the last end {seconds(planned.makespan)}"
    )
    if len(shards) > 1:
        slowest, mean = max(shard.steady for shard in shards), np.mean([shard.steady for shard in shards])
        balance = f"; the longest shard computes {slowest / mean:.2f} times the mean" if mean else ""
        about += f"{balance}; rows are busy {percent(planned.busy)} of the time"
    return about


def _bars(axes: Axes, planned: Plan, unit: float) -> None:
    colors = list(PARTS.values())
    for row in range(len(planned.rows)):
        # One drawing for a row: thousands of bars one by one take minutes.
        own = [bar for bar in planned.bars if bar.row == row]
        height = (row - 0.35, 0.7)
        spans = [span for bar in own for span in _spans(bar, unit)]
        axes.broken_barh(spans, height, facecolors=colors * len(own))
        whole = [(bar.begin / unit, bar.shard.duration / unit) for bar in own]
        axes.broken_barh(whole, height, facecolors="none", edgecolors="white", linewidth=0.8)
    for bar in planned.bars:
        shard = bar.shard
        # Digits are about a hundredth of the axis wide.
        if len(planned.bars) <= NAMED and shard.steady > 0.012 * len(shard.name) * planned.makespan:
            middle = bar.begin + shard.starting + shard.steady / 2
            axes.text(middle / unit, bar.row, shard.name, ha="center", va="center", color="white", fontsize=8)


def _spans(bar: Bar, unit: float) -> list[tuple[float, float]]:
    """Where each of PARTS begins, and how long it is, in units of the axis."""
    widths = [bar.shard.starting, bar.shard.steady, bar.shard.closing]
    begins = np.cumsum([bar.begin, *widths[:-1]])
    return [(begin / unit, width / unit) for begin, width in zip(begins.tolist(), widths, strict=True)]


def _label_rows(axes: Axes, planned: Plan, of: dict[str, Shard]) -> None:
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    if len(planned.rows) > LABELLED_ROWS:
        axes.set_yticks([])
        axes.set_ylabel(f"{len(planned.rows)} rows")
        return
    # A place with several rows is named at the first.
    labels = [
        _label(of[place]) if row == 0 or planned.rows[row - 1] != place else ""
        for row, place in enumerate(planned.rows)
    ]
    axes.set_yticks(range(len(labels)), labels, fontsize=8.5)


def _label(shard: Shard) -> str:
    if not shard.is_gpu:
        return style.shorten("CPU" if shard.place == "CPU" else f"CPU of {shard.place}", 28)
    name = shard.device.split(",")[0].removeprefix("NVIDIA ")
    return f"{style.shorten(name, 24)}\n{shard.place.removeprefix('GPU-')[:8]}"
