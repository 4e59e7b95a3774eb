"""The out-of-memory diagnoses of a run's shards: read, summed up for people, and put away."""

import shutil
from pathlib import Path
from typing import Any

import pandas as pd

from seqmill.errors import UserError
from seqmill.files import read_json
from seqmill.outputs.names import OOM
from seqmill.outputs.schemas import validator
from seqmill.units import GIB


def collect(folders: list[Path], destination: Path) -> None:
    """Move the diagnoses of shards that ran out of memory to `destination` and remove their folders.

    Raises:
        UserError: there were any; the message is a table with the recommended batch sizes.
    """
    found = [folder for folder in folders if (folder / OOM).is_file()]
    if not found:
        return
    destination.mkdir(parents=True, exist_ok=True)
    rows, advice = [], {}
    for folder in found:
        content = _read(folder)
        saved = destination / f"{folder.name}.{content['created'].replace(':', '')}.json"
        shutil.copy(folder / OOM, saved)
        rows.append(_row(folder, content, saved))
        advice |= dict.fromkeys(content["recommendations"])
    # Only now: if this were interrupted earlier, the next run would find the diagnoses again.
    for folder in found:
        shutil.rmtree(folder)
    sizes = [row["recommended"] for row in rows]
    if all(isinstance(size, int) for size in sizes):
        # One size must serve all shards that run again.
        smallest = f"set performance.batch_size to {min(sizes)} and run the same command again"
        advice = {smallest: None} | {line: None for line in advice if not line.startswith("set performance.batch_size")}
    table = pd.DataFrame(rows).to_string(index=False)
    hints = "\n".join(f"  -> {line}" for line in advice)
    raise UserError(
        f"{len(found)} of {len(folders)} shards ran out of memory:\n{table}\n{hints}\n"
        "The next run repeats exactly these shards."
    )


def _row(folder: Path, content: dict[str, Any], saved: Path) -> dict[str, Any]:
    return {
        "shard": folder.name,
        "batch_size": content["batch_size"],
        "longest": content["longest_sequence"],
        "done": f"{content['completed_share']:.0%}",
        "peak_GiB": round(content["peak_reserved_bytes"] / GIB, 2),
        "card_GiB": round(content["device"]["total_bytes"] / GIB, 2),
        "recommended": content["recommended_batch_size"] or "none fits",
        "diagnosis": str(saved),
    }


def _read(folder: Path) -> dict[str, Any]:
    path = folder / OOM
    try:
        content = read_json(path)
    except ValueError:
        content = None
    if not validator("oom").is_valid(content):
        raise UserError(f"{path}: is damaged or of another version; remove {folder} and run the same command again")
    return content
