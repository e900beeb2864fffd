# Runs: the schedule is written down, then followed.


rule make_schedule:
    input:
        datasets=lambda w: FILES.datasets(GRAPH.scheduled(w.run)),
        lengths=lambda w: GRAPH.lengths(w.run, GRAPH.scheduled(w.run)),
        # Looked through for values where the loss is on these.
        held_out=lambda w: (
            GRAPH.stops_by(w.run) if CONFIG.run(w.run).loss_on == "values" else []
        ),
    output:
        schedule="<results>/runs/{run}/schedule.parquet",
        rejects="<results>/runs/{run}/rejects.parquet",
    log:
        "<logs>/make_schedule/{run}.log",
    benchmark:
        "<benchmarks>/make_schedule/{run}.tsv"
    conda:
        "../envs/swift_study.yaml"
    params:
        settings=lambda w: settings(
            run=GRAPH.scheduling(w.run), data_seed=CONFIG.data_seed
        ),
    shell:
        f"exec python {SCRIPTS}/make_schedule.py"
        " --run {wildcards.run} --settings {params.settings:q} --datasets {input.datasets:q}"
        " --lengths {input.lengths:q} --held-out {input.held_out:q} --output {output.schedule:q} --rejects {output.rejects:q} 2> {log:q}"


# Snakemake deletes the folder of checkpoints before the rule runs again; unfinished work is in a folder that no rule declares.
rule train:
    input:
        model=lambda w: GRAPH.model_file(w.run),
        start=lambda w: GRAPH.started_from(w.run),
        datasets=lambda w: FILES.datasets(GRAPH.scheduled(w.run)),
        held_out=lambda w: GRAPH.stops_by(w.run),
        schedule="<results>/runs/{run}/schedule.parquet",
    output:
        checkpoints=directory("<results>/runs/{run}/checkpoints"),
        history="<results>/runs/{run}/history.parquet",
        consumed="<results>/runs/{run}/consumed.parquet",
    log:
        "<logs>/train/{run}.log",
    benchmark:
        "<benchmarks>/train/{run}.tsv"
    wildcard_constraints:
        run=rf"(?!{GRAPH.families('none')}(?:/|$)){PATH}",
    conda:
        "../envs/swift_study.yaml"
    threads: workflow.cores
    # On how many machines changes no result: no parameter. What is None is not asked for.
    resources:
        gpu=lambda w: GRAPH.on_one_node(w.run, GRAPH.gpus_of_node(w.run)),
        mpi=lambda w: GRAPH.on_several_nodes(w.run, "srun"),
        nodes=lambda w: GRAPH.on_several_nodes(w.run, CONFIG.run(w.run).nodes),
        tasks=lambda w: GRAPH.on_several_nodes(w.run, CONFIG.run(w.run).nodes),
        tasks_per_gpu=lambda w: GRAPH.on_several_nodes(w.run, 0),
        gres=lambda w: GRAPH.on_several_nodes(w.run, f"gpu:{GRAPH.gpus_of_node(w.run)}"),
        gpus_of_node=lambda w: GRAPH.gpus_of_node(w.run),
        launch=lambda w: f"--nodes {CONFIG.run(w.run).nodes}",
        # Which gradients are computed later changes no training; it is refused where they cannot be.
        limits=lambda w: limits(
            run=CONFIG.run(w.run), gradients=GRAPH.gradients_of(w.run)
        ),
    params:
        numerics=TRAINING,
        settings=lambda w: settings(run=CONFIG.run(w.run), model=CONFIG.model_of(w.run)),
        processes=lambda w: CONFIG.run(w.run).processes,
        deepspeed=lambda w: found(f"deepspeed/zero-{CONFIG.run(w.run).zero_stage}.json"),
        work=lambda w: FILES.work("train", w.run),
    shell:
        f"exec {SCRIPTS}/launch.sh"
        " --stop {params.work:q}.stop {resources.launch} --processes {params.processes} --threads {threads} --"
        f" {SCRIPTS}/train.py"
        " --gpus {resources.gpus_of_node} --stop {params.work:q}.stop"
        " --name {wildcards.run:q} --settings {params.settings:q} --threads {threads} --deepspeed {params.deepspeed:q}"
        " --model {input.model:q} --start-from {input.start:q} --datasets {input.datasets:q}"
        " --held-out {input.held_out:q} --schedule {input.schedule:q} --work {params.work:q} --checkpoints {output.checkpoints:q}"
        " --history {output.history:q} --consumed {output.consumed:q} --limits {resources.limits:q} 2> {log:q}"


# With `keep: none` Snakemake removes the checkpoints as soon as nothing that is asked for needs them any more.
use rule train as train_for_now with:
    output:
        checkpoints=temp(directory("<results>/runs/{run}/checkpoints")),
        history="<results>/runs/{run}/history.parquet",
        consumed="<results>/runs/{run}/consumed.parquet",
    wildcard_constraints:
        run=f"{GRAPH.families('none')}{FACTORS}",
