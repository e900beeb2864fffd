# Per-example gradients of every study's panel at every checkpoint of its run.

for name, study in CONFIG.studies.items():

    rule:
        name:
            f"gradients_{name}"
        input:
            model=model_file("main"),
            checkpoints=[checkpoint(study.run, step) for step in STEPS[study.run]],
            datasets=[dataset(d) for d in panel(name)],
            lengths=lengths(MAIN, panel(name)),
            leakage=f"{RESULTS}/data/leakage/{name}.parquet",
        output:
            gradients=gradient_files(name),
            modules=module_files(name),
            certificate=f"{RESULTS}/gradients/{study.run}/{name}/certificate.json",
        log:
            f"{RESULTS}/logs/gradients/{study.run}/{name}.log",
        benchmark:
            f"{RESULTS}/benchmarks/gradients/{study.run}/{name}.tsv"
        conda:
            "../envs/swift_study.yaml"
        threads: workflow.cores
        # How much memory is used changes no number: no parameter.
        resources:
            gpu=gpus(1),
            engine_mb=int(CONFIG.gradients.memory_gb * 1000),
            engine_host_mb=int(CONFIG.gradients.host_memory_gb * 1000),
        params:
            panel=name,
            settings=settings(CONFIG.gradients, ("memory_gb", "host_memory_gb")),
            run=settings(CONFIG.run(study.run)),
            model=settings(CONFIG.model),
            work=f"{RESULTS}/work/gradients/{study.run}/{name}",
        shell:
            "exec python workflow/scripts/compute_gradients.py --gpus {resources.gpu} --panel {params.panel} --settings {params.settings:q}"
            " --memory-mb {resources.engine_mb} --host-memory-mb {resources.engine_host_mb}"
            " --run-settings {params.run:q} --model {input.model:q} --model-settings {params.model:q} --threads {threads}"
            " --datasets {input.datasets:q} --checkpoints {input.checkpoints:q} --work {params.work:q}"
            " --outputs {output.gradients:q} --modules {output.modules:q} --certificate {output.certificate:q} 2> {log:q}"
