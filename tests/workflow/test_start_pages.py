"""docs/laptop.md, docs/workstation.md and docs/own-workflow.md, followed to the letter but for the models and the amount of input."""

import re
import shutil

import pandas as pd
import pytest
import yaml
from paths import FAMILIES, REPOSITORY
from project import Project

pytestmark = pytest.mark.slow

PROTEINS = FAMILIES / "proteins.fasta"
# Done for the tests: the environment. What needs a hub or GPUs has the demonstration's model.
DONE = re.compile(r"make demo|pip install \.|source .*|nvidia-smi -L")
HUB = re.compile(r"facebook/esm2_\w+")


def text_of(page: str, model: object) -> str:
    return HUB.sub(str(model), (REPOSITORY / "docs" / page).read_text())


def follow(text: str, project: Project) -> list[str]:
    """Run a page's commands and its Python in their order; what each printed."""
    said = []
    project.environment["PYTHONPATH"] = str(REPOSITORY / "workflow")
    for python, command in re.findall(r"^```python\n(.*?)^```|^    (\S[^\n]*)$", text, re.MULTILINE | re.DOTALL):
        if python or not DONE.fullmatch(command):
            command = re.sub(r"^seqmill ", f"python {REPOSITORY / 'workflow/seqmill'} ", command)
            done = project.run("python", "-c", python) if python else project.run("bash", "-c", command)
            assert done.returncode == 0, f"{python or command}\n{done.stdout}"
            said.append(done.stdout)
    return said


def test_the_page_of_a_laptop(project, tiny_model):
    shutil.copy(PROTEINS, project.folder / "my_proteins.fasta")
    said = follow(text_of("laptop.md", tiny_model), project)
    assert any("GPU" in text or "CPU" in text for text in said)
    count = PROTEINS.read_text().count(">")
    assert any(f"({count}, 16)" in text for text in said)
    assert len(pd.read_parquet(project.folder / "embedded/index.parquet")) == count


def test_the_page_of_a_workstation(project, tiny_model):
    shutil.copy(PROTEINS, project.folder / "my_proteins.fasta.gz")
    text = text_of("workstation.md", tiny_model)
    (edited, windows) = re.findall(r"^```yaml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    project.configure(**yaml.safe_load(edited))
    follow(text.replace("profiles/local", "profiles/local --cores 2"), project)
    index = project.folder / "results/index.parquet"
    assert "windows" not in pd.read_parquet(index)
    project.configure(**yaml.safe_load(windows))
    project.configure(sequences={"max_length": 50})
    done = project.run("snakemake", "--profile", "profiles/local", "--cores", "2")
    assert done.returncode == 0, done.stdout
    assert pd.read_parquet(index)["windows"].max() > 1


def test_the_page_of_ones_own_workflow(tmp_path, tiny_model):
    (tmp_path / "seqmill").symlink_to(REPOSITORY)
    project = Project(tmp_path / "mine")
    project.folder.mkdir()
    text = text_of("own-workflow.md", tiny_model)
    for name, content in re.findall(r"\*\*`(\S+)`\*\*.*?\n```\w+\n(.*?)```\n", text, re.DOTALL):
        (project.folder / name).write_text(content)
    shutil.copy(PROTEINS, project.folder / "proteins.fasta")
    (command,) = re.findall(r"^    (snakemake .*)$", text, re.MULTILINE)
    done = project.run(*command.replace("--cores all", "--cores 2").split())
    assert done.returncode == 0, done.stdout
    table = pd.read_csv(project.folder / "lengths_of_vectors.tsv", sep="\t")
    assert (table["length"] >= 50).all()
    assert (table["norm"] > 0).all()
