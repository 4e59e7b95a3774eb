"""The allocator's configuration."""

import pytest

from seqmill.engine import allocator


@pytest.mark.parametrize(
    ("present", "setting", "expected"),
    [
        ({}, False, "expandable_segments:False"),
        ({}, True, "expandable_segments:True"),
        ({"PYTORCH_CUDA_ALLOC_CONF": "max_split_size_mb:64"}, True, "max_split_size_mb:64,expandable_segments:True"),
        ({"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"}, False, "expandable_segments:True"),
        ({"PYTORCH_ALLOC_CONF": "expandable_segments:False"}, True, "expandable_segments:True"),
    ],
)
def test_allocator_setting_is_merged_with_the_environment(present, setting, expected):
    environment = dict(present)
    assert allocator.configure(setting, environment) == expected
    assert set(environment.values()) == {expected}
