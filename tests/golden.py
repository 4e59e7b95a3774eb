"""What the authors' own code computed of small checkpoints (tests/data/families), and how far a model is from it."""

from collections.abc import Sequence
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
# Representations, and what the files call them. Of long sequences they have no states.
NAMES = {"mean": "mean_residues", "mean_all": "mean_all", "bos": "first", "residues": "states"}


def proteins() -> list[Record]:
    """The sequences of all checkpoints but DNABERT's."""
    return list(read_records(FAMILIES / "proteins.fasta", PROTEIN))


def values(name: str) -> dict[str, torch.Tensor]:
    """What is expected of a checkpoint, by id and kind: `P1/states`, special tokens included."""
    with np.load(FAMILIES / name / "expected.npz") as found:
        return {key: torch.from_numpy(found[key]) for key in found.files}


def load(folder: Path, dtype: torch.dtype = torch.float32) -> Model:
    """The model in a folder, on the CPU."""
    return load_model(folder, dtype, CPU, "sdpa")


def rows(model: Model, records: Sequence[Record], name: str = "residues", layer: int = -1) -> list[torch.Tensor]:
    """A dataset of these records, in batches of some 700 tokens: (L, D) each where it is per token, else (1, D)."""
    return packed_states(model, Sequences(records), CPU, 700, layer, name)


def worst(found: Sequence[torch.Tensor], wanted: Sequence[torch.Tensor]) -> float:
    """The worst row's relative L2 error."""
    a, b = torch.cat(list(found)), torch.cat(list(wanted))
    return float(((a - b).norm(dim=1) / b.norm(dim=1)).max())


def wanted(model: Model, name: str, records: Sequence[Record], dataset: str) -> dict[str, torch.Tensor]:
    """What a dataset should hold of those records of which it is known, by id."""
    expected, leading, trailing = values(name), model.tokenizer.leading, model.tokenizer.trailing
    known = {record.id: expected.get(f"{record.id}/{NAMES[dataset]}") for record in records}
    known = {key: value for key, value in known.items() if value is not None}
    if dataset != "residues":
        return {key: value[None] for key, value in known.items()}
    return {key: state[leading : len(state) - trailing] for key, state in known.items()}


def errors(model: Model, name: str, records: Sequence[Record] | None = None) -> dict[str, float]:
    """The worst relative L2 error of each representation, against what is expected of a checkpoint."""
    found, records = {}, records or proteins()
    for dataset in NAMES:
        known = wanted(model, name, records, dataset)
        assert known
        own = [record for record in records if record.id in known]
        found[dataset] = worst(rows(model, own, dataset), list(known.values()))
    return found


def error(model: Model, name: str) -> float:
    """The worst of `errors`."""
    return max(errors(model, name).values())
