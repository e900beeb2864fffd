# Runs: the schedule is written down, then followed.


rule make_schedule:
    input:
        lambda w: [dataset(name) for name in scheduled(w.run)],
    output:
        f"{RESULTS}/schedules/{{run}}.parquet",
    log:
        f"{RESULTS}/logs/make_schedule/{{run}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/make_schedule/{{run}}.tsv"
    conda:
        "../envs/swift_study.yaml"
    params:
        settings=lambda w: CONFIG.run(w.run).model_dump_json(
            include={"schedule", "epochs", "batch_size", "seed"}
        ),
    shell:
        "python workflow/scripts/make_schedule.py --settings {params.settings:q} --datasets {input:q} --output {output:q} 2> {log:q}"


# One rule for all runs that publish their last state only, and one for each that publishes a checkpoint every so many steps.
for name, steps in {
    "train": None,
    **{f"train_{r}": s for r, s in STEPS.items()},
}.items():
    # The run, in paths: any other than those with a rule of their own, or just this one.
    run = (
        f"{{run,(?!({'|'.join(STEPS) or '-'})/).*}}"
        if steps is None
        else f"{{run,{name.removeprefix('train_')}}}"
    )

    rule:
        name:
            name
        input:
            model=lambda w: model_of(w.run),
            start=lambda w: started_from(w.run),
            datasets=lambda w: [dataset(d) for d in scheduled(w.run)],
            schedule=f"{RESULTS}/schedules/{{run}}.parquet",
        output:
            checkpoints=[
                directory(f"{RESULTS}/runs/{run}/checkpoint-{step}")
                for step in steps or ["last"]
            ],
            history=f"{RESULTS}/runs/{run}/history.parquet",
            consumed=f"{RESULTS}/runs/{run}/consumed.parquet",
        log:
            f"{RESULTS}/logs/train/{{run}}.log",
        benchmark:
            f"{RESULTS}/benchmarks/train/{{run}}.tsv"
        conda:
            "../envs/swift_study.yaml"
        threads: workflow.cores
        params:
            settings=lambda w: CONFIG.run(w.run).model_dump_json(),
            model=lambda w: CONFIG.model_of(w.run).model_dump_json(),
            processes=lambda w: CONFIG.run(w.run).processes,
            start=lambda w, input: (
                f"--start-from '{input.start}'" if input.start else ""
            ),
            deepspeed=lambda w: f"deepspeed/zero-{CONFIG.run(w.run).zero_stage}.json",
            work=lambda w: f"{RESULTS}/work/train/{w.run}",
        shell:
            "torchrun --standalone --nproc-per-node {params.processes} workflow/scripts/train.py"
            " --name {wildcards.run} --settings {params.settings:q} --threads {threads} --deepspeed {params.deepspeed:q}"
            " --model {input.model:q} --model-settings {params.model:q} {params.start} --datasets {input.datasets:q}"
            " --schedule {input.schedule:q} --work {params.work:q} --checkpoints {output.checkpoints:q} --history {output.history:q}"
            " --consumed {output.consumed:q} 2> {log:q}"
