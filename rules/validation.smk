# The proof: runs with and without a strategy's data, what they respond, and whether that is what the swift studies said.


rule validate:
    input:
        evaluation=dataset("questions"),
        leakage=f"{RESULTS}/data/leakage/validation.parquet",
        labels=lambda w: [entry["labels"] for entry in validated_runs()],
        likelihoods=lambda w: [entry["likelihoods"] for entry in validated_runs()],
        proxies=lambda w: [path for c in proxies().values() for path in c.values()],
        studies=lambda w: [s[t] for s in predicting().values() for t in SWIFT_TABLES],
        claims=V.claims,
    output:
        tables=[
            f"{RESULTS}/tables/{t}.{kind}"
            for t in validation_tables()
            for kind in ("parquet", "csv", "md")
        ],
        figures=report(
            [figure(name, "svg") for name in [*V.tables, "agreement"]],
            caption="../workflow/report/validation_figure.rst",
            category="8 Validation figures",
        ),
        png=[figure(name, "png") for name in [*V.tables, "agreement"]],
        page=report(
            f"{RESULTS}/pages/validation.html",
            caption="../workflow/report/validation.rst",
            category="7 Validation",
            labels={"page": "tables, claims, agreement"},
        ),
    log:
        f"{RESULTS}/logs/validate.log",
    benchmark:
        f"{RESULTS}/benchmarks/validate.tsv"
    conda:
        "../envs/swift_study.yaml"
    params:
        settings=settings(V),
        statistics=settings(CONFIG.statistics),
        runs=lambda w: as_json(validated_runs()),
        proxies=lambda w: as_json(proxies()),
        studies=lambda w: as_json(predicting()),
        tables=lambda w, output: str(Path(output.tables[0]).parent),
        figures=lambda w, output: str(Path(output.png[0]).parent),
    shell:
        "exec python workflow/scripts/validate.py --settings {params.settings:q} --statistics {params.statistics:q}"
        " --evaluation {input.evaluation:q} --runs {params.runs:q} --proxies {params.proxies:q} --studies {params.studies:q}"
        " --claims {input.claims:q} --tables {params.tables:q} --figures {params.figures:q} --page {output.page:q} 2> {log:q}"


rule write_audit:
    input:
        rows=[f"{RESULTS}/audit/{s}.parquet" for s in audited()],
        summary=[f"{RESULTS}/audit/{s}.summary.parquet" for s in audited()],
        confusion=[f"{RESULTS}/audit/{s}.confusion.parquet" for s in audited()],
    output:
        tables=[
            f"{RESULTS}/tables/{t}.{kind}"
            for t in TABLES["write_audit"]
            for kind in ("parquet", "csv", "md")
        ],
        page=report(
            f"{RESULTS}/pages/audit.html",
            caption="../workflow/report/audit.rst",
            category="7 Validation",
            labels={"page": "audit of the judge"},
        ),
    log:
        f"{RESULTS}/logs/write_audit.log",
    benchmark:
        f"{RESULTS}/benchmarks/write_audit.tsv"
    conda:
        "../envs/swift_study.yaml"
    params:
        tables=lambda w, output: str(Path(output.tables[0]).parent),
    shell:
        "exec python workflow/scripts/write_audit.py --rows {input.rows:q} --summary {input.summary:q} --confusion {input.confusion:q}"
        " --tables {params.tables:q} --page {output.page:q} 2> {log:q}"


rule describe_validation:
    input:
        datasets=[dataset(d) for d in ["questions", "base", *trained_datasets()]],
        rejects=[
            f"{RESULTS}/data/rejects/{d}.parquet"
            for d in ["questions", "base", *trained_datasets()]
        ],
        leakage=f"{RESULTS}/data/leakage/validation.parquet",
    output:
        tables=[
            f"{RESULTS}/tables/{t}.{kind}"
            for t in TABLES["describe_validation"]
            for kind in ("parquet", "csv", "md")
        ],
        page=report(
            f"{RESULTS}/pages/validation_data.html",
            caption="../workflow/report/data.rst",
            category="7 Validation",
            labels={"page": "datasets, rejects, leak check"},
        ),
    log:
        f"{RESULTS}/logs/describe_validation.log",
    benchmark:
        f"{RESULTS}/benchmarks/describe_validation.tsv"
    conda:
        "../envs/swift_study.yaml"
    params:
        tables=lambda w, output: str(Path(output.tables[0]).parent),
    shell:
        "exec python workflow/scripts/describe_validation.py --datasets {input.datasets:q} --rejects {input.rejects:q}"
        " --leakage {input.leakage:q} --tables {params.tables:q} --page {output.page:q} 2> {log:q}"


# Timings stand in the benchmark files, which are no inputs: to lose one makes nothing anew, and says less here.
rule write_costs:
    input:
        rules.validate.output.page,
        rules.write_audit.output.page,
        [
            f"{RESULTS}/influence/{study}/{table}.parquet"
            for study in predicting_studies()
            for table in ("verdicts", "confounds")
        ],
    output:
        tables=[
            f"{RESULTS}/tables/{t}.{kind}"
            for t in TABLES["write_costs"]
            for kind in ("parquet", "csv", "md")
        ],
        page=report(
            f"{RESULTS}/pages/costs.html",
            caption="../workflow/report/costs.rst",
            category="7 Validation",
            labels={"page": "what either way cost"},
        ),
    log:
        f"{RESULTS}/logs/write_costs.log",
    benchmark:
        f"{RESULTS}/benchmarks/write_costs.tsv"
    conda:
        "../envs/swift_study.yaml"
    params:
        ways=lambda w: as_json(ways()),
        tables=lambda w, output: str(Path(output.tables[0]).parent),
    shell:
        "exec python workflow/scripts/write_costs.py --ways {params.ways:q} --tables {params.tables:q} --page {output.page:q} 2> {log:q}"


rule validation:
    input:
        rules.validate.output,
        rules.write_audit.output,
        rules.describe_validation.output,
        rules.write_costs.output,
        # The swift half of the report as well, where the validation is laid beside it.
        rules.write_tables.output,
        [figures(s) for s in STUDIES],
    localrule: True
