"""docs/neighbours.md and docs/classifier.md, followed to the letter but for their inputs, of which a part is embedded."""

import gzip
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
from Bio.SeqIO.FastaIO import SimpleFastaParser
from paths import PROTEOME, REPOSITORY
from project import Project

pytestmark = pytest.mark.slow

VARIANTS = "resources/beta_lactamase_variants.fasta.gz"
# What a page takes for done.
BEFORE = ("make demo", "source .venv/bin/activate")


def follow(page: str, project: Project) -> None:
    """Run a page's commands and its Python, in the order of the page."""
    text = (REPOSITORY / "docs" / page).read_text()
    project.environment["PYTHONPATH"] = str(REPOSITORY / "workflow")
    for python, command in re.findall(r"^```python\n(.*?)^```|^    (\S[^\n]*)$", text, re.MULTILINE | re.DOTALL):
        if command not in BEFORE:
            done = project.run("python", "-c", python) if python else project.run("bash", "-c", command)
            assert done.returncode == 0, f"{python or command}\n{done.stdout}"


def write_part(source: Path, target: Path, every: int, *also: str) -> None:
    """Every so manieth record of a FASTA file, and those with these words in their headers."""
    with gzip.open(source, "rt") as file:
        records = list(SimpleFastaParser(file))
    kept = [r for n, r in enumerate(records) if n % every == 0 or any(word in r[0] for word in also)]
    target.write_bytes(gzip.compress("".join(f">{title}\n{letters}\n" for title, letters in kept).encode()))


def test_the_page_of_neighbours(project):
    write_part(PROTEOME, project.folder / "part.fasta.gz", 40, "P02925", "P39265")
    project.configure(fasta="part.fasta.gz")
    done = project.snakemake()
    assert done.returncode == 0, done.stdout
    follow("neighbours.md", project)
    rbsb = pd.read_csv(project.folder / "rbsb.tsv", sep="\t")
    assert rbsb["neighbor"][0] == "sp|P39265|ALSB_ECOLI"
    assert round(float(rbsb["similarity"][0]), 3) == 0.99
    mine = pd.read_csv(project.folder / "mine.tsv", sep="\t")
    assert mine["neighbor"].tolist()[:2] == ["sp|P02925|RBSB_ECOLI", "sp|P39265|ALSB_ECOLI"]
    assert mine["similarity"][0] == 1


def test_the_page_of_classifiers(project):
    # The page's input is in the folder that other tests share.
    (project.folder / "resources").unlink()
    shutil.copytree(REPOSITORY / "resources", project.folder / "resources")
    write_part(REPOSITORY / VARIANTS, project.folder / VARIANTS, 15)
    follow("classifier.md", project)
    summary = pd.read_csv(project.folder / "probe_headers/probe.tsv", sep="\t").set_index("dataset")
    assert len(summary) == 7 + 2
    assert summary.loc["mean_layer6", "spearman"] > 0.2 > summary.loc["dummy", "spearman"]
    groups = pd.read_csv(project.folder / "labels.tsv", sep="\t")["group"]
    assert len(groups) == 360
    assert (project.folder / "probe_positions/probe.svg").exists()
