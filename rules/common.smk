# What all rules share: the validated configuration, and where things are.

import json
import os
import re
import shlex
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

# The project's folder, also where `--directory` names another one or a workflow takes this one as a module.
HOME = Path(workflow.current_basedir.get_path_or_uri(secret_free=True)).resolve().parent
sys.path.insert(0, str(HOME / "workflow" / "scripts"))

from swift_study.io.cli import pack
from swift_study.io.user_files import find_file
from swift_study.config import (
    MAIN,
    StudyPanel,
    chosen,
    gather,
    lineage,
    load,
)
from swift_study.config.grid import FACTORS
from swift_study.io.endpoint import AFFECT_REPLIES
from swift_study.config.graph import PATH
from swift_study.errors import UserError
from swift_study.numerics import GRADIENTS, TRAINING
from swift_study.studies import costs, manifest
from swift_study.io.processes import become_starter, enter

# Jobs end with this Snakemake, also where it is killed; a lock that a killed one has left is removed.
become_starter()
enter(Path(".snakemake"), first=workflow.is_main_process)

# Rules call `python` and `torchrun`: those beside this snakemake, whether its environment is activated or not.
os.environ.update(
    PATH=os.pathsep.join([str(Path(sys.executable).parent), *os.get_exec_path()])
)

try:
    GATHERED = gather(config, HOME / "studies")
    CONFIG = load(GATHERED.values)
    # The studies that plain `snakemake` makes; the report's pages are about these.
    STUDIES = list(chosen(CONFIG.default, GATHERED, CONFIG.studies))
    INFLUENCE = [study for study in STUDIES if study in CONFIG.influence]
except UserError as error:
    raise WorkflowError(str(error))

if CONFIG.network == "submit_host":
    # Jobs ask no server, so they get no key: this sbatch takes the keys out of what Slurm stores of a job.
    os.environ.update(
        PATH=os.pathsep.join([f"{HOME}/workflow/bin", *os.get_exec_path()]),
        SWIFT_STUDY_KEYS=" ".join(CONFIG.key_names()),
    )

RESULTS = CONFIG.results
# Bytes of one value on a command line: from when on it is packed, and the most, so that the other words fit as well.
LONG, LONGEST = 20_000, 100_000
# The keys of `model` that a dataset's tokens depend on.
AFFECT_TOKENS = {
    "chat_template",
    "chat_template_kwargs",
    "template_date",
    "trust_remote_code",
    "control_tokens",
    "fold_system_message",
    "max_length",
    "overlong",
}


wildcard_constraints:
    run=PATH,  # of a point of a run family
    model="|".join([MAIN, *CONFIG.models]),
    study="|".join(CONFIG.studies) or "-",
    strategy="|".join(CONFIG.strategies) or "-",
    loaded="|".join(
        f"{name}{part}"
        for name, settings in CONFIG.datasets.items()
        for part in ["", *(rf"\.{part}" for part in settings.parts())]
    )
    or "-",
    selected="|".join(lineage.outputs(CONFIG)) or "-",
    design="|".join(CONFIG.designs) or "-",
    dataset=r"[^/]+",
    parent=r"[^/]+",
    evaluation=f"(?:{'|'.join(CONFIG.evaluations)}){FACTORS}",
    scorer="|".join(CONFIG.scorer_names()),


def shipped(path):
    """What comes with the project, by its place in it where snakemake runs in the project's folder."""
    return path if HOME == Path.cwd() else f"{HOME}/{path}"


def found(path):
    """A file of this name in the folder in which snakemake runs, or else the project's."""
    return path if Path(path).exists() else shipped(path)


SCRIPTS = shlex.quote(shipped("workflow/scripts"))


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


def settings_of(model):
    return CONFIG.model if model == MAIN else CONFIG.models[model]


def lengths(model, names):
    """How long the examples of these datasets are for a model."""
    return [f"{RESULTS}/lengths/{model}/{name}.parquet" for name in names]


def all_lengths(runs, names):
    """For the tables: of what these runs are trained on and of these datasets, for the runs' models."""
    found = [(CONFIG.run(run).model, [*scheduled(run), *names]) for run in runs]
    return list(dict.fromkeys(f for model, of in found for f in lengths(model, of)))


def model_of(run):
    return model_file(CONFIG.run(run).model)


def panel(study):
    """The datasets whose gradients a study compares, each once."""
    return CONFIG.studies[study].datasets()


def checkpoints(run):
    """The folder of a run's checkpoints."""
    return f"{RESULTS}/runs/{run}/checkpoints"


