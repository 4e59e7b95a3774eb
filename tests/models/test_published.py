"""Real weights against what their authors' own code gave for them, on machines that can reach the hub.

The published values were computed in bfloat16 (ESM-C, Ankh) and with attention in float16 (DNABERT-S); ours in float32.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from common import load_model
from errors import packed_states
from golden import worst
from paths import REPOSITORY
from safetensors.torch import load_file

from seqmill.inputs.alphabet import NUCLEOTIDE
from seqmill.inputs.fasta import Record, read_records
from seqmill.inputs.sequences import Sequences
from seqmill.models import hub

PUBLISHED = REPOSITORY / "tests/data/published"
CPU = torch.device("cpu")
# The three sequences of `esmc_small` and `ankh_base`.
PROTEINS = (
    "MPAGFRQVCKAFMAEPMFNTATQHEYHCCTPTRMYINTPVNRAFGCFDGPIIFGWPPEREI",
    "MYPNQTSFAHGFWVHQIWLGFNGNVIFYM",
    "MCADPSKCIYMYV",
)


def records() -> list[Record]:
    return [Record(str(n), text.encode(), None, 0) for n, text in enumerate(PROTEINS)]


def proteins_differ_by(folder: Path, name: str) -> float:
    """The worst residue's relative L2 error of a model against published values."""
    published = load_file(PUBLISHED / f"{name}.safetensors")
    states, masks = published["output__last_hidden_state"].float(), published["residue_mask"]
    model = load_model(folder, torch.float32, CPU, "sdpa")
    found = packed_states(model, Sequences(records()), CPU, 700, -1, "residues")
    return worst(found, [rows[mask] for rows, mask in zip(states, masks, strict=True)])


def contigs_differ_by(folder: Path) -> float:
    """The worst mean vector's relative L2 error of DNABERT-S against VirNucPro's."""
    published = np.load(PUBLISHED / "virnucpro.npz")
    means = dict(zip(published["nucleotide_ids"].tolist(), torch.from_numpy(published["dnabert_s_mean"]), strict=True))
    contigs = list(read_records(PUBLISHED / "virnucpro.fasta", NUCLEOTIDE, "replace"))
    model = load_model(folder, torch.float32, CPU, "sdpa")
    found = packed_states(model, Sequences(contigs), CPU, 700, -1, "mean_all")
    return worst(found, [means[contig.id][None] for contig in contigs])


@pytest.mark.network
@pytest.mark.parametrize(
    ("name", "revision", "differ_by", "limit"),
    [
        (
            "biohub/ESMC-300M",
            "a59b831785f907e96e6a246b1d142bfb76df31ee",
            lambda folder: proteins_differ_by(folder, "esmc_small"),
            3e-2,
        ),
        (
            "ElnaggarLab/ankh-base",
            "d99cb6b966530dfc2ae96bc69d9255c2a07308b0",
            lambda folder: proteins_differ_by(folder, "ankh_base"),
            3e-2,
        ),
        ("zhihan1996/DNABERT-S", None, contigs_differ_by, 1e-2),
    ],
    ids=["ESM-C", "Ankh", "DNABERT-S"],
)
def test_real_weights_give_what_was_published(
    name: str, revision: str | None, differ_by: Callable[[Path], float], limit: float
):
    assert differ_by(Path(hub.resolve(name, revision).folder)) < limit


def test_letters_have_the_ids_that_ankhs_own_tokenizer_gives_them():
    """Where a folder has no tokenizer, seqmill's table holds."""
    from seqmill.models.t5.tokens import TOKENS

    published = load_file(PUBLISHED / "ankh_base.safetensors")["input__input_ids"]
    for text, ids in zip(PROTEINS, published.tolist(), strict=True):
        assert [TOKENS.index(token) for token in (*text, "</s>")] == ids[: len(text) + 1]
