# What all rules share: the validated configuration, and where things are.

import json
import os
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

sys.path.insert(0, str(Path(workflow.basedir) / "workflow" / "scripts"))

from swift_study.config import SELECTED, Comparison, load
from swift_study.endpoint import AFFECT_REPLIES
from swift_study.errors import UserError

# Rules call `python` and `torchrun`: those beside this snakemake, whether its environment is activated or not.
os.environ.update(
    PATH=os.pathsep.join([str(Path(sys.executable).parent), *os.get_exec_path()])
)

try:
    CONFIG = load(config)
except UserError as error:
    raise WorkflowError(str(error))

RESULTS = CONFIG.results
STEPS = {run: CONFIG.steps(run) for run in CONFIG.runs}
# Where the queries come from on which the base model is tried, in their original and in their revised form.
TRIED = [
    "candidates",
    "candidates.similar",
    "candidates.revised",
    "candidates.similar.revised",
]


wildcard_constraints:
    run="|".join(CONFIG.runs),
    study="|".join(CONFIG.studies),
    strategy="|".join(CONFIG.strategies),
    source="panel|candidates",
    step=r"\d+",
    tried="|".join(TRIED),


def settings(section):
    """A section of the configuration as one line of JSON: a narrow parameter of the rules that it concerns.

    A function, since Snakemake looks for wildcards in the braces of a plain string.
    """
    text = section.model_dump_json()
    return lambda wildcards: text


def dataset(name):
    return f"{RESULTS}/data/{name}.parquet"


def panel(study):
    """The datasets whose gradients a study compares, each once."""
    s = CONFIG.studies[study]
    return list(dict.fromkeys([*s.probes.values(), *s.targets.values()]))


def checkpoint(run, step):
    return f"{RESULTS}/runs/{run}/checkpoint-{step}"


def last_checkpoint(run):
    return checkpoint(run, STEPS[run][-1])


def derived(name):
    """All datasets on the way to this one, itself included, that a strategy makes."""
    if name in SELECTED or "." not in name:
        return []
    return [*derived(name.rpartition(".")[0]), name]


def derived_datasets():
    """Every dataset that strategies make for the configured studies."""
    used = [
        d for study in CONFIG.studies for name in panel(study) for d in derived(name)
    ]
    if selecting():
        used += [
            "candidates.similar",
            "candidates.clarify",
            "candidates.similar.clarify",
        ]
    return list(dict.fromkeys(used))


def source_files(sources):
    """The user's files among the sources: inputs, so that changing one reruns what is made from it."""
    return [source.path for source in sources if source.kind == "file"]


def analogues(parent):
    """Further examples of the same tasks as this dataset's, where its source has them."""
    source = parent.split(".")[0]
    return dataset(f"{source}.analogues") if source in ("panel", "candidates") else []


def teacher(strategy, affects_replies):
    """The teacher's settings for a strategy as JSON, or null: those that affect a reply, or the others."""
    if CONFIG.strategies[strategy].by != "teacher":
        return "null"
    names = set(AFFECT_REPLIES)
    chosen = {"include": names} if affects_replies else {"exclude": names}
    return CONFIG.teacher.model_dump_json(**chosen)


def gradient_files(study):
    run = CONFIG.studies[study].run
    return [
        f"{RESULTS}/gradients/{run}/{study}/checkpoint-{step}.parquet"
        for step in CONFIG.gradient_steps(run)
    ]


def compared(study):
    """What is compared in a study, without its wording and its figures, as JSON."""
    return CONFIG.studies[study].model_dump_json(include=set(Comparison.model_fields))


TABLES = ["verdicts", "datasets", "rejects", "certificates"]


def selecting():
    """Whether a study uses negatives or positives, so that the base model has to be tried on the candidates."""
    return any(
        name.split(".")[0] in ("negative", "positive")
        for study in CONFIG.studies
        for name in panel(study)
    )


def swift_targets(studies=None):
    """Everything that these studies end in."""
    names = studies or list(CONFIG.studies)
    figures = [
        figure(f, kind)
        for s in names
        for f in CONFIG.studies[s].figures
        for kind in ("svg", "png")
    ]
    tables = [
        f"{RESULTS}/influence/{s}/{t}.parquet"
        for s in names
        for t in ("pairs", "curves", "verdicts")
    ]
    return figures + tables


def figure(name, kind):
    return f"{RESULTS}/figures/{name}.{kind}"


def made_datasets():
    """Every dataset of examples that the configured studies need."""
    sources = ["panel", "candidates"] if selecting() else ["panel"]
    return list(
        dict.fromkeys(
            [*sources, "base", *derived_datasets(), *(SELECTED if selecting() else [])]
        )
    )


def reject_files():
    derived = [name for name in derived_datasets() if name not in SELECTED]
    sources = ["panel", "candidates"] if selecting() else ["panel"]
    return [
        f"{RESULTS}/data/rejects/{n}.parquet"
        for n in [*sources, "base", *derived, *(["selection"] if selecting() else [])]
    ]


def account_files():
    names = [n for n in derived_datasets() if n not in SELECTED]
    return [
        f"{RESULTS}/data/accounts/{n}.parquet"
        for n in names
        if CONFIG.strategies[n.rpartition(".")[2]].by == "teacher"
    ]
