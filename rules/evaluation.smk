# What runs respond to queries, and what scorers make of it.

RESPONSES = "<results>/responses/{run}/evaluation={evaluation}/responses.parquet"


# Responses are made by one of three rules, by what the evaluation says: by the run's checkpoint, by an endpoint, or read from a file.


rule respond:
    input:
        model=lambda w: GRAPH.model_file(w.run),
        checkpoints="<results>/runs/{run}/checkpoints",
        dataset=lambda w: GRAPH.asked(w.evaluation, w.run),
        lengths=lambda w: GRAPH.lengths_asked(w.evaluation, w.run),
        shots=lambda w: GRAPH.shots(w.evaluation, w.run),
    output:
        RESPONSES,
    log:
        "<logs>/respond/{run}/{evaluation}.log",
    benchmark:
        "<benchmarks>/respond/{run}/{evaluation}.tsv"
    wildcard_constraints:
        evaluation=GRAPH.evaluations_by("checkpoint"),
    conda:
        "../envs/swift_study.yaml"
    threads: workflow.cores
    resources:
        gpu=GRAPH.gpus(1),
        # How fast responses come changes none.
        limits=lambda w: limits(responding=GRAPH.responding(w.evaluation, w.run)),
    params:
        settings=lambda w: settings(
            responding=GRAPH.responding(w.evaluation, w.run),
            model=CONFIG.model_of(w.run),
            lora=CONFIG.run(w.run).lora,
        ),
        shots=lambda w, input: option("--shots", input.shots),
        work=lambda w: FILES.work("respond", f"{w.run}/{w.evaluation}"),
        cache=CONFIG.cache,
    shell:
        f"exec python {SCRIPTS}/respond.py"
        " --gpus {resources.gpu} --threads {threads} --run {wildcards.run:q}"
        " --name '{wildcards.run} {wildcards.evaluation}' --settings {params.settings:q} --limits {resources.limits:q}"
        " --model {input.model:q} --checkpoints {input.checkpoints:q}"
        " --dataset {input.dataset:q} {params.shots} --work {params.work:q} --cache {params.cache:q} --output {output:q} 2> {log:q}"


rule respond_with_endpoint:
    input:
        # A server that is told the run's name serves its checkpoint.
        checkpoints=lambda w: GRAPH.served(w.evaluation, w.run),
        dataset=lambda w: GRAPH.asked(w.evaluation, w.run),
        shots=lambda w: GRAPH.shots(w.evaluation, w.run),
    output:
        RESPONSES,
    log:
        "<logs>/respond_with_endpoint/{run}/{evaluation}.log",
    benchmark:
        "<benchmarks>/respond_with_endpoint/{run}/{evaluation}.tsv"
    wildcard_constraints:
        evaluation=GRAPH.evaluations_by("endpoint"),
    localrule: at_submit_host(True)
    conda:
        "../envs/swift_study.yaml"
    resources:
        limits=lambda w: limits(responding=GRAPH.responding(w.evaluation, w.run)),
    params:
        settings=lambda w: settings(
            responding=GRAPH.responding(w.evaluation, w.run),
            model=CONFIG.model_of(w.run),
            lora=CONFIG.run(w.run).lora,
        ),
        shots=lambda w, input: option("--shots", input.shots),
        cache=CONFIG.cache,
    shell:
        f"exec python {SCRIPTS}/respond.py"
        " --gpus 0 --run {wildcards.run:q}"
        " --name '{wildcards.run} {wildcards.evaluation}' --settings {params.settings:q} --limits {resources.limits:q}"
        " --dataset {input.dataset:q} {params.shots}"
        " --cache {params.cache:q} --output {output:q} 2> {log:q}"


rule read_responses:
    input:
        file=lambda w: CONFIG.evaluation(w.evaluation, w.run).responses,
        dataset=lambda w: GRAPH.asked(w.evaluation, w.run),
    output:
        RESPONSES,
    log:
        "<logs>/read_responses/{run}/{evaluation}.log",
    benchmark:
        "<benchmarks>/read_responses/{run}/{evaluation}.tsv"
    wildcard_constraints:
        evaluation=GRAPH.evaluations_by("file"),
    conda:
        "../envs/swift_study.yaml"
    shell:
        f"exec python {SCRIPTS}/read_responses.py"
        " --name '{wildcards.run} {wildcards.evaluation}' --file {input.file:q}"
        " --dataset {input.dataset:q} --output {output:q} 2> {log:q}"


