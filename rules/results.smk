# What people read: figures, tables and the report's pages.


localrules:
    write_config,


rule write_config:
    output:
        f"{RESULTS}/config.yaml",
    log:
        f"{RESULTS}/logs/write_config.log",
    benchmark:
        f"{RESULTS}/benchmarks/write_config.tsv"
    conda:
        "../envs/swift_study.yaml"
    params:
        config=lambda w: as_json(config),
    shell:
        f"exec python {SCRIPTS}/write_config.py"
        " --config {params.config:q} --output {output:q} 2> {log:q}"


rule figures:
    input:
        curves=f"{RESULTS}/studies/{{study}}/curves.parquet",
        layers=f"{RESULTS}/studies/{{study}}/layers.parquet",
    output:
        report(
            directory(figures("{study}")),
            patterns=["{figure}.svg"],
            caption="../workflow/report/figure.rst",
            category="2 Figures",
            labels={"study": "{study}", "figure": "{figure}"},
        ),
    log:
        f"{RESULTS}/logs/figures/{{study}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/figures/{{study}}.tsv"
    conda:
        "../envs/swift_study.yaml"
    params:
        figures=lambda w: json.dumps(CONFIG.studies[w.study].figures),
        title=lambda w: CONFIG.studies[w.study].caption
        or CONFIG.studies[w.study].question,
        statistics=statistics_of,
        control=lambda w: CONFIG.studies[w.study].control,
        unit=lambda w: CONFIG.studies[w.study].unit,
    shell:
        f"exec python {SCRIPTS}/draw_figures.py"
        " --curves {input.curves:q} --layers {input.layers:q} --figures {params.figures:q}"
        " --title={params.title:q} --statistics {params.statistics:q} --control {params.control:q} --unit {params.unit} --output {output:q} 2> {log:q}"


rule draw_loss:
    input:
        f"{RESULTS}/runs/{{run}}/history.parquet",
    output:
        svg=report(
            f"{RESULTS}/runs/{{run}}/loss.svg",
            caption="../workflow/report/loss.rst",
            category="4 Training",
            labels={"run": "{run}"},
        ),
        png=f"{RESULTS}/runs/{{run}}/loss.png",
    log:
        f"{RESULTS}/logs/draw_loss/{{run}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/draw_loss/{{run}}.tsv"
    conda:
        "../envs/swift_study.yaml"
    shell:
        f"exec python {SCRIPTS}/draw_loss.py"
        " --run {wildcards.run:q} --history {input:q} --svg {output.svg:q} 2> {log:q}"


rule write_tables:
    input:
        config=f"{RESULTS}/config.yaml",
        verdicts=[f"{RESULTS}/studies/{s}/verdicts.parquet" for s in INFLUENCE],
        confounds=[f"{RESULTS}/studies/{s}/confounds.parquet" for s in INFLUENCE],
        power=[f"{RESULTS}/studies/{s}/power.parquet" for s in INFLUENCE],
        datasets=[dataset(name) for name in made_datasets()],
        rejects=reject_files(made_datasets()),
        leakage=[f"{RESULTS}/data/leakage/{s}.parquet" for s in INFLUENCE],
        lengths=all_lengths(
            swift_runs(INFLUENCE), [d for s in INFLUENCE for d in panel(s)]
        ),
        scores=[f for s in selections_used() for f in selection_scores(s)],
        accounts=account_files(made_datasets()),
        gradients=[gradients(s) for s in INFLUENCE],
        checkpoints=[checkpoints(run) for run in swift_runs(INFLUENCE)],
    output:
        tables=[
            f"{RESULTS}/tables/{t}.{kind}"
            for t in (
                "verdicts",
                "confounds",
                "power",
                "datasets",
                "rejects",
                "tokens",
                "certificates",
            )
            for kind in ("parquet", "csv", "md")
        ],
        verdicts=report(
            f"{RESULTS}/pages/verdicts.html",
            caption="../workflow/report/verdicts.rst",
            category="1 Verdicts",
            labels={"page": "verdicts"},
        ),
        data=report(
            f"{RESULTS}/pages/data.html",
            caption="../workflow/report/data.rst",
            category="3 Data",
            labels={"page": "datasets, rejects, leak check"},
        ),
        certificate=report(
            f"{RESULTS}/pages/certificate.html",
            caption="../workflow/report/certificate.rst",
            category="5 Certificate",
            labels={"page": "numerics certificate"},
        ),
        configuration=report(
            f"{RESULTS}/pages/configuration.html",
            caption="../workflow/report/configuration.rst",
            category="6 Configuration",
            labels={"page": "configuration and versions"},
        ),
    log:
        f"{RESULTS}/logs/write_tables.log",
    benchmark:
        f"{RESULTS}/benchmarks/write_tables.tsv"
    conda:
        "../envs/swift_study.yaml"
    params:
        tables=lambda w, output: str(Path(output.tables[0]).parent),
        pages=lambda w, output: str(Path(output.data).parent),
        statistics=settings(CONFIG.statistics),
        questions=as_it_is(
            json.dumps({name: CONFIG.studies[name].question for name in INFLUENCE})
        ),
    shell:
        f"exec python {SCRIPTS}/write_tables.py"
        " --tables {params.tables:q} --pages {params.pages:q} --config {input.config:q}"
        " --statistics {params.statistics:q} --questions {params.questions:q} --verdicts {input.verdicts:q} --confounds {input.confounds:q}"
        " --power {input.power:q} --datasets {input.datasets:q}"
        " --rejects {input.rejects:q} --leakage {input.leakage:q} --lengths {input.lengths:q} --scores {input.scores:q}"
        " --accounts {input.accounts:q} --gradients {input.gradients:q} --checkpoints {input.checkpoints:q} 2> {log:q}"


# One target a study, and one a collection: figures and tables.
for name, studies in targets().items():

    rule:
        name:
            name
        input:
            lambda w, name=name, studies=studies: made(name, studies),
        localrule: True


onsuccess:
    # A plan makes nothing to report on.
    if list(workflow.dag_settings.targets) != ["plan"]:
        others = [
            study for study in CONFIG.studies if study not in CONFIG.influence
        ]
        shell(
            f"exec python {SCRIPTS}/finish.py"
            " --results {RESULTS:q} --studies {others:q}"
        )
