"""Every representation, layer, storage and treatment of long sequences, against transformers and plain loops.

On real proteins with the trained demonstration model. SEQMILL_PROTEINS names another FASTA file.
"""

import gzip
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from embeddings import read_embeddings
from errors import reference_model
from paths import DEMO_MODEL, REPOSITORY
from small_run import SmallRun

from seqmill.inputs.alphabet import PROTEIN
from seqmill.inputs.fasta import read_records
from seqmill.models.esm2.config import TOKENS

FASTA = Path(os.environ.get("SEQMILL_PROTEINS", REPOSITORY / "resources/ecoli_k12_UP000000625.fasta.gz"))
LAYERS, LAST = (0, 3, 6), 6
POOLING = ("mean", "mean_all", "max", "std", "cls", "bos", "eos", "residues")
LONGEST, OVERLAP = 1022, 255
RUNS = {
    "whole": {},
    "windows": {"long": "window"},
    "short windows": {"long": "window", "max_length": 300, "overlap": 10, "storage": "float16"},
    "truncated": {"long": "truncate", "max_length": 500, "storage": "float32"},
}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def records():
    """Some proteins of all lengths, and some of the longest."""
    known = sorted(read_records(FASTA, PROTEIN, "replace"), key=lambda record: len(record.sequence))
    return list({record.id: record for record in [*known[::600], *known[-250::50], *known[-6:]]}.values())


@pytest.fixture(scope="module")
def fasta(records, tmp_path_factory):
    path = tmp_path_factory.mktemp("input") / "some.fasta.gz"
    with gzip.open(path, "wb") as file:
        file.writelines(b">%s\n%s\n" % (record.id.encode(), record.sequence) for record in records)
    return path


def windows(length: int, longest: int, overlap: int) -> list[tuple[int, int]]:
    """As few windows of the same length as share `overlap` residues, spread evenly."""
    if length <= longest:
        return [(0, length)]
    count = 2
    while count * longest - (count - 1) * overlap < length:
        count += 1
    starts = [number * (length - longest) // (count - 1) for number in range(count)]
    return [(start, start + longest) for start in starts]


def states(model, sequence: str) -> dict[int, np.ndarray]:
    """Layer to states of <cls>, residues and <eos>, float64."""
    tokens = torch.tensor([[TOKENS.index(token) for token in ("<cls>", *sequence, "<eos>")]])
    with torch.inference_mode():
        output = model(tokens, attention_mask=torch.ones_like(tokens), output_hidden_states=True)
    return {layer: output.hidden_states[layer][0].double().numpy() for layer in LAYERS}


def expected(model, sequence: str, settings: dict) -> dict[int, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Layer to the state of the first token, those of the residues that are embedded, and the last token's."""
    longest, overlap = settings.get("max_length", LONGEST), settings.get("overlap", OVERLAP)
    long = settings.get("long", "full")
    if long == "truncate":
        sequence = sequence[:longest]
    parts = windows(len(sequence), longest, overlap) if long == "window" else [(0, len(sequence))]
    computed = [states(model, sequence[start:stop]) for start, stop in parts]
    nearest = []
    for place in range(len(sequence)):
        inside = [number for number, (start, stop) in enumerate(parts) if start <= place < stop]
        nearest.append(min(inside, key=lambda number: abs(place + 0.5 - sum(parts[number]) / 2)))
    found = {}
    for layer in LAYERS:
        rows = [computed[n][layer][1 + place - parts[n][0]] for place, n in enumerate(nearest)]
        found[layer] = computed[0][layer][0], np.array(rows), computed[-1][layer][-1]
    return found


def error(found: np.ndarray, wanted: np.ndarray) -> float:
    """Relative L2 of the worst row."""
    found, wanted = np.atleast_2d(found).astype(np.float64), np.atleast_2d(wanted)
    return float((np.linalg.norm(found - wanted, axis=1) / np.linalg.norm(wanted, axis=1)).max())


@pytest.mark.parametrize("name", RUNS)
def test_everything_is_what_transformers_and_plain_loops_give(name, records, fasta, tmp_path):
    settings, run = RUNS[name], SmallRun(tmp_path)
    run.embed(DEMO_MODEL, fasta, pooling=POOLING, layers=LAYERS, **settings)
    run.check()
    run.merge()
    found, index, model = (
        read_embeddings(run.embeddings),
        pd.read_parquet(run.index),
        reference_model(str(DEMO_MODEL), torch.device("cpu")),
    )
    half = settings.get("storage") == "float16"
    limit = 1e-3 if half else 2e-5
    longest = settings.get("max_length", LONGEST)
    assert sum(len(record.sequence) > longest for record in records) >= 5
    for row, record in enumerate(records):
        sequence = record.sequence.decode()
        for layer, (first, rows, last) in expected(model, sequence, settings).items():
            own = {pooling: found[f"{pooling}_layer{layer}"] for pooling in POOLING}
            wanted = {
                "mean": rows.mean(0),
                "mean_all": np.vstack([first, rows, last]).mean(0),
                "max": rows.max(0),
                "std": rows.std(0),
                "cls": first,
                "bos": first,
                "eos": last,
            }
            for pooling, value in wanted.items():
                assert own[pooling].dtype == (np.float16 if half else np.float32)
                assert error(own[pooling][row], value) < limit, (record.id, layer, pooling)
            stretch = slice(*found["offsets"][row : row + 2])
            assert error(own["residues"][stretch], rows) < 5 * limit, (record.id, layer)
        if settings.get("long") == "window":
            assert index["windows"][row] == len(windows(len(sequence), longest, settings.get("overlap", OVERLAP)))
        if settings.get("long") == "truncate":
            assert index["embedded"][row] == min(len(sequence), longest)
