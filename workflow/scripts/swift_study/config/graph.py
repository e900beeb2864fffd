"""What depends on what: the questions that rules ask of a configuration, answered by names and files.

No question needs Snakemake, and none looks at what was made already.
"""

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from swift_study.config import lineage
from swift_study.config.base import MAIN
from swift_study.config.datasets import Selection
from swift_study.config.evaluations import Responding, Scoring
from swift_study.config.families import Point
from swift_study.config.files import Files
from swift_study.config.grid import FACTORS, read_path
from swift_study.config.models import AFFECT_TOKENS, Model
from swift_study.config.points import rows_of
from swift_study.config.root import Config
from swift_study.config.statistics import Statistics
from swift_study.config.studies import (
    AgreementStudy,
    AuditStudy,
    ComparisonStudy,
    CorrelationStudy,
    ScoredStudy,
    StudyPanel,
    SweepStudy,
)
from swift_study.errors import UserError
from swift_study.io.endpoint import EndpointSettings
from swift_study.io.user_files import find_file

FORMATS = ("parquet", "csv", "md")  # of the tables in which studies end
TABLES = {
    "influence": ("claims",),
    "comparison": ("table", "claims"),
    "sweep": ("table", "phases", "savings"),
    "correlation": ("table",),
    "agreement": ("agreement", "rank_agreement", "decisions", "costs"),
    "audit": ("audit", "confusion", "disagreements"),
}
_DRAWN = ("figure.svg", "figure.png", "page.html")
OTHERS = {
    "influence": ("pairs.parquet", "curves.parquet", "verdicts.parquet", "confounds.parquet", "power.parquet", "figures"),
    "comparison": (*_DRAWN, "data.html"),
    "sweep": (*_DRAWN, "data.html"),
    "correlation": (*_DRAWN, "data.html"),
    "agreement": (*_DRAWN, "costs.html"),
    "audit": ("page.html",),
}


@dataclass(frozen=True)
class Entry:
    """What a study of scores reads: the scores that a scorer gives a run's responses in an evaluation."""

    row: str
    run: str
    seed: int
    model: str
    evaluation: str
    scorer: str
    path: str
    factors: Mapping[str, str]  # the run's and the evaluation's, as texts
    queries: str | None = None  # the dataset's file, where runs are asked this evaluation in several datasets


