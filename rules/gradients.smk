# Per-example gradients of every study's panel at every checkpoint of its run.

for name, study in CONFIG.studies.items():

    rule:
        name:
            f"gradients_{name}"
        input:
            model=model_file("main"),
            checkpoints=[checkpoint(study.run, step) for step in STEPS[study.run]],
            datasets=[dataset(d) for d in panel(name)],
            leakage=f"{RESULTS}/data/leakage/{name}.parquet",
        output:
            gradients=gradient_files(name),
            certificate=f"{RESULTS}/gradients/{study.run}/{name}/certificate.json",
        log:
            f"{RESULTS}/logs/gradients/{study.run}/{name}.log",
        benchmark:
            f"{RESULTS}/benchmarks/gradients/{study.run}/{name}.tsv"
        conda:
            "../envs/swift_study.yaml"
        threads: workflow.cores
        resources:
            gpu=gpus(1),
        params:
            panel=name,
            settings=settings(CONFIG.gradients),
            run=settings(CONFIG.run(study.run)),
            model=settings(CONFIG.model),
            work=f"{RESULTS}/work/gradients/{study.run}/{name}",
        shell:
            "exec python workflow/scripts/compute_gradients.py --gpus {resources.gpu} --panel {params.panel} --settings {params.settings:q}"
            " --run-settings {params.run:q} --model {input.model:q} --model-settings {params.model:q} --threads {threads}"
            " --datasets {input.datasets:q} --checkpoints {input.checkpoints:q} --work {params.work:q}"
            " --outputs {output.gradients:q} --certificate {output.certificate:q} 2> {log:q}"
