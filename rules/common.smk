# What all rules share: the validated configuration, and where things are.

import json
import os
import shlex
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

sys.path.insert(0, str(Path(workflow.basedir) / "workflow" / "scripts"))

from swift_study.io.cli import pack
from swift_study.config import (
    MAIN,
    SELECTED,
    StudyPanel,
    chosen,
    gather,
    load,
    points,
    training_of,
)
from swift_study.io.endpoint import AFFECT_REPLIES
from swift_study.studies import costs, manifest
from swift_study.errors import UserError
from swift_study.numerics import GRADIENTS, TRAINING
from swift_study.io.processes import become_starter, enter

# Jobs end with this Snakemake, also where it is killed; a lock that a killed one has left is removed.
become_starter()
enter(Path(".snakemake"), first=workflow.is_main_process)

# Rules call `python` and `torchrun`: those beside this snakemake, whether its environment is activated or not.
os.environ.update(
    PATH=os.pathsep.join([str(Path(sys.executable).parent), *os.get_exec_path()])
)

try:
    GATHERED = gather(config, Path(workflow.basedir) / "studies")
    CONFIG = load(GATHERED.values)
    # The studies that plain `snakemake` makes; the report's pages are about these.
    STUDIES = list(chosen(CONFIG.default, GATHERED, CONFIG.studies))
    INFLUENCE = [study for study in STUDIES if study in CONFIG.influence]
except UserError as error:
    raise WorkflowError(str(error))

if CONFIG.network == "submit_host":
    # Jobs ask no server, so they get no key: this sbatch takes the keys out of what Slurm stores of a job.
    os.environ.update(
        PATH=os.pathsep.join([f"{workflow.basedir}/workflow/bin", *os.get_exec_path()]),
        SWIFT_STUDY_KEYS=" ".join(CONFIG.key_names()),
    )

RESULTS = CONFIG.results
# Bytes of one value on a command line: from when on it is packed, and the most, so that the other words fit as well.
LONG, LONGEST = 20_000, 100_000
# Sources whose examples are split into those that are used and their analogues.
SPLIT = ["panel", "candidates", "questions"]
# Where the queries come from on which the base model is tried, in their original and in their revised form.
TRIED = [
    "candidates",
    "candidates.similar",
    "candidates.revised",
    "candidates.similar.revised",
]


wildcard_constraints:
    # A run, or one training of it on one of the models with one of the seeds.
    run=rf"({'|'.join(CONFIG.runs)})((\.({'|'.join(CONFIG.models) or MAIN}))?\.s\d+)?",
    model="|".join([MAIN, *CONFIG.models]),
    study="|".join(CONFIG.studies) or "-",
    strategy="|".join(CONFIG.strategies) or "-",
    source="panel|candidates|questions",
    evaluation="|".join([*TRIED, "questions"]),
    scorer="|".join(CONFIG.scorer_names()),


def at_submit_host(uses_network):
    """Whether to run where snakemake was started instead of in a cluster job, since only there may be a network."""
    return bool(uses_network) and CONFIG.network == "submit_host"


def by_teacher():
    return any(strategy.by == "teacher" for strategy in CONFIG.strategies.values())


def settings(section, without=()):
    """A section of the configuration as one line of JSON: a narrow parameter of the rules that it concerns."""
    return as_it_is(section.model_dump_json(exclude=set(without)))


def as_it_is(value):
    """A value for a rule's parameter: Snakemake looks for wildcards in the braces of a plain string, and not in a function's."""
    return lambda wildcards: value


def as_json(value):
    """A value as JSON for a command line, packed where it is long; a sentence, before anything runs, where it is too long even then."""
    text = json.dumps(value, ensure_ascii=False)
    if len(shlex.quote(text).encode()) > LONG:
        text = pack(text)
    if len(text) > LONGEST:
        raise WorkflowError(
            f"A job would need a command line of more than {len(text)} bytes, and Linux allows 131,071: the configuration names "
            "too many runs, models and seeds, or holds too much text. Make them fewer."
        )
    return text


def dataset(name):
    return f"{RESULTS}/data/{name}.parquet"


