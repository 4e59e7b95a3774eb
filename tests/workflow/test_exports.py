"""Formats that are asked for when the embeddings are finished: only they are written."""

import numpy as np
import pandas as pd
import pytest
from embeddings import read_embeddings
from refusals import assert_refused

pytestmark = pytest.mark.slow

FORMATS = ["biotrainer", "npy", "parquet"]


def test_a_format_that_is_asked_for_later_computes_nothing_again(finished):
    finished.configure(results={"formats": FORMATS})
    done = finished.snakemake()
    assert done.returncode == 0, done.stdout
    assert finished.jobs(done.stdout) == [("export", None)] * 3
    assert finished.plan() == []
    results = finished.folder / "results"
    expected = read_embeddings(results / "embeddings.h5")
    np.testing.assert_array_equal(np.load(results / "exports/npy/mean.npy"), expected["mean"])
    table = pd.read_parquet(results / "exports/parquet")
    assert table["id"].tolist() == expected["ids"]
    fasta = (results / "exports/biotrainer/sequences.fasta").read_text()
    assert fasta.count(">") == 24
    # Taken off the list again, it stays, and so does all else.
    finished.configure(results={"formats": "npy"})
    assert finished.plan() == []


def test_every_sample_has_its_own(finished):
    finished.configure(fasta=None)
    finished.configure(
        fasta={"one": "proteins.fasta", "two": "proteins.fasta"}, results={"formats": ["npy", "biotrainer"]}
    )
    assert [rule for rule, _ in finished.plan()].count("export") == 4


@pytest.mark.parametrize("formats", ["h5ad", ["npy", "npy"], {"npy": True}])
def test_other_formats_are_refused(finished, formats):
    finished.configure(results=None)
    finished.configure(results={"formats": formats})
    done = finished.snakemake("--dry-run")
    assert_refused(done, "configuration: results.formats cannot be")
    assert "give one or a list of h5-per-id, " in done.stdout
