"""The public host runs what .ci/run runs, all of it, and is given no more rights than that needs."""

import re
import subprocess
import tomllib

import yaml
from paths import REPOSITORY

RUN = REPOSITORY / ".ci/run"
TEXT = (REPOSITORY / ".github/workflows/ci.yml").read_text()
WORKFLOW = yaml.safe_load(TEXT)
STEPS = [step for job in WORKFLOW["jobs"].values() for step in job["steps"]]
MATRIX = WORKFLOW["jobs"]["part"]["strategy"]["matrix"]["include"]
# What the container lacks.
PREPARE = "apt-get update && apt-get install --yes --no-install-recommends git make python3-venv"


def parts() -> list[str]:
    return re.search(r'^PARTS="(.*)"$', RUN.read_text(), re.MULTILINE)[1].split()


def test_jobs_run_the_parts_and_nothing_else():
    commands = {step["run"] for step in STEPS if "run" in step} - {PREPARE}
    assert commands == {".ci/run ${{ matrix.part }}", ".ci/run slurm"}
    assert {entry["part"] for entry in MATRIX} | {"slurm"} == set(parts())


def test_every_part_is_a_case_and_others_are_refused():
    assert re.findall(r"^    (\w+)\)$", RUN.read_text(), re.MULTILINE) == parts()
    done = subprocess.run([RUN, "lnit"], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == f"error: there is no part lnit; the parts are: {' '.join(parts())}\n"


def test_what_is_made_is_in_the_makefile():
    targets = re.findall(r"^ +make (\S+)$", RUN.read_text(), re.MULTILINE)
    assert {"test", "demo", "lint"} <= set(targets)
    assert set(targets) <= set(re.findall(r"^([\w./]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))


def test_tests_run_on_the_oldest_python_and_a_newer_one():
    oldest = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["requires-python"].removeprefix(">=")
    assert [entry["python"] for entry in MATRIX if entry["part"] == "test"] == [oldest, "3.12"]


def test_rights_are_the_least_and_actions_are_pinned():
    assert WORKFLOW["permissions"] == {"contents": "read"}
    assert not any("permissions" in job for job in WORKFLOW["jobs"].values())
    assert "secrets" not in TEXT
    assert all(re.fullmatch(r"actions/[a-z-]+@v\d+", step["uses"]) for step in STEPS if "uses" in step)
