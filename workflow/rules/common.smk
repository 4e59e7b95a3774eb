"""What the rules share: the checked configuration and what follows from it."""

import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

ROOT = Path(workflow.basedir)
# A shell variable and no param: a moved checkout would make Snakemake run finished shards again.
SCRIPTS = ROOT / "workflow/scripts"
shell.prefix("set -euo pipefail; SCRIPTS={SCRIPTS:q}; ")

sys.path.insert(0, str(ROOT / "workflow"))

from seqmill import demand, settings, slurm
from seqmill.errors import UserError

try:
    settings.check_path("the folder of seqmill", str(ROOT))
    config = settings.check(config, ROOT / "workflow/schemas/config.schema.json")
    FASTA = settings.fasta_files(config)
    MODEL_FILES = settings.model_files(config["model"]["name"])
except UserError as error:
    raise WorkflowError(str(error))

GPUS = settings.planned_gpus(config, workflow.is_main_process)
SHARDS = range(settings.shard_count(config, GPUS))
# None where a cluster runs the jobs.
CORES = workflow.resource_settings.cores if workflow.is_main_process else None

if config["performance"]["gpus"] != "auto":
    # As `--resources gpu=N` would, which goes first.
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
