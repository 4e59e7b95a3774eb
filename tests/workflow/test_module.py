"""seqmill imported into another workflow: from a path and from git, with a prefix, twice, and nothing of it leaks."""

import shutil
import subprocess

import pandas as pd
import pytest
import yaml
from embeddings import read_embeddings, relative_error
from paths import REPOSITORY
from project import Project

OWN = """
rule own:
    output: "own.txt"
    shell: "( echo one two; set -o; trap; declare -F; alias; env | grep -v -e SEQMILL_GPUS -e '^TMPDIR=' | sort ) > {output}"
"""
IMPORT = """
module {name}:
    snakefile: "{snakefile}"
    config: config["{section}"]
    {more}

use rule * from {name} as {name}_*
"""
JOBS = ["check", "embed", "embed", "merge", "shard", "weights"]


class Importer(Project):
    """A workflow with a rule of its own; it imports what a test says."""

    def write(self, *modules: str) -> None:
        text = 'configfile: "config/config.yaml"\n\nrule everything:\n    input: "own.txt", config["wanted"]\n'
        (self.folder / "Snakefile").write_text(text + OWN + "".join(modules))

    def sections(self, wanted: list[str], **sections: dict) -> None:
        (self.folder / "config/config.yaml").write_text(yaml.safe_dump({"wanted": wanted, **sections}))


@pytest.fixture
def importer(tmp_path, small_fasta, tiny_model):
    folder = tmp_path / "importer"
    (folder / "config").mkdir(parents=True)
    (folder / "profiles").symlink_to(REPOSITORY / "profiles")
    shutil.copy(small_fasta, folder / "proteins.fasta")
    shutil.copytree(tiny_model, folder / "model")
    return Importer(folder)


SECTION = {"fasta": "proteins.fasta", "model": {"name": "model"}, "shards": 2}


def imported(name="seqmill", section="embeddings", snakefile=REPOSITORY / "workflow/Snakefile", more="") -> str:
    return IMPORT.format(name=name, section=section, snakefile=snakefile, more=more)


def rules(importer: Importer, *arguments: str, **options) -> list[str]:
    done = importer.snakemake("--dry-run", *arguments, **options)
    assert done.returncode == 0, done.stdout
    assert "localrules" not in done.stdout
    return [rule for rule, _ in importer.jobs(done.stdout)]


@pytest.mark.parametrize(
    ("more", "result"),
    [
        ("", "results/embeddings.h5"),
        ('prefix: "deep/down"', "deep/down/results/embeddings.h5"),
        ('pathvars:\n        results="elsewhere",\n        logs="said"', "elsewhere/embeddings.h5"),
    ],
    ids=["as it is", "prefix", "path variables"],
)
def test_the_results_are_where_the_importer_says(importer, more, result):
    importer.sections([result], embeddings=SECTION)
    importer.write(imported(more=more))
    expected = sorted(["own", "everything", *(f"seqmill_{rule}" for rule in JOBS)])
    assert rules(importer) == expected
    assert rules(importer, profile="profiles/slurm") == expected


def test_the_importers_default_target_stays_his(importer):
    """Also where his own rules come after the import."""
    importer.sections(["results/embeddings.h5"], embeddings=SECTION)
    importer.write(imported())
    path = importer.folder / "Snakefile"
    head, *rest = path.read_text().split("\nrule everything", 1)
    path.write_text(
        f"{head}\n{imported()}\nrule everything:\n    default_target: True{rest[0].split(imported())[0][1:]}"
    )
    assert "own" in rules(importer)


@pytest.mark.slow
def test_twice_at_once_and_nothing_leaks(importer, undisturbed):
    """The second one reads what a rule of the importer makes. The importer's own rule writes what it sees of the shell."""
    importer.sections([])
    importer.write()
    assert importer.snakemake().returncode == 0
    own = importer.folder / "own.txt"
    before = own.read_text()
    own.unlink()
    made = {"fasta": "made/some.fasta", "model": {"name": "model"}, "shards": 1, "performance": {"gpus": 1}}
    importer.sections(["results/embeddings.h5", "two/results/index.parquet"], first=SECTION, second=made)
    make = '\nrule make:\n    input: "proteins.fasta"\n    output: "made/some.fasta"\n    shell: "head -n 8 {input} > {output}"\n'
    importer.write(imported("one", "first"), imported("two", "second", more='prefix: "two"'), make)
    done = importer.snakemake()
    assert done.returncode == 0, done.stdout
    assert "localrules" not in done.stdout
    assert own.read_text() == before
    found = read_embeddings(importer.folder / "results/embeddings.h5")
    expected = read_embeddings(undisturbed.folder / "results/embeddings.h5")
    assert found["ids"] == expected["ids"]
    assert relative_error(found["mean"], expected["mean"]) <= 1e-6
    assert len(pd.read_parquet(importer.folder / "two/results/index.parquet")) == 4
    assert importer.plan() == []


@pytest.fixture
def repository(tmp_path):
    """The workflow as a git repository of its own."""
    folder = tmp_path / "repository"
    folder.mkdir()
    for name in ("workflow", "envs"):
        shutil.copytree(REPOSITORY / name, folder / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    identity = ["-c", "user.name=a test", "-c", "user.email=test@localhost"]
    for command in (["init", "-q"], ["add", "-A"], [*identity, "commit", "-qm", "all"]):
        subprocess.run(["git", *command], cwd=folder, check=True)
    return folder


@pytest.fixture
def from_git(importer, repository):
    importer.sections(["results/embeddings.h5"], embeddings=SECTION)
    importer.write(imported(snakefile=f"git+file://{repository}/workflow/Snakefile@HEAD"))
    return importer


@pytest.mark.slow
def test_from_git_with_the_library_of_the_environment(from_git):
    from_git.environment = {"PYTHONPATH": str(REPOSITORY / "workflow")}
    done = from_git.snakemake()
    assert done.returncode == 0, done.stdout
    assert len(read_embeddings(from_git.folder / "results/embeddings.h5")["ids"]) == 24
    # Another place of the workflow, and of the library, is no reason to run anything again.
    from_git.environment = {}
    from_git.write(imported())
    assert from_git.plan() == []


def test_from_git_without_the_library_is_one_sentence(from_git):
    done = from_git.snakemake("--dry-run")
    assert done.returncode != 0
    assert "seqmill's library is missing where Snakemake runs" in done.stdout
    assert "Traceback" not in done.stdout


def test_a_module_without_a_configuration_is_one_sentence(importer):
    importer.sections([], embeddings={})
    importer.write(imported())
    done = importer.snakemake("--dry-run")
    assert done.returncode != 0
    assert "configuration: fasta is missing" in done.stdout
    assert "Traceback" not in done.stdout


@pytest.mark.slow
def test_a_checkout_is_run_from_elsewhere_without_a_configuration_file(tmp_path, small_fasta, tiny_model):
    shutil.copy(small_fasta, tmp_path / "proteins.fasta")
    config = [
        "fasta=proteins.fasta",
        f'model={{"name":"{tiny_model}"}}',
        'performance={"batch_size":1024}',
        'results={"figures":false}',
    ]
    command = ["snakemake", "-s", REPOSITORY / "Snakefile", "--directory", tmp_path, "--cores", "2"]
    done = Project(REPOSITORY).run(*command, "--config", *config)
    assert done.returncode == 0, done.stdout
    assert len(read_embeddings(tmp_path / "results/embeddings.h5")["ids"]) == 24
    summary = pd.read_csv(tmp_path / "results/summary.tsv", sep="\t")
    assert summary["batch_size"].tolist() == [1024]
