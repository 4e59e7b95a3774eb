rule shard:
    """Check the input and assign its distinct sequences to shards of equal predicted cost, longest first.

    Needs: the FASTA files of the configuration.
    Gives: one FASTA per shard, named by sequence hash, a table of all records, and the checksums of them all.
    """
    input:
        fasta=FASTA,
    output:
        shards=expand("results/shards/{shard}.fasta", shard=SHARDS),
        records="results/shards/records.parquet",
        checksums="results/shards/SHA256SUMS",
    log:
        "logs/shard.log",
    benchmark:
        "logs/shard.benchmark.tsv"
    conda:
        "../../envs/seqmill.yaml"
    params:
        shards=len(SHARDS),
        sequences=configuration.shard_flags(config),
    shell:
        """
        python "$SCRIPTS"/shard.py \
            --fasta {input.fasta:q} \
            --shards {params.shards} \
            --invalid {params.sequences:q} \
            --output results/shards \
            2>&1 | save {log:q}
        """
