"""The rows of one benchmark run: checkpoints and shards made for it, what each run of embed.py took, the ceilings."""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import random_model
import torch
from ceilings import all_ceilings
from common import ROOT, write_shard

from seqmill.inputs.fasta import Record
from seqmill.units import GIB

TOLD = re.compile(r"(?:WARNING|error).*|batch_size .*|FlashAttention-2.*")
START = ("import_s", "read_s", "device_s", "load_s", "compile_s", "measure_s", "first_batch_s")


class Bench:
    """Collects rows, and writes them as they come, so that nothing is lost when a run is cut off.

    Args:
        args: `results`, the folder for results of embed.py, and `output`, the JSON file to write.
        folder: for checkpoints and shards.
        every: models that get only every n-th sequence of an input, which rows record.
        how: keywords of `random_model.write`.
    """

    def __init__(self, args: argparse.Namespace, folder: Path, every: dict[str, int], **how: Any):
        self.args, self.folder, self.every, self.how = args, folder, every, how
        self.rows: list[dict[str, Any]] = []
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.ceilings: dict[str, dict[str, float]] = {}
        self._measure_ceilings("before")

    def _measure_ceilings(self, when: str) -> None:
        if self.device == "cuda":
            self.ceilings[when] = all_ceilings()
            print(self.ceilings, flush=True)

    def finish(self) -> None:
        """Measure the ceilings again, and set every row against the higher sustained rate of matrix products."""
        self._measure_ceilings("after")
        sustained = [found["matmul_sustained_TFLOP/s"] for found in self.ceilings.values()]
        for row in self.rows:
            if "TFLOP/s" in row and sustained:
                row["utilisation"] = round(row["TFLOP/s"] / max(sustained), 4)

    def add(self, what: str, model: str, source: str, **row: Any) -> None:
        self.rows.append({"what": what, "model": model, "input": source, **row})
        print(json.dumps(self.rows[-1]), flush=True)
        if self.args.output is not None:
            self.args.output.parent.mkdir(parents=True, exist_ok=True)
            self.args.output.write_text(json.dumps(self.rows))

    def checkpoint(self, model: str) -> Path:
        """A checkpoint with random weights; the large ones in bfloat16, which halves the file."""
        folder = self.folder / model
        if not folder.exists():
            dtype = torch.bfloat16 if model in ("3B", "15B") else None
            random_model.write(model, folder, dtype=dtype, device=self.device, **self.how)
            if self.device == "cuda":
                torch.cuda.empty_cache()
        return folder

    def shard(self, records: list[Record], repeats: int, name: str) -> Path:
        """A FASTA as the rule shard writes it; the same one for the same arguments."""
        path = self.folder / f"{name}_x{repeats}.fasta"
        return path if path.exists() else write_shard(records, repeats, path)

    def embed(
        self, what: str, model: str, fasta: Path, *flags: str, letters: str = "residues", tokens_a_letter: float = 0.0
    ) -> None:
        """One row: scripts/embed.py in a process of its own.

        Args:
            letters: residues or bases.
            tokens_a_letter: of this input, special tokens included, to record tokens per second; 0: not recorded.
        """
        with tempfile.TemporaryDirectory(dir=self.args.results) as output:
            command = [sys.executable, ROOT / "workflow/scripts/embed.py", "--fasta", fasta, "--output", output]
            command += ["--model", self.checkpoint(model), *flags]
            if self.device == "cuda":
                torch.cuda.empty_cache()
            begun = time.perf_counter()
            done = subprocess.run(command, capture_output=True, text=True)
            wall = time.perf_counter() - begun
            for line in TOLD.findall(done.stderr):
                print("   ", line, flush=True)
            if done.returncode:
                last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
                self.add(what, model, fasta.stem, failed=last[:300])
                return
            meta = json.loads((Path(output) / "meta.json").read_text())
            size_GB = (Path(output) / "embeddings.h5").stat().st_size / 1e9
        figures = self._figures(meta, letters, tokens_a_letter)
        every = self.every.get(model, 1)
        self.add(what, model, fasta.stem, every=every, **figures, wall_s=round(wall, 1), written_GB=round(size_GB, 2))

    def _figures(self, meta: dict[str, Any], letters: str, tokens_a_letter: float) -> dict[str, Any]:
        """The part of a row that is in meta.json."""
        timings, memory, settings = meta["timings"], meta["memory"], meta["settings"]
        steady = timings["steady_s"] + timings["close_s"]
        rate = meta["residues"] / steady
        flops = (meta["model_flops_per_s"] or 0) * timings["compute_s"] / steady
        figures = {
            f"{letters}_per_s": round(rate),
            **({"tokens_per_s": round(rate * tokens_a_letter)} if tokens_a_letter else {}),
            "TFLOP/s": round(flops / 1e12, 2),
            "forward_share": round(timings["forward_s"] / steady, 4),
            "gpu_idle_share": round(timings["gpu_idle_s"] / steady, 4),
            "dtype": meta["dtype"],
            "attention": settings["attention"],
            "compiled": settings["compile"],
            "batch_size": settings["batch_size"],
        }
        if memory["peak_reserved_bytes"]:
            figures["peak_GiB"] = round(memory["peak_reserved_bytes"] / GIB, 2)
            figures["unused_share"] = round(1 - memory["peak_allocated_bytes"] / memory["peak_reserved_bytes"], 4)
        start = {part: timings[part] for part in START if part in timings}
        figures |= {"start": start, "start_s": round(sum(start.values()), 1), "steady_s": round(steady, 1)}
        return figures


def name_of(path: Path) -> str:
    """An input's name in the rows."""
    return path.name.removesuffix(".gz").removesuffix(".fasta")