def model_file(model):
    """What is known of a model: where it is, and a hash of its weights."""
    return f"{RESULTS}/models/{model}.json"


def model_of(run):
    return model_file(training_of(run)[1])


def panel(study):
    """The datasets whose gradients a study compares, each once."""
    return CONFIG.studies[study].datasets()


def checkpoints(run):
    """The folder of a run's checkpoints."""
    return f"{RESULTS}/runs/{run}/checkpoints"


def scheduled(run):
    """The datasets that a run is trained on."""
    return list(dict.fromkeys(d for phase in CONFIG.run(run).schedule for d in phase))


def started_from(run):
    """The checkpoints of which a run starts from the last; nothing where it starts from the model itself."""
    start = CONFIG.run(run).start
    return [] if start == "model" else checkpoints(start)


def held_out_by(run):
    """The dataset on which a run measures its loss to stop early; nothing where it does not."""
    stopping = CONFIG.run(run).early_stopping
    return [] if stopping is None else dataset(stopping.dataset)


def trained_on(run):
    """The datasets whose queries a run has seen, what it starts from included.

    Strategies keep a query, perhaps in other words around it, so the dataset before them is named; `similar` makes another query.
    """
    seen = [d for r in CONFIG.ancestry(run) for d in scheduled(r)]
    return list(dict.fromkeys(map(with_queries_of, seen)))


def with_queries_of(name):
    parent, _, strategy = name.rpartition(".")
    return name if not parent or strategy == "similar" else with_queries_of(parent)


def derived(name):
    """All datasets on the way to this one, itself included, that a strategy makes."""
    if name in SELECTED or "." not in name:
        return []
    return [*derived(name.rpartition(".")[0]), name]


def derived_datasets():
    """Every dataset that strategies make for the configured studies."""
    used = [d for study in INFLUENCE for name in panel(study) for d in derived(name)]
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
    return dataset(f"{source}.analogues") if source in SPLIT else []


def teacher(strategy, affects_replies):
    """The teacher's settings for a strategy as JSON, or null: those that affect a reply, or the others."""
    by = CONFIG.strategies[strategy].by
    return endpoint(CONFIG.teacher if by == "teacher" else None, affects_replies)


def endpoint(settings, affects_replies):
    """An endpoint's settings as JSON, or null where there is none: those that affect a reply, or the others."""
    if settings is None:
        return "null"
    names = set(AFFECT_REPLIES)
    chosen = {"include": names} if affects_replies else {"exclude": names}
    return settings.model_dump_json(**chosen)


def responses_settings(affects_responses):
    """The section `responses` as JSON: the keys that affect a response, or the others."""
    names = {"batch_size": True, "server": True}
    if CONFIG.responses.server is not None:
        names["server"] = {*type(CONFIG.responses.server).model_fields} - {
            *AFFECT_REPLIES
        }
    chosen = {"exclude" if affects_responses else "include": names}
    return as_it_is(CONFIG.responses.model_dump_json(**chosen))


def responses(run, evaluation):
    return f"{RESULTS}/responses/{run}/evaluation={evaluation}/responses.parquet"


def scores(run, evaluation, scorer):
    return (
        f"{RESULTS}/scores/{run}/evaluation={evaluation}/scorer={scorer}/scores.parquet"
    )


def scorer_file(scorer):
    return str(CONFIG.scorer_file(scorer))


def scorers_that_need(what):
    """The scorers of this configuration that need a model, an endpoint, or (None) neither, as a pattern of names."""
    other = {"model", "endpoint"}
    found = [
        name
        for name in CONFIG.scorer_names()
        if CONFIG.scorer_needs(name) & other == ({what} if what else set())
    ]
    return "|".join(found) or "-"


def scoring(scorer, affects_scores=True):
    """What a script is told of a scorer, as JSON: what affects a score, or the endpoint's other keys."""
    return CONFIG.scoring(scorer, affects_scores)


def instructions(scorer):
    """The text file of what a scorer's endpoint is told; nothing where it has none."""
    return CONFIG.scorer_instructions(scorer) or []


