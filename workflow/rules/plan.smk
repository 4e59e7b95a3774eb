rule plan:
    """Say what the run takes before it runs: time, memory, disk. `snakemake plan` asks for it, and nothing else does.

    Needs: the FASTA files of the configuration; no model, and no network.
    Gives: the plan, printed and in plan.txt beside the results. That is no output, so that each call plans anew: shards
    that have finished since tell more of the time.
    """
    input:
        fasta=plan_fasta,
    log:
        "<logs>/plan.log",
    localrule: True
    conda:
        "../../envs/seqmill.yaml"
    params:
        command=command,
        config=lambda wildcards: json.dumps(config),
        results=RESULTS_FOLDER,
    shell:
        """
        printf %s {params.config:q} | python {params.command:q} plan \
            --config - \
            --results {params.results:q} \
            --output {params.results:q}/plan.txt \
            2>&1 | (
            trap '' TERM INT
            exec tee -p {log:q}
        )
        """