def families(keep):
    """The run families of which this is kept, as a pattern of names."""
    found = [name for name, points in CONFIG.points.items() if points[0].keep == keep]
    return f"(?:{'|'.join(found) or '-'})"


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
    """The datasets that a run has seen, what it starts from included."""
    return list(dict.fromkeys(d for r in CONFIG.ancestry(run) for d in scheduled(r)))


def files_of(names):
    return [dataset(name) for name in names]


def code_file(folder, settings, name):
    """The code file of a strategy or a design."""
    return str(find_file(folder, settings[name].like or name))


def source_files(name):
    """The user's files among a dataset's sources: inputs, so that changing one reruns what is made from it."""
    sources = CONFIG.datasets[name.split(".")[0]].sources
    return [source.path for source in sources if source.kind == "file"]


def analogues(parent):
    """Further examples of the same tasks as this dataset's, where what it is made from has them."""
    source = parent.split(".")[0]
    loaded = CONFIG.datasets.get(source)
    has = loaded is not None and loaded.per_task is not None
    return dataset(f"{source}.analogues") if has else []


def selection_of(output):
    return CONFIG.selections[lineage.outputs(CONFIG)[output]]


def selection_datasets(s):
    """The examples among which a selection chooses, their relatives, and all between them."""
    names = [s.examples, *s.relatives.values()]
    return list(dict.fromkeys([*names, *lineage.ancestors(CONFIG, names)]))


def selection_scores(s):
    """The scores of a run's responses that a selection needs; none where they are in a file."""
    return [
        scores(s.scores.run, e, s.scores.scorer) for e in CONFIG.asked_by(s).values()
    ]


def selection_responses(s):
    outputs = [o for o in s.outputs.values() if o.completion == "response"]
    names = dict.fromkeys(s.dataset_of(o.of) for o in outputs)
    asked = CONFIG.asked_by(s)
    return [responses(s.scores.run, asked[name]) for name in names]


def selection_file(s):
    return s.scores.file or [] if s.scores is not None else []


def teacher(strategy, affects_replies):
    """The endpoint's settings for a strategy as JSON, or null: those that affect a reply, or the others."""
    settings = CONFIG.strategies[strategy]
    if settings.by != "teacher":
        return "null"
    names = set(AFFECT_REPLIES)
    chosen = {"include": names} if affects_replies else {"exclude": names}
    return CONFIG.endpoints[settings.endpoint].model_dump_json(**chosen)


def responses(run, evaluation):
    return f"{RESULTS}/responses/{run}/evaluation={evaluation}/responses.parquet"


def scores(run, evaluation, scorer):
    return (
        f"{RESULTS}/scores/{run}/evaluation={evaluation}/scorer={scorer}/scores.parquet"
    )


def scorer_file(scorer):
    return str(CONFIG.scorer_file(scorer))


def scorers_that_need(*what):
    """The scorers of this configuration that need a model, an endpoint, or (None) neither, as a pattern of names."""
    found = [
        name
        for name in CONFIG.scorer_names()
        if next(iter(CONFIG.scorer_needs(name) - {"response"}), None) in what
    ]
    return "|".join(found) or "-"


def instructions(scorer):
    """The text file of what a scorer's endpoint is told; nothing where it has none."""
    return CONFIG.scorer_instructions(scorer) or []


def asked(w):
    """The queries of an evaluation."""
    return dataset(CONFIG.evaluation(w.evaluation, w.run).dataset)


def lengths_of(w):
    """What the model's chat template refuses of the queries is told before anything is trained; raw text and cut prompts are not held to it."""
    evaluation = CONFIG.evaluation(w.evaluation, w.run)
    if evaluation.template != "chat" or evaluation.generation.prompt_tokens:
        return []
    return lengths(CONFIG.run(w.run).model, [evaluation.dataset])


def shots(w):
    """The dataset of solved examples that stand before each query, where it is another one than the evaluation's."""
    evaluation = CONFIG.evaluation(w.evaluation, w.run)
    other = evaluation.shots and evaluation.shots_from
    return dataset(evaluation.shots_from) if other else []


def design_file(w):
    """The file of the design in which an evaluation's queries stand, for a scorer of responses; nothing where they stand in none."""
    name = CONFIG.design_of(w.evaluation, w.run)
    reads = name and "response" in CONFIG.scorer_needs(w.scorer)
    return code_file("designs", CONFIG.designs, name) if reads else []


def served(w):
    """The checkpoint that an endpoint is to serve; nothing where the model's name does not hold the run's."""
    name = CONFIG.responder(w.evaluation.split("/")[0])
    endpoint = CONFIG.endpoint(name, f"evaluations.{w.evaluation}.generation.endpoint")
    return checkpoints(w.run) if "{run}" in endpoint.model else []


