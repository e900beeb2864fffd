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
        "exec python workflow/scripts/make_schedule.py --settings {params.settings:q} --datasets {input:q} --output {output:q} 2> {log:q}"


# One rule for all runs that publish their last state only, and one for each that publishes a checkpoint every so many steps.
for own, steps in {None: ["last"], **STEPS}.items():
    # The run in paths: any that has no rule of its own, or just this one.
    any_other = rf"{{run,(?!({'|'.join(STEPS) or '-'})/).*}}"
    run, plain = (any_other, "{run}") if own is None else (own, own)

    of = run_of(own)

    rule:
        name:
            "train" if own is None else f"train_{own}"
        input:
            model=lambda w, of=of: model_of(of(w)),
            start=lambda w, of=of: started_from(of(w)),
            datasets=lambda w, of=of: [dataset(d) for d in scheduled(of(w))],
            held_out=lambda w, of=of: held_out_by(of(w)),
            schedule=f"{RESULTS}/schedules/{plain}.parquet",
        output:
            checkpoints=[
                directory(f"{RESULTS}/runs/{run}/checkpoint-{step}") for step in steps
            ],
            history=f"{RESULTS}/runs/{run}/history.parquet",
            consumed=f"{RESULTS}/runs/{run}/consumed.parquet",
        log:
            f"{RESULTS}/logs/train/{plain}.log",
        benchmark:
            f"{RESULTS}/benchmarks/train/{plain}.tsv"
        conda:
            "../envs/swift_study.yaml"
        threads: workflow.cores
        # On how many machines changes no result: no parameter. What is None is not asked for.
        resources:
            gpu=lambda w, of=of: on_one_node(of(w), gpus_of_node(of(w))),
            mpi=lambda w, of=of: on_several_nodes(of(w), "srun"),
            nodes=lambda w, of=of: on_several_nodes(of(w), CONFIG.run(of(w)).nodes),
            tasks=lambda w, of=of: on_several_nodes(of(w), CONFIG.run(of(w)).nodes),
            tasks_per_gpu=lambda w, of=of: on_several_nodes(of(w), 0),
            gres=lambda w, of=of: on_several_nodes(of(w), f"gpu:{gpus_of_node(of(w))}"),
            gpus_of_node=lambda w, of=of: gpus_of_node(of(w)),
            launch=lambda w, of=of: f"--nodes {CONFIG.run(of(w)).nodes}",
            # Which gradients are computed later changes no training; it is refused where they cannot be.
            gradients=lambda w, of=of: json.dumps(gradients_of(of(w))),
        params:
            run=lambda w, of=of: of(w),
            settings=lambda w, of=of: CONFIG.run(of(w)).model_dump_json(
                exclude={"nodes"}
            ),
            model=lambda w, of=of: CONFIG.model_of(of(w)).model_dump_json(),
            processes=lambda w, of=of: CONFIG.run(of(w)).processes,
            deepspeed=lambda w, of=of: f"deepspeed/zero-{CONFIG.run(of(w)).zero_stage}.json",
            work=lambda w, of=of: f"{RESULTS}/work/train/{of(w)}",
        shell:
            "exec workflow/scripts/launch.sh --stop {params.work:q}.stop {resources.launch} --processes {params.processes}"
            " --threads {threads} -- workflow/scripts/train.py --gpus {resources.gpus_of_node} --stop {params.work:q}.stop"
            " --name {params.run} --settings {params.settings:q} --threads {threads} --deepspeed {params.deepspeed:q}"
            " --model {input.model:q} --model-settings {params.model:q} --start-from {input.start:q} --datasets {input.datasets:q} --held-out {input.held_out:q}"
            " --schedule {input.schedule:q} --work {params.work:q} --checkpoints {output.checkpoints:q} --history {output.history:q}"
            " --consumed {output.consumed:q} --gradients {resources.gradients:q} 2> {log:q}"
