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
        settings=lambda w: settings(
            panel=GRAPH.compared(w.study), norm_floor=CONFIG.statistics.norm_floor
        ),
    shell:
        f"exec python {SCRIPTS}/pair_influence.py"
        " --study {wildcards.study} --settings {params.settings:q}"
        " --gradients {input:q}"
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
        settings=lambda w: settings(
            **GRAPH.rule_of(w.study), unwanted=CONFIG.studies[w.study].unwanted
        ),
    shell:
        f"exec python {SCRIPTS}/decide_verdicts.py"
        " --settings {params.settings:q} --pairs {input:q} --curves {output.curves:q} --verdicts {output.verdicts:q} 2> {log:q}"


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
        gpu=GRAPH.gpus(1),
    params:
        settings=lambda w: settings(
            panel=GRAPH.compared(w.study),
            run=CONFIG.run(GRAPH.run_of(w.study)),
            model=CONFIG.model,
        ),
        work=lambda w: FILES.work("baselines", w.study),
    shell:
        f"exec python {SCRIPTS}/compute_baselines.py"
        " --gpus {resources.gpu} --study {wildcards.study} --settings {params.settings:q}"
        " --model {input.model:q} --threads {threads}"
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
        settings=lambda w: settings(
            **GRAPH.rule_of(w.study),
            unwanted=CONFIG.studies[w.study].unwanted,
            confounds=CONFIG.confounds,
        ),
    shell:
        f"exec python {SCRIPTS}/check_confounds.py"
        " --settings {params.settings:q} --pairs {input.pairs:q} --families {input.families:q}"
        " --baselines {input.baselines:q} --output {output.confounds:q} --power {output.power:q} 2> {log:q}"
