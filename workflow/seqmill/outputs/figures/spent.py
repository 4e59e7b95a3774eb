"""Where the time of all shards went."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from seqmill.outputs.figures import style
from seqmill.outputs.figures.shards import STARTING, Shard
from seqmill.outputs.figures.words import counted, percent, seconds

TITLE = "Where the time went"


def add_up(shards: Sequence[Shard]) -> tuple[dict[str, float], dict[str, float]]:
    """Seconds of all shards together: of each part of the jobs, in order; and of waiting during the computation."""
    parts: dict[str, float] = {}
    waits: dict[str, float] = {}
    # The longest list has all parts in order.
    for shard in sorted(shards, key=lambda shard: -len(shard.parts)):
        for into, own in ((parts, shard.parts), (waits, shard.waits)):
            for name, taken in own.items():
                into[name] = into.get(name, 0.0) + taken
    return parts, waits


def draw(shards: Sequence[Shard]) -> Figure:
    """Bars of the parts of all jobs; where GPUs computed, below them how long they and their hosts waited.

    Raises:
        NotDrawn: no meta.json was given.
    """
    if not shards:
        raise style.NotDrawn("no meta.json of a shard was given")
    parts, waits = add_up(shards)
    total = sum(parts.values())
    steady = sum(shard.steady for shard in shards)
    of = counted(len(shards), "shards")
    about = f"{of} took {seconds(total)} together, and {percent(parts.get('computing', 0) / total if total else 0)} of it to compute"
    if again := sum(bool(shard.meta["resumed_after"]) for shard in shards):
        about += f"; of {counted(again, 'shards')} that had been interrupted, only the last part is counted"
    on_gpu = any(shard.is_gpu for shard in shards)
    if not on_gpu:
        made = style.figure(TITLE, about, height=1.2 + 0.32 * len(parts))
        _bars(made.subplots(), parts, total, {name: _color(name) for name in parts})
        return made
    made = style.figure(TITLE, about, height=2.0 + 0.32 * (len(parts) + len(waits)))
    upper, lower = made.subplots(2, 1, height_ratios=[len(parts), len(waits)])
    _bars(upper, parts, total, {name: _color(name) for name in parts})
    _bars(lower, waits, steady, dict.fromkeys(waits, style.GREY))
    lower.set_title("Waiting while batches were computed, as a share of that time", loc="left", fontsize=10)
    return made


def _color(part: str) -> str:
    if part == "computing":
        return style.BLUE
    return style.AMBER if part in (*STARTING.values(), "preparing the files") else style.ORANGE


def _bars(axes: Axes, values: dict[str, float], total: float, colors: dict[str, str]) -> None:
    names = list(values)
    axes.barh(range(len(names)), list(values.values()), 0.7, color=[colors[name] for name in names])
    for row, value in enumerate(values.values()):
        share = f" ({percent(value / total)})" if total else ""
        axes.annotate(
            f"{seconds(value)}{share}",
            (value, row),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
        )
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    # Room for the words beside the longest bar, and bars as long as their share says.
    axes.set_xlim(0, max(max(values.values(), default=0), total * 0.25, 1e-9) * 1.25)
    style.plain_axes(axes)