# A score is made by one of three rules, by what its scorer needs: nothing but the response, a model, or an endpoint.


rule score:
    input:
        scorer=lambda w: GRAPH.scorer_file(w.scorer),
        dataset=lambda w: GRAPH.asked(w.evaluation, w.run),
        responses=RESPONSES,
        opponents=lambda w: GRAPH.opponents(w.scorer, w.evaluation, w.run),
        design=lambda w: GRAPH.design_read(w.scorer, w.evaluation, w.run),
    output:
        scores="<results>/scores/{run}/evaluation={evaluation}/scorer={scorer}/scores.parquet",
        rows="<results>/scores/{run}/evaluation={evaluation}/scorer={scorer}/items.parquet",
    log:
        "<logs>/score/{run}/{evaluation}/{scorer}.log",
    benchmark:
        "<benchmarks>/score/{run}/{evaluation}/{scorer}.tsv"
    wildcard_constraints:
        scorer=GRAPH.scorers_that_need(None),
    conda:
        "../envs/swift_study.yaml"
    params:
        settings=lambda w: settings(
            scoring=GRAPH.scoring(w.scorer, w.evaluation, w.run)
        ),
        opponents=lambda w, input: option("--opponents", input.opponents),
        design=lambda w, input: option("--design", input.design),
        folder=lambda w, output: str(Path(output.scores).parent),
    shell:
        f"exec python {SCRIPTS}/score.py"
        " --name '{wildcards.run} {wildcards.evaluation} {wildcards.scorer}'"
        " --scorer {input.scorer:q} --settings {params.settings:q} --dataset {input.dataset:q} --responses {input.responses:q}"
        " {params.opponents} {params.design} --output {params.folder:q} 2> {log:q}"


rule score_with_model:
    input:
        scorer=lambda w: GRAPH.scorer_file(w.scorer),
        model=lambda w: GRAPH.model_file(w.run),
        checkpoints="<results>/runs/{run}/checkpoints",
        dataset=lambda w: GRAPH.asked(w.evaluation, w.run),
        lengths=lambda w: GRAPH.lengths_asked(w.evaluation, w.run),
        responses=lambda w: GRAPH.responses_read(w.scorer, w.evaluation, w.run),
        shots=lambda w: GRAPH.shots(w.evaluation, w.run),
        design=lambda w: GRAPH.design_read(w.scorer, w.evaluation, w.run),
    output:
        scores="<results>/scores/{run}/evaluation={evaluation}/scorer={scorer}/scores.parquet",
        rows="<results>/scores/{run}/evaluation={evaluation}/scorer={scorer}/items.parquet",
    log:
        "<logs>/score_with_model/{run}/{evaluation}/{scorer}.log",
    benchmark:
        "<benchmarks>/score_with_model/{run}/{evaluation}/{scorer}.tsv"
    wildcard_constraints:
        scorer=GRAPH.scorers_that_need("model"),
    conda:
        "../envs/swift_study.yaml"
    threads: workflow.cores
    resources:
        gpu=GRAPH.gpus(1),
    params:
        settings=lambda w: settings(
            scoring=GRAPH.scoring(w.scorer, w.evaluation, w.run),
            model=CONFIG.model_of(w.run),
            lora=CONFIG.run(w.run).lora,
        ),
        responses=lambda w, input: option("--responses", input.responses),
        shots=lambda w, input: option("--shots", input.shots),
        design=lambda w, input: option("--design", input.design),
        folder=lambda w, output: str(Path(output.scores).parent),
    shell:
        f"exec python {SCRIPTS}/score_with_model.py"
        " --gpus {resources.gpu} --threads {threads}"
        " --name '{wildcards.run} {wildcards.evaluation} {wildcards.scorer}'"
        " --scorer {input.scorer:q} --settings {params.settings:q} --model {input.model:q}"
        " --checkpoints {input.checkpoints:q} --dataset {input.dataset:q} {params.responses} {params.shots}"
        " {params.design} --output {params.folder:q} 2> {log:q}"


