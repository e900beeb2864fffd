# Influence pairs, curves and verdicts of a study.


rule pair_influence:
    input:
        lambda w: GRAPH.gradients(w.study),
    output:
        pairs="<results>/studies/{study}/pairs.parquet",
        families="<results>/studies/{study}/families.parquet",
        layers="<results>/studies/{study}/layers.parquet",
    log:
        "<logs>/pair_influence/{study}.log",
    benchmark:
        "<benchmarks>/pair_influence/{study}.tsv"
    conda:
        "../envs/swift_study.yaml"
    params:
        settings=lambda w: GRAPH.compared(w.study),
        norm_floor=CONFIG.statistics.norm_floor,
    shell:
        f"exec python {SCRIPTS}/pair_influence.py"
        " --study {wildcards.study} --settings {params.settings:q}"
        " --norm-floor {params.norm_floor} --gradients {input:q}"
        " --output {output.pairs:q} --families {output.families:q} --layers {output.layers:q} 2> {log:q}"


rule decide_verdicts:
    input:
        "<results>/studies/{study}/pairs.parquet",
    output:
        curves="<results>/studies/{study}/curves.parquet",
        verdicts="<results>/studies/{study}/verdicts.parquet",
    log:
        "<logs>/decide_verdicts/{study}.log",
    benchmark:
        "<benchmarks>/decide_verdicts/{study}.tsv"
    conda:
        "../envs/swift_study.yaml"
    params:
        settings=lambda w: GRAPH.statistics(w.study),
        control=lambda w: CONFIG.studies[w.study].control,
        unwanted=lambda w: CONFIG.studies[w.study].unwanted,
        unit=lambda w: CONFIG.studies[w.study].unit,
    shell:
        f"exec python {SCRIPTS}/decide_verdicts.py"
        " --settings {params.settings:q} --control {params.control:q}"
        " --unwanted {params.unwanted:q} --unit {params.unit} --pairs {input:q} --curves {output.curves:q} --verdicts {output.verdicts:q} 2> {log:q}"


rule compute_baselines:
    input:
        model=FILES.model(MAIN),
        checkpoints=lambda w: FILES.checkpoints(GRAPH.run_of(w.study)),
        datasets=lambda w: FILES.datasets(GRAPH.panel(w.study)),
    output:
        "<results>/studies/{study}/baselines.parquet",
    log:
        "<logs>/compute_baselines/{study}.log",
    benchmark:
        "<benchmarks>/compute_baselines/{study}.tsv"
    conda:
        "../envs/swift_study.yaml"
    threads: workflow.cores
    resources:
        gpu=gpus(1),
    params:
        settings=lambda w: GRAPH.compared(w.study),
        run=lambda w: CONFIG.run(GRAPH.run_of(w.study)).model_dump_json(),
        model=as_it_is(CONFIG.model.model_dump_json()),
        work=lambda w: FILES.work("baselines", w.study),
    shell:
        f"exec python {SCRIPTS}/compute_baselines.py"
        " --gpus {resources.gpu} --study {wildcards.study} --settings {params.settings:q}"
        " --run-settings {params.run:q} --model {input.model:q} --model-settings {params.model:q} --threads {threads}"
        " --checkpoints {input.checkpoints:q} --datasets {input.datasets:q} --work {params.work:q} --output {output:q} 2> {log:q}"


rule check_confounds:
    input:
        pairs="<results>/studies/{study}/pairs.parquet",
        families="<results>/studies/{study}/families.parquet",
        baselines="<results>/studies/{study}/baselines.parquet",
    output:
        confounds="<results>/studies/{study}/confounds.parquet",
        power="<results>/studies/{study}/power.parquet",
    log:
        "<logs>/check_confounds/{study}.log",
    benchmark:
        "<benchmarks>/check_confounds/{study}.tsv"
    conda:
        "../envs/swift_study.yaml"
    params:
        settings=as_it_is(CONFIG.confounds.model_dump_json()),
        statistics=lambda w: GRAPH.statistics(w.study),
        control=lambda w: CONFIG.studies[w.study].control,
        unwanted=lambda w: CONFIG.studies[w.study].unwanted,
        unit=lambda w: CONFIG.studies[w.study].unit,
    shell:
        f"exec python {SCRIPTS}/check_confounds.py"
        " --settings {params.settings:q} --statistics {params.statistics:q}"
        " --control {params.control:q} --unwanted {params.unwanted:q} --unit {params.unit} --pairs {input.pairs:q} --families {input.families:q}"
        " --baselines {input.baselines:q} --output {output.confounds:q} --power {output.power:q} 2> {log:q}"
