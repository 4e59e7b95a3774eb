"""One place holds the version, `seqmill.__version__`; what repeats it must agree."""

import re
import tomllib

import yaml
from paths import REPOSITORY

from seqmill import __version__

# A heading of CHANGELOG.md: the version, or Unreleased, and the date of its release.
HEADING = re.compile(r"^## (?:\[(\d+\.\d+\.\d+)\](?: - \d{4}-\d\d-\d\d)?|\[(Unreleased)\])$")
KINDS = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def changelog() -> list[str]:
    return (REPOSITORY / "CHANGELOG.md").read_text().splitlines()


def test_the_package_takes_it_from_the_library():
    settings = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    assert "version" not in settings["project"]
    assert settings["project"]["dynamic"] == ["version"]
    assert settings["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "seqmill.__version__"}


def test_the_citation_has_it():
    assert yaml.safe_load((REPOSITORY / "CITATION.cff").read_text())["version"] == __version__


def test_the_newest_in_the_changelog_is_it():
    headings = [HEADING.match(line) for line in changelog() if line.startswith("## ")]
    assert all(headings)
    assert [heading[2] for heading in headings].count("Unreleased") == 1
    assert headings[0][2] == "Unreleased"
    versions = [heading[1] for heading in headings[1:]]
    assert versions[0] == __version__
    assert versions == sorted(versions, key=lambda version: [int(part) for part in version.split(".")], reverse=True)


def test_the_changelog_sorts_changes_by_kind():
    assert {line.removeprefix("### ") for line in changelog() if line.startswith("### ")} <= KINDS