class Graph:
    """A configuration's graph. Runs are named by their paths, as in Snakemake's wildcards."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.files = Files(config.results)
        self._entries: dict[str, list[Entry]] = {}

    # ---- datasets ----

    def loaded(self) -> list[str]:
        """The datasets that are read from sources, with their parts, as patterns of names."""
        return [name + part for name, d in self.config.datasets.items() for part in ("", *(rf"\.{part}" for part in d.parts()))]

    @functools.cached_property
    def made_by(self) -> dict[str, str]:
        """By dataset that a selection makes, the selection."""
        return lineage.outputs(self.config)

    def parents(self, dataset: str) -> list[str]:
        """The files of the datasets that its examples are made from."""
        return self.files.datasets(lineage.parents(self.config, dataset))

    def analogues(self, parent: str) -> list[str]:
        """Further examples of the same tasks as this dataset's, where what it is made from has them."""
        source = parent.split(".", maxsplit=1)[0]
        settings = self.config.datasets.get(source)
        return [] if settings is None or settings.per_task is None else [self.files.dataset(f"{source}.analogues")]

    def user_files(self, loaded: str) -> list[str]:
        """The user's files among a dataset's sources."""
        return [source.path for source in self.config.datasets[loaded.split(".", maxsplit=1)[0]].sources if source.kind == "file"]

    def strategy_file(self, name: str) -> str:
        return str(find_file("strategies", self.config.strategies[name].like or name))

    def design_file(self, name: str) -> str:
        return str(find_file("designs", self.config.designs[name].like or name))

    def rejects(self, datasets: Iterable[str]) -> list[str]:
        """The rejects of those datasets whose making can leave something out."""
        return [self.files.rejects(d) for d in datasets if d not in self.made_by]

    def accounts(self, datasets: Iterable[str]) -> list[str]:
        """What a teacher cost for those of these datasets that it made."""
        found = {name: self.config.strategies.get(name.rpartition(".")[2]) for name in datasets}
        return [self.files.account(name) for name, s in found.items() if s is not None and s.by == "teacher"]

    def has_teacher(self) -> bool:
        """Whether a teacher is asked for anything."""
        return any(strategy.by == "teacher" for strategy in self.config.strategies.values())

    def teacher(self, strategy: str) -> EndpointSettings | None:
        """The endpoint that a strategy asks; None for one that asks none."""
        settings = self.config.strategies[strategy]
        return self.config.endpoints[settings.endpoint] if settings.by == "teacher" else None

    # ---- selections ----

    def selection(self, output: str) -> Selection:
        """The selection that makes a dataset."""
        return self.config.selections[self.made_by[output]]

    def chosen_among(self, s: Selection) -> list[str]:
        """The files of the examples among which a selection chooses, of their relatives, and of all between them."""
        names = [s.examples, *s.relatives.values()]
        return self.files.datasets(dict.fromkeys([*names, *lineage.ancestors(self.config, names)]))

    def selecting_scores(self, s: Selection) -> list[str]:
        """The scores of a run's responses by which a selection chooses; none where they are in a file, or it draws."""
        if s.scores is None or s.scores.run is None or s.scores.scorer is None:
            return []
        return [self.files.scores(s.scores.run, e, s.scores.scorer) for e in self.config.asked_by(s).values()]

    def selected_responses(self, s: Selection) -> list[str]:
        """The responses that a selection puts in the place of answers."""
        if s.scores is None or s.scores.run is None:
            return []
        asked = self.config.asked_by(s)
        names = dict.fromkeys(s.dataset_of(o.of) for o in s.outputs.values() if o.completion == "response")
        return [self.files.responses(s.scores.run, asked[name]) for name in names]

    def selecting_file(self, s: Selection) -> list[str]:
        """The user's table of scores."""
        return [s.scores.file] if s.scores is not None and s.scores.file is not None else []

    # ---- runs ----

    def model(self, name: str) -> Model:
        return self.config.model if name == MAIN else self.config.models[name]

    def scheduled(self, run: str) -> list[str]:
        """The datasets that a run is trained on."""
        return list(dict.fromkeys(d for phase in self.config.run(run).schedule for d in phase))

    def seen(self, run: str) -> list[str]:
        """The datasets that a run has been trained on, by what it starts from as well."""
        return list(dict.fromkeys(d for r in self.config.ancestry(run) for d in self.scheduled(r)))

    def affecting_tokens(self, model: str) -> dict[str, Any]:
        """The keys of a model that an example's tokens depend on, as plain values."""
        return self.model(model).model_dump(mode="json", include=AFFECT_TOKENS)

    def scheduling(self, run: str) -> dict[str, Any]:
        """The keys of a run that its schedule depends on, as plain values."""
        return self.config.run(run).model_dump(mode="json", include={"schedule", "epochs", "batch_size", "seed", "loss_on"})

    def model_file(self, run: str) -> str:
        return self.files.model(self.config.run(run).model)

    def lengths(self, run: str, datasets: Iterable[str]) -> list[str]:
        """How long the examples of these datasets are for a run's model."""
        return self.files.lengths(self.config.run(run).model, datasets)

    def lengths_shown(self, runs: Iterable[str], datasets: Iterable[str]) -> list[str]:
        """How long the examples are that these runs are trained on, and those of these datasets, for the runs' models."""
        datasets = list(datasets)
        return list(dict.fromkeys(f for run in runs for f in self.lengths(run, [*self.scheduled(run), *datasets])))

    def started_from(self, run: str) -> list[str]:
        """The checkpoints of which a run starts from the last; none where it starts from the model itself."""
        start = self.config.run(run).start
        return [] if start == "model" else [self.files.checkpoints(start)]

    def gpus(self, number: int) -> int:
        """So many GPUs, or none on a cluster without."""
        return number if self.config.gpus else 0

    def gpus_of_node(self, run: str) -> int:
        """GPUs that a training asks for on each of its nodes."""
        return self.gpus(self.config.run(run).processes // self.config.run(run).nodes)

    def on_one_node(self, run: str, value: Any) -> Any:
        """A resource that only a training on one node asks for; None is not asked for."""
        return value if self.config.run(run).nodes == 1 else None

    def on_several_nodes(self, run: str, value: Any) -> Any:
        """A resource that only a training on several nodes asks for; None is not asked for."""
        return value if self.config.run(run).nodes > 1 else None

    def stops_by(self, run: str) -> list[str]:
        """The dataset on which a run measures its loss to stop early; none where it does not."""
        stopping = self.config.run(run).early_stopping
        return [] if stopping is None else [self.files.dataset(stopping.dataset)]

    def families(self, keep: str) -> str:
        """The run families of which this is kept, as a pattern of names."""
        found = [name for name, points in self.config.points.items() if points[0].keep == keep]
        return f"(?:{'|'.join(found) or '-'})"

    def gradients_of(self, run: str) -> dict[str, Any] | None:
        """Which weights' gradients are computed at a run's checkpoints; None where no study looks at it."""
        looked_at = run in self.influence_runs(self.config.influence)
        return self.config.gradients.model_dump(include={"scope", "modules"}) if looked_at else None

    def trained_on(self, model: str) -> list[list[Any]]:
        """For each run that the influence studies have trained on this model its method, adapter and gradients, as plain values."""
        trained = dict.fromkeys(r for run in self.influence_runs(self.config.influence) for r in self.config.ancestry(run))
        found = [
            [self.config.run(run).model_dump(include={"method", "lora"}), self.gradients_of(run)]
            for run in trained
            if self.config.run(run).model == model
        ]
        return [r for i, r in enumerate(found) if r not in found[:i]]

    # ---- evaluations and scorers ----

    def asked(self, evaluation: str, run: str) -> str:
        """The queries of an evaluation."""
        return self.files.dataset(self.config.evaluation(evaluation, run).dataset)

    def lengths_asked(self, evaluation: str, run: str) -> list[str]:
        """How long the queries are. What a chat template refuses of them is told before anything is trained; raw text and cut prompts
        are not held to it."""
        asked = self.config.evaluation(evaluation, run)
        return [] if asked.template != "chat" or asked.generation.prompt_tokens else self.lengths(run, [asked.dataset])

    def shots(self, evaluation: str, run: str) -> list[str]:
        """The dataset of solved examples that stand before each query, where it is another one than the evaluation's."""
        asked = self.config.evaluation(evaluation, run)
        return [self.files.dataset(asked.shots_from)] if asked.shots and asked.shots_from else []

    def served(self, evaluation: str, run: str) -> list[str]:
        """The checkpoint that an endpoint is to serve; none where the model's name does not hold the run's."""
        name = self.config.responder(read_path(evaluation)[0])
        assert name is not None
        endpoint = self.config.endpoint(name, f"evaluations.{evaluation}.generation.endpoint")
        return [self.files.checkpoints(run)] if "{run}" in endpoint.model else []

    def responses_read(self, scorer: str, evaluation: str, run: str) -> list[str]:
        """The responses that a scorer needs; none where it scores none."""
        return [self.files.responses(run, evaluation)] if "response" in self.config.scorer_needs(scorer) else []

    def opponents(self, scorer: str, evaluation: str, run: str) -> list[str]:
        """The responses that a scorer compares these with; none for one that compares none."""
        against = self.config.opponent(scorer, run)
        return [self.files.responses(against, evaluation)] if against else []

    def design_read(self, scorer: str, evaluation: str, run: str) -> list[str]:
        """The file of the design in which an evaluation's queries stand, for a scorer of responses; none where they stand in none."""
        name = self.config.design_of(evaluation, run)
        return [self.design_file(name)] if name and "response" in self.config.scorer_needs(scorer) else []

    def responding(self, evaluation: str, run: str) -> Responding:
        """How a run is asked an evaluation. UserError where its endpoint is not configured."""
        asked, name = self.config.evaluation(evaluation, run), self.config.responder(read_path(evaluation)[0])
        endpoint = None if name is None else self.config.endpoint(name, f"evaluations.{evaluation}.generation.endpoint")
        return Responding(
            generation=asked.generation, shots=asked.shots, template=asked.template, endpoint=endpoint, endpoint_name=name or ""
        )

    def scoring(self, scorer: str, evaluation: str, run: str) -> Scoring:
        """How a scorer is used on a run's responses in an evaluation. UserError for one that cannot run."""
        if problem := self.config.refusal(scorer):
            raise UserError(f"{problem}.")
        use, endpoint, design = self.config.scorer(scorer), self.config.scorer_endpoint(scorer), self.config.design_of(evaluation, run)
        told = Scoring(
            name=scorer,
            options=use.options,
            model=use.model,
            design_options=self.config.designs[design].options if design else {},
            endpoint=self.config.endpoints[endpoint] if endpoint else None,
            endpoint_name=endpoint or "",
        )
        if "model" not in self.config.scorer_needs(scorer):
            return told
        asked = self.config.evaluation(evaluation, run)  # the query is rendered as where responses are generated
        return told.model_copy(update={"shots": asked.shots, "template": asked.template, "prompt_tokens": asked.generation.prompt_tokens})

    def scorer_file(self, scorer: str) -> str:
        return str(self.config.scorer_file(scorer))

    def instructions(self, scorer: str) -> list[str]:
        """The text file of what a scorer's endpoint is told; none where it has none."""
        return [file] if (file := self.config.scorer_instructions(scorer)) else []

    def scorers_that_need(self, *what: str | None) -> str:
        """The scorers that need a model, an endpoint, or (None) neither, as a pattern of names."""
        needs = {n: next((w for w in ("model", "endpoint") if w in self.config.scorer_needs(n)), None) for n in self.config.scorer_names()}
        return "|".join(name for name, need in needs.items() if need in what) or "-"

    def evaluations_by(self, what: str) -> str:
        """The evaluations whose responses come from the run's `checkpoint`, an `endpoint` or a `file`, as a pattern of their points."""
        found = []
        for name, evaluation in self.config.evaluations.items():
            by = "file" if evaluation.responses else "endpoint" if self.config.responder(name) else "checkpoint"
            found += [name] if by == what else []
        return f"(?:{'|'.join(found) or '-'}){FACTORS}"

    # ---- influence studies ----

    def run_of(self, study: str) -> str:
        """The run at whose checkpoints an influence study looks."""
        return self.config.point(self.config.influence[study].run).path

    def influence_runs(self, studies: Iterable[str]) -> list[str]:
        """The runs at whose checkpoints these studies look."""
        return list(dict.fromkeys(map(self.run_of, studies)))

    def panel(self, study: str) -> list[str]:
        """The datasets whose gradients an influence study compares, each once."""
        return self.config.influence[study].datasets()

    def compared(self, study: str) -> StudyPanel:
        """What is compared in an influence study, without its wording and its figures."""
        settings = self.config.influence[study]
        return StudyPanel(**{name: getattr(settings, name) for name in StudyPanel.model_fields})

    def rule_of(self, study: str) -> dict[str, Any]:
        """By which rule an influence study decides: `statistics`, `control` and `unit`."""
        settings = self.config.influence[study]
        return {"statistics": self.statistics(study), "control": settings.control, "unit": settings.unit}

    def gradients(self, study: str) -> str:
        """The folder of the gradients that an influence study compares."""
        return self.files.gradients(self.run_of(study), study)

    def datasets_of(self, studies: Iterable[str]) -> list[str]:
        """Every dataset that these influence studies need: of their panels and runs, and what these are made from."""
        studies = list(studies)
        runs = [r for run in self.influence_runs(studies) for r in self.config.ancestry(run)]
        return lineage.needed(self.config, [*(d for s in studies for d in self.panel(s)), *(d for r in runs for d in self.scheduled(r))])

    def selections_of(self, datasets: Iterable[str]) -> list[Selection]:
        """The selections that make some of these datasets."""
        return [self.config.selections[s] for s in dict.fromkeys(self.made_by[d] for d in datasets if d in self.made_by)]

    # ---- studies of scores ----

    def rows(self, study: str) -> dict[str, list[Point]]:
        """The runs behind every row of a study of scores."""
        settings, where = self.config.studies[study], f"studies.{study}"
        if isinstance(settings, ComparisonStudy):
            return rows_of(settings.taken(), self.config.points, f"{where}.rows")
        if isinstance(settings, SweepStudy):
            return {settings.runs: self.config.named(settings.runs, f"{where}.runs")}
        assert isinstance(settings, CorrelationStudy)
        return {run: self.config.named(run, f"{where}.runs") for run in settings.runs}

    def entries(self, study: str) -> list[Entry]:
        """Everything that a study of scores reads. A run for which an evaluation is skipped has no entry for it."""
        if study not in self._entries:
            self._entries[study] = self._find_entries(study)
        return self._entries[study]

    def _find_entries(self, study: str) -> list[Entry]:
        settings = self.config.studies[study]
        assert isinstance(settings, ScoredStudy)
        found: list[Entry] = []
        datasets: dict[str, set[str]] = {}  # by evaluation
        for row, points in self.rows(study).items():
            for p in points:
                for evaluation in settings.evaluations:
                    family, levels = self.config.evaluation_levels(evaluation)
                    for path in self.config.evaluation_points(family, p.path):
                        asked = read_path(path)[1]
                        if any(asked.get(f) != level for f, level in levels.items()):
                            continue
                        dataset = self.config.evaluation(path, p.path).dataset
                        datasets.setdefault(path, set()).add(dataset)
                        for scorer in settings.scorers or self.config.evaluations[family].scorers:
                            about = (row, p.path, p.run.seed, p.run.model, path, scorer, self.files.scores(p.path, path, scorer))
                            found.append(Entry(*about, {**p.levels, **asked}, self.files.dataset(dataset)))
        return [e if len(datasets[e.evaluation]) > 1 else replace(e, queries=None) for e in found]

    def runs_of(self, study: str) -> list[str]:
        """The runs whose scores a study reads."""
        return list(dict.fromkeys(e.run for e in self.entries(study)))

    def evaluated(self, study: str) -> list[str]:
        """The datasets of a study's evaluations."""
        asked = dict.fromkeys((e.evaluation, e.run) for e in self.entries(study))
        return list(dict.fromkeys(self.config.evaluation(*key).dataset for key in asked))

    def score_files(self, study: str) -> list[str]:
        """The scores that a study reads, and datasets by which it pairs them. They stand in its manifest, and on no command line."""
        return list(dict.fromkeys(file for e in self.entries(study) for file in (e.path, e.queries) if file))

    def scorer_files(self, studies: Iterable[str]) -> dict[str, str]:
        """The files of all scorers whose scores these studies read, by scorer."""
        return {name: self.scorer_file(name) for name in dict.fromkeys(e.scorer for study in studies for e in self.entries(study))}

    def described(self, study: str) -> list[str]:
        """The datasets of a study's evaluations, those that its runs are trained on, and what they are made from."""
        seen = [d for run in self.runs_of(study) for d in self.seen(run)]
        return lineage.needed(self.config, [*self.evaluated(study), *seen])

    # ---- all studies ----

    def of_kind(self, *kinds: str) -> str:
        """The studies of these kinds, as a pattern of names."""
        return "|".join(name for name, study in self.config.studies.items() if study.kind in kinds) or "-"

    def held_out(self, study: str) -> list[str]:
        """The datasets on which no run that a study looks at may be trained."""
        return self.panel(study) if study in self.config.influence else self.evaluated(study)

    def seen_before(self, study: str) -> list[str]:
        """The datasets that the runs of a study are trained on."""
        runs = [self.run_of(study)] if study in self.config.influence else self.runs_of(study)
        return list(dict.fromkeys(d for run in runs for d in self.seen(run)))

    def between(self, study: str) -> list[str]:
        """What the datasets of a study are made from."""
        return lineage.ancestors(self.config, [*self.seen_before(study), *self.held_out(study)])

    def ends(self, study: str) -> list[str]:
        """Every file and folder in which a study ends."""
        kind = self.config.studies[study].kind
        tables = [f"{table}.{format}" for table in TABLES[kind] for format in FORMATS]
        return [self.files.study(study, file) for file in (*tables, *OTHERS[kind])]

    def told(self, study: str) -> dict[str, Any]:
        """A study as plain values for a script. Its claims are an input of their own."""
        return self.config.studies[study].model_dump(mode="json", exclude={"claims"})

    def told_without_words(self, study: str) -> dict[str, Any]:
        """The same without what people read of it, so that other words rerun nothing that does not show them."""
        return self.told(study) | {"question": "", "caption": "", "figures": {}}

    def statistics(self, study: str) -> Statistics:
        """The section `statistics`, with the study's own key where it has one."""
        return self.config.statistics.of_study(getattr(self.config.studies[study], "after_step", None))

    def claims(self, study: str) -> list[str]:
        """A study's file of claims; none where it has none."""
        file = getattr(self.config.studies[study], "claims", None)
        return [file] if file else []

    # ---- agreements and audits ----

    def agreement(self, study: str) -> AgreementStudy:
        settings = self.config.studies[study]
        assert isinstance(settings, AgreementStudy)
        return settings

    def sources(self, study: str) -> dict[str, dict[str, Any]]:
        """By study that an agreement's items stand in, its settings and its files."""
        found = {}
        for name in self.agreement(study).sources():
            files = {"manifest": "manifest.parquet"}
            if name in self.config.influence:
                files = {"pairs": "pairs.parquet", "verdicts": "verdicts.parquet", "baselines": "baselines.parquet"}
            found[name] = {"settings": self.told(name), **{key: self.files.study(name, file) for key, file in files.items()}}
        return found

    def source_files(self, study: str) -> list[str]:
        """The files of an agreement's sources."""
        return [file for source in self.sources(study).values() for key, file in source.items() if key != "settings"]

    def comparisons(self, study: str) -> list[str]:
        """The comparisons among an agreement's sources."""
        return [name for name in self.agreement(study).sources() if name not in self.config.influence]

    def audit(self, study: str) -> AuditStudy:
        settings = self.config.studies[study]
        assert isinstance(settings, AuditStudy)
        return settings

    def audited(self, study: str) -> str:
        """The queries from which an audit makes responses whose label is known."""
        return self.files.dataset(self.config.asked(self.config.audited(self.audit(study)), {}).dataset)

    def audited_design(self, study: str) -> list[str]:
        """The file of the design in which these queries stand; none where they stand in none."""
        name = self.config.design_of(self.config.audited(self.audit(study)), "")
        return [self.design_file(name)] if name else []

    def auditing(self, study: str, scorer: str) -> Scoring:
        """How an audit uses a scorer. UserError for one that labels nothing, or cannot run."""
        if not self.config.labels(scorer):
            raise UserError(f"scorers.{scorer}: an audit needs a scorer that labels; its STATISTICS have no `right`.")
        if "model" in self.config.scorer_needs(scorer):
            raise UserError(f"scorers.{scorer}: a scorer that needs the run's model scores no given responses, so it cannot be audited.")
        return self.scoring(scorer, self.config.audited(self.audit(study)), "")

    def audit_tables(self, study: str, table: str) -> list[str]:
        """A table of an audit, of each of its scorers."""
        return [self.files.study(study, f"audit/scorer={scorer}/{table}.parquet") for scorer in self.audit(study).scorers]
