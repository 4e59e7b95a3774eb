"""This version of seqmill against another, on one GPU in one run: speed, start-up, memory, and the bytes of the result.

Both run scripts/embed.py from a FASTA to the closed file, in turns (ours, theirs, theirs, ours), after one run of each
that does not count. Ratios are ours to theirs, of the medians.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import h5py
import random_model
import torch
from bench import START
from common import ROOT, read_proteins, report, write_shard

from seqmill.inputs.fasta import Record
from seqmill.units import GIB

# How often the input is repeated: enough for about ten seconds with 10,000 proteins.
REPEATS = {"8M": 20, "35M": 8, "150M": 3, "650M": 1, "3B": 1}


def embed(checkout: Path, fasta: Path, model: Path, output: Path, *flags: str) -> dict[str, Any]:
    """Run a checkout's embed.py; its meta.json, with the wall time."""
    command = [sys.executable, checkout / "workflow/scripts/embed.py", "--fasta", fasta, "--model", model]
    begun = time.perf_counter()
    done = subprocess.run([*command, "--output", output, *flags], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{checkout}: {done.stderr.strip().splitlines()[-1][:300]}")
    return json.loads((output / "meta.json").read_text()) | {"wall_s": time.perf_counter() - begun}


def figures(meta: dict[str, Any]) -> dict[str, float]:
    """What is compared of a run."""
    timings, memory = meta["timings"], meta["memory"]
    return {
        "residues_per_s": meta["residues"] / (timings["steady_s"] + timings["close_s"]),
        "start_s": sum(timings[part] for part in START),
        **{part: timings[part] for part in START},
        "wall_s": meta["wall_s"],
        "peak_reserved_GiB": memory["peak_reserved_bytes"] / GIB,
        "peak_allocated_GiB": memory["peak_allocated_bytes"] / GIB,
    }


def compare(other: Path, fasta: Path, model: Path, rounds: int, folder: Path) -> dict[str, Any]:
    """Medians of both, and their ratios."""
    versions = {"ours": ROOT, "theirs": other}
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in versions}
    chosen = {}
    order = ["ours", "theirs"] + ["ours", "theirs", "theirs", "ours"] * rounds
    for number, name in enumerate(order):
        with tempfile.TemporaryDirectory(dir=folder) as output:
            meta = embed(versions[name], fasta, model, Path(output))
        chosen[name] = {key: meta["settings"][key] for key in ("attention", "compile", "batch_size")}
        if number > 1:
            runs[name].append(figures(meta))
            print(name, {key: round(value, 3) for key, value in runs[name][-1].items()}, chosen[name], flush=True)
    row: dict[str, Any] = {f"{name}_settings": json.dumps(values) for name, values in chosen.items()}
    for key in runs["ours"][0]:
        ours, theirs = (statistics.median(run[key] for run in runs[name]) for name in versions)
        row |= {
            f"{key}_ours": round(ours, 3),
            f"{key}_theirs": round(theirs, 3),
            f"{key}_ratio": round(ours / theirs, 4),
        }
    return row


def compare_starts(other: Path, proteins: list[Record], model: Path, pairs: int, folder: Path) -> dict[str, Any]:
    """Seconds until the first batch of a few proteins, in turns; medians, and their ratio."""
    fasta = write_shard(proteins[:50], 1, folder / "start.fasta")
    starts: dict[str, list[float]] = {"ours": [], "theirs": []}
    for number in range(pairs + 1):
        for name, checkout in (("ours", ROOT), ("theirs", other))[:: 1 if number % 2 else -1]:
            with tempfile.TemporaryDirectory(dir=folder) as output:
                meta = embed(checkout, fasta, model, Path(output), "--compile", "on")
            if number:
                starts[name].append(round(figures(meta)["start_s"], 2))
    ours, theirs = (statistics.median(starts[name]) for name in ("ours", "theirs"))
    return {"start_alone_s": starts, "start_alone_ratio": round(ours / theirs, 4)}


def same_bytes(other: Path, fasta: Path, model: Path, folder: Path, flags: list[str]) -> dict[str, Any]:
    """Whether both write the same datasets, byte for byte, under the same fingerprint."""
    files = {}
    for name, checkout in (("ours", ROOT), ("theirs", other)):
        embed(checkout, fasta, model, folder / name, *flags)
        files[name] = h5py.File(folder / name / "embeddings.h5")
    ours, theirs = files["ours"], files["theirs"]
    equal = {name: ours[name][:].tobytes() == theirs[name][:].tobytes() for name in theirs if name != "ids"}
    return {
        "same_datasets": sorted(ours) == sorted(theirs),
        "same_ids": ours["ids"].asstr()[:].tolist() == theirs["ids"].asstr()[:].tolist(),
        "same_fingerprint": ours.attrs["fingerprint"] == theirs.attrs["fingerprint"],
        **{f"same_{name}": value for name, value in equal.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--other", type=Path, required=True, help="checkout of the other version (its folder workflow is enough)")
    add("--fasta", type=Path, required=True)
    add("--sizes", nargs="*", choices=REPEATS, default=["650M", "150M", "8M"])
    add("--rounds", type=int, default=1, help="of four runs each [%(default)s]")
    add("--starts", type=int, default=5, help="pairs of starts with a few proteins [%(default)s]")
    add("--bytes", type=int, default=2_000, help="proteins whose results are compared byte by byte [%(default)s]")
    add("--kernels", nargs="+", default=["torch", "triton"], help="attention of these runs [%(default)s]")
    add("--folder", type=Path, default=Path("/dev/shm"), help="for models and results [%(default)s]")
    add("--output", type=Path)
    args = parser.parse_args()
    proteins, rows = read_proteins(args.fasta), []
    with tempfile.TemporaryDirectory(dir=args.folder) as temporary:
        folder = Path(temporary)
        for size in args.sizes:
            random_model.write(size, folder / size, device="cuda")
            torch.cuda.empty_cache()
            fasta = write_shard(proteins, REPEATS[size], folder / f"{size}.fasta")
            rows.append({"model": size, **compare(args.other, fasta, folder / size, args.rounds, folder)})
        if args.starts:
            found = compare_starts(args.other, proteins, folder / args.sizes[0], args.starts, folder)
            rows.append({"model": args.sizes[0], **found})
            print(rows[-1], flush=True)
        if args.bytes:
            fasta = write_shard(proteins[: args.bytes], 1, folder / "bytes.fasta")
            for kernel in args.kernels:
                flags = ["--pooling", "mean", "residues", "--attention", kernel, "--compile", "on"]
                found = same_bytes(args.other, fasta, folder / args.sizes[0], folder, [*flags, "--batch-size", "32768"])
                rows.append({"model": args.sizes[0], "attention": kernel, **found})
                print(rows[-1], flush=True)
    report("versions", rows, args.output, fasta=args.fasta.name, other=str(args.other))


if __name__ == "__main__":
    main()
