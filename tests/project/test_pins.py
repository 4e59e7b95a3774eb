"""Everybody installs the same versions, by pip and by conda."""

import re

import pytest
import yaml
from paths import REPOSITORY


@pytest.mark.parametrize("requirements", ["requirements.txt", "requirements-test.txt", "requirements-dev.txt"])
def test_requirements_are_pinned(requirements):
    lines = (REPOSITORY / "envs" / requirements).read_text().splitlines()
    pins = [line for line in lines if not line.startswith(("#", "-"))]
    assert pins
    assert all(re.fullmatch(r"[a-z0-9-]+==[0-9.]+", pin) for pin in pins)


def test_conda_environment_has_the_same_pins():
    environment = yaml.safe_load((REPOSITORY / "envs/seqmill.yaml").read_text())
    (wheels,) = [part["pip"] for part in environment["dependencies"] if isinstance(part, dict)]
    requirements = (REPOSITORY / "envs/requirements.txt").read_text().splitlines()
    # Only `snakemake --report` needs it, and no rule.
    not_for_rules = ("#", "-", "pygments")
    assert wheels == [line for line in requirements if not line.startswith(not_for_rules)]
