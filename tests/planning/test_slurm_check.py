"""What is asked of SLURM before the first job; sbatch is played by a script. tests/slurm has the real one."""

import pytest

from seqmill.errors import UserError
from seqmill.planning import slurm

PARTITION = "sbatch: error: invalid partition specified: nosuch\nallocation failure: Invalid partition name specified"
ACCOUNT = "allocation failure: Invalid account or account/partition combination specified"


@pytest.fixture
def sbatch(tmp_path, monkeypatch):
    """Puts an sbatch first on the path that refuses with the words given, and notes its arguments in `asked`."""

    def answer_with(words):
        script = tmp_path / "sbatch"
        script.write_text(f'#!/bin/sh\necho "$@" >>{tmp_path}/asked\necho "{words}" >&2\nexit 1\n')
        script.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
        return tmp_path / "asked"

    return answer_with


def test_a_partition_that_does_not_exist(sbatch):
    asked = sbatch(PARTITION)
    with pytest.raises(UserError, match=r"set-resources: embed: slurm_partition is 'nosuch'.*sinfo"):
        slurm.check("embed", {"slurm_partition": "nosuch", "slurm_account": "lab"}, {"slurm_partition": "nosuch"})
    assert asked.read_text() == "--test-only --partition nosuch --account lab --wrap true\n"


def test_the_first_of_several_accounts(sbatch):
    asked = sbatch(ACCOUNT)
    with pytest.raises(UserError, match=r"default-resources: slurm_account is 'nosuch'.*sacctmgr"):
        slurm.check("merge", {"slurm_account": "nosuch, lab"}, {})
    assert asked.read_text() == "--test-only --account nosuch --wrap true\n"


@pytest.mark.parametrize(
    "resources",
    [
        {},
        {"slurm_partition": "", "mem_mb": 1},
        {"slurm_partition": "<TBD>"},
        {"slurm_partition": "nosuch", "slurm_extra": "--account=lab"},
        {"slurm_partition": "nosuch", "cluster": "other"},
    ],
    ids=str,
)
def test_not_asked_where_the_answer_could_mislead(sbatch, resources):
    asked = sbatch(PARTITION)
    slurm.check("embed", resources, {})
    assert not asked.exists()


@pytest.mark.parametrize("words", ["allocation failure: Unable to contact slurm controller", ACCOUNT, ""])
def test_other_answers_refuse_nothing(sbatch, words):
    """Not even an account that was not given: sbatch may know it from elsewhere when the jobs come."""
    asked = sbatch(words)
    slurm.check("embed", {"slurm_partition": "gpu"}, {})
    assert asked.exists()


def test_no_sbatch_refuses_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    slurm.check("embed", {"slurm_partition": "gpu"}, {})


def test_a_machine_without_slurm(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=r"no sbatch.*login node.*--profile profiles/local"):
        slurm.require()
