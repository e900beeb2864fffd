# Per-example gradients of a study's panel at every checkpoint of its run.


rule gradients:
    input:
        model=lambda w: GRAPH.model_file(w.run),
        checkpoints="<results>/runs/{run}/checkpoints",
        datasets=lambda w: FILES.datasets(GRAPH.panel(w.study)),
        lengths=lambda w: GRAPH.lengths(w.run, GRAPH.panel(w.study)),
        leakage="<results>/data/leakage/{study}.parquet",
    output:
        directory("<results>/gradients/{run}/{study}"),
    log:
        "<logs>/gradients/{run}/{study}.log",
    benchmark:
        "<benchmarks>/gradients/{run}/{study}.tsv"
    conda:
        "../envs/swift_study.yaml"
    threads: workflow.cores
    # How much memory is used changes no number: no parameter.
    resources:
        gpu=GRAPH.gpus(1),
        limits=lambda w: limits(gradients=CONFIG.gradients, run=CONFIG.run(w.run)),
    params:
        numerics=GRADIENTS,
        settings=lambda w: settings(
            gradients=CONFIG.gradients,
            run=CONFIG.run(w.run),
            model=CONFIG.model_of(w.run),
            loss_on=CONFIG.influence[w.study].loss_of(),
        ),
        work=lambda w: FILES.work("gradients", f"{w.run}/{w.study}"),
    shell:
        f"exec python {SCRIPTS}/compute_gradients.py"
        " --gpus {resources.gpu} --panel {wildcards.study} --settings {params.settings:q}"
        " --limits {resources.limits:q}"
        " --model {input.model:q} --threads {threads}"
        " --datasets {input.datasets:q} --checkpoints {input.checkpoints:q} --work {params.work:q} --output {output:q} 2> {log:q}"
