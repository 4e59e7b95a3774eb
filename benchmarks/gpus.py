"""One to all GPUs of a machine: the whole workflow through Snakemake on the same input, one shard per GPU or several.

Each run has a folder of its own and a model with random weights. A run on all of them comes first and does not count:
it compiles the kernels. The steady state is the sum of the shards' rates; the makespan is from the first embed
job's start to the last one's end, held against the mean of the jobs.
"""

import argparse
import datetime
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import random_model
import torch
import yaml
from bench import START
from common import ROOT, read_proteins, report, write_shard


def run(gpus: int, shards: int, fasta: Path, model: Path, pooling: str, folder: Path) -> dict[str, Any]:
    """The workflow on the first `gpus` GPUs, with so many shards for each; one row of the table."""
    folder.mkdir()
    config = {
        "fasta": str(fasta),
        "model": {"name": str(model), "pooling": pooling},
        "shards": gpus * shards,
        "results": {"figures": False},
        "performance": {"gpus": gpus, "pin_memory": pooling == "residues"},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    command = [sys.executable, "-m", "snakemake", "--snakefile", ROOT / "Snakefile", "--directory", folder]
    command += ["--configfile", folder / "config.yaml", "--profile", ROOT / "profiles/local", "--quiet", "all"]
    visible = {"CUDA_VISIBLE_DEVICES": ",".join(map(str, range(gpus)))}
    begun = time.time()
    done = subprocess.run(command, env=os.environ | visible, capture_output=True, text=True)
    ended = time.time()
    if done.returncode:
        raise RuntimeError(f"{gpus} GPUs: {(done.stdout + done.stderr)[-1500:]}")
    row = figures(folder, gpus, shards, pooling) | {"whole_run_s": round(ended - begun, 1)}
    row["stages_s"] = stages(folder, begun, ended)
    busy = row.pop("busy_s")
    beyond = (row["makespan_s"] - busy) / shards
    return row | {"beyond_work_s": round(beyond, 2), "whole_run_to_steady": round(row["whole_run_s"] / busy, 3)}


def stages(folder: Path, begun: float, ended: float) -> dict[str, float]:
    """Seconds of each part of a whole run, one after the other; the first and the last hold Snakemake's own start and end."""
    metas = [json.loads(path.read_text()) for path in folder.glob("results/embed/*/meta.json")]
    results = folder / "results"
    times = {
        "shard": (results / "shards/SHA256SUMS").stat().st_mtime,
        "to the first embed job": min(datetime.datetime.fromisoformat(meta["started"]).timestamp() for meta in metas),
        "embed": max(datetime.datetime.fromisoformat(meta["created"]).timestamp() for meta in metas),
        "check": (results / "summary.tsv").stat().st_mtime,
        "merge": (results / "embeddings.h5").stat().st_mtime,
        "end": ended,
    }
    before = [begun, *times.values()]
    return {stage: round(time_ - last, 1) for (stage, time_), last in zip(times.items(), before, strict=False)}


def figures(folder: Path, gpus: int, shards: int, pooling: str) -> dict[str, Any]:
    """What the shards say of themselves."""
    metas = [json.loads(path.read_text()) for path in sorted(folder.glob("results/embed/*/meta.json"))]
    tables = [pd.read_csv(path, sep="\t") for path in folder.glob("logs/embed/*.benchmark.tsv")]
    devices = [meta["device_uuid"] for meta in metas]
    assert len(metas) == gpus * shards
    assert len(set(devices)) == gpus
    timings = [meta["timings"] for meta in metas]
    begun, ended = ([datetime.datetime.fromisoformat(meta[key]) for meta in metas] for key in ("started", "created"))
    seconds = [(end - begin).total_seconds() for begin, end in zip(begun, ended, strict=True)]
    makespan = (max(ended) - min(begun)).total_seconds()
    written = sum(path.stat().st_size for path in folder.glob("results/embed/*/embeddings.h5"))
    # Of each GPU, one shard after the other.
    steady = pd.Series([t["steady_s"] for t in timings]).groupby(devices).sum()
    residues = pd.Series([meta["residues"] for meta in metas]).groupby(devices).sum()
    rules = {
        path.name.split(".")[0]: pd.read_csv(path, sep="\t")["s"].sum() for path in folder.glob("logs/*.benchmark.tsv")
    }
    return {
        "pooling": pooling,
        "gpus": gpus,
        **({"shards_per_gpu": shards} if shards > 1 else {}),
        "steady_residues_per_s": round((residues / steady).sum()),
        "steady_s": [round(t["steady_s"], 1) for t in timings],
        "gpu_idle": round(max(t["gpu_idle_s"] / t["steady_s"] for t in timings), 4),
        "start_s": [round(sum(t[part] for part in START), 1) for t in timings],
        "read_s": [round(t["read_s"], 2) for t in timings],
        "makespan_s": round(makespan, 1),
        "makespan_to_mean": round(makespan / (sum(seconds) / gpus), 3),
        "cpus_per_gpu": round(sum(t["cpu_time"].sum() for t in tables) / sum(t["s"].sum() for t in tables), 2),
        "written_GB_per_s": round(written / 1e9 / steady.max(), 2),
        "rules_s": {rule: round(seconds, 1) for rule, seconds in rules.items()},
        "busy_s": float(steady.max()),
        "batch_size": [meta["settings"]["batch_size"] for meta in metas],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--fasta", type=Path, required=True)
    add("--model", default="650M", help="size drawn at random, or a folder [%(default)s]")
    add("--gpus", type=int, nargs="+", default=[1, 2, 4, 8], help="how many; those beyond the machine's are left out")
    add(
        "--shards",
        type=int,
        nargs="+",
        default=[1],
        help="how many for each GPU; more than one on all GPUs only [%(default)s]",
    )
    add("--pooling", nargs="+", default=["mean", "residues"])
    add("--cut", type=int, default=110, help="take so many residues of each protein [%(default)s]")
    add(
        "--repeats",
        type=int,
        nargs="+",
        default=[50, 5],
        help="of the input for each pooling; copies differ [%(default)s]",
    )
    add("--folder", type=Path, default=Path(tempfile.gettempdir()), help="for models and results [%(default)s]")
    add("--output", type=Path)
    args = parser.parse_args()
    present, rows = max(torch.cuda.device_count(), 1), []
    proteins = [replace(protein, sequence=protein.sequence[: args.cut]) for protein in read_proteins(args.fasta)]
    with tempfile.TemporaryDirectory(dir=args.folder) as temporary:
        folder = Path(temporary)
        model = Path(args.model).resolve()
        if args.model in random_model.NAMES:
            model = folder / "model"
            random_model.write(args.model, model, device="cuda")
            torch.cuda.empty_cache()
        for pooling, repeats in zip(args.pooling, args.repeats, strict=True):
            fasta = write_shard(proteins, repeats, folder / f"{pooling}.fasta")
            numbers = sorted((n for n in args.gpus if n <= present), reverse=True)
            warm_up = folder / f"{pooling}_warm_up"
            run(numbers[0], 1, fasta, model, pooling, warm_up)
            subprocess.run(["rm", "-r", warm_up], check=True)
            for gpus, shards in [(n, s) for n in numbers for s in args.shards if s == 1 or n == numbers[0]]:
                results = folder / f"{pooling}_{gpus}_{shards}"
                rows.append(
                    {
                        "model": args.model,
                        "records": repeats * len(proteins),
                        **run(gpus, shards, fasta, model, pooling, results),
                    }
                )
                print(rows[-1], flush=True)
                subprocess.run(["rm", "-r", results], check=True)
    for row in rows:
        alone = next((other for other in rows if other["pooling"] == row["pooling"] and other["gpus"] == 1), None)
        if alone:
            row["times_one"] = round(row["steady_residues_per_s"] / alone["steady_residues_per_s"], 3)
    report("gpus", rows, args.output, fasta=args.fasta.name, cut=args.cut)


if __name__ == "__main__":
    main()
