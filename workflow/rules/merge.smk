rule merge:
    """Put the shards together: input order, original ids, duplicates restored.

    Needs: the folders of all shards, passed by check, and the table of records.
    Gives: one HDF5 file and an index with a row per input record.
    """
    input:
        folders=expand("results/embed/{shard}", shard=SHARDS),
        records="results/shards/records.parquet",
        checksums="results/shards/SHA256SUMS",
        checked="results/summary.tsv",
    output:
        embeddings="results/embeddings.h5",
        index="results/index.parquet",
    log:
        "logs/merge.log",
    benchmark:
        "logs/merge.benchmark.tsv"
    conda:
        "../../envs/seqmill.yaml"
    shell:
        """
        python "$SCRIPTS"/merge.py \
            --folders {input.folders:q} \
            --records {input.records:q} \
            --embeddings {output.embeddings:q} \
            --index {output.index:q} \
            2>&1 | save {log:q}
        """
