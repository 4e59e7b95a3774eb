rule weights:
    """Find the model, verify its checksums and record both; the only step that may need a network.

    Needs: model.name and model.revision of the configuration; a folder's own files, so that new weights are noticed.
    Gives: weights.json, which every embed job reads instead of asking the hub.
    """
    input:
        files=outside(MODEL_FILES),
    output:
        weights="<results>/weights.json",
    log:
        "<logs>/weights.log",
    localrule: True
    conda:
        "../../envs/seqmill.yaml"
    params:
        command=command,
        model=configuration.flag("--model", config["model"]["name"]),
        revision=configuration.flag("--revision", config["model"]["revision"]),
        reuse=reuse_flags,
    shell:
        """
        python {params.command:q} weights \
            {params.model:q} \
            {params.revision:q} \
            {params.reuse:q} \
            --output {output.weights:q} \
            2>&1 | (
            trap '' TERM INT
            exec tee -p {log:q}
        )
        """
