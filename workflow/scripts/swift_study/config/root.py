"""The whole configuration, and whether its parts agree."""

import functools
import json
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from swift_study.config.base import LAPTOP, MAIN, MOST_STEPS, NAME, SEED, Folder, Section, nearest
from swift_study.config.datasets import SELECTED, SOURCES, Data, Selection, Strategy
from swift_study.config.evaluations import Declared, Responses, Scorer, Scoring, declared, scorer_file, scorer_instructions
from swift_study.config.gradients import Gradients
from swift_study.config.models import Model
from swift_study.config.plan import Plan
from swift_study.config.points import matching, points, rows_of
from swift_study.config.runs import Run, training, training_of
from swift_study.config.statistics import Confounds, Statistics
from swift_study.config.studies import (
    AgreementStudy,
    AuditStudy,
    ComparisonStudy,
    CorrelationStudy,
    InfluenceStudy,
    Place,
    ScoredStudy,
    Study,
    SweepStudy,
    curve_names,
)
from swift_study.errors import UserError
from swift_study.io.endpoint import AFFECT_REPLIES, EndpointSettings, JudgeSettings

# What the workflow's own rules are called: a study is a rule as well. A test keeps this equal to rules/.
RULES = frozenset(
    {
        "agree", "all", "apply_strategy", "audit_scorer", "audit_scorer_with_endpoint", "check_confounds", "check_leakage", "compare",
        "compute_rivals", "correlate", "count_costs", "decide_verdicts", "describe_data", "draw_base", "draw_loss", "figures",
        "find_model", "gradients", "hold_claims", "load_panel", "make_schedule", "pair_influence", "plan", "respond", "revise_queries",
        "score", "score_with_endpoint", "score_with_model", "select_examples", "sweep", "swift", "train", "write_audit", "write_config",
        "write_manifest", "write_tables",
    }
)  # fmt: skip


