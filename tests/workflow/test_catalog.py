"""What the Snakemake workflow catalog looks for: the run in .test, and what it says of the usage."""

import gzip
import shutil

import pandas as pd
import pytest
import yaml
from Bio.SeqIO.FastaIO import SimpleFastaParser
from paths import PROTEOME, REPOSITORY

from seqmill.planning import pictures

PROTEINS = REPOSITORY / ".test/proteins.fasta"
NOT_KEPT = shutil.ignore_patterns("results", "logs", ".snakemake")


@pytest.mark.slow
def test_the_test_directory_runs_as_its_configuration_says(project):
    """`snakemake --directory .test --cores 2`, literally."""
    shutil.copytree(REPOSITORY / ".test", project.folder / ".test", ignore=NOT_KEPT)
    done = project.run("snakemake", "--directory", ".test", "--cores", "2")
    assert done.returncode == 0, done.stdout
    index = pd.read_parquet(project.folder / ".test/results/index.parquet")
    with PROTEINS.open() as handle:
        assert index["id"].tolist() == [title.split()[0] for title, _ in SimpleFastaParser(handle)]
    assert (project.folder / ".test/results/embeddings.h5").is_file()
    # All that a run gives where nothing is switched off.
    assert {path.stem for path in (project.folder / ".test/results/figures").glob("*.png")} == set(pictures.WORDS)
    assert project.results() == []


def test_its_proteins_are_real():
    with PROTEINS.open() as few, gzip.open(PROTEOME, "rt") as all_of_them:
        proteins = list(SimpleFastaParser(few))
        assert len(proteins) == 30
        assert set(proteins) <= set(SimpleFastaParser(all_of_them))


def test_the_catalog_is_told_what_the_workflow_can_do():
    usage = yaml.safe_load((REPOSITORY / ".snakemake-workflow-catalog.yml").read_text())["usage"]
    software = usage["software-stack-deployment"]
    rules = [path.read_text() for path in (REPOSITORY / "workflow/rules").glob("*.smk")]
    assert software["conda"] == all("conda:" in rule for rule in rules if "shell:" in rule)
    assert software["apptainer"] == software["apptainer+conda"] == any("container:" in rule for rule in rules)
    assert software["report"] == any("report(" in rule for rule in rules)
    assert not usage["mandatory-flags"]["flags"]
