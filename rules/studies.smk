# Studies of scores: what they read is a table, their manifest; what they end in, tables, figures and a page.


localrules:
    write_manifest,
    list_costs,


# Its rows are the parameter, and the configuration, of which most keys change none of them, is none.
rule write_manifest:
    output:
        "<results>/studies/{study}/manifest.parquet",
    log:
        "<logs>/write_manifest/{study}.log",
    benchmark:
        "<benchmarks>/write_manifest/{study}.tsv"
    wildcard_constraints:
        study=GRAPH.of_kind("comparison", "sweep", "correlation"),
    conda:
        "../envs/swift_study.yaml"
    resources:
        config=lambda w: argument(config),
    params:
        rows=lambda w: manifest.digest(manifest.table(GRAPH.entries(w.study))),
        studies=as_it_is(shipped("studies")),
    shell:
        f"exec python {SCRIPTS}/write_manifest.py"
        " --study {wildcards.study} --config {resources.config:q} --studies {params.studies:q} --output {output:q} 2> {log:q}"


SCRIPT = {"comparison": "compare", "sweep": "sweep", "correlation": "correlate"}


rule compare:
    input:
        manifest="<results>/studies/{study}/manifest.parquet",
        scores=lambda w: GRAPH.score_files(w.study),
        leakage="<results>/data/leakage/{study}.parquet",
        claims=lambda w: GRAPH.claims(w.study),
    output:
        tables=expand(
            "<results>/studies/{{study}}/{table}.{format}",
            table=TABLES["comparison"],
            format=FORMATS,
        ),
        figure=report(
            "<results>/studies/{study}/figure.svg",
            caption="../workflow/report/study_figure.rst",
            category="8 Figures of comparisons",
            labels={"study": "{study}"},
        ),
        png="<results>/studies/{study}/figure.png",
        page=report(
            "<results>/studies/{study}/page.html",
            caption="../workflow/report/comparison.rst",
            category="7 Comparisons",
            labels={"study": "{study}"},
        ),
    log:
        "<logs>/compare/{study}.log",
    benchmark:
        "<benchmarks>/compare/{study}.tsv"
    wildcard_constraints:
        study=GRAPH.of_kind("comparison"),
    conda:
        "../envs/swift_study.yaml"
    params:
        script=lambda w: SCRIPT[CONFIG.studies[w.study].kind],
        settings=lambda w: settings(
            study=GRAPH.told(w.study),
            statistics=GRAPH.statistics(w.study),
            scorers=GRAPH.scorer_files([w.study]),
        ),
        claims=lambda w, input: option("--claims", input.claims),
        folder=lambda w, output: str(Path(output.page).parent),
    shell:
        f"exec python {SCRIPTS}/{{params.script}}.py"
        " --study {wildcards.study} --settings {params.settings:q}"
        " --manifest {input.manifest:q} {params.claims} --folder {params.folder:q} 2> {log:q}"


use rule compare as sweep with:
    output:
        tables=expand(
            "<results>/studies/{{study}}/{table}.{format}",
            table=TABLES["sweep"],
            format=FORMATS,
        ),
        figure=report(
            "<results>/studies/{study}/figure.svg",
            caption="../workflow/report/study_figure.rst",
            category="8 Figures of comparisons",
            labels={"study": "{study}"},
        ),
        png="<results>/studies/{study}/figure.png",
        page=report(
            "<results>/studies/{study}/page.html",
            caption="../workflow/report/sweep.rst",
            category="7 Comparisons",
            labels={"study": "{study}"},
        ),
    log:
        "<logs>/sweep/{study}.log",
    benchmark:
        "<benchmarks>/sweep/{study}.tsv"
    wildcard_constraints:
        study=GRAPH.of_kind("sweep"),


