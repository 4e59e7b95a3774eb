"""What Snakemake shows and leaves behind where the configuration, an input or a model is bad."""

import os
import shutil
import sys

import pytest
from refusals import assert_refused

# Snakemake in each folder given, in a process of its own: what it says goes to said.txt, its status to status.txt.
# It takes two seconds to import and a fraction of one to refuse a configuration, so it is imported once for all. For the
# same reason its process does not end by taking the interpreter apart.
SNAKEMAKE_IN_EACH = """
import os, sys
from pathlib import Path
from snakemake import cli

for folder in sys.argv[1:]:
    if not os.fork():
        os.chdir(folder)
        said = os.open("said.txt", os.O_WRONLY | os.O_CREAT)
        os.dup2(said, 1)
        os.dup2(said, 2)
        try:
            cli.main(["--profile", "profiles/local", "--cores", "2"])
        except SystemExit as ended:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(ended.code)
    _, status = os.wait()
    Path(folder, "status.txt").write_text(str(os.waitstatus_to_exitcode(status)))
"""

# Name of the project's folder, what its configuration sets, or its whole text, and what Snakemake must say.
REFUSED = {
    "missing FASTA": ("missing", {"fasta": "missing.fasta"}, "configuration: fasta: there is no file missing.fasta"),
    "misspelt key": (
        "misspelt",
        {"performance": {"batchsize": 5}},
        "performance.batchsize; did you mean performance.batch_size?",
    ),
    "braces in the model's name": (
        "model",
        {"model": {"name": "m{x}"}},
        "configuration: model.name: m{x} holds braces",
    ),
    "braces in the path of the checkout": ("{x}", {}, "the folder of seqmill: "),
    "malformed YAML": ("yaml", "fasta: [proteins.fasta\nmodel: {name: x", "Config file is not valid JSON or YAML"),
}


@pytest.fixture(scope="module")
def refused(fresh_project, tmp_path_factory, small_fasta):
    """Projects in which Snakemake was started, by the names of the cases."""
    parent = tmp_path_factory.mktemp("refused")
    projects = {}
    for case, (name, config, _) in REFUSED.items():
        projects[case] = project = fresh_project(parent / name)
        project.configure(fasta=str(small_fasta), shards=1)
        if isinstance(config, str):
            (project.folder / "config/config.yaml").write_text(config)
        else:
            project.configure(**config)
    (projects["braces in the model's name"].folder / "m{x}").mkdir()
    first, *_ = projects.values()
    done = first.run(sys.executable, "-c", SNAKEMAKE_IN_EACH, *(project.folder for project in projects.values()))
    assert done.returncode == 0, done.stdout
    return projects


@pytest.mark.parametrize("case", REFUSED)
def test_snakemake_refuses_a_bad_configuration_before_any_job(refused, case):
    project, (*_, says) = refused[case], REFUSED[case]
    said, status = ((project.folder / name).read_text() for name in ("said.txt", "status.txt"))
    assert status == "1"
    assert "Traceback" not in said, said
    assert says in said
    assert project.jobs(said) == []
    assert project.results() == []


def test_snakemake_stops_at_a_bad_input_and_a_missing_model(project):
    """Each stops its own rule, and no shard is embedded."""
    (project.folder / "reads.fasta").write_bytes(b"@read1\nACGTACGT\n+\nIIIIIIII\n")
    project.configure(fasta="reads.fasta", shards=2, model={"name": "./models/esm2"})
    done = project.snakemake()
    assert_refused(done, "error: reads.fasta, line 1: this looks like FASTQ")
    assert_refused(done, "error: model ./models/esm2: there is no such folder")
    assert project.jobs(done.stdout) == [("shard", None), ("weights", None)]
    assert project.results() == []


def test_snakemake_shows_why_a_model_cannot_be_used(project, demo_model, small_fasta):
    """Its weights are cut off; the sentence must be on the screen, and not only in a log somewhere."""
    shutil.copytree(demo_model, project.folder / "model")
    os.truncate(project.folder / "model/model.safetensors", 100_000)
    project.configure(fasta=str(small_fasta), shards=1, model={"name": "model"})
    done = project.snakemake()
    sentence = "error: model model: the weights cannot be loaded"
    assert_refused(done, sentence)
    assert (project.folder / "logs/embed/0.log").read_text().splitlines()[-1].startswith(sentence)
    assert not [name for name in project.results() if name.startswith("emb")]
