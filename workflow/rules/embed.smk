rule embed:
    """Embed one shard on one GPU (or on the CPU where there is none).

    Needs: the shard's FASTA with its checksum, and the record of the model.
    Gives: a folder with embeddings.h5 and meta.json. Out of memory leaves oom.json there instead and is not a failure
    of this rule, or Snakemake would delete the diagnosis: check reads it and fails. Finished batches are saved in
    <shard>.partial beside it, which is not an output: after an interruption the next run resumes from there.
    """
    input:
        fasta=f"<results>/shards/{IN_ROUND}{{shard}}.fasta",
        checksums=CHECKSUMS,
        weights="<results>/weights.json",
    output:
        folder=directory(FOLDERS),
    log:
        f"<logs>/embed/{IN_ROUND}{{shard}}.log",
    benchmark:
        f"<logs>/embed/{IN_ROUND}{{shard}}.benchmark.tsv"
    conda:
        "../../envs/seqmill.yaml"
    threads: demand.threads_per_shard(CORES, len(SHARDS), AT_ONCE)
    resources:
        gpu=1,
        # Of the host. A profile's set-resources take precedence.
        mem_mb=lambda wildcards, input, attempt: demand.memory_mb(input.weights, input.fasta, attempt),
        runtime=lambda wildcards, input, attempt: demand.runtime_minutes(input.weights, input.fasta, attempt, LONG),
        # Speed and memory only: when this changes, Snakemake repeats nothing that is finished, ...
        performance=configuration.performance_flags(config),
    params:
        command=command,
        # ... and every shard when this does: it can change the result.
        result=configuration.result_flags(config),
    # SLURM sends SIGTERM to all processes of a job, and a terminal SIGINT: without the first trap, embed would be killed
    # within a second, before it could save its progress; without the second, its last words would be lost. With -p, tee
    # outlives whoever reads the output. Progress goes past the log, which would have thousands of lines of it.
    shell:
        """
        trap : TERM
        exec 3>&1
        python {params.command:q} embed \
            --fasta {input.fasta:q} \
            --verify-fasta \
            --weights {input.weights:q} \
            --output {output.folder:q} \
            --keep-partial \
            {params.result} \
            {resources.performance} \
            --progress-fd 3 \
            2>&1 | (
            trap '' TERM INT
            exec tee -p {log:q}
        ) || [ $? -eq 3 ]
        """