def opponents(w):
    """The responses that a scorer compares these with; nothing for one that compares none."""
    against = CONFIG.opponent(w.scorer, w.run)
    return responses(against, w.evaluation) if against else []


def evaluations_by(what):
    """The evaluations whose responses come from the run's checkpoint, an endpoint or a file, as a pattern of their points."""
    found = []
    for name, evaluation in CONFIG.evaluations.items():
        by_endpoint = "endpoint" if CONFIG.responder(name) else "checkpoint"
        if what == ("file" if evaluation.responses else by_endpoint):
            found.append(name)
    return f"(?:{'|'.join(found) or '-'}){FACTORS}"


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
    runs = [run_of(study)] if study in CONFIG.influence else runs_of(study)
    return list(dict.fromkeys(d for run in runs for d in trained_on(run)))


def gradients(study):
    """The folder of the gradients that a study compares."""
    return f"{RESULTS}/gradients/{run_of(study)}/{study}"


def compared(study):
    """What is compared in a study, without its wording and its figures, as JSON."""
    names = set(StudyPanel.model_fields)
    return CONFIG.studies[study].model_dump_json(include=names)


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
    return [*swift_targets(studies), f"{RESULTS}/config.yaml"]


def swift_runs(studies):
    """The runs whose checkpoints these studies look at."""
    return list(dict.fromkeys(map(run_of, studies)))


def run_of(study):
    """The path of the run at whose checkpoints a study looks."""
    return CONFIG.point(CONFIG.studies[study].run).path


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
        for run in dict.fromkeys(trained)
        if CONFIG.run(run).model == model
    ]
    return json.dumps([r for i, r in enumerate(found) if r not in found[:i]])


def figures(study):
    """The folder of a study's figures."""
    return f"{RESULTS}/studies/{study}/figures"


def made_datasets():
    """Every dataset that the studies need: of their panels and runs, and what these are made from."""
    runs = [r for run in swift_runs(INFLUENCE) for r in CONFIG.ancestry(run)]
    names = [d for s in INFLUENCE for d in panel(s)] + [
        d for r in runs for d in scheduled(r)
    ]
    return lineage.needed(CONFIG, names)


def selections_used():
    """The selections of which datasets are made."""
    made_by = lineage.outputs(CONFIG)
    names = dict.fromkeys(made_by[d] for d in made_datasets() if d in made_by)
    return [CONFIG.selections[name] for name in names]


def reject_files(names):
    return [
        f"{RESULTS}/data/rejects/{n}.parquet"
        for n in names
        if n not in lineage.outputs(CONFIG)
        and n.rpartition(".")[2] not in CONFIG.designs
    ]


def account_files(names):
    """What a teacher cost for those of these datasets that it made."""
    found = {name: CONFIG.strategies.get(name.rpartition(".")[2]) for name in names}
    return [
        f"{RESULTS}/data/accounts/{name}.parquet"
        for name, strategy in found.items()
        if strategy is not None and strategy.by == "teacher"
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


def without_words(w):
    """A study as JSON without what people read of it, so that other words rerun nothing that does not show them."""
    words = {"question": "", "caption": ""}
    study = CONFIG.studies[w.study].model_copy(update=words)
    return as_json(
        study.model_dump(mode="json", exclude={"claims", "figures"}) | {"figures": {}}
    )


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
    return getattr(CONFIG.studies[w.study], "claims", None) or []


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
    return list(dict.fromkeys(e.run for e in entries(study)))


def evaluated(study):
    """The datasets of a study's evaluations."""
    asked = dict.fromkeys((e.evaluation, e.run) for e in entries(study))
    return list(dict.fromkeys(CONFIG.evaluation(*key).dataset for key in asked))


def described(study):
    """The datasets of a study of scores: those of its evaluations, those that its runs are trained on, and what they are made from."""
    seen = [d for run in runs_of(study) for d in trained_on(run)]
    return lineage.needed(CONFIG, [*evaluated(study), *seen])


SOURCES = {
    "pairs": "pairs.parquet",
    "verdicts": "verdicts.parquet",
    "baselines": "baselines.parquet",
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


def audits(study, table):
    """A table of an audit, of each of its scorers."""
    folder = f"{RESULTS}/studies/{study}/audit"
    scorers = CONFIG.studies[study].scorers
    return [f"{folder}/scorer={name}/{table}.parquet" for name in scorers]


def audited(study):
    """The queries from which an audit makes responses whose label is known."""
    return dataset(CONFIG.asked(CONFIG.studies[study].evaluation, {}).dataset)
