"""The demonstration proteome against transformers, one sequence at a time: minutes, so marked slow.

SEQMILL_EVERY=1 takes all of its proteins and not every fifth one.
"""

import os
import subprocess
import sys

import h5py
import numpy as np
import pytest
import torch
from common import read_proteins
from errors import reference_model, reference_states
from paths import REPOSITORY, SCRIPTS

ECOLI = REPOSITORY / "resources/ecoli_k12_UP000000625.fasta.gz"
EVERY = int(os.environ.get("SEQMILL_EVERY", 5))


@pytest.mark.slow
def test_proteins_of_ecoli_agree_with_transformers(demo_model, tmp_path):
    """Relative L2 of each mean vector, float32 on the CPU; proteins beyond 1,022 residues are embedded whole, too."""
    embed = [sys.executable, SCRIPTS / "embed.py", "--device", "cpu", "--dtype", "float32"]
    proteins = read_proteins(ECOLI)[::EVERY]
    fasta = tmp_path / "some.fasta"
    fasta.write_bytes(b"".join(b">%s\n%s\n" % (protein.id.encode(), protein.sequence) for protein in proteins))
    output = tmp_path / "output"
    subprocess.run([*embed, "--fasta", fasta, "--model", demo_model, "--output", output], check=True)
    with h5py.File(output / "embeddings.h5") as file:
        ids, found = file["ids"].asstr()[:].tolist(), file["mean"][:]
    assert ids == [protein.id for protein in proteins]
    assert sum(len(protein.sequence) > 1022 for protein in proteins) >= 54 // (2 * EVERY)
    reference = reference_model(str(demo_model), torch.device("cpu"))
    means: dict[bytes, np.ndarray] = {}
    for protein, vector in zip(proteins, found, strict=True):
        if protein.sequence not in means:
            means[protein.sequence] = reference_states(reference, protein.sequence).mean(0).numpy()
        wanted = means[protein.sequence]
        assert np.linalg.norm(vector - wanted) <= 1e-5 * np.linalg.norm(wanted), protein.id
