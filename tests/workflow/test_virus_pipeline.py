"""docs/virus-pipeline.md, followed to the letter but for the models, which are small: its files, its command, its reading."""

import re
import runpy
import shutil

import dnabert_reference
import numpy as np
import pytest
from Bio.SeqIO.FastaIO import SimpleFastaParser
from embeddings import read_embeddings, relative_error
from paths import FAMILIES, REPOSITORY
from project import Project

pytestmark = pytest.mark.slow

PAGE = (REPOSITORY / "docs/virus-pipeline.md").read_text()
FILES = re.findall(r"\*\*`(\S+)`\*\*.*?\n```\w+\n(.*?)```\n", PAGE, re.DOTALL)
COMMAND = re.search(r"^    (snakemake .*)$", PAGE, re.MULTILINE)[1].split()
READING = re.search(r"## Read the features\n\n```python\n(.*?)```", PAGE, re.DOTALL)[1]


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory, tiny_model):
    """The pipeline's folder beside a checkout, and what Snakemake said of its run."""
    beside = tmp_path_factory.mktemp("beside")
    (beside / "seqmill").symlink_to(REPOSITORY)
    project = Project(beside / "virus")
    project.folder.mkdir()
    for name, content in FILES:
        (project.folder / name).write_text(content)
    shutil.copy(FAMILIES / "nucleotides.fasta", project.folder / "contigs.fasta")
    config = project.folder / "config.yaml"
    models = {
        "zhihan1996/DNABERT-S": dnabert_reference.write(beside / "dnabert"),
        "facebook/esm2_t33_650M_UR50D": tiny_model,
    }
    for name, folder in models.items():
        assert name in config.read_text()
        config.write_text(config.read_text().replace(name, str(folder)))
    done = project.run(*COMMAND, "--cores", "2")
    assert done.returncode == 0, done.stdout
    return project


def test_every_contig_has_both_embeddings(pipeline, monkeypatch, tmp_path):
    monkeypatch.chdir(pipeline.folder)
    (tmp_path / "read.py").write_text(READING)
    found = runpy.run_path(str(tmp_path / "read.py"))
    contigs = {
        title.split()[0]: letters for title, letters in SimpleFastaParser((pipeline.folder / "contigs.fasta").open())
    }
    assert found["ids"].tolist() == list(contigs)
    orfs, features = dict(zip(contigs, found["orfs"].tolist(), strict=True)), found["features"]
    assert (orfs["one_base"], features.shape) == (0, (len(contigs), 24 + 16))
    assert orfs["phix_whole"] > 20

    states = dnabert_reference.reference(pipeline.folder.parent / "dnabert")
    expected = [states(re.sub("[^ACGT]", "N", letters).encode(), 2).mean(0).numpy() for letters in contigs.values()]
    assert relative_error(features[:, :24], np.stack(expected)) < 1e-5

    proteins = read_embeddings(pipeline.folder / "proteins/results/embeddings.h5")
    for row, (contig, count) in enumerate(orfs.items()):
        own = [n for n, name in enumerate(proteins["ids"]) if name in {f"{contig}_{n}" for n in range(1, count + 1)}]
        assert len(own) == count
        if own:
            weighted = np.average(proteins["mean"][own], axis=0, weights=proteins["lengths"][own])
            assert np.allclose(features[row, 24:], weighted, rtol=1e-4, atol=1e-6)
        else:
            assert np.isnan(features[row, 24:]).all()


def test_reading_frames_are_whole(pipeline):
    """Among them is gene A of phiX174, which begins so."""
    orfs = [letters for _, letters in SimpleFastaParser((pipeline.folder / "orfs.fasta").open())]
    assert all(len(letters) >= 30 and "*" not in letters for letters in orfs)
    assert (
        sum("MVRSYYPSECHADYFDFERIEALKPAIEACGISTLSQSPMLGFHKQMDNRIKLLEEILSFRMQGVEFDNGDMYVDGHKAAS" in o for o in orfs) == 1
    )


def test_nothing_is_left_to_do(pipeline):
    done = pipeline.run(*COMMAND, "--cores", "2", "--dry-run")
    assert "Nothing to be done" in done.stdout, done.stdout