use rule compare as correlate with:
    output:
        tables=expand(
            "<results>/studies/{{study}}/{table}.{format}",
            table=TABLES["correlation"],
            format=FORMATS,
        ),
        figure=report(
            "<results>/studies/{study}/figure.svg",
            caption="../workflow/report/study_figure.rst",
            category="8 Figures of comparisons",
            labels={"study": "{study}"},
        ),
        png="<results>/studies/{study}/figure.png",
        page=report(
            "<results>/studies/{study}/page.html",
            caption="../workflow/report/correlation.rst",
            category="7 Comparisons",
            labels={"study": "{study}"},
        ),
    log:
        "<logs>/correlate/{study}.log",
    benchmark:
        "<benchmarks>/correlate/{study}.tsv"
    wildcard_constraints:
        study=GRAPH.of_kind("correlation"),


rule agree:
    input:
        sources=lambda w: GRAPH.source_files(w.study),
        scores=lambda w: [
            p for s in GRAPH.comparisons(w.study) for p in GRAPH.score_files(s)
        ],
        leakage=lambda w: map(FILES.leakage, GRAPH.comparisons(w.study)),
        tables=lambda w: GRAPH.agreement(w.study).files(),
    output:
        tables=expand(
            "<results>/studies/{{study}}/{table}.{format}",
            table=[t for t in TABLES["agreement"] if t != "costs"],
            format=FORMATS,
        ),
        figure=report(
            "<results>/studies/{study}/figure.svg",
            caption="../workflow/report/study_figure.rst",
            category="8 Figures of comparisons",
            labels={"study": "{study}"},
        ),
        png="<results>/studies/{study}/figure.png",
        page=report(
            "<results>/studies/{study}/page.html",
            caption="../workflow/report/agreement.rst",
            category="7 Comparisons",
            labels={"study": "{study}"},
        ),
    log:
        "<logs>/agree/{study}.log",
    benchmark:
        "<benchmarks>/agree/{study}.tsv"
    wildcard_constraints:
        study=GRAPH.of_kind("agreement"),
    conda:
        "../envs/swift_study.yaml"
    params:
        settings=lambda w: settings(
            study=GRAPH.told(w.study),
            statistics=CONFIG.statistics,
            scorers=GRAPH.scorer_files(GRAPH.comparisons(w.study)),
            sources=GRAPH.sources(w.study),
        ),
        folder=lambda w, output: str(Path(output.page).parent),
    shell:
        f"exec python {SCRIPTS}/agree.py"
        " --study {wildcards.study} --settings {params.settings:q}"
        " --folder {params.folder:q} 2> {log:q}"


rule hold_claims:
    input:
        pairs="<results>/studies/{study}/pairs.parquet",
        claims=lambda w: GRAPH.claims(w.study),
    output:
        expand(
            "<results>/studies/{{study}}/{table}.{format}",
            table=TABLES["influence"],
            format=FORMATS,
        ),
    log:
        "<logs>/hold_claims/{study}.log",
    benchmark:
        "<benchmarks>/hold_claims/{study}.tsv"
    wildcard_constraints:
        study=GRAPH.of_kind("influence"),
    conda:
        "../envs/swift_study.yaml"
    params:
        settings=lambda w: settings(
            study=GRAPH.told_without_words(w.study),
            statistics=GRAPH.statistics(w.study),
        ),
        claims=lambda w, input: option("--claims", input.claims),
        folder=lambda w, output: str(Path(output[0]).parent),
    shell:
        f"exec python {SCRIPTS}/hold_claims.py"
        " --study {wildcards.study} --settings {params.settings:q}"
        " --pairs {input.pairs:q} {params.claims} --folder {params.folder:q} 2> {log:q}"


