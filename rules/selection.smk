# Examples that are chosen by scores. Each dataset that a selection makes is a job of its own, which chooses the same ones again.


rule select_examples:
    input:
        datasets=lambda w: files_of(selection_datasets(selection_of(w.selected))),
        scores=lambda w: selection_scores(selection_of(w.selected)),
        responses=lambda w: selection_responses(selection_of(w.selected)),
        file=lambda w: selection_file(selection_of(w.selected)),
    output:
        f"{RESULTS}/data/{{selected}}.parquet",
    log:
        f"{RESULTS}/logs/select_examples/{{selected}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/select_examples/{{selected}}.tsv"
    conda:
        "../envs/swift_study.yaml"
    params:
        name=lambda w: lineage.outputs(CONFIG)[w.selected],
        settings=lambda w: selection_of(w.selected).model_dump_json(),
        seed=CONFIG.data_seed,
    shell:
        f"exec python {SCRIPTS}/select_examples.py"
        " --selection {params.name} --settings {params.settings:q} --seed {params.seed}"
        " --datasets {input.datasets:q} --scores {input.scores:q} --responses {input.responses:q} --output {output:q} 2> {log:q}"
