# What runs respond to queries, how that is judged, and how likely they find the golden answers.


rule respond:
    input:
        model=lambda w: model_of(w.run),
        checkpoints=checkpoints("{run}"),
        dataset=f"{RESULTS}/data/{{queries}}.parquet",
    output:
        f"{RESULTS}/responses/{{run}}/{{queries}}.parquet",
    log:
        f"{RESULTS}/logs/respond/{{run}}/{{queries}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/respond/{{run}}/{{queries}}.tsv"
    localrule: at_submit_host(CONFIG.responses.server)
    conda:
        "../envs/swift_study.yaml"
    threads: workflow.cores
    resources:
        gpu=gpus(0 if CONFIG.responses.server else 1),
        # How fast responses come changes none.
        limits=responses_settings(affects_responses=False),
    params:
        settings=responses_settings(affects_responses=True),
        model=lambda w: CONFIG.model_of(w.run).model_dump_json(),
        lora=lambda w: CONFIG.run(w.run).lora.model_dump_json(),
        work=lambda w: f"{RESULTS}/work/respond/{w.run}/{w.queries}",
        cache=CONFIG.cache,
    shell:
        "exec python workflow/scripts/respond.py --gpus {resources.gpu} --run {wildcards.run} --settings {params.settings:q} --limits {resources.limits:q} --threads {threads}"
        " --model {input.model:q} --model-settings {params.model:q} --lora {params.lora:q} --checkpoints {input.checkpoints:q}"
        " --dataset {input.dataset:q} --work {params.work:q} --cache {params.cache:q} --output {output:q} 2> {log:q}"


rule judge:
    input:
        dataset=f"{RESULTS}/data/{{queries}}.parquet",
        responses=f"{RESULTS}/responses/{{run}}/{{queries}}.parquet",
        instructions=lambda w: instructions(w.scorer),
    output:
        judgements=f"{RESULTS}/judgements/{{run}}/{{queries}}/{{scorer}}.parquet",
        account=f"{RESULTS}/judgements/{{run}}/{{queries}}/{{scorer}}.account.parquet",
    log:
        f"{RESULTS}/logs/judge/{{run}}/{{queries}}.{{scorer}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/judge/{{run}}/{{queries}}.{{scorer}}.tsv"
    localrule: at_submit_host(CONFIG.judge)
    conda:
        "../envs/swift_study.yaml"
    resources:
        judge_limits=lambda w: judge(w.scorer, affects_replies=False),
    params:
        judge=lambda w: judge(w.scorer, affects_replies=True),
        instructions=lambda w: JUDGE_PROMPT,
        cache=CONFIG.cache,
    shell:
        "exec python workflow/scripts/judge.py --scorer {wildcards.scorer} --judge {params.judge:q} --judge-limits {resources.judge_limits:q}"
        " --instructions {params.instructions:q} --cache {params.cache:q} --dataset {input.dataset:q} --responses {input.responses:q}"
        " --output {output.judgements:q} --account {output.account:q} 2> {log:q}"


rule score_golden:
    input:
        model=lambda w: model_of(w.run),
        checkpoints=checkpoints("{run}"),
        dataset=f"{RESULTS}/data/{{queries}}.parquet",
    output:
        f"{RESULTS}/likelihoods/{{run}}/{{queries}}.parquet",
    log:
        f"{RESULTS}/logs/score_golden/{{run}}/{{queries}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/score_golden/{{run}}/{{queries}}.tsv"
    conda:
        "../envs/swift_study.yaml"
    threads: workflow.cores
    resources:
        gpu=gpus(1),
    params:
        model=lambda w: CONFIG.model_of(w.run).model_dump_json(),
        lora=lambda w: CONFIG.run(w.run).lora.model_dump_json(),
    shell:
        "exec python workflow/scripts/score_golden.py --gpus {resources.gpu} --run {wildcards.run} --threads {threads}"
        " --model {input.model:q} --model-settings {params.model:q} --lora {params.lora:q} --checkpoints {input.checkpoints:q}"
        " --dataset {input.dataset:q} --output {output:q} 2> {log:q}"
