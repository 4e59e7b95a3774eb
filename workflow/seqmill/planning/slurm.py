"""What SLURM says of partitions and accounts before the first job is submitted."""

import re
import shutil
import subprocess
from collections.abc import Container, Mapping
from typing import Any

from seqmill.errors import UserError

# For each resource: sbatch's option, its words where it refuses the value, and what lists the right ones.
CHECKED = {
    "slurm_partition": ("--partition", "invalid partition", "'sinfo -s' lists the cluster's partitions"),
    "slurm_account": (
        "--account",
        "invalid account",
        "'sacctmgr show associations user=$USER format=account,partition' lists yours",
    ),
}
# Whoever sets these may say more of partition and account than is checked here.
UNCHECKED = ("slurm_extra", "cluster", "clusters", "slurm_cluster")


def require() -> None:
    """Make sure that jobs can be submitted from this machine.

    Raises:
        UserError: there is no sbatch.
    """
    if shutil.which("sbatch") is None:
        raise UserError(
            "this machine has no sbatch, with which jobs are given to SLURM; run the command on a login node of the cluster, or "
            "here with --profile profiles/local"
        )


def check(rule: str, resources: Mapping[str, Any], overridden: Container[str]) -> None:
    """Have sbatch look at the partition and the account of a rule's jobs; nothing is submitted.

    Reports an error only where sbatch refuses one of them in so many words; otherwise the jobs will show.

    Args:
        resources: of one of the rule's jobs.
        overridden: names of those that come from `set-resources`, and not from `default-resources`.

    Raises:
        UserError: there is no such partition, or no such account for it.
    """
    given = {key: _first(resources[key]) for key in CHECKED if _is_known(resources.get(key))}
    if not given or any(resources.get(key) for key in UNCHECKED):
        return
    options = [part for key, value in given.items() for part in (CHECKED[key][0], value)]
    try:
        command = ["sbatch", "--test-only", *options, "--wrap", "true"]
        answer = subprocess.run(command, capture_output=True, text=True, timeout=60).stderr
    except (OSError, subprocess.SubprocessError):
        return
    for key, value in given.items():
        _, refusal, advice = CHECKED[key]
        if refusal in answer.lower():
            section = f"set-resources: {rule}" if key in overridden else "default-resources"
            raise UserError(
                f"slurm/config.yaml, or the profile in its place: {section}: {key} is '{value}', which SLURM refuses "
                f"for the rule {rule}; {advice}"
            )


def _is_known(value: Any) -> bool:
    # Snakemake's word for what depends on files that are not there yet.
    return value not in (None, "", "<TBD>")


def _first(value: Any) -> str:
    """Of several accounts Snakemake takes the first; sbatch takes several partitions, but no blanks."""
    return re.split(r"[,\s]+", str(value).strip())[0]
