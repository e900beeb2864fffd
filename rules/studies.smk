# Studies of scores: what they read is a table, their manifest; what they end in, tables, figures and a page.


localrules:
    write_manifest,
    list_costs,


# Its rows are the parameter, and the configuration, of which most keys change none of them, is none.
rule write_manifest:
    output:
        f"{RESULTS}/studies/{{study}}/manifest.parquet",
    log:
        f"{RESULTS}/logs/write_manifest/{{study}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/write_manifest/{{study}}.tsv"
    wildcard_constraints:
        study=of_kind("comparison", "sweep", "correlation"),
    conda:
        "../envs/swift_study.yaml"
    resources:
        config=lambda w: as_json(config),
    params:
        rows=lambda w: manifest.digest(manifest.table(entries(w.study))),
        studies=as_it_is(shipped("studies")),
    shell:
        f"exec python {SCRIPTS}/write_manifest.py"
        " --study {wildcards.study} --config {resources.config:q} --studies {params.studies:q} --output {output:q} 2> {log:q}"


rule compare:
    input:
        manifest=manifest_file("{study}"),
        scores=lambda w: score_files(w.study),
        leakage=f"{RESULTS}/data/leakage/{{study}}.parquet",
        claims=claims_of,
    output:
        tables=tables_of("comparison"),
        figure=report(
            f"{RESULTS}/studies/{{study}}/figure.svg",
            caption="../workflow/report/study_figure.rst",
            category="8 Figures of comparisons",
            labels={"study": "{study}"},
        ),
        png=f"{RESULTS}/studies/{{study}}/figure.png",
        page=report(
            f"{RESULTS}/studies/{{study}}/page.html",
            caption="../workflow/report/comparison.rst",
            category="7 Comparisons",
            labels={"study": "{study}"},
        ),
    log:
        f"{RESULTS}/logs/compare/{{study}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/compare/{{study}}.tsv"
    wildcard_constraints:
        study=of_kind("comparison"),
    conda:
        "../envs/swift_study.yaml"
    params:
        settings=study_settings,
        statistics=statistics_of,
        scorers=lambda w: scorer_files([w.study]),
        claims=lambda w, input: option("--claims", input.claims),
        folder=lambda w, output: str(Path(output.page).parent),
    shell:
        f"exec python {SCRIPTS}/{{rule}}.py"
        " --study {wildcards.study} --settings {params.settings:q} --statistics {params.statistics:q}"
        " --manifest {input.manifest:q} --scorers {params.scorers:q} {params.claims} --folder {params.folder:q} 2> {log:q}"


use rule compare as sweep with:
    output:
        tables=tables_of("sweep"),
        figure=report(
            f"{RESULTS}/studies/{{study}}/figure.svg",
            caption="../workflow/report/study_figure.rst",
            category="8 Figures of comparisons",
            labels={"study": "{study}"},
        ),
        png=f"{RESULTS}/studies/{{study}}/figure.png",
        page=report(
            f"{RESULTS}/studies/{{study}}/page.html",
            caption="../workflow/report/sweep.rst",
            category="7 Comparisons",
            labels={"study": "{study}"},
        ),
    log:
        f"{RESULTS}/logs/sweep/{{study}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/sweep/{{study}}.tsv"
    wildcard_constraints:
        study=of_kind("sweep"),


use rule compare as correlate with:
    output:
        tables=tables_of("correlation"),
        figure=report(
            f"{RESULTS}/studies/{{study}}/figure.svg",
            caption="../workflow/report/study_figure.rst",
            category="8 Figures of comparisons",
            labels={"study": "{study}"},
        ),
        png=f"{RESULTS}/studies/{{study}}/figure.png",
        page=report(
            f"{RESULTS}/studies/{{study}}/page.html",
            caption="../workflow/report/correlation.rst",
            category="7 Comparisons",
            labels={"study": "{study}"},
        ),
    log:
        f"{RESULTS}/logs/correlate/{{study}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/correlate/{{study}}.tsv"
    wildcard_constraints:
        study=of_kind("correlation"),


rule agree:
    input:
        sources=lambda w: [
            file
            for source in sources_of(w.study).values()
            for key, file in source.items()
            if key != "settings"
        ],
        scores=lambda w: [p for s in compared_by(w.study) for p in score_files(s)],
        leakage=lambda w: [
            f"{RESULTS}/data/leakage/{s}.parquet" for s in compared_by(w.study)
        ],
        tables=lambda w: CONFIG.studies[w.study].files(),
    output:
        tables=[path for path in tables_of("agreement") if Path(path).stem != "costs"],
        figure=report(
            f"{RESULTS}/studies/{{study}}/figure.svg",
            caption="../workflow/report/study_figure.rst",
            category="8 Figures of comparisons",
            labels={"study": "{study}"},
        ),
        png=f"{RESULTS}/studies/{{study}}/figure.png",
        page=report(
            f"{RESULTS}/studies/{{study}}/page.html",
            caption="../workflow/report/agreement.rst",
            category="7 Comparisons",
            labels={"study": "{study}"},
        ),
    log:
        f"{RESULTS}/logs/agree/{{study}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/agree/{{study}}.tsv"
    wildcard_constraints:
        study=of_kind("agreement"),
    conda:
        "../envs/swift_study.yaml"
    params:
        settings=study_settings,
        statistics=settings(CONFIG.statistics),
        sources=lambda w: as_json(sources_of(w.study)),
        scorers=lambda w: scorer_files(compared_by(w.study)),
        folder=lambda w, output: str(Path(output.page).parent),
    shell:
        f"exec python {SCRIPTS}/agree.py"
        " --study {wildcards.study} --settings {params.settings:q} --statistics {params.statistics:q}"
        " --sources {params.sources:q} --scorers {params.scorers:q} --folder {params.folder:q} 2> {log:q}"


