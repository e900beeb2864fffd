# What the base model can and cannot answer: candidates' queries, as they are and revised.


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
        "python workflow/scripts/revise_queries.py --originals {input.originals:q}"
        " --clarifications {input.clarifications:q} --output {output:q} 2> {log:q}"


rule respond:
    input:
        model=f"{RESULTS}/model.json",
        checkpoint=lambda w: last_checkpoint(w.run),
        dataset=f"{RESULTS}/data/{{tried}}.parquet",
    output:
        f"{RESULTS}/responses/{{run}}/{{tried}}.parquet",
    log:
        f"{RESULTS}/logs/respond/{{run}}/{{tried}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/respond/{{run}}/{{tried}}.tsv"
    conda:
        "../envs/swift_study.yaml"
    threads: workflow.cores
    params:
        settings=settings(CONFIG.selection),
        model=settings(CONFIG.model),
        lora=lambda w: CONFIG.runs[w.run].lora.model_dump_json(),
    shell:
        "python workflow/scripts/respond.py --settings {params.settings:q} --threads {threads}"
        " --model {input.model:q} --model-settings {params.model:q} --lora {params.lora:q} --checkpoint {input.checkpoint:q}"
        " --dataset {input.dataset:q} --output {output:q} 2> {log:q}"


rule judge:
    input:
        dataset=f"{RESULTS}/data/{{tried}}.parquet",
        responses=f"{RESULTS}/responses/{{run}}/{{tried}}.parquet",
    output:
        f"{RESULTS}/judgements/{{run}}/{{tried}}/key_points.parquet",
    log:
        f"{RESULTS}/logs/judge/{{run}}/{{tried}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/judge/{{run}}/{{tried}}.tsv"
    conda:
        "../envs/swift_study.yaml"
    shell:
        "python workflow/scripts/judge.py --dataset {input.dataset:q} --responses {input.responses:q} --output {output:q} 2> {log:q}"


rule select_examples:
    input:
        model=f"{RESULTS}/model.json",
        datasets=[dataset(name) for name in [*TRIED, "candidates.clarify"]],
        responses=[f"{RESULTS}/responses/base/{name}.parquet" for name in TRIED],
        judgements=[
            f"{RESULTS}/judgements/base/{name}/key_points.parquet" for name in TRIED
        ],
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
        responses=lambda w, input: str(Path(input.responses[0]).parent),
        judgements=lambda w, input: str(Path(input.judgements[0]).parents[1]),
    shell:
        "python workflow/scripts/select_examples.py --settings {params.settings:q}"
        " --model {input.model:q} --model-settings {params.model:q} --data {params.data:q}"
        " --responses {params.responses:q} --judgements {params.judgements:q} --rejects {output.rejects:q} 2> {log:q}"
