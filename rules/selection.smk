# Examples that are chosen by scores. Each dataset that a selection makes is a job of its own, which chooses the same ones again.


rule select_examples:
    input:
        datasets=lambda w: GRAPH.chosen_among(GRAPH.selection(w.selected)),
        scores=lambda w: GRAPH.selecting_scores(GRAPH.selection(w.selected)),
        responses=lambda w: GRAPH.selected_responses(GRAPH.selection(w.selected)),
        file=lambda w: GRAPH.selecting_file(GRAPH.selection(w.selected)),
    output:
        "<results>/data/{selected}.parquet",
    log:
        "<logs>/select_examples/{selected}.log",
    benchmark:
        "<benchmarks>/select_examples/{selected}.tsv"
    conda:
        "../envs/swift_study.yaml"
    params:
        name=lambda w: GRAPH.made_by[w.selected],
        settings=lambda w: settings(
            selection=GRAPH.selection(w.selected), seed=CONFIG.data_seed
        ),
    shell:
        f"exec python {SCRIPTS}/select_examples.py"
        " --selection {params.name} --settings {params.settings:q}"
        " --datasets {input.datasets:q} --scores {input.scores:q} --responses {input.responses:q} --output {output:q} 2> {log:q}"
