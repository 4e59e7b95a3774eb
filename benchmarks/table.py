"""Write README.md's tables of speed from benchmarks/results, so that they cannot drift.

Without a flag it rewrites README.md; with --check it only says whether README.md is up to date (exit status 1 if not).
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks/results"
BEGIN, END = "<!-- speed: written by benchmarks/table.py -->\n", "<!-- speed: end -->\n"

# The runs that README.md shows, and what each says.
RUNS = {
    "2026-11-22_h200_engine_650M.json": "ESM-2 650M",
    "2026-11-22_h200_engine_650M_peers.json": "ESM-2 650M, another run, with more peers and inputs",
    "2026-11-22_h200_engine_sizes.json": "Other sizes",
}
# Those of the other families, in a table of their own.
FAMILY_RUNS = ("2026-11-25_h100_families_dnabert_esm.json", "2026-11-25_h100_families_t5_esmc.json")
NAMES = {
    "dnabert-s": "DNABERT-S",
    "esmc-300M": "ESM-C 300M",
    "esmc-600M": "ESM-C 600M",
    "esm1b": "ESM-1b",
    "prott5-xl": "ProtT5-XL",
    "ankh-base": "Ankh base",
}
PARTS = {
    "python_s": "Python",
    "import_s": "importing PyTorch",
    "read_s": "reading the shard",
    "device_s": "starting the GPU, its ceiling",
    "load_s": "loading weights, compiling beside it",
    "compile_s": "waiting for kernels",
    "measure_s": "measuring memory and batch sizes",
    "first_batch_s": "first batch, reader processes",
}
STARTED = "2026-11-26_h100_starts.json"
INPUTS = {
    "uniref90_10000": "UniRef90 sample",
    "stability_53614": "53,614 proteins of 43-50 residues",
    "yeast": "yeast",
    "ecoli": "*E. coli*",
    "uniref90_10000_up_to_1022": "UniRef90 sample, up to 1,022 residues",
    "metagenomics_opengenome2_100": "metagenomes, records of 8,192 bases",
    "metagenomics_opengenome2_100x8192_500": "metagenomes, records of 500 bases",
}
PEER = "transformers, sorted and padded, SDPA"


def load(name: str) -> dict[str, Any]:
    return json.loads((RESULTS / name).read_text())


def shown_input(name: str) -> str:
    """`uniref90_10000_x7` as people would say it."""
    stem, _, repeats = name.removesuffix("x8192").replace("x8192_x", "_x").partition("_x")
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


def family_row(found: dict[str, Any], sustained: float) -> str:
    """One line of the table of the other families."""
    what = found["what"] + (f" (one sequence in {found['every']})" if found["every"] > 1 else "")
    letters = "bases" if "bases_per_s" in found else "residues"
    cells = [what, NAMES[found["model"]], shown_input(found["input"])]
    cells += [f"{shown(found[f'{letters}_per_s'])} {letters}", shown(found["tokens_per_s"])]
    flops, times = found.get("TFLOP/s"), found.get("seqmill_times")
    cells += [f"{flops / sustained:.2f}" if flops else "", f"{1 / times:.2f}" if times else "1.00"]
    cells.append(f"{found['gpu_idle_share']:.1%}" if "gpu_idle_share" in found else "")
    return "| " + " | ".join(cells) + " |"


def family_table() -> Iterator[str]:
    """The other families, each with its peers in the same run."""
    runs = {name: load(name) for name in FAMILY_RUNS}
    first = runs[FAMILY_RUNS[0]]
    device, versions = first["device"].split(",")[0], first["versions"]
    links = " and ".join(f"[run {number}](benchmarks/results/{name})" for number, name in enumerate(runs, 1))
    yield f"**Other families** ({device}, PyTorch {versions['torch']}, flash-attn {versions['flash-attn']}; {links}):"
    yield ""
    yield "| | model | input | letters/s | tokens/s | of the ceiling | of seqmill's speed | GPU idle |"
    yield "|---|---|---|---|---|---|---|---|"
    for run in runs.values():
        sustained = max(found["matmul_sustained_TFLOP/s"] for found in run["ceilings"].values())
        yield from (family_row(found, sustained) for found in run["rows"])
    yield ""


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
    yield from family_table()
    yield from start_table()


def start_table() -> Iterator[str]:
    """From process start to the first finished batch, this version and the one before it: medians of the runs."""
    run = load(STARTED)
    yield f"**From the start of a job to its first finished batch**, seconds ({run['device'].split(',')[0]}, PyTorch {run['versions']['torch']};"
    yield f"[all runs](benchmarks/results/{STARTED})):"
    yield ""
    yield "| model | kernels | version | " + " | ".join(PARTS.values()) + " | in all |"
    yield "|---" * (len(PARTS) + 4) + "|"
    table = pd.DataFrame(run["rows"])
    for (model, kernels), rows in table.groupby(["model", "kernels"], sort=False):
        for name, version in (("theirs", "before"), ("ours", "this one")):
            medians = rows.loc[rows["version"] == name, [*PARTS, "first_batch_after_s"]].median()
            yield "| " + " | ".join([model, kernels, version, *(f"{seconds:.1f}" for seconds in medians)]) + " |"


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
