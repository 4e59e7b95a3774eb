"""Force real out-of-memory errors on a GPU and see whether the recommended batch size runs through.

Each case runs scripts/embed.py under a memory fraction (the allocator's `per_process_memory_fraction`) or beside a
process that fills the card, expects exit status 3 and an oom.json, then runs again with the recommended batch size.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from common import ROOT, report

HOG = """
import sys, torch
free, total = torch.cuda.mem_get_info()
held = torch.empty(int(free - float(sys.argv[1]) * 2**30), dtype=torch.uint8, device="cuda")
print("ready", flush=True)
sys.stdin.read()
"""


@dataclass
class Case:
    """`limit_gib` is what the process may have, by a memory fraction or because a hog leaves no more."""

    limit_gib: float
    batch_size: int
    hog: bool = False
    pooling: str = "mean"
    dtype: str = "bfloat16"


def embed(case: Case, batch_size: int, model: str, fasta: Path, folder: Path) -> tuple[int, str]:
    """Run embed.py under the case's memory limit; returns its status and what it said."""
    environment = dict(os.environ)
    command = [sys.executable, ROOT / "workflow/scripts/embed.py", "--fasta", fasta, "--model", model]
    command += ["--output", folder, "--dtype", case.dtype, "--pooling", case.pooling]
    command += ["--batch-size", str(batch_size), "--compile", "off"]
    hog = None
    if case.hog:
        arguments = [sys.executable, "-c", HOG, str(case.limit_gib)]
        hog = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        hog.stdout.readline()
    else:
        share = case.limit_gib * 2**30 / torch.cuda.get_device_properties(0).total_memory
        environment["PYTORCH_CUDA_ALLOC_CONF"] = f"per_process_memory_fraction:{share:.6f}"
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        return done.returncode, done.stderr
    finally:
        if hog is not None:
            hog.communicate("")


def run(case: Case, model: str, fasta: Path) -> dict[str, Any]:
    """One row of the table: what happened, what was recommended, and whether it worked."""
    row: dict[str, Any] = {
        "limit_GiB": case.limit_gib,
        "by": "another process" if case.hog else "memory fraction",
        "pooling": case.pooling,
        "batch_size": case.batch_size,
    }
    with tempfile.TemporaryDirectory() as folder:
        status, said = embed(case, case.batch_size, model, fasta, Path(folder))
        row["status"] = status
        if status != 3:
            return row | {"failed": said.strip().splitlines()[-1][:200]}
        found = json.loads((Path(folder) / "oom.json").read_text())
        others = found["device"]["used_by_others_bytes"]
        row |= {"peak_GiB": round(found["peak_reserved_bytes"] / 2**30, 2), "others_GiB": round(others / 2**30, 1)}
        row["recommended"] = found["recommended_batch_size"]
        if row["recommended"] is None:
            return row | {"rerun": "none recommended: " + found["recommendations"][0]}
        status, said = embed(case, row["recommended"], model, fasta, Path(folder))
        row["rerun"] = "done" if status == 0 else said.strip().splitlines()[-1][:200]
        if status == 0:
            meta = json.loads((Path(folder) / "meta.json").read_text())
            row["rerun_peak_GiB"] = round(meta["memory"]["peak_reserved_bytes"] / 2**30, 2)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="checkpoint folder")
    parser.add_argument("--fasta", type=Path, required=True)
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    cases = [
        Case(4.0, 131_072, hog=True),
        Case(6.0, 262_144),
        Case(3.0, 131_072, pooling="residues"),
        Case(1.0, 32_768),
    ]
    rows = []
    for case in cases:
        rows.append(run(case, args.model, args.fasta))
        print(rows[-1], flush=True)
    report("oom", rows, args.output, model=args.model, fasta=args.fasta.name)


if __name__ == "__main__":
    main()
