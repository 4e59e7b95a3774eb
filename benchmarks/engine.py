"""How fast the whole embed step is, against the GPU's own ceilings and against other tools, in one run on one GPU.

Measures the ceilings, the forward alone, the peers that are installed, and scripts/embed.py from a shard's FASTA to the
closed embeddings.h5, for models of real sizes with random weights. Utilisation is the operations that the residues and
their two special tokens need, per second of steady state, over the sustained rate of matrix products.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import peers
import random_model
import torch
from ceilings import all_ceilings
from common import ROOT, by_length, load_model, read_proteins, report, write_shard
from errors import packed

from seqmill.inputs.fasta import Record
from seqmill.inputs.sequences import Sequences
from seqmill.kernels.timing import gpu_seconds
from seqmill.units import GIB

# How often the first input is repeated: enough for ten seconds, for the model that the peers have a minute.
REPEATS = {"8M": 15, "35M": 8, "150M": 4, "650M": 7, "3B": 1, "15B": 1}
# The large models get a part of it.
EVERY = {"3B": 3, "15B": 16}
PEER_SIZE = "650M"
TOLD = re.compile(r"(?:WARNING|error).*|batch_size .*|FlashAttention-2.*")
START = ("import_s", "read_s", "device_s", "load_s", "compile_s", "measure_s", "first_batch_s")


class Bench:
    """Collects rows, and writes them as they come, so that nothing is lost when a run is cut off."""

    def __init__(self, args: argparse.Namespace, folder: Path):
        self.args, self.folder = args, folder
        self.rows: list[dict[str, Any]] = []
        self.ceilings = {"before": all_ceilings()}
        print(self.ceilings, flush=True)

    def finish(self) -> None:
        """Measure the ceilings again, and set every row against the higher sustained rate of matrix products."""
        self.ceilings["after"] = all_ceilings()
        print(self.ceilings, flush=True)
        ceiling = max(found["matmul_sustained_TFLOP/s"] for found in self.ceilings.values())
        for row in self.rows:
            if "TFLOP/s" in row:
                row["utilisation"] = round(row["TFLOP/s"] / ceiling, 4)

    def add(self, what: str, size: str, source: str, **row: Any) -> None:
        self.rows.append({"what": what, "model": size, "input": source, **row})
        print(json.dumps(self.rows[-1]), flush=True)
        if self.args.output is not None:
            self.args.output.write_text(json.dumps(self.rows))

    def checkpoint(self, size: str) -> Path:
        """A checkpoint with random weights; the large ones in bfloat16, which halves the file."""
        folder = self.folder / size
        if not folder.exists():
            dtype = torch.bfloat16 if size in ("3B", "15B") else torch.float32
            random_model.write(size, folder, dtype=dtype, device="cuda")
            torch.cuda.empty_cache()
        return folder

    def shard(self, proteins: list[Record], repeats: int, name: str) -> Path:
        """A FASTA as the rule shard writes it; the same one for the same arguments."""
        path = self.folder / f"{name}_x{repeats}.fasta"
        return path if path.exists() else write_shard(proteins, repeats, path)

    def embed(self, what: str, size: str, fasta: Path, *flags: str) -> None:
        """One row: scripts/embed.py in a process of its own."""
        with tempfile.TemporaryDirectory(dir=self.args.results) as output:
            command = [sys.executable, ROOT / "workflow/scripts/embed.py", "--fasta", fasta, "--output", output]
            torch.cuda.empty_cache()
            begun = time.perf_counter()
            done = subprocess.run([*command, "--model", self.checkpoint(size), *flags], capture_output=True, text=True)
            wall = time.perf_counter() - begun
            for line in TOLD.findall(done.stderr):
                print("   ", line, flush=True)
            if done.returncode:
                self.add(what, size, fasta.stem, failed=done.stderr.strip().splitlines()[-1][:300])
                return
            meta = json.loads((Path(output) / "meta.json").read_text())
            size_GB = (Path(output) / "embeddings.h5").stat().st_size / 1e9
        timings, memory = meta["timings"], meta["memory"]
        steady = timings["steady_s"] + timings["close_s"]
        self.add(
            what,
            size,
            fasta.stem,
            residues_per_s=round(meta["residues"] / steady),
            every=EVERY.get(size, 1),
            **{"TFLOP/s": round(meta["model_flops_per_s"] * timings["compute_s"] / steady / 1e12, 2)},
            forward_share=round(timings["forward_s"] / steady, 4),
            gpu_idle_share=round(timings["gpu_idle_s"] / steady, 4),
            attention=meta["settings"]["attention"],
            compiled=meta["settings"]["compile"],
            batch_size=meta["settings"]["batch_size"],
            peak_GiB=round(memory["peak_reserved_bytes"] / GIB, 2),
            unused_share=round(1 - memory["peak_allocated_bytes"] / memory["peak_reserved_bytes"], 4),
            start={part: timings[part] for part in START},
            start_s=round(sum(timings[part] for part in START), 1),
            steady_s=round(steady, 1),
            wall_s=round(wall, 1),
            written_GB=round(size_GB, 2),
        )

    @torch.inference_mode()
    def forward(self, size: str, proteins: list[Record], source: str) -> None:
        """One row: the forward alone, over batches that lie on the GPU."""
        device = torch.device("cuda")
        model = load_model(self.checkpoint(size), torch.bfloat16, device, "triton", fused=True)
        batches = packed(model, Sequences(proteins), 32_768, fill=True)
        inputs = [batch.to(device) for batch in batches]
        last = [model.config.layer_count]
        took = gpu_seconds(lambda: [model(batch, last) for batch in inputs], 2)
        lengths = np.diff(batches.sequences.offsets)
        self.add(
            "seqmill, forward alone",
            size,
            source,
            residues_per_s=round(lengths.sum() / took),
            **{"TFLOP/s": round(model.flops(batches.token_counts) / took / 1e12, 2)},
            attention=model.kernels.attention.version,
            batch_size=32_768,
            every=2 * EVERY.get(size, 1),
        )


def name_of(path: Path) -> str:
    return path.name.removesuffix(".gz").removesuffix(".fasta")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    default = ROOT / "resources/ecoli_k12_UP000000625.fasta.gz"
    add("--fasta", type=Path, nargs="+", default=[default], help="the first is for all models and peers")
    add("--sizes", nargs="*", choices=random_model.SIZES, default=["650M", "3B", "150M", "35M", "8M"])
    add("--peers", nargs="*", choices=peers.PEERS, default=list(peers.PEERS), help="what to compare with")
    add("--results", type=Path, help="folder for the results, such as a RAM disk [the system's temporary folder]")
    add("--output", type=Path, help="JSON file to write")
    args = parser.parse_args()
    first, *others = [read_proteins(path) for path in args.fasta]
    source, *names = map(name_of, args.fasta)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(args, Path(folder))
        for name in args.peers:
            try:
                found = peers.measure(name, PEER_SIZE, first)
                bench.add(name, PEER_SIZE, source, residues_per_s=round(found), every=peers.PEERS[name][1])
            except Exception as error:  # a peer that is not installed or fails is part of the result
                bench.add(name, PEER_SIZE, source, failed=f"{type(error).__name__}: {error}"[:300])
        for size in args.sizes:
            proteins = by_length(first)[:: EVERY.get(size, 1)]
            bench.forward(size, proteins[::2], source)
            bench.embed("seqmill", size, bench.shard(proteins, REPEATS[size], source))
        if PEER_SIZE in args.sizes:
            shards = [bench.shard(first, 1, source)]
            shards += [bench.shard(proteins, 1, name) for proteins, name in zip(others, names, strict=True)]
            bench.embed(
                "seqmill, every residue's state in float16",
                *(PEER_SIZE, bench.shard(first, 2, source), "--pooling", "mean", "residues", "--pin-memory"),
            )
            for shard in shards[1:]:
                bench.embed("seqmill", PEER_SIZE, shard)
            bench.embed("seqmill, expandable segments", PEER_SIZE, shards[-1], "--expandable-segments")
            bench.embed("seqmill, kernels not compiled", PEER_SIZE, shards[-1], "--compile", "off")
            bench.embed("seqmill, standard attention", PEER_SIZE, shards[-1], "--attention", "sdpa")
        bench.finish()
    report("engine", bench.rows, args.output, ceilings=bench.ceilings)


if __name__ == "__main__":
    main()
