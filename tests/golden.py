"""The packed forward of a family against what its authors' own code computed of a small checkpoint."""

from pathlib import Path

import numpy as np
import torch
from common import load_model
from errors import packed_states
from paths import FAMILIES

from seqmill.inputs.alphabet import PROTEIN
from seqmill.inputs.fasta import Record, read_records
from seqmill.inputs.sequences import Sequences
from seqmill.models.family import Model

CPU = torch.device("cpu")


def proteins() -> list[Record]:
    return list(read_records(FAMILIES / "proteins.fasta", PROTEIN))


def load(folder: Path) -> Model:
    """The model in a folder, in float32 on the CPU."""
    return load_model(folder, torch.float32, CPU, "sdpa")


def rows(model: Model, records: list[Record], name: str = "residues", layer: int = -1) -> list[torch.Tensor]:
    """A dataset of these records, in batches of some 700 tokens: (L, D) each where it is per residue, else (1, D)."""
    return packed_states(model, Sequences(records), CPU, 700, layer, name)


def worst(found: list[torch.Tensor], wanted: list[torch.Tensor]) -> float:
    """The worst row's relative L2 error."""
    a, b = torch.cat(found), torch.cat(wanted)
    return float(((a - b).norm(dim=1) / b.norm(dim=1)).max())


def error(model: Model, name: str) -> float:
    """The worst relative L2 error of a model against what is expected of a checkpoint: of states, means, first tokens."""
    records, expected = proteins(), np.load(FAMILIES / name / "expected.npz")

    def wanted(record: Record, what: str) -> torch.Tensor:
        return torch.from_numpy(expected[f"{record.id}/{what}"])

    short = [record for record in records if f"{record.id}/states" in expected]
    leading, trailing = model.tokenizer.leading, model.tokenizer.trailing
    states = [wanted(record, "states") for record in short]
    content = [state[leading : len(state) - trailing] for state in states]
    return max(
        worst(rows(model, short), content),
        worst(rows(model, records, "mean"), [wanted(record, "mean_residues")[None] for record in records]),
        worst(rows(model, records, "bos"), [wanted(record, "first")[None] for record in records]),
    )
