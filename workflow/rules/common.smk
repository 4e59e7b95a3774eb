"""What the rules share: the checked configuration and what follows from it."""

import json
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

try:
    # In a checkout Snakemake finds it beside the Snakefile.
    import seqmill
except ImportError:
    raise WorkflowError(
        "seqmill's library is missing where Snakemake runs, and a workflow that is imported from an address does not bring it "
        "along; install it there with pip, from the same address or checkout"
    )

from seqmill.errors import UserError
from seqmill.outputs.formats import FORMATS
from seqmill.planning import config as configuration
from seqmill.planning import paths, pictures, reuse, samples, slurm
from seqmill.planning import resources as demand

# The folder of the library, which Python runs as the command seqmill.
SEQMILL = Path(seqmill.__file__).parent


# Snakemake does not compare parameters that depend on the output: so a moved checkout, or a parameter that runs without
# samples have no use for, runs nothing again.
def command(wildcards, output):
    """What Python runs."""
    return SEQMILL


def sample_flags(wildcards, output):
    return ["--sample", wildcards.sample] if SAMPLES else []


def shard_folders(wildcards, input, output):
    """The folder of all shards and how many there are: a command line is too short for the names of thousands."""
    folder, rounds = Path(input.folders[0]).parent, len(input.folders) // len(SHARDS)
    flags = ["--embed", folder.parent if SAMPLES else folder, "--shards", len(SHARDS)]
    return [*flags, "--rounds", rounds] if SAMPLES else flags


def reuse_flags(wildcards, output):
    return ["--reuse", *REUSE] if REUSE else []


def located(path):
    """Where a path of a rule is, with the prefix and the path variables that an importing workflow sets."""
    return workflow.pathvars.apply(workflow.modifier.path_modifier.replace_prefix(path))


try:
    paths.check_path("the folder of seqmill", str(SEQMILL))
    config = configuration.check(config)
    # An importing workflow may have rules that make them.
    SAMPLES = samples.read_samples(config, must_exist=not IMPORTED)
    FASTA = None if SAMPLES else paths.fasta_files(config, must_exist=not IMPORTED)
    METADATA = pictures.table(config, must_exist=not IMPORTED)
    MODEL_FILES = paths.model_files(config["model"]["name"])
    LONG = configuration.treatment(config)
    ROUNDS = samples.plan_rounds(SAMPLES, Path(located("<results>/shards"))) if SAMPLES else {}
    REUSE = reuse.earlier_results(config)
except UserError as error:
    raise WorkflowError(str(error))

GPUS = demand.planned_gpus(config, workflow.is_main_process)
SHARDS = range(demand.shard_count(config, GPUS))
# None where a cluster runs the jobs.
CORES = workflow.resource_settings.cores if workflow.is_main_process else None
# Embed jobs at once: one per GPU, and on this machine some that wait for the next GPU that is free.
AT_ONCE = GPUS + (demand.standing_by(len(SHARDS), GPUS) if CORES else 0)

if config["performance"]["gpus"] != "auto" and not IMPORTED:
    # As `--resources gpu=N` would, which takes precedence.
    workflow.global_resources.setdefault("gpu", AT_ONCE)

# Where it is now: after parsing, an importing workflow's prefix is no longer known.
RESULTS_FOLDER = located("<results>")
EMBED = Path(located("<results>/embed"))
# Parts of paths. Without samples there is one round of one input, and neither is named.
IN_ROUND, DOT_ROUND = ("{round}/", ".{round}") if SAMPLES else ("", "")
IN_SAMPLE, DOT_SAMPLE = ("{sample}/", ".{sample}") if SAMPLES else ("", "")
FOLDERS = f"<results>/embed/{IN_ROUND}{{shard}}"
RECORDS = f"<results>/shards/{IN_ROUND}records.parquet"
CHECKSUMS = f"<results>/shards/{IN_ROUND}SHA256SUMS"
SUMMARY = f"<results>/summary{DOT_ROUND}.tsv"
MERGED = [f"<results>/{IN_SAMPLE}{name}" for name in ("embeddings.h5", "index.parquet")]
EXPORT = f"<results>/{IN_SAMPLE}exports/{{format}}"
# The pictures of each result, with the report's words for them.
FIGURES = f"<results>/{IN_SAMPLE}figures"
PICTURES = pictures.WORDS if config["results"]["figures"] else {}
OF_SAMPLE = [*MERGED, *(f"{FIGURES}/{name}.svg" for name in PICTURES)]
OF_SAMPLE += expand(EXPORT, format=config["results"]["formats"], allow_missing=True)
RESULTS = [expand(OF_SAMPLE, sample=SAMPLES), expand(SUMMARY, round=ROUNDS)] if SAMPLES else [*OF_SAMPLE, SUMMARY]

if workflow.is_main_process:
    try:
        reuse.check(config, REUSE, [Path(located(path)) for path in expand(MERGED[0], sample=SAMPLES or [None])])
    except UserError as error:
        raise WorkflowError(str(error))


wildcard_constraints:
    shard=r"\d+",
    round=r"\d+",
    sample="[^/]+",


def outside(files):
    """Files of the user, to which the prefix of an importing workflow does not apply."""
    return [local(file) for file in files] if IMPORTED else files


def fasta_of_round(wildcards):
    return outside(ROUNDS[int(wildcards.round)].files if SAMPLES else FASTA)


def fasta_of_export(wildcards):
    """The sequences, for a format that holds them."""
    if wildcards.format != "biotrainer":
        return []
    return outside(SAMPLES[wildcards.sample] if SAMPLES else FASTA)


def plan_fasta(wildcards):
    return outside([file for files in SAMPLES.values() for file in files] if SAMPLES else FASTA)


def shard_flags(wildcards):
    return configuration.shard_flags(config, ROUNDS[int(wildcards.round)].flags if SAMPLES else None)


def picture(name):
    """A picture as an output, which the report shows with its caption."""
    labels = {"figure": pictures.WORDS[name], **({"sample": "{sample}"} if SAMPLES else {})}
    return report(f"{FIGURES}/{name}.svg", category="Figures", caption=f"../report/{name}.rst", labels=labels)


def picture_flags(wildcards, input):
    """The table to colour the map by, where there is one, and its column."""
    return pictures.flags(config, input.metadata) if METADATA else []


def of_rounds(pattern, before=False, **values):
    """An input function: the files of all rounds up to that of a job, or of those before it."""

    def files(wildcards):
        if not SAMPLES:
            return [] if before else expand(pattern, **values)
        number = int(wildcards.get("round") or samples.round_of(wildcards.sample, ROUNDS))
        return [file for n in range(1, number + (not before)) for file in expand(pattern, round=n, **values)]

    return files


def check_slurm():
    """Before hundreds of jobs fail one by one: ask SLURM about the partition and the account of each rule."""
    if workflow.executor_plugin.name != "slurm":
        return
    to_submit = {job.rule.name: job for job in workflow.dag.needrun_jobs() if not job.is_local}
    try:
        slurm.require()
        for rule, job in to_submit.items():
            slurm.check(rule, job.resources, workflow.resource_settings.overwrite_resources.get(rule, {}))
    except UserError as error:
        # A WorkflowError would bring lines of the workflow's code along.
        sys.exit(f"error: {error}")


def count_finished():
    """How many shards have a result."""
    return len(list(EMBED.rglob("meta.json")))
