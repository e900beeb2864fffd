# The model, the sources, the strategies, and the check that no probe is trained on.


rule find_model:
    output:
        "<results>/models/{model}.json",
    log:
        "<logs>/find_model/{model}.log",
    benchmark:
        "<benchmarks>/find_model/{model}.tsv"
    localrule: at_submit_host(True)
    conda:
        "../envs/swift_study.yaml"
    # What is to be trained on the model does not change the model: no parameter.
    resources:
        runs=lambda w: argument(GRAPH.trained_on(w.model)),
    params:
        settings=lambda w: argument(deciding(GRAPH.model(w.model))),
        cache=CONFIG.cache,
    shell:
        f"exec python {SCRIPTS}/find_model.py"
        " --settings {params.settings:q} --cache {params.cache:q}"
        " --runs {resources.runs:q} --output {output:q} 2> {log:q}"


rule load_dataset:
    input:
        files=lambda w: GRAPH.user_files(w.loaded),
        exclude=lambda w: FILES.datasets(
            CONFIG.datasets[w.loaded.split(".")[0]].exclude
        ),
    output:
        examples="<results>/data/{loaded}.parquet",
        rejects="<results>/data/rejects/{loaded}.parquet",
    log:
        "<logs>/load_dataset/{loaded}.log",
    benchmark:
        "<benchmarks>/load_dataset/{loaded}.tsv"
    localrule: at_submit_host(True)
    conda:
        "../envs/swift_study.yaml"
    params:
        settings=lambda w: settings(
            dataset=CONFIG.datasets[w.loaded.split(".")[0]],
            near_duplicate=CONFIG.near_duplicate,
            seed=CONFIG.data_seed,
        ),
    shell:
        f"exec python {SCRIPTS}/load_dataset.py"
        " --dataset {wildcards.loaded} --settings {params.settings:q} --exclude {input.exclude:q}"
        " --output {output.examples:q} --rejects {output.rejects:q} 2> {log:q}"


rule apply_strategy:
    input:
        parent="<results>/data/{parent}.parquet",
        analogues=lambda w: GRAPH.analogues(w.parent),
        ancestors=lambda w: GRAPH.parents(w.parent),
        strategy=lambda w: GRAPH.strategy_file(w.strategy),
        replies=lambda w: CONFIG.strategies[w.strategy].file or [],
    output:
        examples="<results>/data/{parent}.{strategy}.parquet",
        rejects="<results>/data/rejects/{parent}.{strategy}.parquet",
        account="<results>/data/accounts/{parent}.{strategy}.parquet",
    log:
        "<logs>/apply_strategy/{parent}.{strategy}.log",
    benchmark:
        "<benchmarks>/apply_strategy/{parent}.{strategy}.tsv"
    localrule: at_submit_host(GRAPH.has_teacher())
    conda:
        "../envs/swift_study.yaml"
    resources:
        # Not a parameter: how fast and at what price replies come changes no reply, so it reruns nothing.
        limits=lambda w: limits(teacher=GRAPH.teacher(w.strategy)),
    params:
        settings=lambda w: settings(
            strategy=CONFIG.strategies[w.strategy], teacher=GRAPH.teacher(w.strategy)
        ),
        cache=CONFIG.cache,
    shell:
        f"exec python {SCRIPTS}/apply_strategy.py"
        " --dataset {wildcards.parent}.{wildcards.strategy}"
        " --strategy {input.strategy:q} --settings {params.settings:q}"
        " --limits {resources.limits:q} --cache {params.cache:q}"
        " --parent {input.parent:q} --analogues {input.analogues:q} --ancestors {input.ancestors:q}"
        " --output {output.examples:q} --rejects {output.rejects:q} --account {output.account:q} 2> {log:q}"


rule apply_design:
    input:
        parent="<results>/data/{parent}.parquet",
        design=lambda w: GRAPH.design_file(w.design),
    output:
        examples="<results>/data/{parent}.{design}.parquet",
        rejects="<results>/data/rejects/{parent}.{design}.parquet",
    log:
        "<logs>/apply_design/{parent}.{design}.log",
    benchmark:
        "<benchmarks>/apply_design/{parent}.{design}.tsv"
    conda:
        "../envs/swift_study.yaml"
    params:
        settings=lambda w: settings(options=CONFIG.designs[w.design].options),
    shell:
        f"exec python {SCRIPTS}/apply_design.py"
        " --dataset {wildcards.parent}.{wildcards.design} --design {input.design:q}"
        " --settings {params.settings:q} --parent {input.parent:q}"
        " --output {output.examples:q} --rejects {output.rejects:q} 2> {log:q}"


rule check_leakage:
    input:
        trained=lambda w: FILES.datasets(GRAPH.seen_before(w.study)),
        datasets=lambda w: FILES.datasets(GRAPH.held_out(w.study)),
        ancestors=lambda w: FILES.datasets(GRAPH.between(w.study)),
    output:
        "<results>/data/leakage/{study}.parquet",
    log:
        "<logs>/check_leakage/{study}.log",
    benchmark:
        "<benchmarks>/check_leakage/{study}.tsv"
    priority: 1  # before anything is trained
    conda:
        "../envs/swift_study.yaml"
    params:
        near_duplicate=CONFIG.near_duplicate,
        values=lambda w: CONFIG.with_values(w.study),
    shell:
        f"exec python {SCRIPTS}/check_leakage.py"
        " --study {wildcards.study} --trained {input.trained:q}"
        " --datasets {input.datasets:q} --ancestors {input.ancestors:q} --near-duplicate {params.near_duplicate}"
        " --values {params.values:q} --output {output:q} 2> {log:q}"


# Datasets know no model. What a model's template or context refuses is told here, before anything is trained on it.
rule measure_lengths:
    input:
        model="<results>/models/{model}.json",
        dataset="<results>/data/{dataset}.parquet",
    output:
        "<results>/lengths/{model}/{dataset}.parquet",
    log:
        "<logs>/measure_lengths/{model}/{dataset}.log",
    benchmark:
        "<benchmarks>/measure_lengths/{model}/{dataset}.tsv"
    priority: 1
    conda:
        "../envs/swift_study.yaml"
    params:
        settings=lambda w: argument(GRAPH.affecting_tokens(w.model)),
    shell:
        f"exec python {SCRIPTS}/measure_lengths.py"
        " --name {wildcards.model} --model {input.model:q}"
        " --settings {params.settings:q} --dataset {input.dataset:q} --output {output:q} 2> {log:q}"
