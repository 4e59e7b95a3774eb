rule merge:
    """Put the shards together: input order, original ids, duplicates restored.

    Needs: the folders of all shards, passed by check, and the table of records.
    Gives: one HDF5 file and an index with a row per input record; for each sample, where there are samples.
    """
    input:
        folders=of_rounds(FOLDERS, shard=SHARDS),
        records=of_rounds(RECORDS),
        checksums=of_rounds(CHECKSUMS),
        checked=of_rounds(SUMMARY),
    output:
        embeddings=MERGED[0],
        index=MERGED[1],
    log:
        f"<logs>/merge{DOT_SAMPLE}.log",
    benchmark:
        f"<logs>/merge{DOT_SAMPLE}.benchmark.tsv"
    conda:
        "../../envs/seqmill.yaml"
    params:
        command=command,
        shards=shard_folders,
        sample=sample_flags,
    shell:
        """
        python {params.command:q} merge \
            {params.shards:q} \
            --records {input.records:q} \
            --embeddings {output.embeddings:q} \
            --index {output.index:q} \
            {params.sample:q} \
            2>&1 | (
            trap '' TERM INT
            exec tee -p {log:q}
        )
        """
