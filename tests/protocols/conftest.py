"""Fixtures over every family."""

from collections.abc import Iterator

import pytest
import toy_family
from family_cases import CASES, Case

from seqmill.models import registry


@pytest.fixture(scope="module")
def families() -> Iterator[None]:
    """The registry with the made-up family in it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "FAMILIES", (*registry.FAMILIES, toy_family.FAMILY))
        yield


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, families: None) -> Case:
    return CASES[request.param](tmp_path_factory.mktemp("families") / request.param)
