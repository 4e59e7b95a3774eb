rule shard:
    """Check the input and assign its distinct sequences to shards of equal predicted cost, longest first.

    Needs: the FASTA files of the configuration; with samples, those of a round, and what earlier rounds have.
    Gives: one FASTA per shard, named by sequence hash, a table of all records, and the checksums of them all. What
    earlier results hold is in no shard: the table says where merge finds it.
    """
    input:
        fasta=fasta_of_round,
        earlier=of_rounds(RECORDS, before=True),
    output:
        # Of all, what each embed job needs first: Snakemake compares it with one after the other.
        records=RECORDS,
        checksums=CHECKSUMS,
        shards=expand(f"<results>/shards/{IN_ROUND}{{shard}}.fasta", shard=SHARDS, allow_missing=True),
    log:
        f"<logs>/shard{DOT_ROUND}.log",
    benchmark:
        f"<logs>/shard{DOT_ROUND}.benchmark.tsv"
    conda:
        "../../envs/seqmill.yaml"
    params:
        command=command,
        shards=len(SHARDS),
        sequences=shard_flags,
        reuse=reuse_flags,
        folder=subpath(output.records, parent=True),
    shell:
        """
        python {params.command:q} shard \
            --fasta {input.fasta:q} \
            --earlier {input.earlier:q} \
            {params.reuse:q} \
            --shards {params.shards} \
            --invalid {params.sequences:q} \
            --output {params.folder:q} \
            2>&1 | (
            trap '' TERM INT
            exec tee -p {log:q}
        )
        """
