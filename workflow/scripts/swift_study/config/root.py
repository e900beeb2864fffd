"""The whole configuration, and whether its parts agree."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from swift_study.config import lineage
from swift_study.config.base import LAPTOP, MAIN, MOST_STEPS, NAME, Folder, Section, Seed, nearest
from swift_study.config.datasets import Dataset, Design, Selection, Strategy
from swift_study.config.evaluations import (
    Asked,
    Declared,
    Evaluation,
    Generation,
    Scorer,
    declared,
    evaluation_points,
    is_here,
    refers_to_run,
    resolve,
    scorer_file,
    scorer_instructions,
)
from swift_study.config.families import Point, matching, parse_name, resolve_runs
from swift_study.config.gradients import Gradients
from swift_study.config.grid import Level, fields, fill, path_of, read_path, text
from swift_study.config.models import Model
from swift_study.config.plan import Plan
from swift_study.config.points import rows_of
from swift_study.config.runs import Family, Run
from swift_study.config.statistics import Confounds, Statistics
from swift_study.config.studies import (
    AgreementStudy,
    AuditStudy,
    ComparisonStudy,
    CorrelationStudy,
    HeatMap,
    InfluenceStudy,
    Place,
    ScoredStudy,
    Study,
    SweepStudy,
    curve_names,
)
from swift_study.errors import UserError
from swift_study.io.endpoint import EndpointSettings

# What the workflow's own rules are called: a study is a rule as well. A test keeps this equal to rules/.
RULES = frozenset(
    {
        "agree", "all", "apply_design", "apply_strategy", "audit_scorer", "audit_scorer_with_endpoint", "check_confounds", "check_leakage",
        "compare", "compute_baselines", "correlate", "count_costs", "decide_verdicts", "describe_data", "draw_loss", "figures",
        "find_model", "gradients", "hold_claims", "list_costs",
        "load_dataset", "make_schedule", "measure_lengths", "pair_influence", "plan", "read_responses",
        "respond", "respond_with_endpoint", "score", "score_with_endpoint", "score_with_model", "select_examples", "sweep",
        "train", "train_for_now", "write_audit", "write_config", "write_manifest", "write_tables",
    }
)  # fmt: skip


def _values_may_be_null(schema: dict[str, Any]) -> None:
    schema["additionalProperties"] = {"anyOf": [schema["additionalProperties"], {"type": "null"}]}


class Config(Section):
    scale: str = LAPTOP
    """Whose values the studies take: `laptop`, or one that the files in studies/ have under `at`, such as `7b`. Files in scales/ set it"""
    default: list[str] = ["swift_study"]
    """What plain `snakemake` makes, beside studies of your own: collections (files in studies/) and studies."""
    results: Folder = "results"
    """Folder of all results."""
    cache: Folder = ".cache"
    """Folder of what later runs reuse: the converted packaged model, teacher replies."""
    gpus: bool = True
    """Whether cluster jobs that train, generate or compute gradients ask for GPUs, one a process."""
    network: Literal["submit_host", "everywhere"] = "submit_host"
    """Rules that ask a hub, a teacher or a judge run where snakemake was started, or `everywhere`: in cluster jobs, like the others."""
    model: Model = Model()
    """The model under study."""
    models: dict[str, Model] = Field(default={}, json_schema_extra=_values_may_be_null)
    """Further models, by name, that runs may train (`model: name`); what they do not name is as under `model`."""
    data_seed: Seed = 17
    """Of what is drawn: the examples of datasets, the parts of a split, a random choice."""
    near_duplicate: float = Field(default=0.8, gt=0, le=1)
    """Jaccard similarity of the texts' character 5-grams from which two examples count as near-duplicates."""
    datasets: dict[str, Dataset] = Field(default={}, json_schema_extra=_values_may_be_null)
    """Where examples come from, by names of yours. `name.part` is a part, `name.strategy` what a strategy makes, `name.design` a form."""
    strategies: dict[str, Strategy] = Field(default={}, json_schema_extra=_values_may_be_null)
    """Ways of making data: for each name a file `strategies/<name>.py`."""
    designs: dict[str, Design] = Field(default={}, json_schema_extra=_values_may_be_null)
    """Forms of queries and completions: for each name a file `designs/<name>.py` that renders records and reads responses back."""
    selections: dict[str, Selection] = Field(default={}, json_schema_extra=_values_may_be_null)
    """Examples that are chosen by scores: of a run's responses, or in a table of yours."""
    endpoints: dict[str, EndpointSettings] = Field(default={}, json_schema_extra=_values_may_be_null)
    """OpenAI-compatible servers, by name: `teacher` for strategies, `judge` for scorers, others by the names that these give. Keys come
    from the environment only."""
    runs: dict[str, Family] = Field(default={}, json_schema_extra=_values_may_be_null)
    """Trainings, by name."""
    generation: Generation = Generation()
    """How responses are generated, where an evaluation says nothing else."""
    evaluations: dict[str, Evaluation] = Field(default={}, json_schema_extra=_values_may_be_null)
    """What runs are asked and what scores their responses, by name."""
    scorers: dict[str, Scorer] = Field(default={}, json_schema_extra=_values_may_be_null)
    """Uses of scorer files, by names of their own. A name that is not here is a file `scorers/<name>.py` without options."""
    gradients: Gradients = Gradients()
    """The gradient engine."""
    statistics: Statistics = Statistics()
    """Intervals and the rule of the verdict."""
    confounds: Confounds = Confounds()
    """What else could explain a verdict: each is given again under other scores and on parts of the pairs (docs/method.md)."""
    studies: dict[str, Study] = Field(default={}, json_schema_extra=_values_may_be_null)
    """Studies, by name; each is a target of its own. A null takes one out."""
    plan: Plan = Plan()
    """What the target `plan` assumes, which tells the cost of everything beforehand. It affects no result."""

    def key_names(self) -> list[str]:
        """Environment variables that hold keys: those of the endpoints, and the hub's."""
        return sorted({"HF_TOKEN", "OPENAI_API_KEY", *(e.key_env for e in self.endpoints.values())})

    @model_validator(mode="before")
    @classmethod
    def _models_are_like_the_model(cls, values: Any) -> Any:
        if isinstance(values, dict) and isinstance(values.get("models"), dict) and isinstance(values.get("model", {}), dict):
            own = {name: m for name, m in values["models"].items() if isinstance(m, dict)}
            main = {key: value for key, value in values.get("model", {}).items() if key in Model.model_fields}  # a mistake is told once
            values = values | {"models": values["models"] | {name: main | m for name, m in own.items()}}
        return values

    @model_validator(mode="after")
    def _parts_agree(self) -> Self:
        self._check_names()
        for name, strategy in self.strategies.items():
            if strategy.by == "teacher" and strategy.endpoint not in self.endpoints:
                raise ValueError(f"strategies.{name}.by is 'teacher', but `endpoints.{strategy.endpoint}` is not configured"
                                 f"{nearest(strategy.endpoint, self.endpoints)}")  # fmt: skip
        lineage.check_exclusions(self)
        for name, family in self.runs.items():
            if {} in family.schedule:
                raise ValueError(f"runs.{name}.schedule: a phase is empty")
        # First those that others are like, so that a mistake is told where it was made.
        for points in sorted(self.points.values(), key=lambda points: self._likeness(points[0].family)):
            for point in points:
                self._check_run(point, f"runs.{point.family if len(points) == 1 else point.name}")
        self._check_evaluations()
        for name, selection in self.selections.items():
            self._check_selection(name, selection)
        self._check_studies()
        return self

    @property
    def influence(self) -> dict[str, InfluenceStudy]:
        """The influence studies, by name."""
        return {name: study for name, study in self.studies.items() if isinstance(study, InfluenceStudy)}

    def with_values(self, study: str) -> list[str]:
        """The datasets of a study that must say which part of a completion is the answer, since the gradients are those of its loss."""
        losses = self.influence[study].loss_of() if study in self.influence else {}
        return [dataset for dataset, loss_on in losses.items() if loss_on == "values"]

    def _check_evaluations(self) -> None:
        for name in self.scorer_names():
            try:
                declared(self.scorer_file(name))
            except UserError as error:
                raise ValueError(f"scorers.{name}: {error}") from error
            against = self.scorer(name).against
            if against is not None and not fields(against):
                self.named(against, f"scorers.{name}.against")
        for name, evaluation in self.evaluations.items():
            if not refers_to_run(evaluation):
                self._check_asked(name, [])

    def _check_asked(self, name: str, runs: Sequence[Point], where: str = "evaluations") -> None:
        """ValueError unless an evaluation, `name` or `name[factor=level]`, can be asked of these runs, and its datasets exist.

        Without runs: where it refers to none. ``where`` asks it. Runs that give the evaluation the same texts are looked at once.
        """
        family, levels = self.evaluation_levels(name, where)
        evaluation = self.evaluations[family]
        skipping = {factor for entry in evaluation.skip for factor in entry}
        used = refers_to_run(evaluation) | skipping | set(evaluation.grid)
        first: dict[tuple[tuple[str, Level], ...], tuple[str, dict[str, Level]]] = {}
        for run in runs:
            factors = self.factors_of(run.path)
            first.setdefault(tuple(pair for pair in factors.items() if pair[0] in used), (f", for the run {run.name!r} ({where})", factors))
        for of, factors in first.values() or [("", {})]:
            for path in evaluation_points(family, evaluation, factors):
                if all(read_path(path)[1].get(factor) == level for factor, level in levels.items()):
                    try:
                        asked = self.asked(path, factors)
                    except UserError as error:
                        raise ValueError(f"{str(error).rstrip('.')}{of}") from error
                    for key, dataset in (("dataset", asked.dataset), ("shots_from", asked.shots_from)):
                        if dataset is not None:
                            self._check_dataset(f"evaluations.{family}.{key}{of}", dataset)

    def _likeness(self, family: str) -> int:
        """Of how many families, one like the other, a family takes settings."""
        like = self.runs[family].like
        return 0 if like is None else 1 + self._likeness(like)

    def _check_names(self) -> None:
        """Each name has one reading: as a rule, as a file, and in a dotted name."""
        lineage.check_names(self)
        taken = {
            "run": {"model": "the model itself, where a run starts from it"},
            "model": {MAIN: "the model under study"},
            "study": dict.fromkeys(RULES, "a target of the workflow"),
        }
        for kind, names in (
            ("run", self.runs), ("study", self.studies), ("strategy", self.strategies), ("model", self.models), ("dataset", self.datasets),
            ("design", self.designs), ("selection", self.selections), ("evaluation", self.evaluations),
            ("scorer", self.scorer_names()), ("endpoint", self.endpoints),
        ):  # fmt: skip
            for name in names:
                if not NAME.fullmatch(name):
                    raise ValueError(f"{kind} name {name!r}: use lower-case letters, digits and _, beginning with a letter, at most 64")
                if name in taken.get(kind, {}):
                    raise ValueError(f"{kind} name {name!r} is that of {taken[kind][name]}; take another")

    def _check_run(self, point: Point, where: str) -> None:
        run = point.run
        if run.model not in (MAIN, *self.models):
            raise ValueError(f"{where}.model: there is no model {run.model!r}{nearest(run.model, self.models)}; known: "
                             f"{', '.join([MAIN, *self.models])}")  # fmt: skip
        for phase in run.schedule:
            for dataset in phase:
                self._check_dataset(f"{where}.schedule", dataset)
        if run.start != "model":
            start = self.run(run.start)
            if start.method != run.method or (run.method == "lora" and not start.lora.same_weights(run.lora)):
                raise ValueError(f"{where}.start: a run starts from one of the same method (and, for lora, the same adapter); "
                                 f"{run.start!r} is another kind")  # fmt: skip
            if start.model != run.model:
                raise ValueError(f"{where}.start: the run trains the model {run.model!r}, but {run.start!r} trains {start.model!r}")
        if run.early_stopping is not None:
            self._check_dataset(f"{where}.early_stopping.dataset", run.early_stopping.dataset)
            if any(run.early_stopping.dataset in phase for phase in run.schedule):
                raise ValueError(f"{where}.early_stopping.dataset: the run is trained on {run.early_stopping.dataset!r}; its loss there "
                                 "says nothing of other data. Name another dataset")  # fmt: skip
        if run.publish == "best" and run.early_stopping is None:
            raise ValueError(f"{where}.publish is 'best', but nothing says on which dataset; set {where}.early_stopping (patience: null "
                             "measures and never stops)")  # fmt: skip
        if run.publish == "best" and run.checkpoint_every is not None:
            raise ValueError(f"{where}.publish: 'best' publishes one checkpoint; set {where}.checkpoint_every to null, or keep to last")
        if run.export_second_moments and run.optimizer != "adamw":
            raise ValueError(
                f"{where}.export_second_moments: {run.optimizer} has no second moments; set it to false, or optimizer to adamw"
            )
        if run.offload == "optimizer" and run.zero_stage == 0:
            raise ValueError(f"{where}.offload: optimizer needs zero_stage 1, 2 or 3")
        if run.method == "full" and run.zero_stage == 0 and (run.dtype or self.model_of(point.path).dtype) == "bfloat16":
            raise ValueError(f"{where}: all parameters in bfloat16 need zero_stage 1, 2 or 3, where DeepSpeed keeps float32 masters")
        if run.offload == "parameters" and run.zero_stage != 3:
            raise ValueError(f"{where}.offload: parameters needs zero_stage 3")
        if run.processes % run.nodes:
            raise ValueError(f"{where}.processes {run.processes} is not a multiple of nodes {run.nodes}")
        if run.batch_size % (run.processes * run.micro_batch_size):
            raise ValueError(f"{where}.batch_size {run.batch_size} is not a multiple of processes × micro_batch_size "
                             f"= {run.processes} × {run.micro_batch_size}")  # fmt: skip
        steps = self._number_of_steps(run)
        if steps is not None and steps > MOST_STEPS:
            raise ValueError(f"{where} would have {steps} steps, more than {MOST_STEPS}; lower epochs or the examples of its schedule")
        if steps and run.warmup_steps >= steps:
            raise ValueError(f"{where}.warmup_steps {run.warmup_steps} is not below the {steps} steps of the run")

    def _number_of_steps(self, run: Run) -> int | None:
        """None where the datasets' sizes are not known before they are made."""
        size = 0
        for phase in run.schedule:
            for dataset, part in phase.items():
                n = lineage.size(self, dataset) if part.examples is None else part.examples
                if n is None:
                    return None
                size += round(n * part.weight)
        return run.epochs * -(-size // run.batch_size)

    def _check_studies(self) -> None:
        for name, study in self.studies.items():
            where = f"studies.{name}"
            if isinstance(study, InfluenceStudy):
                self._check_influence(where, study)
            runs: list[Point] = []
            if isinstance(study, ComparisonStudy):
                rows = rows_of({row: run for row, run in study.rows.items() if run is not None}, self.points, f"{where}.rows")
                runs = [point for own in rows.values() for point in own]
                if isinstance(study.figure, HeatMap):
                    families = [self.evaluations.get(e.partition("[")[0]) for e in study.evaluations]
                    factors = dict.fromkeys(f for levels in (*(p.levels for p in runs), *(e.grid for e in families if e)) for f in levels)
                    known = ["row", "evaluation", *(f for f in factors if f != "seed")]  # a row is the mean over its seeds
                    for key, axis in (("rows", study.figure.rows), ("columns", study.figure.columns)):
                        if axis not in known:
                            raise ValueError(f"{where}.figure.{key}: there is no factor {axis!r}{nearest(axis, known)}; known: "
                                             f"{', '.join(known)}")  # fmt: skip
            if isinstance(study, SweepStudy):
                runs = self.named(study.runs, f"{where}.runs")
                for factor in (study.x, *study.lines, *study.panels):
                    if not any(factor in p.levels for p in runs):
                        raise ValueError(f"{where}: {study.runs!r} has no factor {factor!r}, which x, lines or panels name")
            if isinstance(study, CorrelationStudy):
                runs = [point for run in study.runs for point in self.named(run, f"{where}.runs")]
            if isinstance(study, ScoredStudy):
                for evaluation in study.evaluations:
                    self._check_asked(evaluation, runs, f"{where}.evaluations")
            if isinstance(study, ScoredStudy | AuditStudy):
                for scorer in study.scorers or []:
                    try:
                        declared(self.scorer_file(scorer))
                    except UserError as error:
                        raise ValueError(f"{where}.scorers: {error}") from error
                    if problem := self.refusal(scorer):
                        raise ValueError(f"{where}.scorers: {problem}")
            if isinstance(study, AuditStudy):
                self._check_asked(study.evaluation, [], f"{where}.evaluation")
                for scorer in study.scorers:
                    if not self.labels(scorer):
                        raise ValueError(f"{where}.scorers: {scorer!r} gives no label (the statistic `right`), so it cannot be audited")
            if isinstance(study, AgreementStudy):
                for group, items in study.items.items():
                    for item, places in items.items():
                        for place, found in places.items():
                            self._check_place(f"{where}.items.{group}.{item}.{place}", found)

    def _check_influence(self, where: str, study: InfluenceStudy) -> None:
        for dataset in study.datasets():
            self._check_dataset(where, dataset)
        point = self.point(study.run, f"{where}.run")
        if point.run.checkpoint_every is None:
            why = "keep: last" if point.keep == "last" else "checkpoint_every: null"
            raise ValueError(f"{where}.run: an influence study needs a run's checkpoints; {study.run!r} publishes its last "
                             f"state only ({why})")  # fmt: skip
        if self.run(study.run).early_stopping is not None:
            raise ValueError(f"{where}.run: an influence study reads all checkpoints up to the end of the schedule, and "
                             f"{study.run!r} may stop before; set its early_stopping to null")  # fmt: skip
        if self.run(study.run).method == "full" and self.gradients.scope == "lora":
            raise ValueError(f"{where}.run: {study.run!r} trains all weights and has no adapter; set gradients.scope: full")

    def _check_place(self, where: str, place: Place) -> None:
        study = self.studies.get(place.study)
        if study is None:
            raise ValueError(f"{where}.study: there is no study {place.study!r}{nearest(place.study, self.studies)}; known: "
                             f"{', '.join(self.studies)}")  # fmt: skip
        if isinstance(study, InfluenceStudy):
            known = curve_names(study.probes, study.targets)
        elif isinstance(study, ComparisonStudy):
            own = {row: run for row, run in study.rows.items() if run is not None}
            known = [*study.rows, *rows_of(own, self.points, where)]
        else:
            raise ValueError(f"{where}.study: {place.study!r} is a {study.kind}; items stand in influence studies and comparisons")
        if place.row not in known:
            raise ValueError(f"{where}.row: {place.study!r} has no {place.row!r}{nearest(place.row, known)}; it has {', '.join(known)}")

    def _check_dataset(self, where: str, dataset: str) -> None:
        lineage.check_name(self, where, dataset)

    def _check_selection(self, name: str, selection: Selection) -> None:
        where = f"selections.{name}"
        for relative, dataset in {"examples": selection.examples, **selection.relatives}.items():
            key = "examples" if relative == "examples" else f"relatives.{relative}"
            lineage.check_name(self, f"{where}.{key}", dataset)
            if key != "examples" and selection.examples not in lineage.ancestors(self, [dataset]):
                raise ValueError(f"{where}.{key}: {dataset!r} is not made from {selection.examples!r}, so that none of its examples is a "
                                 "relative of one there")  # fmt: skip
            if not {dataset, *lineage.ancestors(self, [dataset])}.isdisjoint(selection.outputs):
                raise ValueError(f"{where}.{key}: {dataset!r} is made from the selection itself")
        if selection.scores is not None and selection.scores.run is not None:
            run = self.point(selection.scores.run, f"{where}.scores.run")
            if selection.scores.evaluation is not None:
                self._check_asked(selection.scores.evaluation, [run], f"{where}.scores.evaluation")
            try:
                self.asked_by(selection)
            except UserError as error:
                raise ValueError(f"{where}.scores.evaluation: {error}") from error

    # ---- runs ----

    @functools.cached_property
    def points(self) -> dict[str, list[Point]]:
        """Every family's points, those that another one stands for included. ValueError as ``resolve_runs``.

        A run with `keep: last` has no checkpoints on its way.
        """
        last = {"checkpoint_every": None}
        return {
            name: [replace(p, run=p.run.model_copy(update=last)) if p.keep == "last" else p for p in points]
            for name, points in resolve_runs(self.runs).items()
        }

    @functools.cached_property
    def by_path(self) -> dict[str, Point]:
        """The points that are runs of their own, by their path."""
        return {p.path: p for points in self.points.values() for p in points if p.is_own}

    def named(self, name: str, where: str = "runs") -> list[Point]:
        """The points that a name in the configuration means: ``family`` all of it, ``family[n=0]`` those with this level."""
        return matching(where, name, self.points)

    def point(self, name: str, where: str = "runs") -> Point:
        """The run at a path, or the one that a name in the configuration means. ValueError where that is none or several."""
        if name in self.by_path:
            return self.by_path[name]
        paths = list(dict.fromkeys(p.path for p in self.named(name, where)))
        if len(paths) != 1:
            raise ValueError(f"{where}: {name!r} is {len(paths)} runs, such as {self.by_path[paths[0]].name}; name one of them")
        return self.by_path[paths[0]]

    def run(self, name: str, where: str = "runs") -> Run:
        """The settings of that run."""
        return self.point(name, where).run

    def ancestry(self, name: str) -> list[str]:
        """The paths of the run and of those it starts from, its own last."""
        found = [self.point(name).path]
        while (start := self.by_path[found[0]].run.start) != "model":
            found.insert(0, start)
        return found

    def model_of(self, name: str) -> Model:
        """The model that a run trains."""
        model = self.run(name).model
        return self.model if model == MAIN else self.models[model]

    def asked_by(self, selection: Selection) -> dict[str, str]:
        """By each dataset whose scores or responses a selection needs, the point of its evaluation that asks these queries.

        UserError where there is none.
        """
        scores = selection.scores
        if scores is None or scores.run is None or scores.evaluation is None:
            return {}
        if scores.evaluation not in self.evaluations:
            raise UserError(f"there is no evaluation {scores.evaluation!r}{nearest(scores.evaluation, self.evaluations)}; known: "
                            f"{', '.join(self.evaluations)}")  # fmt: skip
        found = {self.evaluation(p, scores.run).dataset: p for p in self.evaluation_points(scores.evaluation, scores.run)}
        for dataset in selection.scored():
            if dataset not in found:
                raise UserError(f"no point of the evaluation {scores.evaluation!r} has the dataset {dataset!r}, whose scores are needed; "
                                f"has {', '.join(found)}")  # fmt: skip
        return {dataset: found[dataset] for dataset in selection.scored()}

    # ---- evaluations ----

    def factors_of(self, run: str) -> dict[str, Level]:
        """The factors of a run that evaluations may refer to: `run`, its name, and what tells this point of its family from the others."""
        return {"run": run, **self.point(run).levels} if run else {}

    def asked(self, path: str, factors: Mapping[str, Level]) -> Asked:
        """An evaluation at a point, by its path, for a run with these factors. UserError where it cannot be had."""
        name, levels = read_path(path)
        if name not in self.evaluations:
            raise UserError(f"evaluations: there is no evaluation {name!r}{nearest(name, self.evaluations)}; known: "
                            f"{', '.join(self.evaluations)}.")  # fmt: skip
        return resolve(name, self.evaluations[name], self.generation, levels, factors)

    def evaluation(self, path: str, run: str) -> Asked:
        """An evaluation at a point, by its path, of a run. UserError where it cannot be had."""
        key = path, run
        if key not in self._asked:
            self._asked[key] = self.asked(path, self.factors_of(run))
        return self._asked[key]

    @functools.cached_property
    def _asked(self) -> dict[tuple[str, str], Asked]:
        return {}

    def evaluation_levels(self, name: str, where: str = "evaluations") -> tuple[str, dict[str, str]]:
        """Evaluation and levels of `name[factor=level]`. ValueError where there is no such evaluation or factor."""
        family, levels = parse_name(name)
        if family not in self.evaluations:
            raise ValueError(f"{where}: there is no evaluation {family!r}{nearest(family, self.evaluations)}; known: "
                             f"{', '.join(self.evaluations)}")  # fmt: skip
        for factor in levels:
            if factor not in self.evaluations[family].grid:
                known = list(self.evaluations[family].grid)
                raise ValueError(f"{where}: the evaluation {family!r} has no factor {factor!r}{nearest(factor, known)}; it has "
                                 f"{', '.join(known) or 'none'}")  # fmt: skip
        return family, levels

    def design_of(self, path: str, run: str) -> str | None:
        """The design in which an evaluation's queries stand, which reads its responses back; None where they stand in none."""
        last = self.evaluation(path, run).dataset.rpartition(".")[2]
        return last if last in self.designs else None

    def evaluation_points(self, name: str, run: str) -> list[str]:
        """The paths of an evaluation's points for a run, without those that are skipped."""
        return evaluation_points(name, self.evaluations[name], self.factors_of(run))

    def responder(self, name: str) -> str | None:
        """The name of the endpoint that responds in an evaluation; None: the run's checkpoint does, or a file."""
        evaluation = self.evaluations[name]
        found: str | None = evaluation.generation.get("endpoint", self.generation.endpoint)
        return None if evaluation.responses is not None else found

    def endpoint(self, name: str, where: str) -> EndpointSettings:
        """UserError, which begins with ``where``, for an endpoint that is not configured."""
        if name not in self.endpoints:
            raise UserError(f"{where}: `endpoints.{name}` is not configured{nearest(name, self.endpoints)}. Configure it, or take another.")
        return self.endpoints[name]

    # ---- scorers ----

    def scorer_names(self) -> list[str]:
        """Every scorer that is used."""
        of_evaluations = [scorer for evaluation in self.evaluations.values() for scorer in evaluation.scorers]
        of_studies = [scorer for study in self.studies.values() for scorer in getattr(study, "scorers", None) or []]
        return list(dict.fromkeys([*self.scorers, *of_evaluations, *of_studies, "key_points", "likelihood"]))

    def scorer(self, name: str) -> Scorer:
        return self.scorers.get(name, Scorer())

    def scorer_file(self, name: str) -> Path:
        return scorer_file(name, self.scorer(name))

    @functools.cached_property
    def _declared(self) -> dict[str, Declared]:
        return {}

    def declared(self, name: str) -> Declared:
        """What a scorer's file says of itself. UserError where there is no such file, or it says nothing usable."""
        if name not in self._declared:
            self._declared[name] = declared(self.scorer_file(name))
        return self._declared[name]

    def scorer_needs(self, name: str) -> frozenset[str]:
        """Words of NEEDS: what the scorer needs."""
        return self.declared(name).needs

    def labels(self, name: str) -> bool:
        """Whether a scorer labels responses right or wrong, so that it can be audited."""
        return "right" in self.declared(name).statistics

    def scorer_instructions(self, name: str) -> str | None:
        """The text file of what the scorer's endpoint is told; None for a scorer that asks none, or has no such file."""
        return scorer_instructions(name, self.scorer(name)) if "endpoint" in self.scorer_needs(name) else None

    def scorer_endpoint(self, name: str) -> str | None:
        """The name of the endpoint that a scorer asks; None for one that asks none."""
        return (self.scorer(name).endpoint or "judge") if "endpoint" in self.scorer_needs(name) else None

    def refusal(self, name: str) -> str | None:
        """Why a scorer cannot run, as a sentence, told before anything is paid for; None where it can."""
        endpoint, use = self.scorer_endpoint(name), self.scorer(name)
        if endpoint is not None and endpoint not in self.endpoints:
            return f"the scorer {name!r} asks an endpoint, and `endpoints.{endpoint}` is not configured{nearest(endpoint, self.endpoints)}"
        if use.endpoint is not None and endpoint is None:
            return f"scorers.{name}.endpoint is set, and the scorer asks none (NEEDS in {self.scorer_file(name)})"
        if use.model is not None and not is_here(use.model):
            return (f"scorers.{name}.model: {use.model!r} is neither a folder nor in the hub's cache on this machine; fetch it "
                    f"(hf download {use.model})")  # fmt: skip
        return None

    def opponent(self, name: str, run: str) -> str | None:
        """The path of the run whose responses a scorer compares a run's with; None where it compares none.

        Factors of the same name have the run's own levels. UserError where that is not one run.
        """
        against = self.scorer(name).against
        if against is None:
            return None
        where, own = f"scorers.{name}.against", self.factors_of(run)
        try:
            given = fill(against, own)
            points = self.named(given, where)
            named = parse_name(given)[1]
        except ValueError as error:
            raise UserError(f"{error}.") from error
        left = {p.path for p in points if all(p.levels[f] == text(level) for f, level in own.items() if f in p.levels and f not in named)}
        if len(left) != 1:
            raise UserError(f"{where}: {given!r} is {len(left)} runs for the run {run!r}; name the levels of one in brackets.")
        return left.pop()

    def audited(self, study: AuditStudy) -> str:
        """The path of the evaluation's point whose golden answers an audit takes."""
        return path_of(*self.evaluation_levels(study.evaluation))

    def steps(self, run: str) -> list[int]:
        """The steps at which a run publishes a checkpoint; empty where only its last state is published, or they are not known beforehand.

        For plans: scripts read from the table beside the checkpoints what there is.
        """
        r = self.run(run)
        last = self._number_of_steps(r)
        return [] if r.checkpoint_every is None or not last else [*range(r.checkpoint_every, last, r.checkpoint_every), last]

    def gradient_steps(self, run: str) -> list[int]:
        return [0] * self.gradients.include_step_0 + self.steps(run)
