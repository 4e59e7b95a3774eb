rule check:
    """Check that every shard is finished, with the same model and settings, and write a summary of them.

    Needs: the folders of all shards.
    Gives: a table of the shards. Shards that ran out of memory are listed with a recommended batch size, their
    diagnosis moves to the folder oom and their folder is removed, so that the next run repeats exactly these.
    """
    input:
        folders=of_rounds(FOLDERS, shard=SHARDS),
        records=of_rounds(RECORDS),
        checksums=of_rounds(CHECKSUMS),
    output:
        summary=report(SUMMARY, category="Shards", caption="../report/summary.rst"),
    log:
        f"<logs>/check{DOT_ROUND}.log",
    localrule: True
    conda:
        "../../envs/seqmill.yaml"
    params:
        command=command,
        shards=shard_folders,
    shell:
        """
        python {params.command:q} check \
            {params.shards:q} \
            --records {input.records:q} \
            --output {output.summary:q} \
            2>&1 | (
            trap '' TERM INT
            exec tee -p {log:q}
        )
        """