rule score_with_endpoint:
    input:
        scorer=lambda w: GRAPH.scorer_file(w.scorer),
        instructions=lambda w: GRAPH.instructions(w.scorer),
        dataset=lambda w: GRAPH.asked(w.evaluation, w.run),
        responses=RESPONSES,
        opponents=lambda w: GRAPH.opponents(w.scorer, w.evaluation, w.run),
        design=lambda w: GRAPH.design_read(w.scorer, w.evaluation, w.run),
    output:
        scores="<results>/scores/{run}/evaluation={evaluation}/scorer={scorer}/scores.parquet",
        rows="<results>/scores/{run}/evaluation={evaluation}/scorer={scorer}/items.parquet",
        account="<results>/scores/{run}/evaluation={evaluation}/scorer={scorer}/account.parquet",
    log:
        "<logs>/score_with_endpoint/{run}/{evaluation}/{scorer}.log",
    benchmark:
        "<benchmarks>/score_with_endpoint/{run}/{evaluation}/{scorer}.tsv"
    wildcard_constraints:
        scorer=GRAPH.scorers_that_need("endpoint"),
    localrule: at_submit_host(True)
    conda:
        "../envs/swift_study.yaml"
    resources:
        limits=lambda w: limits(scoring=GRAPH.scoring(w.scorer, w.evaluation, w.run)),
    params:
        settings=lambda w: settings(
            scoring=GRAPH.scoring(w.scorer, w.evaluation, w.run)
        ),
        instructions=lambda w, input: option("--instructions", input.instructions),
        opponents=lambda w, input: option("--opponents", input.opponents),
        cache=CONFIG.cache,
        design=lambda w, input: option("--design", input.design),
        folder=lambda w, output: str(Path(output.scores).parent),
    shell:
        f"exec python {SCRIPTS}/score_with_endpoint.py"
        " --name '{wildcards.run} {wildcards.evaluation} {wildcards.scorer}'"
        " --scorer {input.scorer:q} --settings {params.settings:q} --limits {resources.limits:q} {params.instructions}"
        " --cache {params.cache:q} --dataset {input.dataset:q} --responses {input.responses:q}"
        " {params.opponents} {params.design} --output {params.folder:q} 2> {log:q}"


# The audit of a scorer that labels, where the scorer itself works: those that ask an endpoint at the submit host.

AUDIT = "<results>/studies/{study}/audit/scorer={scorer}"


rule audit_scorer:
    input:
        scorer=lambda w: GRAPH.scorer_file(w.scorer),
        dataset=lambda w: GRAPH.audited(w.study),
        design=lambda w: GRAPH.audited_design(w.study),
        labels=lambda w: CONFIG.studies[w.study].settings.labels or [],
        instructions=lambda w: GRAPH.instructions(w.scorer),
    output:
        rows=f"{AUDIT}/rows.parquet",
        summary=f"{AUDIT}/summary.parquet",
        confusion=f"{AUDIT}/confusion.parquet",
        account=f"{AUDIT}/account.parquet",
    log:
        "<logs>/audit_scorer/{study}/{scorer}.log",
    benchmark:
        "<benchmarks>/audit_scorer/{study}/{scorer}.tsv"
    wildcard_constraints:
        study=GRAPH.of_kind("audit"),
        scorer=GRAPH.scorers_that_need(None, "model"),  # a model: told that it cannot be
    conda:
        "../envs/swift_study.yaml"
    resources:
        limits=lambda w: limits(scoring=GRAPH.auditing(w.study, w.scorer)),
    params:
        settings=lambda w: settings(
            audit=GRAPH.audit(w.study).settings,
            scoring=GRAPH.auditing(w.study, w.scorer),
            seed=CONFIG.statistics.seed,
        ),
        design=lambda w, input: option("--design", input.design),
        instructions=lambda w, input: option("--instructions", input.instructions),
        cache=CONFIG.cache,
    shell:
        f"exec python {SCRIPTS}/audit_scorer.py"
        " --scorer {input.scorer:q} --settings {params.settings:q} --limits {resources.limits:q}"
        " {params.instructions} {params.design} --cache {params.cache:q} --dataset {input.dataset:q}"
        " --rows {output.rows:q} --summary {output.summary:q} --confusion {output.confusion:q} --account {output.account:q} 2> {log:q}"


use rule audit_scorer as audit_scorer_with_endpoint with:
    log:
        "<logs>/audit_scorer_with_endpoint/{study}/{scorer}.log",
    benchmark:
        "<benchmarks>/audit_scorer_with_endpoint/{study}/{scorer}.tsv"
    wildcard_constraints:
        study=GRAPH.of_kind("audit"),
        scorer=GRAPH.scorers_that_need("endpoint"),
    localrule: at_submit_host(True)
