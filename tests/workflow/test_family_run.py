"""A whole run with Snakemake of a model that is no ESM-2: nucleotides, tokens of several letters, its own pooling."""

import json

import dnabert_reference
import pytest
import torch
from embeddings import read_embeddings
from golden import worst
from paths import FAMILIES

from seqmill.inputs.alphabet import NUCLEOTIDE
from seqmill.inputs.fasta import read_records

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def nucleotides(tmp_path_factory, fresh_project):
    """A finished project with pooling as the family has it, on the CPU."""
    project = fresh_project(tmp_path_factory.mktemp("nucleotides") / "project")
    dnabert_reference.write(project.folder / "model")
    fasta = str(FAMILIES / "nucleotides.fasta")
    project.write_config(fasta=fasta, shards=2, model={"name": "model"}, sequences={"invalid": "replace"})
    done = project.snakemake()
    assert done.returncode == 0, done.stdout
    return project


def test_it_gives_what_the_reference_gives(nucleotides):
    found = read_embeddings(nucleotides.folder / "results/embeddings.h5")
    assert found.keys() == {"ids", "lengths", "mean_all"}
    reference = dnabert_reference.reference(nucleotides.folder / "model")
    records = list(read_records(FAMILIES / "nucleotides.fasta", NUCLEOTIDE, "replace"))
    assert found["ids"] == [record.id for record in records]
    expected = [reference(record.sequence, 2).mean(0, keepdim=True) for record in records]
    assert worst([torch.from_numpy(found["mean_all"])], expected) < 1e-5


def test_another_tokenizer_is_another_model(nucleotides, tmp_path):
    """What is finished stays so until tokenizer.json changes, and the FASTA is not split again then."""
    project = nucleotides.copy(tmp_path / "project")
    assert project.plan() == []
    path = project.folder / "model/tokenizer.json"
    content = json.loads(path.read_text())
    # One merge less: other tokens for some sequences.
    content["model"]["merges"].pop()
    path.write_text(json.dumps(content))
    jobs = [("check", None), ("embed", "0"), ("embed", "1"), ("merge", None), ("weights", None)]
    assert project.plan() == jobs
