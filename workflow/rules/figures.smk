rule figures:
    """Draw pictures of a result, for people and for the report.

    Needs: the merged result, what each shard's meta.json says of time and memory, and a table of the user to colour the
    map by, if there is one.
    Gives: each picture as SVG and PNG. What cannot be drawn says so in its picture. Nothing else is made from these.
    """
    input:
        embeddings=MERGED[0],
        index=MERGED[1],
        folders=of_rounds(FOLDERS, shard=SHARDS),
        metadata=outside(METADATA),
    output:
        lengths=picture("lengths"),
        map=picture("map"),
        timeline=picture("timeline"),
        time=picture("time"),
        memory=picture("memory"),
        settings=picture("settings"),
        png=[f"{FIGURES}/{name}.png" for name in pictures.WORDS],
    log:
        f"<logs>/figures{DOT_SAMPLE}.log",
    benchmark:
        f"<logs>/figures{DOT_SAMPLE}.benchmark.tsv"
    conda:
        "../../envs/seqmill.yaml"
    params:
        command=command,
        shards=shard_folders,
        table=picture_flags,
        folder=subpath(output.lengths, parent=True),
    shell:
        """
        python {params.command:q} figures \
            --embeddings {input.embeddings:q} \
            --index {input.index:q} \
            {params.shards:q} \
            {params.table:q} \
            --output {params.folder:q} \
            2>&1 | (
            trap '' TERM INT
            exec tee -p {log:q}
        )
        """
