# What people read: figures, tables and the report's pages.


localrules:
    write_config,


# The influence studies that the report is about, and its tables.
INFLUENCE = [study for study in STUDIES if study in CONFIG.influence]
REPORTED = (
    "verdicts",
    "confounds",
    "power",
    "datasets",
    "rejects",
    "tokens",
    "certificates",
)


rule write_config:
    output:
        "<results>/config.yaml",
    log:
        "<logs>/write_config.log",
    benchmark:
        "<benchmarks>/write_config.tsv"
    conda:
        "../envs/swift_study.yaml"
    params:
        config=lambda w: argument(config),
    shell:
        f"exec python {SCRIPTS}/write_config.py"
        " --config {params.config:q} --output {output:q} 2> {log:q}"


rule figures:
    input:
        curves="<results>/studies/{study}/curves.parquet",
        layers="<results>/studies/{study}/layers.parquet",
    output:
        report(
            directory("<results>/studies/{study}/figures"),
            patterns=["{figure}.svg"],
            caption="../workflow/report/figure.rst",
            category="2 Figures",
            labels={"study": "{study}", "figure": "{figure}"},
        ),
    log:
        "<logs>/figures/{study}.log",
    benchmark:
        "<benchmarks>/figures/{study}.tsv"
    conda:
        "../envs/swift_study.yaml"
    params:
        settings=lambda w: settings(
            **GRAPH.rule_of(w.study),
            figures=CONFIG.influence[w.study].figures,
            title=CONFIG.influence[w.study].caption
            or CONFIG.influence[w.study].question,
        ),
    shell:
        f"exec python {SCRIPTS}/draw_figures.py"
        " --curves {input.curves:q} --layers {input.layers:q}"
        " --settings {params.settings:q} --output {output:q} 2> {log:q}"


rule draw_loss:
    input:
        "<results>/runs/{run}/history.parquet",
    output:
        svg=report(
            "<results>/runs/{run}/loss.svg",
            caption="../workflow/report/loss.rst",
            category="4 Training",
            labels={"run": "{run}"},
        ),
        png="<results>/runs/{run}/loss.png",
    log:
        "<logs>/draw_loss/{run}.log",
    benchmark:
        "<benchmarks>/draw_loss/{run}.tsv"
    conda:
        "../envs/swift_study.yaml"
    shell:
        f"exec python {SCRIPTS}/draw_loss.py"
        " --run {wildcards.run:q} --history {input:q} --svg {output.svg:q} 2> {log:q}"


rule write_tables:
    input:
        config="<results>/config.yaml",
        verdicts=[FILES.study(s, "verdicts.parquet") for s in INFLUENCE],
        confounds=[FILES.study(s, "confounds.parquet") for s in INFLUENCE],
        power=[FILES.study(s, "power.parquet") for s in INFLUENCE],
        datasets=FILES.datasets(GRAPH.datasets_of(INFLUENCE)),
        rejects=GRAPH.rejects(GRAPH.datasets_of(INFLUENCE)),
        leakage=[FILES.leakage(s) for s in INFLUENCE],
        lengths=GRAPH.lengths_shown(
            GRAPH.influence_runs(INFLUENCE),
            [d for s in INFLUENCE for d in GRAPH.panel(s)],
        ),
        scores=[
            file
            for selection in GRAPH.selections_of(GRAPH.datasets_of(INFLUENCE))
            for file in GRAPH.selecting_scores(selection)
        ],
        accounts=GRAPH.accounts(GRAPH.datasets_of(INFLUENCE)),
        gradients=[GRAPH.gradients(s) for s in INFLUENCE],
        checkpoints=[FILES.checkpoints(run) for run in GRAPH.influence_runs(INFLUENCE)],
    output:
        tables=expand(
            "<results>/tables/{table}.{format}",
            table=REPORTED,
            format=FORMATS,
        ),
        verdicts=report(
            "<results>/pages/verdicts.html",
            caption="../workflow/report/verdicts.rst",
            category="1 Verdicts",
            labels={"page": "verdicts"},
        ),
        data=report(
            "<results>/pages/data.html",
            caption="../workflow/report/data.rst",
            category="3 Data",
            labels={"page": "datasets, rejects, leak check"},
        ),
        certificate=report(
            "<results>/pages/certificate.html",
            caption="../workflow/report/certificate.rst",
            category="5 Certificate",
            labels={"page": "numerics certificate"},
        ),
        configuration=report(
            "<results>/pages/configuration.html",
            caption="../workflow/report/configuration.rst",
            category="6 Configuration",
            labels={"page": "configuration and versions"},
        ),
    log:
        "<logs>/write_tables.log",
    benchmark:
        "<benchmarks>/write_tables.tsv"
    conda:
        "../envs/swift_study.yaml"
    params:
        tables=lambda w, output: str(Path(output.tables[0]).parent),
        pages=lambda w, output: str(Path(output.data).parent),
        settings=lambda w: settings(
            statistics=CONFIG.statistics,
            questions={name: CONFIG.studies[name].question for name in INFLUENCE},
            after_step={name: GRAPH.statistics(name).after_step for name in INFLUENCE},
        ),
    shell:
        f"exec python {SCRIPTS}/write_tables.py"
        " --tables {params.tables:q} --pages {params.pages:q} --config {input.config:q}"
        " --settings {params.settings:q} --verdicts {input.verdicts:q} --confounds {input.confounds:q}"
        " --power {input.power:q} --datasets {input.datasets:q}"
        " --rejects {input.rejects:q} --leakage {input.leakage:q} --lengths {input.lengths:q} --scores {input.scores:q}"
        " --accounts {input.accounts:q} --gradients {input.gradients:q} --checkpoints {input.checkpoints:q} 2> {log:q}"


onsuccess:
    # A plan makes nothing to report on.
    if list(workflow.dag_settings.targets) != ["plan"]:
        others = [
            study for study in CONFIG.studies if study not in CONFIG.influence
        ]
        shell(
            f"exec python {SCRIPTS}/finish.py"
            " --results {CONFIG.results:q} --studies {others:q}"
        )
