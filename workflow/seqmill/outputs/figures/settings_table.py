"""The settings and versions behind a result, in words."""

import json
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from seqmill.outputs.embedding_file import EmbeddingFile
from seqmill.outputs.figures import style
from seqmill.outputs.figures.shards import Shard
from seqmill.outputs.figures.words import counted, percent

TITLE = "How this was made"
VALUE_WIDTH = 88
# Settings of a job that are told where all is told, by their names in meta.json.
SETTINGS = {"batch_size": "batch size", "attention": "attention", "compile": "fused kernels", "allocator": "allocator"}


def describe(embeddings: Path, shards: Sequence[Shard], members: str) -> list[tuple[str, str]]:
    """What is known of a result, as labels and values: from its file, and from the meta.json of its shards.

    Args:
        members: what the letters are: residues, or bases.
    """
    with EmbeddingFile(embeddings) as file:
        attributes = {name: _plain(value) for name, value in file.attributes.items()}
        count, letters, datasets = len(file.lengths), int(file.lengths.sum()), file.datasets
    rows = {
        "model": attributes.get("model"),
        "revision": attributes.get("revision"),
        "checksum of the weights": str(attributes.get("checksum", ""))[:16],
        "sequences": f"{count:,} with {letters:,} {members}",
        "stored": "; ".join(
            f"{dataset.name} ({dataset.width} x {dataset.dtype} per {'sequence' if not dataset.is_per_token else 'token'})"
            for dataset in datasets
            if dataset.layer is not None
        ),
        "layers": _listed(attributes.get("layers")),
        "pooling": _listed(attributes.get("pooling")),
        "dtype": attributes.get("dtype"),
        "long sequences": attributes.get("long"),
    }
    if shards:
        rows |= _of_shards(shards, members)
    rows.setdefault("attention", attributes.get("attention"))
    rows["versions"] = _versions(attributes)
    return [(label, str(value)) for label, value in rows.items() if value not in (None, "")]


def _of_shards(shards: Sequence[Shard], members: str) -> dict[str, str]:
    rows = {words: _tally([_setting(shard, name) for shard in shards]) for name, words in SETTINGS.items()}
    rows["devices"] = _tally([shard.device for shard in shards])
    places = len({shard.place for shard in shards if shard.is_gpu})
    if places > 1:
        rows["devices"] += f", on {places} GPUs"
    steady = sum(shard.steady for shard in shards)
    if rates := [shard.meta["residues_per_s"] for shard in shards if shard.meta["residues_per_s"]]:
        rows["speed of a shard"] = (
            f"{np.median(rates):,.0f} {members}/s (median), {min(rates):,.0f} to {max(rates):,.0f}"
        )
    used = [(shard.meta["model_flop_utilisation"], shard.steady) for shard in shards]
    if all(share is not None for share, _ in used) and steady:
        rows["matrix rate used"] = percent(sum(share * taken for share, taken in used) / steady)
    rows["token slots in use"] = f"{np.mean([shard.meta['packing_efficiency'] for shard in shards]):.1%}".replace(
        "%", " %"
    )
    return rows


def _setting(shard: Shard, name: str) -> str:
    value = shard.meta["settings"].get(name)
    if isinstance(value, bool):
        return "on" if value else "off"
    if name == "batch_size" and isinstance(value, int):
        return f"{value:,} tokens"
    return "" if value is None else str(value)


def _tally(values: Sequence[str]) -> str:
    """The value of all shards, or each with how many have it."""
    found = Counter(values)
    if len(found) == 1:
        return values[0]
    return "; ".join(f"{value or 'none'} ({counted(count, 'shards')})" for value, count in found.most_common(4))


def _versions(attributes: Mapping[str, Any]) -> str:
    versions = json.loads(attributes.get("versions") or "{}")
    return ", ".join(f"{name} {version}" for name, version in versions.items() if version != "none")


def _listed(value: Any) -> str | None:
    return ", ".join(map(str, value)) if isinstance(value, list) else value


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, np.ndarray | np.generic):
        return [_plain(item) for item in value.tolist()] if isinstance(value, np.ndarray) else value.item()
    return value


def draw(rows: Sequence[tuple[str, str]]) -> Figure:
    """A table of two columns."""
    lines = [(label, textwrap.wrap(value, VALUE_WIDTH)[:6] or [""]) for label, value in rows]
    total = sum(len(value) for _, value in lines)
    height = 0.75 + 0.21 * total + 0.07 * len(lines)
    made = style.figure(TITLE, height=height)
    made.set_layout_engine("none")
    at = height - 0.72
    for label, value in lines:
        made.text(0.012, at / height, label, va="top", fontsize=9.5, color=style.GREY)
        for line in value:
            made.text(0.235, at / height, line, va="top", fontsize=9.5)
            at -= 0.21
        at -= 0.07
    return made
