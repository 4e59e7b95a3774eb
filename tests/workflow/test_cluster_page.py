"""docs/offline-cluster.md, followed to the letter but for the download and the last command, which need a hub and SLURM."""

import re
import shutil

import pytest
import yaml
from paths import FAMILIES, REPOSITORY

pytestmark = pytest.mark.slow

FOLDER = "/projects/models/esm2_650M"


def test_the_page_of_an_offline_cluster(project, tiny_model):
    text = (REPOSITORY / "docs/offline-cluster.md").read_text()
    (download,) = re.findall(r"^    hf download \S+ (--\S+) (\S+)$", text, re.MULTILINE)
    assert download == ("--local-dir", FOLDER.split("/")[-1])
    # The sentence that asks for it when the model cannot be fetched says the same.
    assert "--local-dir" in project.run("hf", "download", "--help").stdout
    shutil.copytree(tiny_model, project.folder / "esm2_650M")
    shutil.copy(FAMILIES / "proteins.fasta", project.folder / "my_proteins.fasta.gz")
    for block in re.findall(r"^```yaml\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        project.configure(**yaml.safe_load(block.replace(FOLDER, str(project.folder / "esm2_650M"))))
    plan, dry_run, run = re.findall(r"^    (snakemake .*)$", text, re.MULTILINE)
    planned = project.run("bash", "-c", plan)
    assert planned.returncode == 0, planned.stdout
    assert (project.folder / "results/plan.txt").read_text() in planned.stdout
    shown = project.run("bash", "-c", dry_run)
    assert shown.returncode == 0, shown.stdout
    assert [shard for rule, shard in project.jobs(shown.stdout) if rule == "embed"] == list("01234567")
    assert dry_run == f"{run} -n"
