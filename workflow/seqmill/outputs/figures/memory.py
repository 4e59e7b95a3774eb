"""How much of its memory each shard's device was asked for."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from seqmill.outputs.figures import style
from seqmill.outputs.figures.shards import Shard
from seqmill.outputs.figures.words import counted, percent
from seqmill.units import GIB

TITLE = "Memory"
# From the back to the front, each part of the one before: name in meta.json, words, colour.
ON_GPU = (
    ("peak_reserved_bytes", "reserved at the peak", style.LIGHT),
    ("peak_allocated_bytes", "in use at the peak", style.SKY),
    ("model_bytes", "the model's weights", style.BLUE),
)
ON_HOST = (
    ("peak_host_bytes", "taken by the process at its peak", style.SKY),
    ("model_bytes", "the model's weights", style.BLUE),
)
# More shards than this are too many to be named.
NAMED = 40


def draw(shards: Sequence[Shard]) -> Figure:
    """Bars of what each shard took, below a line of what its card has; of shards on the CPU, of the host's memory.

    Raises:
        NotDrawn: no meta.json was given, or none says how much memory was taken.
    """
    if not shards:
        raise style.NotDrawn("no meta.json of a shard was given")
    on_gpu = [shard for shard in shards if shard.is_gpu]
    layers, limit, what = (ON_GPU, "device_bytes", "the GPU has") if on_gpu else (ON_HOST, "host_bytes", "the host has")
    known = [shard for shard in (on_gpu or shards) if layers[0][0] in shard.memory]
    if not known:
        raise style.NotDrawn("the shards were computed on the CPU, and no note was taken of the memory they took")
    peaks = np.array([shard.memory[layers[0][0]] for shard in known]) / GIB
    limits = np.array([shard.memory.get(limit, np.nan) for shard in known]) / GIB
    made = style.figure(TITLE, _about(known, peaks, limits, bool(on_gpu)), height=4.2)
    axes = made.subplots()
    places = np.arange(len(known))
    for name, words, color in layers:
        heights = [shard.memory.get(name, 0) / GIB for shard in known]
        width = 0.7 if len(known) <= 4 * NAMED else 1.0
        axes.bar(places, heights, width, color=color, label=words)
    if np.isfinite(limits).any():
        edges = [-0.5, *(places + 0.5)]
        axes.step(edges, [limits[0], *limits], where="pre", color=style.ORANGE, linewidth=1.5, label=what)
    axes.set_ylabel("GiB")
    axes.set_ylim(0, np.nanmax([*peaks, *limits]) * 1.08)
    # A few bars would be as wide as the picture.
    middle, half = (len(known) - 1) / 2, max(len(known), 6) / 2 + 0.1
    axes.set_xlim(middle - half, middle + half)
    axes.set_xlabel("shard")
    if len(known) <= NAMED:
        slanted = len(known) > 12 and max(len(shard.name) for shard in known) > 3
        axes.set_xticks(places, [style.shorten(shard.name, 12) for shard in known], rotation=60 if slanted else 0)
    else:
        axes.xaxis.set_major_locator(MaxNLocator(10, integer=True))
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, borderaxespad=0)
    return made


def _about(known: Sequence[Shard], peaks: np.ndarray, limits: np.ndarray, on_gpu: bool) -> str:
    most = int(peaks.argmax())
    share = f", {percent(peaks[most] / limits[most])} of what there is" if np.isfinite(limits[most]) else ""
    about = f"at most {peaks[most]:,.1f} GiB{share}, in shard {known[most].name}"
    about += "" if on_gpu else "; memory of the host, as no GPU was used"
    if ooms := sum(len(shard.meta["out_of_memory"]) for shard in known):
        about += f"; memory ran out {counted(ooms, 'times')} on the way"
    return about
