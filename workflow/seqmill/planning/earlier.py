"""What finished shards of the same model on the same kind of device tell of the time that others will take."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from seqmill.outputs.names import META
from seqmill.planning.outline import Outline
from seqmill.planning.rates import Speed, Work

# Shorter ones tell more of the start than of the rest.
LEAST_SECONDS = 2.0
START = ("import_s", "read_s", "device_s", "load_s", "compile_s", "measure_s", "first_batch_s")
BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}


@dataclass(frozen=True)
class Run:
    """A finished shard.

    Attributes:
        device: as meta.json has it.
        threads: of a CPU; 0 of a GPU.
        start_s, steady_s: seconds until the first batch, and from there to the closed file.
        work: what it computed.
    """

    device: str
    threads: int
    start_s: float
    steady_s: float
    work: Work


def find(results: Path, model: Outline, dtype: str) -> list[Run]:
    """The finished shards of a model in a run's folder, computed in one go and in a dtype."""
    found = []
    for path in sorted((results / "embed").rglob(META)):
        try:
            run = _read(json.loads(path.read_text()), model, dtype)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):  # check says what is wrong with it
            continue
        if run is not None:
            found.append(run)
    return found


def _read(meta: dict[str, Any], model: Outline, dtype: str) -> Run | None:
    timings = meta["timings"]
    steady = timings["steady_s"] + timings["close_s"]
    is_like = meta["model"]["name"] == model.name and meta["dtype"] == dtype
    if not is_like or meta["resumed_after"] or meta["out_of_memory"] or steady < LEAST_SECONDS:
        return None
    threads = re.match(r"CPU, (\d+) thread", meta["device"])
    flops = meta["model_flops_per_s"] * timings["steady_s" if threads else "compute_s"]
    layers, config, cost = max(meta["layers"]), model.config, model.family.cost
    tokens = float(cost.tokens(np.array([meta["residues"] / meta["sequences"]]))[0] * meta["sequences"])
    attended = 4.0 * config.attention.heads * config.attention.head_dim * layers
    squares = max(flops - 2.0 * config.matrices * tokens * layers, 0.0) / attended
    work = Work.summed(config, tokens, squares, layers, BYTES[dtype])
    start = sum(timings[part] for part in START if part in timings)
    return Run(meta["device"], int(threads[1]) if threads else 0, start, steady, work)


def times(runs: list[Run], speed: Speed) -> float:
    """How many times as long as a speed says some runs took."""
    return sum(run.steady_s for run in runs) / sum(speed.seconds(run.work) for run in runs)