rule hold_claims:
    input:
        pairs=f"{RESULTS}/studies/{{study}}/pairs.parquet",
        claims=claims_of,
    output:
        tables_of("influence"),
    log:
        f"{RESULTS}/logs/hold_claims/{{study}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/hold_claims/{{study}}.tsv"
    wildcard_constraints:
        study=of_kind("influence"),
    conda:
        "../envs/swift_study.yaml"
    params:
        settings=without_words,
        statistics=statistics_of,
        claims=lambda w, input: option("--claims", input.claims),
        folder=lambda w, output: str(Path(output[0]).parent),
    shell:
        f"exec python {SCRIPTS}/hold_claims.py"
        " --study {wildcards.study} --settings {params.settings:q}"
        " --statistics {params.statistics:q} --pairs {input.pairs:q} {params.claims} --folder {params.folder:q} 2> {log:q}"


rule describe_data:
    input:
        datasets=lambda w: files_of(described(w.study)),
        rejects=lambda w: reject_files(described(w.study)),
        lengths=lambda w: all_lengths(runs_of(w.study), evaluated(w.study)),
        leakage=f"{RESULTS}/data/leakage/{{study}}.parquet",
    output:
        tables=[
            f"{RESULTS}/studies/{{study}}/datasets.{kind}"
            for kind in ("parquet", "csv", "md")
        ],
        page=report(
            f"{RESULTS}/studies/{{study}}/data.html",
            caption="../workflow/report/data.rst",
            category="7 Comparisons",
            labels={"study": "{study}", "page": "data"},
        ),
    log:
        f"{RESULTS}/logs/describe_data/{{study}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/describe_data/{{study}}.tsv"
    wildcard_constraints:
        study=of_kind("comparison", "sweep", "correlation"),
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
        rows=lambda w: audits(w.study, "rows"),
        summary=lambda w: audits(w.study, "summary"),
        confusion=lambda w: audits(w.study, "confusion"),
    output:
        tables=tables_of("audit"),
        page=report(
            f"{RESULTS}/studies/{{study}}/page.html",
            caption="../workflow/report/audit.rst",
            category="7 Comparisons",
            labels={"study": "{study}", "page": "audit of the scorers"},
        ),
    log:
        f"{RESULTS}/logs/write_audit/{{study}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/write_audit/{{study}}.tsv"
    wildcard_constraints:
        study=of_kind("audit"),
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
        f"{RESULTS}/studies/{{study}}/ways.json",
    log:
        f"{RESULTS}/logs/list_costs/{{study}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/list_costs/{{study}}.tsv"
    wildcard_constraints:
        study=of_kind("agreement"),
    conda:
        "../envs/swift_study.yaml"
    resources:
        config=lambda w: as_json(config),
    params:
        files=lambda w: costs.digest(costs.ways(CONFIG, w.study)),
        studies=as_it_is(shipped("studies")),
    shell:
        f"exec python {SCRIPTS}/list_costs.py"
        " --study {wildcards.study} --config {resources.config:q} --studies {params.studies:q} --output {output:q} 2> {log:q}"


rule count_costs:
    input:
        rules.agree.output.page,
        ways=f"{RESULTS}/studies/{{study}}/ways.json",
        confounds=lambda w: [
            f"{RESULTS}/studies/{s}/confounds.parquet"
            for s in sources_of(w.study)
            if s in CONFIG.influence
        ],
    output:
        tables=[path for path in tables_of("agreement") if Path(path).stem == "costs"],
        page=report(
            f"{RESULTS}/studies/{{study}}/costs.html",
            caption="../workflow/report/costs.rst",
            category="7 Comparisons",
            labels={"study": "{study}", "page": "what either way cost"},
        ),
    log:
        f"{RESULTS}/logs/count_costs/{{study}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/count_costs/{{study}}.tsv"
    wildcard_constraints:
        study=of_kind("agreement"),
    conda:
        "../envs/swift_study.yaml"
    params:
        folder=lambda w, output: str(Path(output.page).parent),
    shell:
        f"exec python {SCRIPTS}/count_costs.py"
        " --ways {input.ways:q} --folder {params.folder:q} 2> {log:q}"
