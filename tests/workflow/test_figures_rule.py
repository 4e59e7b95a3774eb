"""Pictures in the workflow: made of finished results, which they never run again."""

import pytest

from seqmill.planning.pictures import WORDS

pytestmark = pytest.mark.slow

FIGURES = [("figures", None)]
TABLE = {"metadata": "table.tsv", "color": "kind"}


@pytest.fixture(scope="module")
def illustrated(undisturbed, tmp_path_factory):
    """The finished project, and then its pictures. Not to be changed."""
    project = undisturbed.copy(tmp_path_factory.mktemp("illustrated") / "project")
    project.configure(results={"figures": True})
    done = project.snakemake()
    assert done.returncode == 0, done.stdout
    assert project.jobs(done.stdout) == FIGURES
    return project


def test_a_finished_run_without_them_makes_only_them(illustrated):
    files = {path.name for path in (illustrated.folder / "results/figures").iterdir()}
    assert files == {f"{name}.{kind}" for name in WORDS for kind in ("svg", "png")}
    assert illustrated.plan() == []


def test_edits_of_results_draw_again_and_nothing_else(illustrated, tmp_path):
    project = illustrated.copy(tmp_path / "project")
    (project.folder / "table.tsv").write_text("id\tkind\n")
    project.configure(results=TABLE)
    assert project.plan() == FIGURES
    project.configure(results={"figures": False})
    assert project.plan() == []


@pytest.mark.parametrize(
    ("results", "says"),
    [
        ({"color": "kind"}, "results.metadata is missing; results.color needs it"),
        ({"metadata": "table.tsv"}, "results.color is missing; results.metadata needs it"),
        (TABLE, "results.metadata: there is no file table.tsv"),
        ({"figures": "some"}, "results.figures cannot be 'some'; give true or false"),
    ],
    ids=["no table", "no column", "no file", "no switch"],
)
def test_what_cannot_be_coloured_is_refused_before_anything_runs(finished, results, says):
    finished.configure(results=results)
    done = finished.snakemake("--dry-run")
    assert done.returncode != 0
    assert f"configuration: {says}" in done.stdout
    assert "Traceback" not in done.stdout


@pytest.mark.slow
def test_the_report_has_them_with_their_captions(illustrated, tmp_path):
    project = illustrated.copy(tmp_path / "project")
    done = project.snakemake("--report", "report.html")
    assert done.returncode == 0, done.stdout
    report = (project.folder / "report.html").read_text()
    assert all(words in report for words in WORDS.values())
    assert "Each dot is a sequence" in report
