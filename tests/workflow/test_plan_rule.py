"""`snakemake plan`: printed and written, whenever it is asked for, and without a job or a file of the run."""

import pytest
from test_module import SECTION, imported, importer  # noqa: F401 -- a fixture

pytestmark = pytest.mark.slow


def test_a_plan_is_printed_each_time_and_changes_nothing(finished):
    before = finished.results()
    for _ in range(2):
        done = finished.snakemake("plan")
        assert done.returncode == 0, done.stdout
        assert finished.jobs(done.stdout) == [("plan", None)]
        assert "24 records in 1 file; 23 distinct sequences to embed" in done.stdout
        assert "2 shards are done already" in done.stdout
    assert finished.results() == sorted([*before, "plan.txt"])
    assert (finished.folder / "results/plan.txt").read_text() in done.stdout
    assert finished.plan() == []


@pytest.mark.slow
def test_an_importer_has_the_plan_where_its_results_are(importer):  # noqa: F811
    importer.sections([], embeddings=SECTION)
    importer.write(imported(more='prefix: "deep/down"'))
    done = importer.snakemake("seqmill_plan")
    assert done.returncode == 0, done.stdout
    assert "23 distinct sequences" in (importer.folder / "deep/down/results/plan.txt").read_text()