# What stands before or behind a dot in the name of a dataset or of a file beside it, and is no strategy.
PARTS = ("panel", "candidates", "questions", "base", "negative", "positive", "analogues", "revised", "exclusions")
# Sections that are empty by default: their settings, and values for what has no default.
ENDPOINTS: dict[str, tuple[type[EndpointSettings], dict[str, Any]]] = {
    "teacher": (EndpointSettings, {"base_url": "http://localhost:8000/v1", "model": "my-model"}),
    "judge": (JudgeSettings, {}),
}


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
    """Further models, by name, on which the validation may be made too; what they do not name is as under `model`."""
    data: Data = Data()
    """Where examples come from."""
    strategies: dict[str, Strategy] = Field(default={}, json_schema_extra=_values_may_be_null)
    """Ways of making data: for each name a file `strategies/<name>.py`."""
    teacher: EndpointSettings | None = None
    """An OpenAI-compatible server for strategies with `by: teacher`. The key comes from the environment only."""
    judge: JudgeSettings | None = None
    """An OpenAI-compatible server whose model labels responses right or wrong. The key comes from the environment only."""
    runs: dict[str, Run] = Field(default={}, json_schema_extra=_values_may_be_null)
    """Trainings, by name."""
    responses: Responses = Responses()
    """How runs respond to queries."""
    scorers: dict[str, Scorer] = {}
    """Uses of scorer files, by names of their own. A name that is not here is a file `scorers/<name>.py` without options."""
    selection: Selection = Selection()
    """How negatives and positives are chosen from the base model's responses."""
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
        """Environment variables that hold keys: those of teacher, judge and response server, and the hub's."""
        endpoints = [self.teacher, self.judge, self.responses.server]
        return sorted({"HF_TOKEN", "OPENAI_API_KEY", *(e.key_env for e in endpoints if e is not None)})

    @model_validator(mode="before")
    @classmethod
    def _models_are_like_the_model(cls, values: Any) -> Any:
        if isinstance(values, dict) and isinstance(values.get("models"), dict) and isinstance(values.get("model", {}), dict):
            own = {name: m for name, m in values["models"].items() if isinstance(m, dict)}
            values = values | {"models": values["models"] | {name: values.get("model", {}) | m for name, m in own.items()}}
        return values

    @model_validator(mode="after")
    def _parts_agree(self) -> Self:
        self._check_names()
        for name, strategy in self.strategies.items():
            if strategy.by == "teacher" and self.teacher is None:
                raise ValueError(f"strategies.{name}.by is 'teacher', but no `teacher` is configured")
        if self.runs and "base" not in self.runs:
            raise ValueError("runs: there is no run 'base', on which negatives and positives are found; keep it")
        for name in self.runs:
            self._check_run(name)
        self._check_scorers()
        self._check_studies()
        return self

    @property
    def influence(self) -> dict[str, InfluenceStudy]:
        """The influence studies, by name."""
        return {name: study for name, study in self.studies.items() if isinstance(study, InfluenceStudy)}

    def _check_scorers(self) -> None:
        for name in self.scorer_names():
            if not NAME.fullmatch(name):
                raise ValueError(f"scorer name {name!r}: use lower-case letters, digits and _, beginning with a letter, at most 64")
            try:
                declared(self.scorer_file(name))
            except UserError as error:
                raise ValueError(f"scorers.{name}: {error}") from error

    def _check_names(self) -> None:
        """Each name has one reading: as a rule, as a file, and in a dotted name."""
        taken = {
            "run": {"model": "the model itself, where a run starts from it"},
            "model": {MAIN: "the model under study"},
            "strategy": dict.fromkeys(PARTS, "a source, of a selection or of a part of one"),
            "study": dict.fromkeys(RULES, "a target of the workflow"),
        }
        for kind, names in (
            ("run", self.runs), ("study", self.studies), ("strategy", self.strategies), ("model", self.models),
        ):  # fmt: skip
            for name in names:
                if not NAME.fullmatch(name) or (kind == "model" and SEED.fullmatch(name)):
                    raise ValueError(f"{kind} name {name!r}: use lower-case letters, digits and _, beginning with a letter, at most 64"
                                     + ("; names like 's1' mean a seed" if kind == "model" else ""))  # fmt: skip
                if name in taken[kind]:
                    raise ValueError(f"{kind} name {name!r} is that of {taken[kind][name]}; take another")

    def _check_run(self, name: str) -> None:
        run = self.run(name)
        where = f"runs.{name}"
        for phase in run.schedule:
            for dataset in phase:
                self._check_dataset(f"{where}.schedule", dataset)
            if not phase:
                raise ValueError(f"{where}.schedule: a phase is empty")
        if run.start != "model":
            start = self.run(run.start, f"{where}.start")
            if start.method != run.method or (run.method == "lora" and not start.lora.same_weights(run.lora)):
                raise ValueError(f"{where}.start: a run starts from one of the same method (and, for lora, the same adapter); "
                                 f"{run.start!r} is another kind")  # fmt: skip
        self.ancestry(name)
        if run.early_stopping is not None:
            self._check_dataset(f"{where}.early_stopping.dataset", run.early_stopping.dataset)
            if any(run.early_stopping.dataset in phase for phase in run.schedule):
                raise ValueError(f"{where}.early_stopping.dataset: the run is trained on {run.early_stopping.dataset!r}; its loss there "
                                 "says nothing of other data. Name another dataset")  # fmt: skip
        if run.publish == "best" and run.early_stopping is None:
            raise ValueError(f"{where}.publish is 'best', but nothing says on which dataset; set {where}.early_stopping (patience: null "
                             "measures and never stops)")  # fmt: skip
        if run.publish == "best" and run.checkpoint_every is not None:
            raise ValueError(f"{where}.publish: 'best' publishes one checkpoint; set {where}.checkpoint_every to null")
        if run.export_second_moments and run.optimizer != "adamw":
            raise ValueError(
                f"{where}.export_second_moments: {run.optimizer} has no second moments; set it to false, or optimizer to adamw"
            )
        if run.offload == "optimizer" and run.zero_stage == 0:
            raise ValueError(f"{where}.offload: optimizer needs zero_stage 1, 2 or 3")
        if run.method == "full" and run.zero_stage == 0 and (run.dtype or self.model.dtype) == "bfloat16":
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
                n = self.data.base.examples if part.examples is None and dataset == "base" else part.examples
                if n is None:
                    return None
                size += round(n * part.weight)
        return run.epochs * -(-size // run.batch_size)

    def _check_studies(self) -> None:
        every = points(self)
        for name, study in self.studies.items():
            where = f"studies.{name}"
            if isinstance(study, InfluenceStudy):
                self._check_influence(where, study)
            if isinstance(study, ComparisonStudy):
                rows_of({row: run for row, run in study.rows.items() if run is not None}, every, f"{where}.rows")
            if isinstance(study, SweepStudy):
                own = matching(study.runs, every, f"{where}.runs")
                for factor in (study.x, *study.lines, *study.panels):
                    if not any(factor in p.factors for p in own):
                        raise ValueError(f"{where}: {study.runs!r} has no factor {factor!r}, which x, lines or panels name")
            if isinstance(study, CorrelationStudy):
                for run in study.runs:
                    matching(run, every, f"{where}.runs")
            if isinstance(study, ScoredStudy):
                for evaluation in study.evaluations:
                    self._check_evaluation(f"{where}.evaluations", evaluation)
            if isinstance(study, ScoredStudy | AuditStudy):
                for scorer in study.scorers or []:
                    if scorer not in self.scorer_names():
                        raise ValueError(f"{where}.scorers: there is no scorer {scorer!r}{nearest(scorer, self.scorer_names())}; known: "
                                         f"{', '.join(self.scorer_names())}")  # fmt: skip
            if isinstance(study, AuditStudy):
                self._check_evaluation(f"{where}.evaluation", study.evaluation)
                for scorer in study.scorers:
                    if "right" not in declared(self.scorer_file(scorer)).statistics:
                        raise ValueError(f"{where}.scorers: {scorer!r} gives no label (the statistic `right`), so it cannot be audited")
            if isinstance(study, AgreementStudy):
                for group, items in study.items.items():
                    for item, places in items.items():
                        for place, found in places.items():
                            self._check_place(f"{where}.items.{group}.{item}.{place}", found)

    def _check_influence(self, where: str, study: InfluenceStudy) -> None:
        if study.run not in self.runs:
            raise ValueError(f"{where}.run: there is no run {study.run!r}; known: {', '.join(self.runs)}")
        for dataset in study.datasets():
            self._check_dataset(where, dataset)
        if self.run(study.run).checkpoint_every is None:
            raise ValueError(f"{where}.run: an influence study needs a run's checkpoints; {study.run!r} publishes its last "
                             "state only (checkpoint_every: null)")  # fmt: skip
        if self.run(study.run).early_stopping is not None:
            raise ValueError(f"{where}.run: an influence study reads all checkpoints up to the end of the schedule, and "
                             f"{study.run!r} may stop before; set its early_stopping to null")  # fmt: skip
        if self.run(study.run).method == "full" and self.gradients.scope == "lora":
            raise ValueError(f"{where}.run: {study.run!r} trains all weights and has no adapter; set gradients.scope: full")

    def _check_evaluation(self, where: str, name: str) -> None:
        if name != "questions":
            raise ValueError(f"{where}: there is no evaluation {name!r}; known: questions")

    def _check_place(self, where: str, place: Place) -> None:
        study = self.studies.get(place.study)
        if study is None:
            raise ValueError(f"{where}.study: there is no study {place.study!r}{nearest(place.study, self.studies)}; known: "
                             f"{', '.join(self.studies)}")  # fmt: skip
        if isinstance(study, InfluenceStudy):
            known = curve_names(study.probes, study.targets)
        elif isinstance(study, ComparisonStudy):
            own = {row: run for row, run in study.rows.items() if run is not None}
            known = [*study.rows, *rows_of(own, points(self), where)]
        else:
            raise ValueError(f"{where}.study: {place.study!r} is a {study.kind}; items stand in influence studies and comparisons")
        if place.row not in known:
            raise ValueError(f"{where}.row: {place.study!r} has no {place.row!r}{nearest(place.row, known)}; it has {', '.join(known)}")

    def _check_dataset(self, where: str, dataset: str) -> None:
        if len(dataset) > 200:  # it names a file
            raise ValueError(f"{where}: the dataset name {dataset[:40]!r}… has {len(dataset)} characters, more than 200")
        if dataset in SELECTED:
            for strategy in ("similar", "clarify"):
                if strategy not in self.strategies:
                    raise ValueError(f"{where}: {dataset!r} is found with the strategies 'similar' and 'clarify'; there is no {strategy!r}")
            return
        if dataset in SOURCES:
            return
        parent, _, strategy = dataset.rpartition(".")
        if strategy not in self.strategies or not parent:
            known = [*SOURCES, *SELECTED, *(f"panel.{s}" for s in self.strategies)]
            raise ValueError(f"{where}: unknown dataset {dataset!r}{nearest(dataset, known)}; known are "
                             f"{', '.join([*SOURCES, *SELECTED])}, and any of them followed by a dot and a strategy "
                             f"({', '.join(self.strategies)})")  # fmt: skip
        self._check_dataset(where, parent)

    def run(self, name: str, where: str = "runs") -> Run:
        """The settings of a run, with what it takes from the run that it is like.

        ``name`` is one of ``runs``, or that of one training among several of it (see ``training``): its seed and what it starts
        from are then those of that training.
        """
        plain, model, seed = training_of(name)
        chain: list[Run] = []
        following: str | None = plain
        while following is not None:
            if following not in self.runs:
                raise ValueError(f"{where}: there is no run {following!r}{nearest(following, self.runs)}; known: {', '.join(self.runs)}")
            if self.runs[following] in chain:
                raise ValueError(f"runs.{plain}.like: the run is like itself in the end")
            chain.append(self.runs[following])
            following = chain[-1].like
        values: dict[str, Any] = {}
        for run in reversed(chain):
            values |= {key: getattr(run, key) for key in run.model_fields_set}
        run = Run.model_construct(**{key: field.get_default() for key, field in Run.model_fields.items()} | values | {"like": None})
        if seed is not None:
            start = "model" if run.start == "model" else training(run.start, model, seed)
            run = run.model_copy(update={"seed": seed, "start": start})
        return run

    def ancestry(self, name: str) -> list[str]:
        """The run and those it starts from, the last one first. ValueError if they go round in a circle."""
        found = [name]
        while (start := self.run(found[0]).start) != "model":
            if start in found:
                raise ValueError(f"runs.{name}.start: the run starts from itself in the end")
            found.insert(0, start)
        return found

    # ---- scorers ----

    def scorer_names(self) -> list[str]:
        """Every scorer that is used."""
        return list(dict.fromkeys([*self.scorers, "key_points", "likelihood", *(["judge"] if self.judge else [])]))

    def scorer(self, name: str) -> Scorer:
        return self.scorers.get(name, Scorer())

    def scorer_file(self, name: str) -> Path:
        return scorer_file(name, self.scorer(name))

    @functools.cached_property
    def _declared(self) -> dict[str, Declared]:
        return {name: declared(self.scorer_file(name)) for name in self.scorer_names()}

    def scorer_needs(self, name: str) -> frozenset[str]:
        """`response`, `model`, `endpoint`: what the scorer needs."""
        return self._declared[name].needs

    def scorer_instructions(self, name: str) -> str | None:
        """The text file of what the scorer's endpoint is told; None for a scorer that asks none, or has no such file."""
        return scorer_instructions(name, self.scorer(name)) if "endpoint" in self.scorer_needs(name) else None

    def scoring(self, name: str, affects_scores: bool = True) -> str:
        """What a script is told of a scorer, as JSON: the keys that affect a score, or the endpoint's other keys.

        UserError for a scorer that asks an endpoint where none is configured.
        """
        endpoint = None
        if "endpoint" in self.scorer_needs(name):
            endpoint = self.judge
            if endpoint is None:
                raise UserError(f"scorers.{name}: the scorer asks an endpoint, but no `judge` is configured. Set `judge`.")
        if not affects_scores:
            return json.dumps({"endpoint": endpoint and endpoint.model_dump(mode="json", exclude=set(AFFECT_REPLIES))})
        told = Scoring(name=name, options=self.scorer(name).options, endpoint_name="judge" if endpoint else "")
        of_endpoint = endpoint and endpoint.model_dump(mode="json", include=set(AFFECT_REPLIES))
        return json.dumps(told.model_dump(mode="json") | {"endpoint": of_endpoint}, ensure_ascii=False)

    def model_of(self, name: str) -> Model:
        """The model that a training is of."""
        model = training_of(name)[1]
        return self.model if model == MAIN else self.models[model]

    def steps(self, run: str) -> list[int]:
        """The steps at which a run publishes a checkpoint; empty where only its last state is published, or they are not known beforehand.

        For plans: scripts read from the table beside the checkpoints what there is.
        """
        r = self.run(run)
        last = self._number_of_steps(r)
        return [] if r.checkpoint_every is None or not last else [*range(r.checkpoint_every, last, r.checkpoint_every), last]

    def gradient_steps(self, run: str) -> list[int]:
        return [0] * self.gradients.include_step_0 + self.steps(run)
