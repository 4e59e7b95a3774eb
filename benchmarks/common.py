"""What the benchmarks share: seqmill on the path, and results as a table for people and one JSON line."""

import datetime
import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "workflow"))

import pandas as pd  # noqa: E402
import torch  # noqa: E402

from seqmill import gpu  # noqa: E402
from seqmill.fasta import Protein  # noqa: E402
from seqmill.job import versions  # noqa: E402


def total(proteins: list[Protein]) -> int:
    return sum(len(protein.sequence) for protein in proteins)


def by_length(proteins: list[Protein]) -> list[Protein]:
    return sorted(proteins, key=lambda protein: -len(protein.sequence))


def report(name: str, rows: list[dict[str, Any]], output: Path | None, **about: Any) -> None:
    """Print the rows as a table, then everything as one JSON line, which also goes to `output`."""
    device = torch.device("cuda") if torch.cuda.is_available() else torch.device("cpu")
    result = {
        "benchmark": name,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "device": gpu.describe(device),
        "versions": versions(),
        **about,
        "rows": rows,
    }
    print(pd.DataFrame(rows).to_string(index=False))
    line = json.dumps(result)
    print(line)
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(json.dumps(result, indent=1) + "\n")
