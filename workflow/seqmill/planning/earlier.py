"""What finished shards of the same model on the same kind of device tell of the time that others will take."""

import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from seqmill.outputs.names import META
from seqmill.planning.outline import Outline
from seqmill.planning.rates import Speed, Work

# Attention and the rest are told apart by no fewer shards than these, of which its share of the time differs by as much.
LEAST_RUNS, LEAST_SPREAD = 4, 0.05
FOLDS = 20
# Shorter ones tell more of the start than of the rest.
LEAST_SECONDS = 2.0
# Without reading the sequences, which takes longer for more of them and which an estimate adds.
START = ("import_s", "device_s", "load_s", "compile_s", "measure_s", "first_batch_s")
EMBED = "embed"
BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}


@dataclass(frozen=True)
class Run:
    """A finished shard.

    Attributes:
        device: as meta.json has it.
        threads: of a CPU; 0 of a GPU.
        start_s, steady_s: seconds until the first batch, but for reading the sequences, and from there to the closed file.
        work: what it computed.
    """

    device: str
    threads: int
    start_s: float
    steady_s: float
    work: Work


def folders(results: Path, reused: Iterable[str | Path]) -> list[Path]:
    """Where finished shards are: in a run's own folder, and in those of earlier results that it reuses.

    Args:
        reused: embeddings.h5 files or their folders; a sample's has its shards in the folder around it.
    """
    found = [results]
    for path in map(Path, reused):
        folder = path if path.is_dir() else path.parent
        found += [folder] if (folder / META).exists() or (folder / EMBED).exists() else [folder.parent]
    return list(dict.fromkeys(found))


def find(folders: Iterable[Path], model: Outline, dtype: str) -> list[Run]:
    """The finished shards of a model in some folders, see `folders`, computed in one go and in a dtype."""
    found = []
    for path in (path for folder in folders for path in [folder / META, *sorted((folder / EMBED).rglob(META))]):
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
    tokens, squares = (meta["tokens"], meta["tokens_squared"]) if "tokens" in meta else _counted(meta, model)
    work = Work.summed(model.config, tokens, squares, max(meta["layers"]), BYTES[dtype])
    start = sum(timings[part] for part in START if part in timings)
    return Run(meta["device"], int(threads[1]) if threads else 0, start, steady, work)


def _counted(meta: dict[str, Any], model: Outline) -> tuple[float, float]:
    """The tokens of a shard and the sum of their squares, where meta.json is of a version that did not record them."""
    timings, config, layers = meta["timings"], model.config, max(meta["layers"])
    flops = meta["model_flops_per_s"] * timings["steady_s" if meta["device"].startswith("CPU") else "compute_s"]
    tokens = float(model.family.cost.tokens(np.array([meta["residues"] / meta["sequences"]]))[0] * meta["sequences"])
    attended = 4.0 * config.attention.heads * config.attention.head_dim * layers
    return tokens, max(flops - 2.0 * config.matrices * tokens * layers, 0.0) / attended


def speed_of(runs: Sequence[Run], speed: Speed) -> tuple[Speed, bool]:
    """The speed at which some runs were computed, and whether they tell apart what attention and all else take.

    They do where they are enough, their sequences differ enough in length, and each of them is predicted better from the
    others by a factor for attention and one for the rest than by one for both.

    Args:
        speed: what there is without them.
    """
    measured, parts = np.array([run.steady_s for run in runs]), np.array([_parts(run.work, speed) for run in runs])
    share, both = parts[:, 1] / parts.sum(axis=1), _two(parts, measured)
    is_varied = len(runs) >= LEAST_RUNS and np.ptp(share) >= LEAST_SPREAD and np.isfinite(both).all()
    if is_varied and _error(_two, parts, measured) < _error(_one, parts, measured):
        shares = {name: of * both[int(name == "attention")] for name, of in speed.shares.items()}
        return replace(speed, shares=shares), True
    return replace(speed, times=speed.times * float(_one(parts, measured)[0])), False


def _parts(work: Work, speed: Speed) -> tuple[float, float]:
    """Seconds of everything but attention, and of attention."""
    attention = speed.seconds(replace(work, products=0.0, moved=0.0, passes=0.0))
    return speed.seconds(work) - attention, attention


def _error(fit: Callable[[np.ndarray, np.ndarray], np.ndarray], parts: np.ndarray, measured: np.ndarray) -> float:
    """The mean relative error of runs that are left out, one or a part of them after the other; NaN where a fit makes no sense."""
    folds = np.arange(len(measured)) % FOLDS
    left_out = [folds == fold for fold in np.unique(folds)]
    errors = [parts[out] @ fit(parts[~out], measured[~out]) / measured[out] - 1 for out in left_out]
    return float(np.abs(np.concatenate(errors)).mean())


def _one(parts: np.ndarray, measured: np.ndarray) -> np.ndarray:
    """(2,) the same factor for all parts, by the time of all runs together."""
    return np.full(2, measured.sum() / parts.sum())


def _two(parts: np.ndarray, measured: np.ndarray) -> np.ndarray:
    """(2,) a factor for each part, by least squares of the relative errors; NaN where one would not be positive."""
    factors = np.linalg.lstsq(parts / measured[:, None], np.ones(len(measured)), rcond=None)[0]
    return factors if (factors > 0).all() else np.full(2, np.nan)
