"""Force real out-of-memory errors on a GPU; see whether each diagnosis is right and its batch size runs through.

Each case runs scripts/embed.py under a memory fraction (the allocator's `per_process_memory_fraction`) or beside a
process that fills the card, and expects exit status 3 and an oom.json with the cause that the case was made for. Then
the recommended batch size has to run through at the first attempt, and one that is 1/0.6 times as large must not fit;
where none is recommended, the smallest batches must fail too.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import ROOT, read_proteins, report

from seqmill.engine import memory, tuning
from seqmill.engine.batching import PackedBatches
from seqmill.engine.pipeline import Pipeline
from seqmill.engine.task import Task
from seqmill.engine.trials import Trials
from seqmill.errors import is_oom
from seqmill.inputs.fasta import Record
from seqmill.inputs.sequences import Sequences
from seqmill.inputs.windows import Treatment
from seqmill.models import hub
from seqmill.models.loading import load
from seqmill.models.source import Source
from seqmill.settings import Settings
from seqmill.units import GIB

HOG = """
import sys, torch
free, total = torch.cuda.mem_get_info()
held = torch.empty(int(free - float(sys.argv[1]) * 2**30), dtype=torch.uint8, device="cuda")
print("ready", flush=True)
sys.stdin.read()
"""
# Steps in which `largest` looks for what fits, relative to the recommended batch size.
STEPS = [1, 1.15, 1.3, 1.5, 1 / 0.6]
# How many batches it runs: memory is at its highest when as many are in flight as there ever are.
BATCHES = 3


@dataclass(frozen=True)
class Case:
    """One way to run out of memory.

    Attributes:
        limit_gib: what the process may have, by a memory fraction or because a hog leaves no more.
        cause: what has to be to blame: batch, sequence (one alone does not fit) or weights.
        giant: residues of a sequence that is put before the others.
    """

    model: str
    limit_gib: float
    batch_size: int
    cause: str = "batch"
    hog: bool = False
    pooling: tuple[str, ...] = ("mean",)
    dtype: str = "bfloat16"
    giant: int = 0
    flags: tuple[str, ...] = ()


CASES = [
    Case("650M", 2, 131_072),
    Case("650M", 3, 131_072),
    Case("650M", 4, 262_144, flags=("--compile", "on")),
    Case("650M", 6, 262_144, flags=("--attention", "sdpa")),
    Case("650M", 6, 524_288, flags=("--expandable-segments",)),
    Case("650M", 10, 524_288, flags=("--streams", "2", "--pin-memory")),
    Case("650M", 16, 1_048_576),
    Case("650M", 40, 2_097_152),
    Case("650M", 4, 131_072, dtype="float16"),
    Case("650M", 8, 262_144, dtype="float32"),
    Case("650M", 3, 131_072, pooling=("residues",)),
    Case("650M", 5, 262_144, pooling=("mean", "bos", "residues")),
    Case("650M", 12, 1_048_576, pooling=("residues",)),
    Case("650M", 1, 32_768, cause="weights"),
    Case("650M", 3, 32_768, cause="sequence", giant=144_307),
    Case("650M", 9, 524_288, giant=144_307),
    Case("3B", 5, 32_768, cause="weights"),
    Case("3B", 8, 131_072),
    Case("3B", 12, 262_144, pooling=("residues",)),
    Case("3B", 24, 524_288),
    Case("3B", 40, 1_048_576, flags=("--compile", "on")),
    Case("650M", 0.1, 32_768, cause="weights", hog=True),
    Case("650M", 1, 32_768, cause="weights", hog=True),
    Case("650M", 4, 131_072, hog=True),
    Case("650M", 8, 524_288, hog=True, pooling=("residues",)),
    Case("3B", 10, 131_072, hog=True),
]


@contextmanager
def limited(case: Case) -> Iterator[dict[str, str]]:
    """The environment of a process that may have so much memory."""
    # As under SLURM, where a job's only GPU is its own: several cases run on one.
    environment = {**os.environ, "SLURM_JOB_ID": "1"}
    if not case.hog:
        share = case.limit_gib * GIB / torch.cuda.get_device_properties(0).total_memory
        yield environment | {"PYTORCH_CUDA_ALLOC_CONF": f"per_process_memory_fraction:{share:.6f}"}
        return
    arguments = [sys.executable, "-c", HOG, str(case.limit_gib)]
    hog = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    hog.stdout.readline()
    try:
        yield environment
    finally:
        hog.communicate("")


def embed(case: Case, batch_size: int, model: str, fasta: Path, folder: Path, environment: dict[str, str]):
    """Run embed.py; returns the finished process."""
    command = [sys.executable, ROOT / "workflow/scripts/embed.py", "--fasta", fasta, "--model", model]
    command += ["--output", folder, "--dtype", case.dtype, "--pooling", *case.pooling]
    command += ["--batch-size", str(batch_size), "--compile", "off", "--dataloader-workers", "2", *case.flags]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def take(proteins: list[Record], case: Case, path: Path) -> None:
    """Write a FASTA of about one and a half batches, the giant first."""
    ends = np.cumsum([len(protein.sequence) + 2 for protein in proteins])
    count = int(np.searchsorted(ends, 1.5 * case.batch_size)) + 1
    records = [(protein.id, protein.sequence) for protein in proteins[:count]]
    if case.giant:
        records.insert(0, ("giant", (b"MKTAYIAKQR" * (case.giant // 10 + 1))[: case.giant]))
    path.write_bytes(b"".join(b">%s\n%s\n" % (name.encode(), letters) for name, letters in records))


def run(case: Case, model: str, proteins: list[Record]) -> dict[str, Any]:
    """One row of the table: what happened, what was recommended, and whether that was right."""
    row = {**asdict(case), "pooling": " ".join(case.pooling), "flags": " ".join(case.flags)}
    with tempfile.TemporaryDirectory() as temporary, limited(case) as environment:
        folder = Path(temporary)
        fasta = folder / "input.fasta"
        take(proteins, case, fasta)
        done = embed(case, case.batch_size, model, fasta, folder / "out", environment)
        row["status"] = done.returncode
        if done.returncode != 3:
            return row | {"failed": done.stderr.strip()[-600:]}
        found = json.loads((folder / "out/oom.json").read_text())
        recommended = found["recommended_batch_size"]
        row |= {
            "peak_GiB": round(found["peak_reserved_bytes"] / GIB, 2),
            "others_GiB": round(found["device"]["used_by_others_bytes"] / GIB, 1),
            "recommended": recommended,
            "basis": found["recommendation_basis"],
            "advice": found["recommendations"],
            "message": found["message"],
            "diagnosis_right": is_right(case, found),
        }
        rerun = embed(case, recommended or 256, model, fasta, folder / "out", environment)
        row["rerun"] = rerun.returncode
        if recommended is None:
            return row | {"recommendation_right": rerun.returncode == 3}
        if rerun.returncode != 0:
            return row | {"recommendation_right": False, "failed": rerun.stderr.strip()[-600:]}
        meta = json.loads((folder / "out/meta.json").read_text())
        row["rerun_peak_GiB"] = round(meta["memory"]["peak_reserved_bytes"] / GIB, 2)
        command = [sys.executable, __file__, "--largest", str(recommended), "--fasta", fasta, "--model", model]
        command += ["--case", str(CASES.index(case))]
        looked = subprocess.run(command, env=environment, capture_output=True, text=True)
        if looked.returncode != 0:
            return row | {"recommendation_right": None, "failed": looked.stderr.strip()[-600:]}
        row["fits_too"] = int(looked.stdout.split()[-1])
        return row | {"recommendation_right": recommended > 0.6 * row["fits_too"]}


def is_right(case: Case, found: dict[str, Any]) -> bool:
    """Whether the diagnosis names the cause that the case was made for, and nothing that is not so."""
    advice = " ".join(found["recommendations"])
    size, longest = found["recommended_batch_size"], found["longest_sequence"]
    right = found["peak_reserved_bytes"] <= (case.limit_gib + 0.01) * GIB
    right &= ("another process holds" in advice) == case.hog
    if case.cause == "batch":
        return right and size is not None and max(longest + 2, 256) <= size < case.batch_size
    right &= size is None
    if case.cause == "sequence":
        return right and longest == case.giant and f"the sequence of {case.giant:,} letters" in advice
    return right and found["batches_completed"] == 0 and "smaller model" in advice and longest is None


def largest(case: Case, recommended: int, model: str, fasta: Path) -> int:
    """The largest of some batch sizes whose batches fit under the limits of this process."""
    flags = dict(zip(case.flags[::2], case.flags[1::2], strict=False))
    settings = Settings(
        dtype=case.dtype,
        pooling=case.pooling,
        batch_size=recommended,
        attention=flags.get("--attention", "auto"),
        compile=flags.get("--compile", "off"),
        pin_memory="--pin-memory" in case.flags,
        streams=int(flags.get("--streams", 3)),
    )
    device, dtype = torch.device("cuda", 0), tuning.DTYPES[case.dtype]
    source = Source.of(hub.resolve(model))
    sequences = Sequences(read_proteins(fasta))
    task = Task.resolve(source, sequences, source.tokenizer.tokens(sequences), settings, dtype, Treatment())
    pipeline = Pipeline(
        load(source, dtype, device, settings.attention), device, task.datasets, settings.streams, settings.pin_memory
    )
    batches = partial(PackedBatches, task.sequences, task.tokens, source.tokenizer, fill=True)
    trials = Trials(task, device, settings, "", partial(batches, first=0), None)
    trials.begin(pipeline)
    trials.compiled()
    fits = 0
    for step in STEPS:
        tokens = int(step * recommended)
        some = batches(tokens)
        try:
            pipeline.run((some[n] for n in range(min(BATCHES, len(some)))), lambda _: None, lambda _: None)
        except Exception as error:
            if not is_oom(error):
                raise
            break
        fits = tokens
        memory.forget_peaks(device)
    return fits


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, nargs="+", help="SIZE=FOLDER for 650M, 3B or both")
    parser.add_argument("--fasta", type=Path, required=True, help="proteins of all lengths in no order")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--jobs", type=int, default=3, help="cases with a memory fraction at once [%(default)s]")
    parser.add_argument("--cases", type=int, nargs="+", help="numbers of these only, from 0")
    parser.add_argument("--case", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--largest", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.largest:
        print(largest(CASES[args.case], args.largest, args.model[0], args.fasta))
        return
    models = dict(model.split("=", 1) for model in args.model)
    chosen = CASES if args.cases is None else [CASES[number] for number in args.cases]
    cases = [case for case in chosen if case.model in models]
    proteins = read_proteins(args.fasta)
    rows = []
    # A hog takes what the others would have.
    for jobs, group in (
        (args.jobs, [case for case in cases if not case.hog]),
        (1, [case for case in cases if case.hog]),
    ):
        with ThreadPoolExecutor(jobs) as pool:
            for row in pool.map(lambda case: run(case, models[case.model], proteins), group):
                rows.append(row)
                print(json.dumps(row), flush=True)
                if args.output:
                    args.output.write_text(json.dumps(rows, indent=1))
    right = (
        [row.get("diagnosis_right") for row in rows].count(True),
        [row.get("recommendation_right") for row in rows].count(True),
    )
    print(f"{len(rows)} cases: {right[0]} diagnoses and {right[1]} recommendations are right")
    report("oom", rows, args.output, models=list(models), fasta=args.fasta.name)


if __name__ == "__main__":
    main()
