"""Several inputs in one run: each distinct sequence once, each sample as if it had been run alone."""

import json
import shutil

import pandas as pd
import pytest
from embeddings import read_embeddings, read_meta, relative_error
from project import Project
from small_run import SmallRun

from seqmill.inputs.alphabet import PROTEIN
from seqmill.inputs.fasta import read_records

pytestmark = pytest.mark.slow


def write(path, records) -> None:
    path.write_text("".join(f">{record.id} {record.description}\n{record.sequence.decode()}\n" for record in records))


@pytest.fixture(scope="module")
def inputs(small_fasta, tmp_path_factory):
    """Four samples of twelve records or fewer; each of the first three shares half of its sequences with another."""
    records = list(read_records(small_fasta, PROTEIN))
    folder = tmp_path_factory.mktemp("samples")
    cuts = {"one": records[:12], "two": records[6:18], "three": [*records[12:], records[2]], "four": records[:4]}
    extra = folder / "extra.fasta"
    extra.write_text(">new only here\nMKTAYIAKQRQISFVKSHFSRQLEERLGLIEVQ\n>again\nMKTAYIAKQRQISFVKSHFSRQLEERLGLIEVQ\n")
    cuts["four"] += list(read_records(extra, PROTEIN))
    for name, cut in cuts.items():
        write(folder / f"{name}.fasta", {record.id: record for record in cut}.values())
    return folder


def prepare(project: Project, inputs, tiny_model) -> None:
    shutil.copytree(inputs, project.folder, dirs_exist_ok=True)
    shutil.copytree(tiny_model, project.folder / "model")
    project.write_config(shards=2, model={"name": "model"})


@pytest.fixture(scope="module")
def three(inputs, tiny_model, tmp_path_factory):
    """A finished run of three samples. Not to be changed."""
    project = Project.fresh(tmp_path_factory.mktemp("three") / "project")
    prepare(project, inputs, tiny_model)
    project.configure(fasta={name: f"{name}.fasta" for name in ("one", "two", "three")})
    done = project.snakemake()
    assert done.returncode == 0, done.stdout
    return project


@pytest.fixture
def changed(three, tmp_path):
    return three.copy(tmp_path / "project")


@pytest.fixture(scope="module")
def alone(inputs, tiny_model, tmp_path_factory):
    """What a run of its own gives for each sample: its embeddings and its index."""
    found = {}
    for name in ("one", "two", "three", "four"):
        run = SmallRun(tmp_path_factory.mktemp(name))
        run.embed(tiny_model, inputs / f"{name}.fasta")
        run.check()
        run.merge()
        found[name] = read_embeddings(run.embeddings), pd.read_parquet(run.index)
    return found


def assert_as_alone(project: Project, name: str, alone) -> None:
    results = project.folder / "results" / name
    found, (expected, index) = read_embeddings(results / "embeddings.h5"), alone[name]
    assert found["ids"] == expected["ids"]
    assert found["lengths"].tolist() == expected["lengths"].tolist()
    assert relative_error(found["mean"], expected["mean"]) <= 1e-6
    own = pd.read_parquet(results / "index.parquet")
    columns = [column for column in index if column not in ("shard", "row")]
    pd.testing.assert_frame_equal(own[columns], index[columns])


def embedded(project: Project, rounds: int) -> list[str]:
    """The hashes of the sequences in the shards of the first rounds, as often as they were computed."""
    folder = project.folder / "results/embed"
    parts = [folder / f"{number}/{shard}" for number in range(1, rounds + 1) for shard in range(2)]
    return [name for part in parts for name in read_embeddings(part / "embeddings.h5")["ids"]]


def hashes(project: Project, *samples: str) -> set[str]:
    tables = [pd.read_parquet(project.folder / "results" / name / "index.parquet") for name in samples]
    return {value for table in tables for value in table["sequence_sha256"]}


@pytest.mark.parametrize("name", ["one", "two", "three"])
def test_each_sample_equals_a_run_of_its_own(three, alone, name):
    assert_as_alone(three, name, alone)


def test_each_distinct_sequence_is_computed_once(three):
    found = embedded(three, 1)
    assert len(found) == len(set(found)) == 23
    assert set(found) == hashes(three, "one", "two", "three")


def test_the_shards_are_balanced_over_all_samples(three):
    counts = [read_meta(three.folder / f"results/embed/1/{shard}")["residues"] for shard in range(2)]
    assert max(counts) < 1.2 * min(counts)


def test_nothing_to_do_after_a_whole_run(three):
    assert three.plan() == []


def test_a_sample_that_is_added_computes_only_what_is_new(changed, alone):
    results = changed.folder / "results"
    before = {path: path.stat().st_mtime_ns for path in results.rglob("*.h5")}
    changed.configure(fasta={"four": "four.fasta"})
    done = changed.snakemake()
    assert done.returncode == 0, done.stdout
    assert [rule for rule, _ in changed.jobs(done.stdout)] == ["check", "embed", "embed", "merge", "shard"]
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert_as_alone(changed, "four", alone)
    found = embedded(changed, 2)
    assert len(found) == len(set(found)) == 24
    assert pd.read_parquet(results / "four/index.parquet")["round"].tolist() == [1, 1, 1, 1, 2, 2]
    assert changed.plan() == []


def test_a_sample_that_is_removed_runs_nothing_again(changed):
    changed.configure(fasta=None)
    changed.configure(fasta={"two": "two.fasta", "three": "three.fasta"})
    assert changed.plan() == []
    # Not even where its file is gone, though others use its sequences.
    (changed.folder / "one.fasta").unlink()
    assert changed.plan() == []


def test_another_file_of_a_sample_runs_its_round_again(changed):
    changed.configure(fasta={"one": "two.fasta", "two": "one.fasta"})
    again = ["check", "embed", "embed", "merge", "merge", "merge", "shard"]
    assert [rule for rule, _ in changed.plan()] == again


def test_a_bad_sample_can_be_taken_out_again(changed):
    (changed.folder / "bad.fasta").write_text("no FASTA\n")
    changed.configure(fasta={"bad": "bad.fasta"})
    done = changed.snakemake()
    assert done.returncode != 0
    assert "error: bad.fasta, line 1" in done.stdout
    changed.configure(fasta=None)
    changed.configure(fasta={name: f"{name}.fasta" for name in ("one", "two", "three")})
    assert changed.plan() == []


def test_a_sample_sheet_says_the_same(changed):
    lines = ["sample\tfasta\tnote", *(f"{name}\t{name}.fasta\t-" for name in ("one", "two", "three"))]
    (changed.folder / "samples.tsv").write_text("\n".join(lines) + "\n")
    changed.configure(fasta="samples.tsv")
    assert changed.plan() == []


def test_the_rounds_are_on_record(three):
    record = json.loads((three.folder / "results/shards/1/samples.json").read_text())
    assert record == {name: [f"{name}.fasta"] for name in ("one", "two", "three")}
