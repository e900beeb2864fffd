# What runs respond to queries, and what scorers make of it.

RESPONSES = f"{RESULTS}/responses/{{run}}/evaluation={{evaluation}}/responses.parquet"
SCORES = f"{RESULTS}/scores/{{run}}/evaluation={{evaluation}}/scorer={{scorer}}"


rule respond:
    input:
        model=lambda w: model_of(w.run),
        checkpoints=checkpoints("{run}"),
        dataset=f"{RESULTS}/data/{{evaluation}}.parquet",
    output:
        RESPONSES,
    log:
        f"{RESULTS}/logs/respond/{{run}}/{{evaluation}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/respond/{{run}}/{{evaluation}}.tsv"
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
        work=lambda w: f"{RESULTS}/work/respond/{w.run}/{w.evaluation}",
        cache=CONFIG.cache,
    shell:
        "exec python workflow/scripts/respond.py --gpus {resources.gpu} --run {wildcards.run} --settings {params.settings:q} --limits {resources.limits:q} --threads {threads}"
        " --model {input.model:q} --model-settings {params.model:q} --lora {params.lora:q} --checkpoints {input.checkpoints:q}"
        " --dataset {input.dataset:q} --work {params.work:q} --cache {params.cache:q} --output {output:q} 2> {log:q}"


# A score is made by one of three rules, by what its scorer needs: nothing but the response, a model, or an endpoint.


rule score:
    input:
        scorer=lambda w: scorer_file(w.scorer),
        dataset=f"{RESULTS}/data/{{evaluation}}.parquet",
        responses=RESPONSES,
    output:
        scores=f"{SCORES}/scores.parquet",
        rows=f"{SCORES}/items.parquet",
    log:
        f"{RESULTS}/logs/score/{{run}}/{{evaluation}}/{{scorer}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/score/{{run}}/{{evaluation}}/{{scorer}}.tsv"
    wildcard_constraints:
        scorer=scorers_that_need(None),
    conda:
        "../envs/swift_study.yaml"
    params:
        settings=lambda w: scoring(w.scorer),
        folder=lambda w, output: str(Path(output.scores).parent),
    shell:
        "exec python workflow/scripts/score.py --name '{wildcards.run} {wildcards.evaluation} {wildcards.scorer}'"
        " --scorer {input.scorer:q} --settings {params.settings:q} --dataset {input.dataset:q} --responses {input.responses:q}"
        " --output {params.folder:q} 2> {log:q}"


rule score_with_model:
    input:
        scorer=lambda w: scorer_file(w.scorer),
        model=lambda w: model_of(w.run),
        checkpoints=checkpoints("{run}"),
        dataset=f"{RESULTS}/data/{{evaluation}}.parquet",
        responses=lambda w: scored_responses(w),
    output:
        scores=f"{SCORES}/scores.parquet",
        rows=f"{SCORES}/items.parquet",
    log:
        f"{RESULTS}/logs/score_with_model/{{run}}/{{evaluation}}/{{scorer}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/score_with_model/{{run}}/{{evaluation}}/{{scorer}}.tsv"
    wildcard_constraints:
        scorer=scorers_that_need("model"),
    conda:
        "../envs/swift_study.yaml"
    threads: workflow.cores
    resources:
        gpu=gpus(1),
    params:
        settings=lambda w: scoring(w.scorer),
        model=lambda w: CONFIG.model_of(w.run).model_dump_json(),
        lora=lambda w: CONFIG.run(w.run).lora.model_dump_json(),
        responses=lambda w, input: option("--responses", input.responses),
        folder=lambda w, output: str(Path(output.scores).parent),
    shell:
        "exec python workflow/scripts/score_with_model.py --gpus {resources.gpu} --threads {threads}"
        " --name '{wildcards.run} {wildcards.evaluation} {wildcards.scorer}'"
        " --scorer {input.scorer:q} --settings {params.settings:q} --model {input.model:q} --model-settings {params.model:q}"
        " --lora {params.lora:q} --checkpoints {input.checkpoints:q} --dataset {input.dataset:q} {params.responses}"
        " --output {params.folder:q} 2> {log:q}"


