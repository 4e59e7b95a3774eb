"""What the benchmarks share: seqmill on the path, loading models, results as a table for people and one JSON line."""

import datetime
import gzip
import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "workflow"))

import pandas as pd  # noqa: E402
import torch  # noqa: E402

from seqmill.engine import device as devices  # noqa: E402
from seqmill.engine.report import versions  # noqa: E402
from seqmill.inputs.alphabet import PROTEIN  # noqa: E402
from seqmill.inputs.fasta import Record, read_records  # noqa: E402
from seqmill.models import hub  # noqa: E402
from seqmill.models.family import Model  # noqa: E402
from seqmill.models.loading import load  # noqa: E402
from seqmill.models.source import Source  # noqa: E402


def total(proteins: list[Record]) -> int:
    return sum(len(protein.sequence) for protein in proteins)


def by_length(proteins: list[Record]) -> list[Record]:
    return sorted(proteins, key=lambda protein: -len(protein.sequence))


def write_shard(proteins: list[Record], repeats: int, path: Path) -> Path:
    """Write a FASTA as the rule shard does, longest first.

    Repeated ones have ids of their own, and begin elsewhere in the sequence: otherwise they would be computed once.
    """
    with path.open("wb") as file:
        for protein in by_length(proteins):
            for number in range(repeats):
                turned = protein.sequence[number:] + protein.sequence[:number]
                file.write(b">%s_%d\n%s\n" % (protein.id.encode(), number, turned))
    return path


def read_proteins(path: Path | str) -> list[Record]:
    """The proteins of a file; letters that are not amino acids become X."""
    return list(read_records(path, PROTEIN, "replace"))


def read_nucleotides(path: Path) -> list[Record]:
    """The records of a FASTA file of nucleotides, in upper case, with no letter replaced."""
    open_text = gzip.open if path.suffix == ".gz" else open
    with open_text(path, "rb") as file:
        parts = [part.split(b"\n", 1) for part in b"\n".join(file.read().splitlines()).split(b">")[1:]]
    return [Record(title.split()[0].decode(), text.replace(b"\n", b"").upper(), None, 0) for title, text in parts]


def load_model(
    folder: str | Path, dtype: torch.dtype, device: torch.device, attention: str, fused: bool = False
) -> Model:
    """A checkpoint's packed model, with fused kernels if asked for, which need a GPU."""
    model = load(Source.of(hub.resolve(str(folder))), dtype, device, attention)
    if fused:
        # Only here: Triton is not everywhere.
        from seqmill.kernels import triton_operators

        config, needs = model.config, model.config.attention
        own = triton_operators.fused(config.operators, device, dtype, config.width, needs.heads, needs.head_dim)
        model.kernels = model.kernels._replace(operators=own)
    return model


def report(name: str, rows: list[dict[str, Any]], output: Path | None, **about: Any) -> None:
    """Print the rows as a table, then everything as one JSON line, which also goes to `output`."""
    device = torch.device("cuda") if torch.cuda.is_available() else torch.device("cpu")
    result = {
        "benchmark": name,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "device": devices.describe(device),
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
