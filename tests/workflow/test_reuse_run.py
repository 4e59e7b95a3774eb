"""`reuse` in the configuration: a run takes from finished results what they hold, and computes the rest."""

import shutil

import pandas as pd
import pytest
from embeddings import read_embeddings
from project import Project

NEW = ">new only here\nMKTAYIAKQRQISFVKSHFSRQLEERLGLIEVQ\n"


def computed(project: Project) -> list[str]:
    parts = (project.folder / "results/embed").rglob("embeddings.h5")
    return [name for part in parts for name in read_embeddings(part)["ids"]]


@pytest.fixture
def more(finished):
    """A finished run whose results have been renamed, with a FASTA of one more sequence, in front of all others."""
    (finished.folder / "results").rename(finished.folder / "earlier")
    text = (finished.folder / "proteins.fasta").read_text()
    (finished.folder / "proteins.fasta").write_text(NEW + text)
    finished.configure(reuse=["earlier"])
    return finished


@pytest.mark.slow
def test_only_what_is_new_is_computed_and_the_list_may_change_afterwards(more):
    done = more.snakemake()
    assert done.returncode == 0, done.stdout
    assert len(computed(more)) == 1
    found, earlier = (read_embeddings(more.folder / name / "embeddings.h5") for name in ("results", "earlier"))
    assert found["ids"] == ["new", *earlier["ids"]]
    assert found["mean"][1:].tobytes() == earlier["mean"].tobytes()
    index = pd.read_parquet(more.folder / "results/index.parquet")
    assert index["reused_from"].tolist()[1:] == ["earlier/embeddings.h5"] * 24
    assert more.plan() == []
    # No value depends on the list.
    shutil.rmtree(more.folder / "earlier")
    more.configure(reuse=[])
    assert more.plan() == []


def test_what_cannot_be_reused_is_refused_before_any_job(more):
    for edit, says in (
        ({"reuse": ["nowhere"]}, "reuse: there is no file or folder nowhere"),
        ({"reuse": ["earlier"], "model": {"dtype": "bfloat16"}}, "was made with model.dtype float32"),
    ):
        more.configure(**edit)
        done = more.snakemake()
        assert done.returncode != 0
        assert says in done.stdout
        assert not (more.folder / "results").exists()
    (more.folder / "earlier").rename(more.folder / "results")
    more.configure(reuse="results", model={"dtype": "auto"})
    assert "reuse: results/embeddings.h5: is what this run writes itself" in more.snakemake().stdout


@pytest.mark.slow
def test_other_weights_are_refused_when_the_model_is_found(more):
    with (more.folder / "model/model.safetensors").open("ab") as file:
        file.write(b"retrained")
    done = more.snakemake()
    assert done.returncode != 0
    assert "reuse: earlier/embeddings.h5 was made with other model weights than those of model" in done.stdout
    assert not (more.folder / "results/embed/0/embeddings.h5").exists()


@pytest.mark.slow
def test_samples_take_from_earlier_rounds_and_results(more):
    """A sample that is added later takes what the first took from there, what the first computed, and the list's."""
    text = (more.folder / "proteins.fasta").read_text()
    (more.folder / "two.fasta").write_text(text + ">last\nMKVLAAGGWWHHK\n")
    more.configure(fasta=None)
    more.configure(fasta={"one": "proteins.fasta"})
    done = more.snakemake()
    assert done.returncode == 0, done.stdout
    assert len(computed(more)) == 1
    more.configure(fasta={"two": "two.fasta"}, reuse=[])
    done = more.snakemake()
    assert done.returncode == 0, done.stdout
    assert len(computed(more)) == 2
    earlier = read_embeddings(more.folder / "earlier/embeddings.h5")
    for name, added in (("one", 0), ("two", 1)):
        found = read_embeddings(more.folder / f"results/{name}/embeddings.h5")
        assert found["ids"] == ["new", *earlier["ids"], *["last"] * added]
        assert found["mean"][1:25].tobytes() == earlier["mean"].tobytes()
    index = pd.read_parquet(more.folder / "results/two/index.parquet")
    assert index["round"].tolist() == [1] * 25 + [2]
    assert index["shard"].tolist()[1:25] == [-1] * 24
    assert index["reused_from"].notna().tolist() == [False] + [True] * 24 + [False]
    assert more.plan() == []
