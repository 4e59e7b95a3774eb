"""What plans predict, beside what is measured: `seqmill plan` and then `seqmill embed`, file to file, for models and inputs.

On a GPU, or on the CPU where there is none. Checkpoints of real sizes have random weights; a folder is taken as it is. With
--repeats each input is repeated, which gives a fast card enough to do.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pandas as pd
import random_model
import torch
from bench import START
from common import ROOT, read_proteins, report, write_shard

from seqmill.planning import config as configuration
from seqmill.planning import estimate as estimates
from seqmill.planning import plan
from seqmill.units import GIB

SHOWN = [
    "model",
    "input",
    "predicted_s",
    "measured_s",
    "error",
    "predicted_steady_s",
    "measured_steady_s",
    "steady_error",
]


def checkpoint(model: str, folder: Path, files: Path | None) -> Path:
    """The folder of a model; drawn at random where it is a name."""
    if model not in random_model.NAMES:
        return Path(model)
    if not (folder / model).exists():
        device = "cuda" if torch.cuda.is_available() else "cpu"
        dtype = torch.bfloat16 if model in ("3B", "15B") else None
        random_model.write(model, folder / model, dtype=dtype, device=device, files=files)
        if device == "cuda":
            torch.cuda.empty_cache()
    return folder / model


def predicted(model: Path, fasta: Path, results: Path, flags: list[str]) -> plan.Plan:
    """The plan of one shard on one device; `flags` are those of embed.py."""
    pooling = flags[flags.index("--pooling") + 1 :] if "--pooling" in flags else ["auto"]
    settings = {"name": str(model), "pooling": pooling}
    config = {"fasta": str(fasta), "model": settings, "shards": 1}
    return plan.make(configuration.check(config), results)


def measured(model: Path, fasta: Path, output: Path, flags: list[str]) -> tuple[float, dict[str, Any]]:
    """Seconds that embed.py takes, and its meta.json."""
    command = [
        sys.executable,
        ROOT / "workflow/scripts/embed.py",
        "--fasta",
        fasta,
        "--model",
        model,
        "--output",
        output,
    ]
    begun = time.perf_counter()
    done = subprocess.run([*map(str, command), *flags], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{model}: {done.stderr.strip().splitlines()[-1][:300]}")
    return time.perf_counter() - begun, json.loads((output / "meta.json").read_text())


def compare(name: str, model: Path, fasta: Path, folder: Path, flags: list[str]) -> dict[str, Any]:
    """One row."""
    estimate = predicted(model, fasta, folder, flags).estimates[0]
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        seconds, meta = measured(model, fasta, Path(temporary) / "out", flags)
    timings, memory = meta["timings"], meta["memory"]["peak_reserved_bytes"]
    steady, predicted_steady = timings["steady_s"] + timings["close_s"], estimate.busy_s - estimate.device.start_s
    row = {
        "model": name,
        "input": fasta.stem,
        "residues": meta["residues"],
        "predicted_s": round(estimate.wall_s, 1),
        "measured_s": round(seconds, 1),
        "error": round(estimate.wall_s / seconds - 1, 3),
        "predicted_steady_s": round(predicted_steady, 2),
        "measured_steady_s": round(steady, 2),
        "steady_error": round(predicted_steady / steady - 1, 3),
        "start": {part: timings[part] for part in START if part in timings},
        "batch_size": meta["settings"]["batch_size"],
        "flags": flags,
        "basis": estimate.device.basis,
    }
    if memory:
        row |= {
            "predicted_GiB": round((estimate.peak_bytes - estimates.CONTEXT_BYTES) / GIB, 2),
            "measured_GiB": round(memory / GIB, 2),
        }
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    demo = ROOT / "resources"
    add(
        "--models",
        nargs="+",
        default=[str(demo / "esm2_t6_3M_demo")],
        help=f"folders, or of {', '.join(random_model.NAMES)}",
    )
    add("--fasta", type=Path, nargs="+", default=[demo / "ecoli_k12_UP000000625.fasta.gz"])
    add("--every", type=int, default=1, help="take only every n-th protein [%(default)s]")
    add(
        "--repeats",
        type=int,
        default=1,
        help="how often each protein comes, each time turned by a residue [%(default)s]",
    )
    add("--residues", action="store_true", help="every residue's state, too")
    add("--dnabert-files", type=Path, help="folder with DNABERT-S's config.json and tokenizer.json")
    add("--folder", type=Path, default=Path(tempfile.gettempdir()), help="for models and results [%(default)s]")
    add("--output", type=Path, help="JSON file to write")
    args = parser.parse_args()
    flags, rows = ["--pooling", "mean", "residues"] if args.residues else [], []
    with tempfile.TemporaryDirectory(dir=args.folder) as temporary:
        folder = Path(temporary)
        for path in args.fasta:
            name = f"{path.name.split('.')[0]}_every{args.every}_x{args.repeats}.fasta"
            fasta = write_shard(read_proteins(path)[:: args.every], args.repeats, folder / name)
            for model in args.models:
                rows.append(
                    compare(Path(model).name, checkpoint(model, folder, args.dnabert_files), fasta, folder, flags)
                )
                print(json.dumps(rows[-1]), flush=True)
    report("plans", rows, args.output, fasta=[path.name for path in args.fasta])
    print(pd.DataFrame(rows)[SHOWN].to_string(index=False))


if __name__ == "__main__":
    main()
