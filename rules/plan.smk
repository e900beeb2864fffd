# What everything would cost, told beforehand. It has no output, so that it is told whenever it is asked for.


rule plan:
    log:
        "<logs>/plan.log",
    localrule: True
    conda:
        "../envs/swift_study.yaml"
    params:
        config=lambda w: argument(config),
        studies=as_it_is(shipped("studies")),
        snakefile=as_it_is(shipped("Snakefile")),
    shell:
        f"exec python {SCRIPTS}/plan.py"
        " --config {params.config:q} --snakefile {params.snakefile:q} --studies {params.studies:q} --strategies strategies"
        " 2> {log:q}"
