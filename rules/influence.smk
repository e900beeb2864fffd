# Influence pairs, curves and verdicts of a study.


rule pair_influence:
    input:
        lambda w: gradients(w.study),
    output:
        pairs=f"{RESULTS}/studies/{{study}}/pairs.parquet",
        families=f"{RESULTS}/studies/{{study}}/families.parquet",
        layers=f"{RESULTS}/studies/{{study}}/layers.parquet",
    log:
        f"{RESULTS}/logs/pair_influence/{{study}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/pair_influence/{{study}}.tsv"
    conda:
        "../envs/swift_study.yaml"
    params:
        settings=lambda w: compared(w.study),
        norm_floor=CONFIG.statistics.norm_floor,
    shell:
        f"exec python {SCRIPTS}/pair_influence.py"
        " --study {wildcards.study} --settings {params.settings:q}"
        " --norm-floor {params.norm_floor} --gradients {input:q}"
        " --output {output.pairs:q} --families {output.families:q} --layers {output.layers:q} 2> {log:q}"


rule decide_verdicts:
    input:
        f"{RESULTS}/studies/{{study}}/pairs.parquet",
    output:
        curves=f"{RESULTS}/studies/{{study}}/curves.parquet",
        verdicts=f"{RESULTS}/studies/{{study}}/verdicts.parquet",
    log:
        f"{RESULTS}/logs/decide_verdicts/{{study}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/decide_verdicts/{{study}}.tsv"
    conda:
        "../envs/swift_study.yaml"
    params:
        settings=statistics_of,
        control=lambda w: CONFIG.studies[w.study].control,
        unwanted=lambda w: CONFIG.studies[w.study].unwanted,
        unit=lambda w: CONFIG.studies[w.study].unit,
    shell:
        f"exec python {SCRIPTS}/decide_verdicts.py"
        " --settings {params.settings:q} --control {params.control:q}"
        " --unwanted {params.unwanted:q} --unit {params.unit} --pairs {input:q} --curves {output.curves:q} --verdicts {output.verdicts:q} 2> {log:q}"


rule compute_baselines:
    input:
        model=model_file(MAIN),
        checkpoints=lambda w: checkpoints(run_of(w.study)),
        datasets=lambda w: [dataset(d) for d in panel(w.study)],
    output:
        f"{RESULTS}/studies/{{study}}/baselines.parquet",
    log:
        f"{RESULTS}/logs/compute_baselines/{{study}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/compute_baselines/{{study}}.tsv"
    conda:
        "../envs/swift_study.yaml"
    threads: workflow.cores
    resources:
        gpu=gpus(1),
    params:
        settings=lambda w: compared(w.study),
        run=lambda w: CONFIG.run(run_of(w.study)).model_dump_json(),
        model=settings(CONFIG.model),
        work=lambda w: f"{RESULTS}/work/baselines/{w.study}",
    shell:
        f"exec python {SCRIPTS}/compute_baselines.py"
        " --gpus {resources.gpu} --study {wildcards.study} --settings {params.settings:q}"
        " --run-settings {params.run:q} --model {input.model:q} --model-settings {params.model:q} --threads {threads}"
        " --checkpoints {input.checkpoints:q} --datasets {input.datasets:q} --work {params.work:q} --output {output:q} 2> {log:q}"


rule check_confounds:
    input:
        pairs=f"{RESULTS}/studies/{{study}}/pairs.parquet",
        families=f"{RESULTS}/studies/{{study}}/families.parquet",
        baselines=f"{RESULTS}/studies/{{study}}/baselines.parquet",
    output:
        confounds=f"{RESULTS}/studies/{{study}}/confounds.parquet",
        power=f"{RESULTS}/studies/{{study}}/power.parquet",
    log:
        f"{RESULTS}/logs/check_confounds/{{study}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/check_confounds/{{study}}.tsv"
    conda:
        "../envs/swift_study.yaml"
    params:
        settings=settings(CONFIG.confounds),
        statistics=statistics_of,
        control=lambda w: CONFIG.studies[w.study].control,
        unwanted=lambda w: CONFIG.studies[w.study].unwanted,
        unit=lambda w: CONFIG.studies[w.study].unit,
    shell:
        f"exec python {SCRIPTS}/check_confounds.py"
        " --settings {params.settings:q} --statistics {params.statistics:q}"
        " --control {params.control:q} --unwanted {params.unwanted:q} --unit {params.unit} --pairs {input.pairs:q} --families {input.families:q}"
        " --baselines {input.baselines:q} --output {output.confounds:q} --power {output.power:q} 2> {log:q}"
