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
        gpu=gpus(1),
        engine_mb=int(CONFIG.gradients.memory_gb * 1000),
        engine_host_mb=int(CONFIG.gradients.host_memory_gb * 1000),
    params:
        numerics=GRADIENTS,
        settings=as_it_is(
            CONFIG.gradients.model_dump_json(exclude={"memory_gb", "host_memory_gb"})
        ),
        run=lambda w: CONFIG.run(w.run).model_dump_json(),
        model=lambda w: CONFIG.model_of(w.run).model_dump_json(),
        loss_on=lambda w: json.dumps(CONFIG.studies[w.study].loss_of()),
        work=lambda w: FILES.work("gradients", f"{w.run}/{w.study}"),
    shell:
        f"exec python {SCRIPTS}/compute_gradients.py"
        " --gpus {resources.gpu} --panel {wildcards.study} --settings {params.settings:q}"
        " --memory-mb {resources.engine_mb} --host-memory-mb {resources.engine_host_mb}"
        " --run-settings {params.run:q} --model {input.model:q} --model-settings {params.model:q} --threads {threads}"
        " --datasets {input.datasets:q} --loss-on {params.loss_on:q} --checkpoints {input.checkpoints:q} --work {params.work:q} --output {output:q} 2> {log:q}"
