rule export:
    """Write the merged result in a format of other tools.

    Needs: the merged file and its index; for biotrainer the FASTA files, too.
    Gives: a folder with the files of one format. A format that is asked for later computes no embedding again.
    """
    input:
        embeddings=MERGED[0],
        index=MERGED[1],
        fasta=fasta_of_export,
    output:
        folder=directory(EXPORT),
    log:
        f"<logs>/export/{{format}}{DOT_SAMPLE}.log",
    benchmark:
        f"<logs>/export/{{format}}{DOT_SAMPLE}.benchmark.tsv"
    wildcard_constraints:
        format="|".join(FORMATS),
    conda:
        "../../envs/seqmill.yaml"
    params:
        command=command,
        fasta=lambda wildcards, input: ["--fasta", *input.fasta] if input.fasta else [],
    shell:
        """
        python {params.command:q} export \
            --embeddings {input.embeddings:q} \
            --index {input.index:q} \
            --format {wildcards.format} \
            --output {output.folder:q} \
            {params.fasta:q} \
            2>&1 | (
            trap '' TERM INT
            exec tee -p {log:q}
        )
        """
