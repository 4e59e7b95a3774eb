"""seqmill from the root of a checkout: `snakemake`, `snakemake --profile slurm`. The workflow is workflow/Snakefile."""


include: "workflow/Snakefile"


# Snakemake takes no default from files that are included.
workflow.default_target = "all"
