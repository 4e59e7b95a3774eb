"""Write README.md's tables of speed from benchmarks/results, so that they cannot drift.

Without a flag it rewrites README.md; with --check it only says whether README.md is up to date (exit status 1 if not).
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks/results"
BEGIN, END = "<!-- speed: written by benchmarks/table.py -->\n", "<!-- speed: end -->\n"

# The runs that README.md shows, and what each says.
RUNS = {
    "2026-11-22_h200_engine_650M.json": "ESM-2 650M",
    "2026-11-22_h200_engine_650M_peers.json": "ESM-2 650M, another run, with more peers and inputs",
    "2026-11-22_h200_engine_sizes.json": "Other sizes",
}
PARTS = {
    "import_s": "importing PyTorch",
    "read_s": "reading the FASTA",
    "device_s": "starting the GPU and measuring its ceiling",
    "load_s": "loading weights and FlashAttention-2",
    "compile_s": "compiling kernels, some of them cached",
    "measure_s": "measuring memory and batch sizes",
    "first_batch_s": "first batch, reader processes included",
}
STARTED = "2026-11-22_h200_engine_650M.json"
INPUTS = {
    "uniref90_10000": "UniRef90 sample",
    "stability_53614": "53,614 proteins of 43-50 residues",
    "yeast": "yeast",
    "ecoli": "*E. coli*",
}
PEER = "transformers, sorted and padded, SDPA"


def load(name: str) -> dict[str, Any]:
    return json.loads((RESULTS / name).read_text())


def shown_input(name: str) -> str:
    """`uniref90_10000_x7` as people would say it."""
    stem, _, repeats = name.partition("_x")
    return INPUTS.get(stem, stem) + (f", {repeats} times" if repeats not in ("", "1") else "")


def shown(rate: float) -> str:
    """Three digits: 347,590 as 348,000."""
    digits = len(str(int(rate))) - 3
    return f"{round(rate, -digits):,.0f}"


def row(found: dict[str, Any], peer: dict[str, Any], sustained: float, highest: float) -> str:
    """One line of a table; `peer` is the row to compare with, where it had the same sequences."""
    what = found["what"] + ("" if found.get("compiled", True) or "not compiled" in found["what"] else " (not compiled)")
    if found.get("every", 1) > 1:
        what += f" (one protein in {found['every']})"
    cells = [what, found["model"], shown_input(found["input"])]
    if "failed" in found:
        return "| " + " | ".join([*cells, f"failed: {found['failed']}", "", "", ""]) + " |"
    cells.append(shown(found["residues_per_s"]))
    flops = found.get("TFLOP/s")
    cells.append(f"{flops / sustained:.2f} ({flops / highest:.2f})" if flops else "")
    cells.append(f"{found['forward_share']:.1%}" if "forward_share" in found else "")
    same = peer and found["input"].startswith(peer["input"])
    cells.append(f"{found['residues_per_s'] / peer['residues_per_s']:.2f}" if same else "")
    return "| " + " | ".join(cells) + " |"


def tables() -> Iterator[str]:
    """The lines between the marks in README.md."""
    for name, title in RUNS.items():
        run = load(name)
        peer = next((found for found in run["rows"] if found["what"] == PEER and "failed" not in found), {})
        sustained = max(found["matmul_sustained_TFLOP/s"] for found in run["ceilings"].values())
        highest = max(found["matmul_first_50ms_TFLOP/s"] for found in run["ceilings"].values())
        yield f"**{title}** ({run['device'].split(',')[0]}, PyTorch {run['versions']['torch']}, flash-attn {run['versions']['flash-attn']};"
        yield f"matrix products {sustained:.0f} TFLOP/s sustained, {highest:.0f} in the first 50 ms; [all figures](benchmarks/results/{name})):"
        yield ""
        yield "| | model | input | residues/s | of the ceiling | forward's share of the time | times transformers |"
        yield "|---|---|---|---|---|---|---|"
        yield from (row(found, peer, sustained, highest) for found in run["rows"])
        yield ""
    started = next(r for r in load(STARTED)["rows"] if "start" in r)
    yield f"From the start of the process to the first finished batch ({started['model']}, {shown_input(started['input'])}), seconds:"
    yield ""
    yield "| " + " | ".join([*(PARTS[part] for part in started["start"]), "in all"]) + " |"
    yield "|---" * (len(started["start"]) + 1) + "|"
    yield "| " + " | ".join([*(f"{s:.1f}" for s in started["start"].values()), f"{started['start_s']:.1f}"]) + " |"


def updated(readme: str) -> str:
    """README's text with the tables as the results have them."""
    before, rest = readme.split(BEGIN)
    after = rest.split(END)[1]
    return before + BEGIN + "\n" + "\n".join(tables()) + "\n\n" + END + after


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    path = ROOT / "README.md"
    text = path.read_text()
    if args.check:
        return int(updated(text) != text)
    path.write_text(updated(text))
    return 0


if __name__ == "__main__":
    sys.exit(main())
