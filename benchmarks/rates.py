"""Write workflow/seqmill/planning/rates.json, by which plans are made, from benchmarks/results.

Of GPUs the rows of engine.py and families.py count, of CPUs those of cpu_rates.py. The stated error is that of rows that were
left out: each model's rows are predicted from those of all other models.
"""

import argparse
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import random_model
from common import ROOT

from seqmill.models import registry
from seqmill.models.family import Config
from seqmill.planning import published
from seqmill.planning.rates import FILE, Speed, Work
from seqmill.units import GIB

RESULTS = ROOT / "benchmarks/results"
PARTS = ("products", "attention", "moved", "passes")
# What the benchmarks call models, and whose sizes they have.
HUB = {
    **{size: f"facebook/esm2_t{layers}_{size}_UR50D" for size, (layers, _, _) in random_model.SIZES.items()},
    "esm1b": "facebook/esm1b_t33_650M_UR50S",
    "esmc-300M": "biohub/ESMC-300M",
    "esmc-600M": "biohub/ESMC-600M",
    "prott5-xl": "Rostlab/prot_t5_xl_half_uniref50-enc",
    "ankh-base": "ElnaggarLab/ankh-base",
    "dnabert-s": "zhihan1996/DNABERT-S",
}
# Residues of UniRef90's sample per token, where a row does not say tokens.
RESIDUES_PER_TOKEN = 345 / 347
BASELINE = "seqmill"


def config_of(model: str) -> Config:
    """The sizes of a model of the benchmarks."""
    name = HUB[model]
    return registry.published_by(name).read_config(published.fields()[name], name, dict)


def ceilings(result: dict[str, Any]) -> tuple[float, float]:
    """Sustained operations per second of matrix products, and bytes per second of copies."""
    found = list(result["ceilings"].values())
    matmul = np.mean([values["matmul_sustained_TFLOP/s"] for values in found])
    return float(matmul) * 1e12, float(np.mean([values["copy_TB/s"] for values in found])) * 1e12