rule describe_data:
    input:
        datasets=lambda w: FILES.datasets(GRAPH.described(w.study)),
        rejects=lambda w: GRAPH.rejects(GRAPH.described(w.study)),
        lengths=lambda w: GRAPH.lengths_shown(
            GRAPH.runs_of(w.study), GRAPH.evaluated(w.study)
        ),
        leakage="<results>/data/leakage/{study}.parquet",
    output:
        tables=expand("<results>/studies/{{study}}/datasets.{format}", format=FORMATS),
        page=report(
            "<results>/studies/{study}/data.html",
            caption="../workflow/report/data.rst",
            category="7 Comparisons",
            labels={"study": "{study}", "page": "data"},
        ),
    log:
        "<logs>/describe_data/{study}.log",
    benchmark:
        "<benchmarks>/describe_data/{study}.tsv"
    wildcard_constraints:
        study=GRAPH.of_kind("comparison", "sweep", "correlation"),
    conda:
        "../envs/swift_study.yaml"
    params:
        folder=lambda w, output: str(Path(output.page).parent),
    shell:
        f"exec python {SCRIPTS}/describe_data.py"
        " --study {wildcards.study} --datasets {input.datasets:q} --rejects {input.rejects:q}"
        " --leakage {input.leakage:q} --lengths {input.lengths:q} --folder {params.folder:q} 2> {log:q}"


rule write_audit:
    input:
        rows=lambda w: GRAPH.audit_tables(w.study, "rows"),
        summary=lambda w: GRAPH.audit_tables(w.study, "summary"),
        confusion=lambda w: GRAPH.audit_tables(w.study, "confusion"),
    output:
        tables=expand(
            "<results>/studies/{{study}}/{table}.{format}",
            table=TABLES["audit"],
            format=FORMATS,
        ),
        page=report(
            "<results>/studies/{study}/page.html",
            caption="../workflow/report/audit.rst",
            category="7 Comparisons",
            labels={"study": "{study}", "page": "audit of the scorers"},
        ),
    log:
        "<logs>/write_audit/{study}.log",
    benchmark:
        "<benchmarks>/write_audit/{study}.tsv"
    wildcard_constraints:
        study=GRAPH.of_kind("audit"),
    conda:
        "../envs/swift_study.yaml"
    params:
        folder=lambda w, output: str(Path(output.page).parent),
    shell:
        f"exec python {SCRIPTS}/write_audit.py"
        " --rows {input.rows:q} --summary {input.summary:q} --confusion {input.confusion:q}"
        " --folder {params.folder:q} 2> {log:q}"


# Timings stand in the benchmark files, which are no inputs: to lose one makes nothing anew, and says less here.
rule list_costs:
    output:
        "<results>/studies/{study}/ways.json",
    log:
        "<logs>/list_costs/{study}.log",
    benchmark:
        "<benchmarks>/list_costs/{study}.tsv"
    wildcard_constraints:
        study=GRAPH.of_kind("agreement"),
    conda:
        "../envs/swift_study.yaml"
    resources:
        config=lambda w: argument(config),
    params:
        files=lambda w: costs.digest(costs.ways(GRAPH, w.study)),
        studies=as_it_is(shipped("studies")),
    shell:
        f"exec python {SCRIPTS}/list_costs.py"
        " --study {wildcards.study} --config {resources.config:q} --studies {params.studies:q} --output {output:q} 2> {log:q}"


rule count_costs:
    input:
        rules.agree.output.page,
        ways="<results>/studies/{study}/ways.json",
        confounds=lambda w: [
            FILES.study(s, "confounds.parquet")
            for s in GRAPH.sources(w.study)
            if s in CONFIG.influence
        ],
    output:
        tables=expand("<results>/studies/{{study}}/costs.{format}", format=FORMATS),
        page=report(
            "<results>/studies/{study}/costs.html",
            caption="../workflow/report/costs.rst",
            category="7 Comparisons",
            labels={"study": "{study}", "page": "what either way cost"},
        ),
    log:
        "<logs>/count_costs/{study}.log",
    benchmark:
        "<benchmarks>/count_costs/{study}.tsv"
    wildcard_constraints:
        study=GRAPH.of_kind("agreement"),
    conda:
        "../envs/swift_study.yaml"
    params:
        folder=lambda w, output: str(Path(output.page).parent),
    shell:
        f"exec python {SCRIPTS}/count_costs.py"
        " --ways {input.ways:q} --folder {params.folder:q} 2> {log:q}"
