rule check:
    """Find out whether every shard is done, by the same model and settings, and sum them up.

    Needs: the folders of all shards.
    Gives: a table of the shards. Shards that ran out of memory are listed with a recommended batch size, their
    diagnosis moves to results/oom and their folder goes, so that the next run does exactly them again.
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
            2>&1 | tee {log:q}
        """