def scored_responses(w):
    """The responses that a scorer needs; nothing where it scores none."""
    needed = "response" in CONFIG.scorer_needs(w.scorer)
    return responses(w.run, w.evaluation) if needed else []


def option(name, value):
    """An option of a command line with its value; empty without a value."""
    return f"{name} {shlex.quote(str(value))}" if value else ""


def held_out(study):
    """What no run that a study looks at may be trained on."""
    return panel(study) if study in CONFIG.influence else evaluated(study)


def seen_before(study):
    """The datasets that the runs of a study are trained on."""
    if study in CONFIG.influence:
        return trained_on(CONFIG.studies[study].run)
    return list(dict.fromkeys(d for run in runs_of(study) for d in trained_on(run)))


def gradients(study):
    """The folder of the gradients that a study compares."""
    return f"{RESULTS}/gradients/{CONFIG.studies[study].run}/{study}"


def compared(study):
    """What is compared in a study, without its wording and its figures, as JSON."""
    names = set(StudyPanel.model_fields)
    return CONFIG.studies[study].model_dump_json(include=names)


def selecting():
    """Whether a study uses negatives or positives, so that the base model has to be tried on the candidates."""
    return any(
        name.split(".")[0] in ("negative", "positive")
        for study in INFLUENCE
        for name in panel(study)
    )


def ends_of(study):
    """Everything that a study ends in."""
    kind = CONFIG.studies[study].kind
    names = [f"{t}.{k}" for t in ENDS[kind] for k in ("parquet", "csv", "md")]
    files = [f"{RESULTS}/studies/{study}/{name}" for name in [*names, *PAGES[kind]]]
    return files + ([figures(study)] if kind == "influence" else [])


def swift_targets(studies=None):
    """Everything that these studies end in."""
    names = STUDIES if studies is None else studies
    return [path for study in names for path in ends_of(study)]


def targets():
    """What can be asked for by name: by the name of each study and collection, its studies; None where it has no values at this scale."""
    found = {study: [study] for study in CONFIG.studies}
    found |= {name: studies for name, studies in GATHERED.studies.items() if studies}
    return found | dict.fromkeys(GATHERED.lacking)


def made(name, studies):
    if studies is None:
        raise WorkflowError(
            f"The collection {name} has no values at the scale {CONFIG.scale}. Add them under `at` in studies/{name}.yaml."
        )
    return swift_targets(studies)


def swift_runs(studies):
    """The runs whose checkpoints these studies look at."""
    return list(dict.fromkeys(CONFIG.studies[study].run for study in studies))


def gradients_of(run):
    """Which weights' gradients are computed at a run's checkpoints; nothing where no study looks at it."""
    if run not in swift_runs(CONFIG.influence):
        return None
    return CONFIG.gradients.model_dump(include={"scope", "modules"})


def runs_to_check(model):
    """For each run that the swift studies have trained on this model its method, adapter and gradients, as JSON."""
    trained = [r for run in swift_runs(CONFIG.influence) for r in CONFIG.ancestry(run)]
    found = [
        [CONFIG.run(run).model_dump(include={"method", "lora"}), gradients_of(run)]
        for run in (dict.fromkeys(trained) if model == MAIN else [])
    ]
    return json.dumps([r for i, r in enumerate(found) if r not in found[:i]])


def figures(study):
    """The folder of a study's figures."""
    return f"{RESULTS}/studies/{study}/figures"


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


def account_files(names):
    """What a teacher cost for those of these datasets that it made."""
    return [
        f"{RESULTS}/data/accounts/{n}.parquet"
        for n in names
        if n not in SELECTED and CONFIG.strategies[n.rpartition(".")[2]].by == "teacher"
    ]


# ---- GPUs and nodes ----


def gpus(number):
    """So many GPUs, or none on a cluster without."""
    return number if CONFIG.gpus else 0


