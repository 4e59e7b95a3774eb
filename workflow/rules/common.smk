"""What the rules share: the checked configuration and what follows from it."""

import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

ROOT = Path(workflow.basedir)
# A shell variable and no param: a moved checkout would make Snakemake run finished shards again.
SCRIPTS = ROOT / "workflow/scripts"
shell.prefix("set -euo pipefail; SCRIPTS={SCRIPTS:q}; ")

sys.path.insert(0, str(ROOT / "workflow"))

from seqmill import settings
from seqmill.errors import UserError

try:
    config = settings.check(config, ROOT / "workflow/schemas/config.schema.json")
    FASTA = settings.fasta_files(config)
except UserError as error:
    raise WorkflowError(str(error))

GPUS = settings.gpu_count(config)
SHARDS = range(settings.shard_count(config, GPUS))


wildcard_constraints:
    shard=r"\d+",
