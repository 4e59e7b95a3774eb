"""The profiles in a fresh checkout, as they are shipped."""

RULES = ["check", "embed", "embed", "figures", "merge", "shard", "weights"]


def test_the_slurm_profile_works_as_written(project):
    """`snakemake --profile slurm -n`, literally."""
    done = project.run("snakemake", "--profile", "slurm", "-n")
    assert done.returncode == 0, done.stdout
    assert [rule for rule, _ in project.jobs(done.stdout)] == RULES
    # By that profile, and not by none: else Snakemake says which other place it took it from.
    assert "Using profile slurm" in done.stdout


def test_the_local_profile_works_as_shipped(project):
    assert [rule for rule, _ in project.plan()] == RULES
