rule check:
    """Check that every shard is finished, with the same model and settings, and write a summary of them.

    Needs: the folders of all shards.
    Gives: a table of the shards. Shards that ran out of memory are listed with a recommended batch size, their
    diagnosis moves to results/oom and their folder is removed, so that the next run repeats exactly these.
    """
    input:
        folders=expand("results/embed/{shard}", shard=SHARDS),
        records="results/shards/records.parquet",
        checksums="results/shards/SHA256SUMS",
    output:
        summary=report("results/summary.tsv", category="Shards", caption="../report/summary.rst"),
    log:
        "logs/check.log",
    conda:
        "../../envs/seqmill.yaml"
    shell:
        """
        python "$SCRIPTS"/check.py \
            --folders {input.folders:q} \
            --records {input.records:q} \
            --oom results/oom \
            --output {output.summary:q} \
            2>&1 | save {log:q}
        """
