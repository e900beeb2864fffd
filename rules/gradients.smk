# Per-example gradients of a study's panel at every checkpoint of its run.


rule gradients:
    input:
        model=lambda w: model_of(w.run),
        checkpoints=checkpoints("{run}"),
        datasets=lambda w: [dataset(d) for d in panel(w.study)],
        lengths=lambda w: lengths(CONFIG.run(w.run).model, panel(w.study)),
        leakage=f"{RESULTS}/data/leakage/{{study}}.parquet",
    output:
        directory(f"{RESULTS}/gradients/{{run}}/{{study}}"),
    log:
        f"{RESULTS}/logs/gradients/{{run}}/{{study}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/gradients/{{run}}/{{study}}.tsv"
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
        settings=settings(CONFIG.gradients, ("memory_gb", "host_memory_gb")),
        run=lambda w: CONFIG.run(w.run).model_dump_json(),
        model=lambda w: CONFIG.model_of(w.run).model_dump_json(),
        loss_on=lambda w: json.dumps(CONFIG.studies[w.study].loss_of()),
        work=lambda w: f"{RESULTS}/work/gradients/{w.run}/{w.study}",
    shell:
        f"exec python {SCRIPTS}/compute_gradients.py"
        " --gpus {resources.gpu} --panel {wildcards.study} --settings {params.settings:q}"
        " --memory-mb {resources.engine_mb} --host-memory-mb {resources.engine_host_mb}"
        " --run-settings {params.run:q} --model {input.model:q} --model-settings {params.model:q} --threads {threads}"
        " --datasets {input.datasets:q} --loss-on {params.loss_on:q} --checkpoints {input.checkpoints:q} --work {params.work:q} --output {output:q} 2> {log:q}"
