"""From process start to the first finished batch, each part of it: this version of seqmill against another, in one run.

Each job embeds a shard as the workflow does, from a record of the weights. It runs with a cache of compiled kernels
that is new, and again with that cache. The files are in the page cache: one run of each version comes first and does not
count.
"""

import argparse
import datetime
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import random_model
import torch
from common import ROOT, read_proteins, report, write_shard

# What a job does until its first batch is finished, in order.
PARTS = ("import_s", "read_s", "device_s", "load_s", "compile_s", "measure_s", "open_s", "first_batch_s")


def tool(checkout: Path, name: str, *arguments: object, **variables: str) -> None:
    """Run one of a checkout's tools."""
    command = [sys.executable, checkout / f"workflow/scripts/{name}.py", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | variables)
    if done.returncode:
        raise RuntimeError(f"{checkout}: {(done.stderr.strip().splitlines() or ['it failed'])[-1][:300]}")


def start(checkout: Path, inputs: Path, cache: Path) -> dict[str, Any]:
    """The parts of one job's start, in seconds, and what it chose."""
    with tempfile.TemporaryDirectory(dir=inputs) as output:
        begun = datetime.datetime.now(datetime.UTC)
        arguments = ("--fasta", inputs / "0.fasta", "--verify-fasta", "--weights", inputs / "weights.json")
        tool(checkout, "embed", *arguments, "--output", f"{output}/0", TRITON_CACHE_DIR=str(cache))
        meta = json.loads(Path(output, "0/meta.json").read_text())
    timings = meta["timings"]
    timings["open_s"] = timings["embed_s"] - timings["steady_s"]
    parts = {part: round(timings[part], 2) for part in PARTS}
    python = (datetime.datetime.fromisoformat(meta["started"]) - begun).total_seconds() if "started" in meta else 0.0
    return {
        "first_batch_after_s": round(python + sum(timings[part] for part in PARTS), 2),
        "python_s": round(python, 2),
        **parts,
        "attention": meta["settings"]["attention"],
        "compiled": meta["settings"]["compile"],
        "batch_size": meta["settings"]["batch_size"],
        "residues_per_s": round(meta["residues_per_s"] or 0),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--other", type=Path, help="another checkout; left out, only this one is measured")
    add("--fasta", type=Path, required=True)
    add("--models", nargs="+", default=["650M", "8M", "3B"], help="sizes, drawn at random, or folders [%(default)s]")
    add("--records", type=int, nargs="+", default=[10_000, 100_000, 3_000], help="for each model [%(default)s]")
    add("--warm", type=int, default=2, help="runs with kernels that are cached [%(default)s]")
    add("--folder", type=Path, default=Path(tempfile.gettempdir()), help="for models and results [%(default)s]")
    add("--output", type=Path)
    args = parser.parse_args()
    checkouts = {"ours": ROOT, **({"theirs": args.other.resolve()} if args.other else {})}
    proteins, rows = read_proteins(args.fasta), []
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with tempfile.TemporaryDirectory(dir=args.folder) as temporary:
        folder = Path(temporary)
        for model, records in zip(args.models, args.records, strict=True):
            checkpoint, model = Path(model).resolve(), Path(model).name
            if model in random_model.NAMES:
                checkpoint = folder / model
                random_model.write(model, checkpoint, dtype=torch.bfloat16 if model == "3B" else None, device=device)
            if device == "cuda":
                torch.cuda.empty_cache()
            repeats = -(-records // len(proteins))
            fasta = write_shard(proteins[: records // repeats], repeats, folder / f"{model}.fasta")
            for name, checkout in checkouts.items():
                tool(checkout, "shard", "--fasta", fasta, "--shards", 1, "--output", folder / name)
                tool(checkout, "weights", "--model", checkpoint, "--output", folder / name / "weights.json")
            for number in range(args.warm + 2):
                for name in list(checkouts)[:: 1 if number % 2 else -1]:
                    # The first run only brings files into the page cache, and has compiled nothing for the next one.
                    cache = folder / f"{name}_{'first' if number == 0 else 'kernels'}_{model}"
                    begun = time.perf_counter()
                    row = start(checkouts[name], folder / name, cache)
                    kernels = "cached" if number > 1 else "compiled anew"
                    row = {"version": name, "model": model, "records": records, "kernels": kernels, **row}
                    print(row | {"wall_s": round(time.perf_counter() - begun, 1)}, flush=True)
                    if number:
                        rows.append(row)
            for path in (folder / model, *(folder / name for name in checkouts)):
                shutil.rmtree(path, ignore_errors=True)
    report("starts", rows, args.output, fasta=args.fasta.name)


if __name__ == "__main__":
    main()
