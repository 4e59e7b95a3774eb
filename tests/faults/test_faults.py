"""A short form of campaign.py: every fault once."""

import pytest
from campaign import disturb_and_recover
from faults import FAULTS, can_mount
from runs import prepare


@pytest.fixture(scope="module")
def stages(tmp_path_factory):
    return prepare(tmp_path_factory.mktemp("stages"))


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_rerunning_ends_in_the_same_embeddings(stages, tmp_path, fault):
    if fault == "fill_disk" and not can_mount():
        pytest.skip("may not mount a small tmpfs")
    row = disturb_and_recover(stages, tmp_path / "project", fault, "ci")
    assert row["ended"] == "same", row