def gpu_rows(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Seconds per token of every run, with the work that a token was, and the card's rates."""
    found = []
    for result in results:
        matmul, copy = ceilings(result)
        for row in result["rows"]:
            if row["what"] not in (BASELINE, f"{BASELINE}, expandable segments") or not row.get("compiled"):
                continue
            config = config_of(row["model"])
            tokens = row.get("tokens_per_s") or row["residues_per_s"] / RESIDUES_PER_TOKEN
            # The rate of operations tells how long the sequences were.
            attended = config.attention.heads * config.attention.head_dim
            per_layer = row["TFLOP/s"] * 1e12 / tokens / config.layer_count
            square = max(per_layer - 2 * config.matrices, 0) / (4 * attended)
            work = Work.summed(config, 1.0, square, config.layer_count, 2)
            found.append({**row, "work": work, "seconds": 1 / tokens, "matmul": matmul, "copy": copy, "config": config})
    return found


def cpu_rows(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same of runs on CPUs, which say their work themselves."""
    rows = [row for result in results for row in result["rows"]]
    return [{**row, "work": Work(**row["work"])} for row in rows]


def fit(rows: list[dict[str, Any]]) -> dict[str, float]:
    """What each part costs: the relative errors' least squares, no part less than nothing."""
    ceiling = {"moved": "copy"}
    matrix = np.array(
        [[getattr(row["work"], p) / row[ceiling.get(p, "matmul")] / row["seconds"] for p in PARTS] for row in rows]
    )
    scale = matrix.max(axis=0)
    matrix, kept = matrix / scale, np.ones(len(PARTS), bool)
    while True:
        shares = np.zeros(len(PARTS))
        shares[kept] = np.linalg.lstsq(matrix[:, kept], np.ones(len(rows)), rcond=None)[0]
        if (shares >= 0).all():
            return {part: float(f"{share:.4g}") for part, share in zip(PARTS, shares / scale, strict=True)}
        kept &= shares > 0


def errors(rows: list[dict[str, Any]]) -> list[float]:
    """Predicted by measured, less 1, of each row, from the rows of all other models."""
    found = []
    for row in rows:
        shares = fit([other for other in rows if other["model"] != row["model"]])
        found.append(Speed(row["matmul"], row["copy"], shares).seconds(row["work"]) / row["seconds"] - 1)
        print(f"  {row['model']:12}{row.get('input', ''):45}{found[-1]:+.1%}")
    return found


def start(rows: list[dict[str, Any]], starts: list[dict[str, Any]]) -> dict[str, float]:
    """Seconds of a process without reading its sequences and without its steady state: a part for all, and one for each GB of weights.

    Args:
        rows: of `gpu_rows`, which count where there is no better evidence.
        starts: results of starts.py on GPUs; of the newest, those with kernels that had been compiled before.
    """
    newest = starts[-1]["rows"] if starts else []
    known = [r for r in newest if (r["version"], r["kernels"]) == ("ours", "cached") and r["model"] in HUB]
    if len({row["model"] for row in known}) > 1:
        seconds = [row["first_batch_after_s"] - row["read_s"] for row in known]
    else:
        known, seconds = rows, [row["wall_s"] - row["steady_s"] for row in rows]
    matrix = np.array([[1.0, weights_gb(row["model"])] for row in known])
    base, per_gb = np.linalg.lstsq(matrix, np.array(seconds), rcond=None)[0]
    return {"base_s": round(float(base), 1), "per_GB_s": round(max(float(per_gb), 0.0), 2)}


def weights_gb(model: str) -> float:
    """The file of a model that benchmarks draw at random."""
    return config_of(model).parameter_count * (2 if model in ("3B", "15B", "prott5-xl") else 4) / 1e9


def activations(rows: list[dict[str, Any]]) -> float:
    """Of the numbers in and out of a layer's products, how many are in memory at once, at the peak."""
    shares = []
    for row in rows:
        config = row["config"]
        free = row["peak_GiB"] * GIB - 2 * config.parameter_count
        shares.append(free / (row["batch_size"] * 2 * (config.matrices / config.width + 4 * config.width)))
    return round(float(np.median(shares)), 3)


def slower(results: list[dict[str, Any]], what: str, key: str) -> float:
    """How many times as long a run takes that was made in another way, on the same input."""
    rows = [row for result in results for row in result["rows"]]
    other = next(row for row in rows if row["what"] == what)
    base = next(
        row for row in rows if row["what"] == BASELINE and row.get("compiled") and row["input"] == other["input"]
    )
    return round(base[key] / other[key], 2)


def described(found: list[float], rows: list[dict[str, Any]]) -> dict[str, Any]:
    """How far rows that were left out are off."""
    off = np.abs(found)
    return {"runs": len(rows), "mean_error": round(float(off.mean()), 3), "worst_error": round(float(off.max()), 3)}


def read(folder: Path) -> list[dict[str, Any]]:
    """All results of benchmarks, in the order of their names."""
    found = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    return [result for result in found if isinstance(result, dict)]


def on_gpus(benchmark: str, results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The results of a benchmark that ran on a GPU, in the order of their files' names."""
    return [result for result in results if result.get("benchmark") == benchmark and "NVIDIA" in result["device"]]


def content(results: list[dict[str, Any]]) -> dict[str, Any]:
    """What rates.json holds."""
    on_gpu = [
        result for result in results if result.get("benchmark") in ("engine", "families") and "ceilings" in result
    ]
    cards: dict[str, list[tuple[float, float]]] = {}
    for result in on_gpu:
        cards.setdefault(re.search(r"NVIDIA ([A-Z]+\d+)", result["device"])[1], []).append(ceilings(result))
    rows, on_cpu = gpu_rows(on_gpu), cpu_rows([result for result in results if result.get("benchmark") == "cpu_rates"])
    return {
        "about": "What plans are made by. Written by benchmarks/rates.py from benchmarks/results.",
        "cards": {name: _mean(found) for name, found in cards.items()},
        "gpu": {
            "shares": fit(rows),
            **described(errors(rows), rows),
            "start": start(rows, on_gpus("starts", results)),
            "activations": activations(rows),
            "not_compiled_times": slower(on_gpu, "seqmill, kernels not compiled", "residues_per_s"),
            "sdpa_times": slower(on_gpu, "seqmill, standard attention", "residues_per_s"),
        },
        "cpu": {"shares": fit(on_cpu), **described(errors(on_cpu), on_cpu)},
    }


def _mean(found: list[tuple[float, float]]) -> dict[str, float]:
    matmul, copy = np.mean(found, axis=0)
    return {"matmul": round(matmul, -11), "copy": round(copy, -10)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--output", type=Path, default=FILE)
    args = parser.parse_args()
    made = content(read(args.results))
    args.output.write_text(json.dumps(made, indent=2) + "\n")
    print(json.dumps(made, indent=2))


if __name__ == "__main__":
    main()
