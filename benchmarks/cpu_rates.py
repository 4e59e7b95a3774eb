"""How long the forward takes on a CPU, for plans: in CPU seconds of one thread, so that neighbours on the machine hardly matter.

Each row has the work, and the rates of NumPy's matrix product and copy just before and after.
"""

import os

# Before NumPy and PyTorch start their threads.
os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")

import argparse
import dataclasses
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import random_model
import torch
from common import ROOT, by_length, load_model, read_proteins, report

from seqmill.engine.batching import PackedBatches
from seqmill.engine.tuning import CPU_TOKENS
from seqmill.inputs.fasta import Record
from seqmill.inputs.sequences import Sequences
from seqmill.planning.calibration import measured
from seqmill.planning.rates import Work

# Residues of the sample that each model gets: some ten seconds.
RESIDUES = {"demo": 60_000, "8M": 20_000, "35M": 8_000, "150M": 3_000, "esmc-300M": 2_000, "ankh-base": 2_000}


@torch.inference_mode()
def run(name: str, folder: Path, proteins: list[Record]) -> dict[str, Any]:
    """One row: the forward over all batches of some proteins, after one that does not count."""
    model = load_model(folder, torch.float32, torch.device("cpu"), "auto")
    sequences, last = Sequences(proteins), [model.config.layer_count]
    batches = PackedBatches(sequences, model.tokenizer.tokens(sequences), model.tokenizer, CPU_TOKENS, fill=False)
    before = measured(time.process_time)
    model(batches[len(batches) - 1], last)
    begun = time.process_time()
    for number in range(len(batches)):
        model(batches[number], last)
    seconds = time.process_time() - begun
    matmul, copy = np.mean([before, measured(time.process_time)], axis=0)
    work = Work.of(model.config, batches.token_counts, last[0], 4)
    tokens = int(batches.token_counts.sum())
    return {"model": name, "tokens": tokens, "seconds": seconds, "matmul": matmul, "copy": copy} | {
        "work": dataclasses.asdict(work)
    }


def sample(proteins: list[Record], residues: int) -> list[Record]:
    """Every n-th protein by length, for about so many residues."""
    every = max(sum(len(protein.sequence) for protein in proteins) // residues, 1)
    return by_length(proteins)[every // 2 :: every]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fasta", type=Path, nargs="+", default=[ROOT / "resources/ecoli_k12_UP000000625.fasta.gz"])
    parser.add_argument("--models", nargs="+", choices=RESIDUES, default=list(RESIDUES))
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        for name in args.models:
            folder = ROOT / "resources/esm2_t6_3M_demo"
            if name != "demo":
                folder = Path(temporary) / name
                random_model.write(name, folder)
            for path in args.fasta:
                proteins = sample(read_proteins(path), RESIDUES[name])
                rows.append({"input": path.name.split(".")[0], **run(name, folder, proteins)})
                print(rows[-1], flush=True)
    report("cpu_rates", rows, args.output)


if __name__ == "__main__":
    main()