def gpus_of_node(run):
    return gpus(CONFIG.run(run).processes // CONFIG.run(run).nodes)


def on_one_node(run, value):
    return value if CONFIG.run(run).nodes == 1 else None


def on_several_nodes(run, value):
    return value if CONFIG.run(run).nodes > 1 else None


# ---- studies ----

# What studies of a kind end in: tables as Parquet, CSV and Markdown, and other files.
ENDS = {
    "influence": ["claims"],
    "comparison": ["table", "claims"],
    "sweep": ["table", "phases", "savings"],
    "correlation": ["table"],
    "agreement": ["agreement", "rank_agreement", "decisions", "costs"],
    "audit": ["audit", "confusion", "disagreements"],
}
DRAWN = ["figure.svg", "figure.png", "page.html"]
PAGES = {
    "influence": [
        f"{t}.parquet" for t in ("pairs", "curves", "verdicts", "confounds", "power")
    ],
    "comparison": [*DRAWN, "data.html"],
    "sweep": [*DRAWN, "data.html"],
    "correlation": [*DRAWN, "data.html"],
    "agreement": [*DRAWN, "costs.html"],
    "audit": ["page.html"],
}


def of_kind(*kinds):
    """The studies of these kinds, as a pattern of names."""
    return "|".join(s for s, x in CONFIG.studies.items() if x.kind in kinds) or "-"


def tables_of(kind):
    """The files of the tables in which a study of this kind ends."""
    names = [f"{t}.{k}" for t in ENDS[kind] for k in ("parquet", "csv", "md")]
    return [f"{RESULTS}/studies/{{study}}/{name}" for name in names]


def study_settings(w):
    """A study as JSON for a script."""
    return as_json(CONFIG.studies[w.study].model_dump(mode="json", exclude={"claims"}))


def statistics_of(w):
    """The section `statistics` as JSON, with the study's own key where it has one."""
    own = getattr(CONFIG.studies[w.study], "after_step", None)
    found = {} if own is None else {"after_step": own}
    return CONFIG.statistics.model_copy(update=found).model_dump_json()


def claims_of(w):
    """A study's file of claims; nothing where it has none."""
    return CONFIG.studies[w.study].claims or []


def entries(study):
    """The rows of a study's manifest."""
    return manifest.entries(CONFIG, study)


def manifest_file(study):
    return f"{RESULTS}/studies/{study}/manifest.parquet"


def score_files(study):
    """The scores that a study reads. They stand in its manifest, and on no command line."""
    return list(dict.fromkeys(e.path for e in entries(study)))


def scorer_files(studies):
    """By scorer its file, of all scorers that these studies read, as JSON."""
    found = [e.scorer for study in studies for e in entries(study)]
    return as_json({name: scorer_file(name) for name in dict.fromkeys(found)})


def runs_of(study):
    """The runs whose scores a study reads."""
    return list(dict.fromkeys(e.point.path for e in entries(study)))


def evaluated(study):
    """The datasets of a study's evaluations."""
    return list(dict.fromkeys(e.evaluation for e in entries(study)))


def described(study):
    """The datasets of a study of scores: those of its evaluations, and those that its runs are trained on, with all on the way to them."""
    used = [s for r in runs_of(study) for a in CONFIG.ancestry(r) for s in scheduled(a)]
    trained = [d for name in used for d in (derived(name) or [name])]
    return list(dict.fromkeys([*evaluated(study), *trained]))


SOURCES = {
    "pairs": "pairs.parquet",
    "verdicts": "verdicts.parquet",
    "baselines": "rivals.parquet",
}


def sources_of(study):
    """By study that an agreement's items stand in, its settings and its files."""
    found = {}
    for name in CONFIG.studies[study].sources():
        source = CONFIG.studies[name]
        files = (
            {key: f"{RESULTS}/studies/{name}/{file}" for key, file in SOURCES.items()}
            if name in CONFIG.influence
            else {"manifest": manifest_file(name)}
        )
        settings = source.model_dump(mode="json", exclude={"claims"})
        found[name] = {"settings": settings, **files}
    return found


def compared_by(study):
    """The comparisons among an agreement's sources."""
    sources = CONFIG.studies[study].sources()
    return [name for name in sources if name not in CONFIG.influence]


def audits(study, part):
    """The files of an audit, one a scorer: its rows, or the `.summary` or `.confusion` of them."""
    scorers = CONFIG.studies[study].scorers
    return [f"{RESULTS}/studies/{study}/audit/{s}{part}.parquet" for s in scorers]
