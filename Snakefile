"""seqmill: protein sequences to language-model embeddings. See README.md and config/README.md."""

from snakemake.utils import min_version

min_version("9.0")


configfile: "config/config.yaml"


include: "workflow/rules/common.smk"
include: "workflow/rules/weights.smk"
include: "workflow/rules/shard.smk"
include: "workflow/rules/embed.smk"
include: "workflow/rules/check.smk"
include: "workflow/rules/merge.smk"


report: "workflow/report/workflow.rst"


localrules:
    all,
    weights,
    check,


rule all:
    """Everything a user asked for: embeddings in input order, their index and a summary of the shards."""
    default_target: True
    input:
        "results/embeddings.h5",
        "results/index.parquet",
        "results/summary.tsv",


onstart:
    check_slurm()


onerror:
    print(f"seqmill did not finish. See the log of the failed rule above; complete log: {' '.join(log)}")
