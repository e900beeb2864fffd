# What the base model can and cannot answer: its responses to candidates' queries, as they are and revised, tell negatives from positives.


rule revise_queries:
    input:
        originals=f"{RESULTS}/data/{{parent}}.parquet",
        clarifications=f"{RESULTS}/data/{{parent}}.clarify.parquet",
    output:
        f"{RESULTS}/data/{{parent}}.revised.parquet",
    log:
        f"{RESULTS}/logs/revise_queries/{{parent}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/revise_queries/{{parent}}.tsv"
    conda:
        "../envs/swift_study.yaml"
    shell:
        "exec python workflow/scripts/revise_queries.py --originals {input.originals:q}"
        " --clarifications {input.clarifications:q} --output {output:q} 2> {log:q}"


rule select_examples:
    input:
        model=model_file("main"),
        datasets=[dataset(name) for name in [*TRIED, "candidates.clarify"]],
        responses=[responses("base", name) for name in TRIED],
        scores=[scores("base", name, "key_points") for name in TRIED],
    output:
        datasets=[dataset(name) for name in SELECTED],
        rejects=f"{RESULTS}/data/rejects/selection.parquet",
    log:
        f"{RESULTS}/logs/select_examples.log",
    benchmark:
        f"{RESULTS}/benchmarks/select_examples.tsv"
    conda:
        "../envs/swift_study.yaml"
    params:
        settings=settings(CONFIG.selection),
        model=settings(CONFIG.model),
        data=lambda w, output: str(Path(output.rejects).parents[1]),
        responses=lambda w, input: str(Path(input.responses[0]).parents[1]),
        scores=lambda w, input: str(Path(input.scores[0]).parents[2]),
    shell:
        "exec python workflow/scripts/select_examples.py --settings {params.settings:q}"
        " --model {input.model:q} --model-settings {params.model:q} --data {params.data:q}"
        " --responses {params.responses:q} --scores {params.scores:q} --rejects {output.rejects:q} 2> {log:q}"
