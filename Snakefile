# Will this way of making instruction-tuning data help? The targets; the rules are in rules/, one file a stage.

from pathlib import Path

from snakemake.utils import min_version

min_version("9.27")


# That of the folder in which snakemake runs, or else the project's.
configfile: "config.yaml" if Path("config.yaml").is_file() else workflow.source_path("config.yaml")


report: "workflow/report/workflow.rst"


# Only with --sdm apptainer; envs/swift_study.def says how it is built.
container: "envs/swift_study.sif"


include: "rules/common.smk"
include: "rules/data.smk"
include: "rules/training.smk"
include: "rules/evaluation.smk"
include: "rules/selection.smk"
include: "rules/gradients.smk"
include: "rules/influence.smk"
include: "rules/results.smk"
include: "rules/studies.smk"
include: "rules/plan.smk"


localrules:
    all,
    swift,


rule swift:
    input:
        swift_targets(),
        rules.write_tables.output if INFLUENCE else [],
        [f"{RESULTS}/runs/{run}/loss.svg" for run in swift_runs(INFLUENCE)],


rule all:
    default_target: True
    input:
        rules.swift.input,
