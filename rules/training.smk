# Runs: the schedule is written down, then followed.


rule make_schedule:
    input:
        lambda w: dataset(CONFIG.runs[w.run].dataset),
    output:
        f"{RESULTS}/schedules/{{run}}.parquet",
    log:
        f"{RESULTS}/logs/make_schedule/{{run}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/make_schedule/{{run}}.tsv"
    conda:
        "../envs/swift_study.yaml"
    params:
        settings=lambda w: CONFIG.runs[w.run].model_dump_json(),
    shell:
        "python workflow/scripts/make_schedule.py --settings {params.settings:q} --dataset {input:q} --output {output:q} 2> {log:q}"


# One rule a run, since the number of checkpoints is the run's own.
for name in CONFIG.runs:

    rule:
        name:
            f"train_{name}"
        input:
            model=f"{RESULTS}/model.json",
            dataset=dataset(CONFIG.runs[name].dataset),
            schedule=f"{RESULTS}/schedules/{name}.parquet",
        output:
            checkpoints=[directory(checkpoint(name, step)) for step in STEPS[name]],
            history=f"{RESULTS}/runs/{name}/history.parquet",
        log:
            f"{RESULTS}/logs/train/{name}.log",
        benchmark:
            f"{RESULTS}/benchmarks/train/{name}.tsv"
        conda:
            "../envs/swift_study.yaml"
        threads: workflow.cores
        params:
            run=name,
            settings=settings(CONFIG.runs[name]),
            model=settings(CONFIG.model),
            processes=CONFIG.runs[name].processes,
            work=f"{RESULTS}/work/train/{name}",
        shell:
            "torchrun --standalone --nproc-per-node {params.processes} workflow/scripts/train.py"
            " --name {params.run} --settings {params.settings:q} --threads {threads}"
            " --model {input.model:q} --model-settings {params.model:q} --dataset {input.dataset:q} --schedule {input.schedule:q}"
            " --work {params.work:q} --checkpoints {output.checkpoints:q} --history {output.history:q} 2> {log:q}"
