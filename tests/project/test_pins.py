"""Everybody installs the same versions, by pip and by conda."""

import ast
import re
import sys
import tomllib

import pytest
import yaml
from paths import REPOSITORY

# Where the name to import is not that of the distribution.
DISTRIBUTIONS = {"Bio": "biopython", "huggingface_hub": "huggingface-hub", "sklearn": "scikit-learn"}
# Used where they are installed.
OPTIONAL = {"flash_attn", "triton"}
# Needed by pandas to read and write parquet.
NOT_IMPORTED = {"pyarrow"}


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


def test_the_package_depends_on_what_it_imports_and_no_more():
    imported = set()
    for path in (REPOSITORY / "workflow/seqmill").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                imported.add(node.module.split(".")[0])
    imported -= OPTIONAL | {"seqmill"} | sys.stdlib_module_names
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    declared = {re.match(r"[a-z0-9-]+", line)[0] for line in project["dependencies"]}
    assert declared == {DISTRIBUTIONS.get(name, name) for name in imported} | NOT_IMPORTED
