"""The whole embed step, from a FASTA to a closed embeddings.h5, once per way to run it; transformers beside it.

Every way runs in a process of its own with scripts/embed.py. The peer is transformers' EsmModel in the same dtype
with SDPA, batches sorted by length and padded up to the same number of tokens, timed without loading and writing.
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

import torch
from common import ROOT, report
from transformers import EsmModel

from seqmill import weights
from seqmill.batches import Sequences
from seqmill.esm2 import ESM2
from seqmill.fasta import read_proteins

WAYS = {
    "flash-attn": ["--attention", "flash-attn", "--compile", "off"],
    "torch": ["--attention", "torch", "--compile", "off"],
    "sdpa": ["--attention", "sdpa", "--compile", "off"],
    "flash-attn, compiled": ["--attention", "flash-attn", "--compile", "on"],
    "torch, compiled": ["--attention", "torch", "--compile", "on"],
    "auto": [],
    "auto, residues": ["--pooling", "mean", "residues", "--pin-memory"],
}
TOLD = re.compile(r"(FlashAttention-2.*|standard attention: .*|batch_size .*|compile .*|error: .*)")


def embed(name: str, model: str, fasta: Path) -> dict[str, Any]:
    """Run embed.py one way; the row of the table comes from its meta.json."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, ROOT / "workflow/scripts/embed.py", "--fasta", fasta, "--model", model]
        begun = time.perf_counter()
        done = subprocess.run([*command, "--output", folder, *WAYS[name]], capture_output=True, text=True)
        wall = time.perf_counter() - begun
        for line in TOLD.findall(done.stderr):
            print(f"  [{name}] {line}", flush=True)
        if done.returncode:
            return {"way": name, "failed": done.stderr.strip().splitlines()[-1][:300]}
        meta = json.loads((Path(folder) / "meta.json").read_text())
    timings = meta["timings"]
    print(f"  [{name}] {timings}", flush=True)
    return {
        "way": name,
        "attention": meta["settings"]["attention"],
        "compiled": meta["settings"]["compile"],
        "batch_size": meta["settings"]["batch_size"],
        "residues_per_s": round(meta["residues_per_s"]),
        "utilisation": meta["model_flop_utilisation"],
        "gpu_idle_share": round(timings["gpu_idle_s"] / max(timings["steady_s"], 1e-9), 4),
        "packing": meta["packing_efficiency"],
        "peak_GiB": round((meta["memory"]["peak_reserved_bytes"] or 0) / 2**30, 2),
        "start_s": round(sum(timings[k] for k in ("import_s", "load_s", "measure_s", "compile_s")), 1),
        "wall_s": round(wall, 1),
    }


@torch.inference_mode()
def transformers_sorted(model: str, fasta: Path, tokens: int) -> dict[str, Any]:
    """The peer: sorted, padded batches, bfloat16, SDPA, mean pooling in float32."""
    device = torch.device("cuda")
    network = EsmModel.from_pretrained(model, dtype=torch.bfloat16, add_pooling_layer=False).eval().to(device)
    sequences = Sequences(list(read_proteins(fasta)))
    lengths = sequences.lengths[sequences.rows] + 2
    table, batches, start = ESM2.vocabulary, [], 0
    while start < len(lengths):
        stop = start + max(tokens // int(lengths[start]), 1)
        batches.append((start, min(stop, len(lengths))))
        start = stop

    def embed(start: int, stop: int) -> torch.Tensor:
        ids = torch.full((stop - start, int(lengths[start])), table.padding)
        for place, number in enumerate(range(start, stop)):
            letters = sequences.residues[sequences.offsets[number] : sequences.offsets[number + 1]]
            ids[place, 0], ids[place, len(letters) + 1] = table.begin, table.end
            ids[place, 1 : len(letters) + 1] = torch.from_numpy(table.tokens[letters]).long()
        ids = ids.to(device)
        hidden = network(ids, attention_mask=(ids != table.padding).long()).last_hidden_state
        keep = ((ids != table.padding) & (ids != table.begin) & (ids != table.end)).unsqueeze(-1)
        return ((hidden.float() * keep).sum(1) / keep.sum(1)).cpu()

    for batch in batches[:3]:
        embed(*batch)
    torch.cuda.synchronize()
    begun = time.perf_counter()
    for batch in batches:
        embed(*batch)
    torch.cuda.synchronize()
    rate = int(sequences.offsets[-1]) / (time.perf_counter() - begun)
    return {"way": "transformers, sorted and padded", "attention": "PyTorch SDPA", "residues_per_s": round(rate)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="checkpoint folder")
    parser.add_argument("--fasta", type=Path, required=True)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    rows = [embed(name, args.model, args.fasta) for name in args.ways]
    rows.append(transformers_sorted(args.model, args.fasta, 32_768))
    size = weights.weight_files(Path(args.model))[0].stat().st_size
    report("proteome", rows, args.output, model=args.model, model_bytes=size, fasta=args.fasta.name)


if __name__ == "__main__":
    main()
