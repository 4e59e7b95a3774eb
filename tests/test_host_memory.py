"""How much memory a process may use: the least of what the machine, the control group and SLURM say."""

import pytest

from seqmill import host_memory

MIB = 2**20


@pytest.fixture
def groups(tmp_path, monkeypatch):
    """A tree of control groups, of which this process is in one that cannot be seen, as in a container."""
    (tmp_path / "job").mkdir()
    monkeypatch.setattr(host_memory, "CGROUPS", tmp_path)
    monkeypatch.delenv("SLURM_MEM_PER_NODE", raising=False)
    return tmp_path


def limits(root, path):
    return list(host_memory._limits_of_group(root, path, "memory.max"))


def test_groups_above_limit_too(groups):
    (groups / "memory.max").write_text("max\n")
    (groups / "job/memory.max").write_text(f"{300 * MIB}\n")
    assert limits(groups, "/") == []
    assert limits(groups, "/job") == [300 * MIB]
    assert limits(groups, "/job/step/that/is/not/seen") == [300 * MIB]


def test_the_grant_of_slurm_counts(groups, monkeypatch):
    free = host_memory.allowed_bytes()
    assert free > 64 * MIB
    monkeypatch.setenv("SLURM_MEM_PER_NODE", "64")
    assert host_memory.allowed_bytes() == 64 * MIB
    # No limit, in SLURM's words.
    monkeypatch.setenv("SLURM_MEM_PER_NODE", "0")
    assert host_memory.allowed_bytes() > 64 * MIB
