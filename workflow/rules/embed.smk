rule embed:
    """Embed one shard on one GPU (or on the CPU where there is none).

    Needs: the shard's FASTA with its checksum, and the record of the model.
    Gives: a folder with embeddings.h5 and meta.json. Out of memory leaves oom.json there instead and is no failure of
    this rule, or Snakemake would delete the diagnosis: check reads it and fails. What is finished of a shard lies in
    results/embed/<shard>.partial, which is no output: after an interruption the next run goes on from there.
    """
    input:
        fasta="results/shards/{shard}.fasta",
        checksums="results/shards/SHA256SUMS",
        weights="results/weights.json",
    output:
        folder=directory("results/embed/{shard}"),
    log:
        "logs/embed/{shard}.log",
    benchmark:
        "logs/embed/{shard}.benchmark.tsv"
    conda:
        "../../envs/seqmill.yaml"
    threads: settings.threads_per_shard(CORES, len(SHARDS), GPUS)
    resources:
        gpu=1,
        # Of the host. A profile's set-resources go first.
        mem_mb=lambda wildcards, input, attempt: demand.memory_mb(input.weights, input.fasta, attempt),
        runtime=lambda wildcards, input, attempt: demand.runtime_minutes(input.weights, input.fasta, attempt),
        # Speed and memory only: Snakemake runs nothing again that is finished when this changes, ...
        performance=settings.performance_flags(config),
    params:
        # ... and every shard when this does: it can change the result.
        result=settings.result_flags(config),
    # The trap keeps the shell waiting when SLURM ends the job: without its shell embed would be killed within a second,
    # and could not put away what it has.
    shell:
        """
        trap : TERM
        python "$SCRIPTS"/embed.py \
            --fasta {input.fasta:q} \
            --verify-fasta \
            --weights {input.weights:q} \
            --output {output.folder:q} \
            --keep-partial \
            {params.result} \
            {resources.performance} \
            >{log:q} 2>&1 || [ $? -eq 3 ]
        """