rule score_with_endpoint:
    input:
        scorer=lambda w: scorer_file(w.scorer),
        instructions=lambda w: instructions(w.scorer),
        dataset=f"{RESULTS}/data/{{evaluation}}.parquet",
        responses=RESPONSES,
    output:
        scores=f"{SCORES}/scores.parquet",
        rows=f"{SCORES}/items.parquet",
        account=f"{SCORES}/account.parquet",
    log:
        f"{RESULTS}/logs/score_with_endpoint/{{run}}/{{evaluation}}/{{scorer}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/score_with_endpoint/{{run}}/{{evaluation}}/{{scorer}}.tsv"
    wildcard_constraints:
        scorer=scorers_that_need("endpoint"),
    localrule: at_submit_host(True)
    conda:
        "../envs/swift_study.yaml"
    resources:
        limits=lambda w: scoring(w.scorer, affects_scores=False),
    params:
        settings=lambda w: scoring(w.scorer),
        instructions=lambda w, input: option("--instructions", input.instructions),
        cache=CONFIG.cache,
        folder=lambda w, output: str(Path(output.scores).parent),
    shell:
        "exec python workflow/scripts/score_with_endpoint.py --name '{wildcards.run} {wildcards.evaluation} {wildcards.scorer}'"
        " --scorer {input.scorer:q} --settings {params.settings:q} --limits {resources.limits:q} {params.instructions}"
        " --cache {params.cache:q} --dataset {input.dataset:q} --responses {input.responses:q}"
        " --output {params.folder:q} 2> {log:q}"


# The audit asks where the scorer does: those that ask an endpoint at the submit host.


rule audit_scorer:
    input:
        scorer=lambda w: scorer_file(w.scorer),
        dataset=lambda w: dataset(CONFIG.studies[w.study].evaluation),
        labels=lambda w: CONFIG.studies[w.study].settings.labels or [],
    output:
        rows=f"{RESULTS}/studies/{{study}}/audit/{{scorer}}.parquet",
        summary=f"{RESULTS}/studies/{{study}}/audit/{{scorer}}.summary.parquet",
        confusion=f"{RESULTS}/studies/{{study}}/audit/{{scorer}}.confusion.parquet",
        account=f"{RESULTS}/studies/{{study}}/audit/{{scorer}}.account.parquet",
    log:
        f"{RESULTS}/logs/audit_scorer/{{study}}/{{scorer}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/audit_scorer/{{study}}/{{scorer}}.tsv"
    wildcard_constraints:
        study=of_kind("audit"),
        scorer=scorers_that_need(None),
    conda:
        "../envs/swift_study.yaml"
    params:
        settings=lambda w: CONFIG.studies[w.study].settings.model_dump_json(),
        scoring=lambda w: scoring(w.scorer),
        seed=CONFIG.statistics.seed,
    shell:
        "exec python workflow/scripts/audit_scorer.py --scorer {input.scorer:q} --scoring {params.scoring:q} --settings {params.settings:q}"
        " --seed {params.seed} --dataset {input.dataset:q} --rows {output.rows:q} --summary {output.summary:q}"
        " --confusion {output.confusion:q} --account {output.account:q} 2> {log:q}"


use rule audit_scorer as audit_scorer_with_endpoint with:
    input:
        scorer=lambda w: scorer_file(w.scorer),
        dataset=lambda w: dataset(CONFIG.studies[w.study].evaluation),
        labels=lambda w: CONFIG.studies[w.study].settings.labels or [],
        instructions=lambda w: instructions(w.scorer),
    log:
        f"{RESULTS}/logs/audit_scorer_with_endpoint/{{study}}/{{scorer}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/audit_scorer_with_endpoint/{{study}}/{{scorer}}.tsv"
    wildcard_constraints:
        study=of_kind("audit"),
        scorer=scorers_that_need("endpoint"),
    localrule: at_submit_host(True)
