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


rule all:
    default_target: True
    input:
        [path for study in STUDIES for path in GRAPH.ends(study)],
        rules.write_tables.output if INFLUENCE else [],
        [f"<results>/runs/{run}/loss.svg" for run in GRAPH.influence_runs(INFLUENCE)],


# A target for each study and each collection.
for name in GATHERED.targets(CONFIG.studies):

    rule:
        name:
            name
        input:
            lambda w, name=name: ends_of(name),
            rules.write_config.output,
        localrule: True
