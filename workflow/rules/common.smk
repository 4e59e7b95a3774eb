"""What the rules share: the checked configuration and what follows from it."""

import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

ROOT = Path(workflow.basedir)
# A shell variable and no param: a moved checkout would make Snakemake run finished shards again.
SCRIPTS = ROOT / "workflow/scripts"
# `save` shows and logs what a tool says. SLURM sends SIGTERM to all processes of a job, and a terminal SIGINT: what saves
# the log must not end before the tool's last words.
shell.prefix("set -euo pipefail; SCRIPTS={SCRIPTS:q}; save() (trap '' TERM INT; exec tee \"$1\"); ")

sys.path.insert(0, str(ROOT / "workflow"))

from seqmill.errors import UserError
from seqmill.planning import config as configuration
from seqmill.planning import paths, slurm
from seqmill.planning import resources as demand

try:
    paths.check_path("the folder of seqmill", str(ROOT))
    config = configuration.check(config)
    FASTA = paths.fasta_files(config)
    MODEL_FILES = paths.model_files(config["model"]["name"])
except UserError as error:
    raise WorkflowError(str(error))

GPUS = demand.planned_gpus(config, workflow.is_main_process)
SHARDS = range(demand.shard_count(config, GPUS))
# None where a cluster runs the jobs.
CORES = workflow.resource_settings.cores if workflow.is_main_process else None

if config["performance"]["gpus"] != "auto":
    # As `--resources gpu=N` would, which takes precedence.
    workflow.global_resources.setdefault("gpu", GPUS)


wildcard_constraints:
    shard=r"\d+",


def check_slurm():
    """Before hundreds of jobs fail one by one: ask SLURM about the partition and the account of each rule."""
    if workflow.executor_plugin.name != "slurm":
        return
    to_submit = {job.rule.name: job for job in workflow.dag.needrun_jobs() if not job.is_local}
    for rule, job in to_submit.items():
        try:
            slurm.check(rule, job.resources, workflow.resource_settings.overwrite_resources.get(rule, {}))
        except UserError as error:
            # A WorkflowError would bring lines of the workflow's code along.
            sys.exit(f"error: {error}")
