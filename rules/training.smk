# Runs: the schedule is written down, then followed.


rule make_schedule:
    input:
        datasets=lambda w: [dataset(name) for name in scheduled(w.run)],
        lengths=lambda w: lengths(CONFIG.run(w.run).model, scheduled(w.run)),
        # Looked through for values where the loss is on these.
        held_out=lambda w: (
            held_out_by(w.run) if CONFIG.run(w.run).loss_on == "values" else []
        ),
    output:
        schedule=f"{RESULTS}/runs/{{run}}/schedule.parquet",
        rejects=f"{RESULTS}/runs/{{run}}/rejects.parquet",
    log:
        f"{RESULTS}/logs/make_schedule/{{run}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/make_schedule/{{run}}.tsv"
    conda:
        "../envs/swift_study.yaml"
    params:
        settings=lambda w: CONFIG.run(w.run).model_dump_json(
            include={"schedule", "epochs", "batch_size", "seed", "loss_on"}
        ),
    shell:
        f"exec python {SCRIPTS}/make_schedule.py"
        " --run {wildcards.run} --settings {params.settings:q} --datasets {input.datasets:q}"
        " --lengths {input.lengths:q} --held-out {input.held_out:q} --output {output.schedule:q} --rejects {output.rejects:q} 2> {log:q}"


# Snakemake deletes the folder of checkpoints before the rule runs again; unfinished work is in a folder that no rule declares.
rule train:
    input:
        model=lambda w: model_of(w.run),
        start=lambda w: started_from(w.run),
        datasets=lambda w: [dataset(d) for d in scheduled(w.run)],
        held_out=lambda w: held_out_by(w.run),
        schedule=f"{RESULTS}/runs/{{run}}/schedule.parquet",
    output:
        checkpoints=directory(checkpoints("{run}")),
        history=f"{RESULTS}/runs/{{run}}/history.parquet",
        consumed=f"{RESULTS}/runs/{{run}}/consumed.parquet",
    log:
        f"{RESULTS}/logs/train/{{run}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/train/{{run}}.tsv"
    wildcard_constraints:
        run=rf"(?!{families('none')}(?:/|$)){PATH}",
    conda:
        "../envs/swift_study.yaml"
    threads: workflow.cores
    # On how many machines changes no result: no parameter. What is None is not asked for.
    resources:
        gpu=lambda w: on_one_node(w.run, gpus_of_node(w.run)),
        mpi=lambda w: on_several_nodes(w.run, "srun"),
        nodes=lambda w: on_several_nodes(w.run, CONFIG.run(w.run).nodes),
        tasks=lambda w: on_several_nodes(w.run, CONFIG.run(w.run).nodes),
        tasks_per_gpu=lambda w: on_several_nodes(w.run, 0),
        gres=lambda w: on_several_nodes(w.run, f"gpu:{gpus_of_node(w.run)}"),
        gpus_of_node=lambda w: gpus_of_node(w.run),
        launch=lambda w: f"--nodes {CONFIG.run(w.run).nodes}",
        # Which gradients are computed later changes no training; it is refused where they cannot be.
        gradients=lambda w: json.dumps(gradients_of(w.run)),
    params:
        numerics=TRAINING,
        settings=lambda w: CONFIG.run(w.run).model_dump_json(exclude={"nodes"}),
        model=lambda w: CONFIG.model_of(w.run).model_dump_json(),
        processes=lambda w: CONFIG.run(w.run).processes,
        deepspeed=lambda w: found(f"deepspeed/zero-{CONFIG.run(w.run).zero_stage}.json"),
        work=lambda w: f"{RESULTS}/work/train/{w.run}",
    shell:
        f"exec {SCRIPTS}/launch.sh"
        " --stop {params.work:q}.stop {resources.launch} --processes {params.processes} --threads {threads} --"
        f" {SCRIPTS}/train.py"
        " --gpus {resources.gpus_of_node} --stop {params.work:q}.stop"
        " --name {wildcards.run:q} --settings {params.settings:q} --threads {threads} --deepspeed {params.deepspeed:q}"
        " --model {input.model:q} --model-settings {params.model:q} --start-from {input.start:q} --datasets {input.datasets:q}"
        " --held-out {input.held_out:q} --schedule {input.schedule:q} --work {params.work:q} --checkpoints {output.checkpoints:q}"
        " --history {output.history:q} --consumed {output.consumed:q} --gradients {resources.gradients:q} 2> {log:q}"


# With `keep: none` Snakemake removes the checkpoints as soon as nothing that is asked for needs them any more.
use rule train as train_for_now with:
    output:
        checkpoints=temp(directory(checkpoints("{run}"))),
        history=f"{RESULTS}/runs/{{run}}/history.parquet",
        consumed=f"{RESULTS}/runs/{{run}}/consumed.parquet",
    wildcard_constraints:
        run=f"{families('none')}{FACTORS}",
