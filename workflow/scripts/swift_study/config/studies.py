"""Studies: a question, what is compared to answer it, and by which rule. One class a kind, told apart by ``kind``."""

import re
from collections.abc import Iterable, Iterator
from typing import Annotated, Literal, Self, get_args

from pydantic import Field, model_validator

from swift_study.config.base import Context, FileName, FilePath, Label, LossOn, Prose, Section
from swift_study.config.evaluations import Audit
from swift_study.config.grid import Level

BRACES = re.compile(r"\{([a-z][a-z0-9_]*)\}")  # a factor in the name of a row
CEILING, FLOOR = "paraphrase", "unrelated"  # the names of the reference probe sets in tables and figures


class References(Section):
    """Probe sets that give the scale a meaning. They are shown beside the others and get no verdict."""

    ceiling: dict[str, str]
    """For each target set the dataset of its paraphrases: what a probe could do for these targets at best."""
    floor: str
    """The dataset of texts that have nothing to do with any task: what any text does."""


class Sides(Section):
    probes: LossOn | dict[Label, LossOn] = "completion"
    """Of the probe sets, and of references among them; or by set, those that are not named having it on the completion."""
    targets: LossOn | dict[Label, LossOn] = "completion"
    """Of the target sets, likewise."""

    def of(self, side: Literal["probes", "targets"], name: str) -> LossOn:
        """Of one set."""
        told = self.probes if side == "probes" else self.targets
        return told.get(name, "completion") if isinstance(told, dict) else told


class StudyPanel(Section):
    """Whose influence on whom, at which checkpoints: what the pairs table depends on."""

    run: str = "base"
    """At the checkpoints of which run."""
    probes: dict[Label, str]
    """Probe sets: the name in curves and figures, and the dataset."""
    targets: dict[Label, str] = Field(min_length=1)
    """Target sets: the name in curves and figures, and the dataset."""
    loss_on: Sides = Sides()
    """Tokens whose loss has the gradients: `completion`, `all` or `values` (as runs.*.loss_on), for each side."""
    references: References | None = None
    """The paraphrase ceiling and the unrelated-text floor; null: none, and effects are not told as shares of the way between."""

    def grids(self) -> list[tuple[dict[str, str], dict[str, str]]]:
        """Probe sets and the target sets that they are paired with; references last, each ceiling with its own targets only."""
        found = [(self.probes, self.targets)]
        if self.references is not None:
            found += [({CEILING: dataset}, {name: self.targets[name]}) for name, dataset in self.references.ceiling.items()]
            found.append(({FLOOR: self.references.floor}, self.targets))
        return found

    def datasets(self) -> list[str]:
        """The panel: every dataset whose gradients are needed, each once."""
        return list(dict.fromkeys(d for side in (0, 1) for grid in self.grids() for d in grid[side].values()))

    def loss_of(self) -> dict[str, LossOn]:
        """By dataset the tokens whose loss has the gradients."""
        return {dataset: loss_on for dataset, _, loss_on in self._losses()}

    def _losses(self) -> Iterator[tuple[str, str, LossOn]]:
        """Dataset, the set that it is, and the tokens whose loss has the gradients there."""
        for probes, targets in self.grids():
            for name, dataset in probes.items():
                yield dataset, name, self.loss_on.of("probes", name)
            for name, dataset in targets.items():
                yield dataset, name, self.loss_on.of("targets", name)

    @model_validator(mode="after")
    def _references_fit(self) -> Self:
        for name in (CEILING, FLOOR):
            if name in self.probes:
                raise ValueError(f"a probe set may not be called {name!r}: that is the name of a reference")
        for name in self.references.ceiling if self.references else ():
            if name not in self.targets:
                raise ValueError(f"references.ceiling names {name!r}, which is not one of the target sets {list(self.targets)}")
        return self

    @model_validator(mode="after")
    def _a_dataset_has_one_loss(self) -> Self:
        for side, known in (("probes", self.probes), ("targets", self.targets)):
            told = getattr(self.loss_on, side)
            if isinstance(told, dict) and (unknown := [name for name in told if name not in known]):
                raise ValueError(f"loss_on.{side} names {unknown[0]!r}, which is not one of the {side[:-1]} sets {list(known)}")
        found: dict[str, tuple[str, LossOn]] = {}
        for dataset, name, loss_on in self._losses():
            other, before = found.setdefault(dataset, (name, loss_on))
            if before != loss_on:
                raise ValueError(
                    f"loss_on: {dataset!r} stands for the sets {other!r} and {name!r}, one with the loss on {before}, one on {loss_on}; a "
                    "dataset has one. Take another design of the same examples for one of the two"
                )
        return self


Positive = Annotated[float, Field(gt=0)]


class Asked(Section):
    """What every study has."""

    question: Prose
    """What it asks, in one sentence."""
    caption: Prose = ""
    """Below the figures in the report; empty: the question."""


class ClaimedStudy(Asked):
    """A study against whose results claims are held."""

    claims: FilePath | None = None
    """File of claims, such as a paper's; each is held against the results by its interval (docs/studies.md)."""
    near: dict[str, Positive] = {}
    """By metric (`rel_inf` in an influence study) how small a difference counts as none, where a claim says that two things are near."""


class InfluenceStudy(StudyPanel, ClaimedStudy):
    """Do probe sets push a run towards the targets more than the control does?"""

    kind: Literal["influence"] = "influence"
    """Which kind of study it is."""
    control: str
    """The probe set of plain data that the others are compared with."""
    unwanted: list[str] = []
    """Target sets of responses that one does not want: there a strategy helps if it pushes towards them less than the control."""
    unit: Literal["task", "item"] = "task"
    """What is drawn: tasks, or single examples where probes and targets have only one or two tasks, such as domains."""
    after_step: int | None = Field(default=None, ge=0)
    """Checkpoints after this step count for the verdict; null: statistics.after_step."""
    figures: dict[FileName, Annotated[list[Context], Field(min_length=1)]]
    """Figures: the file's name, and the contexts that it shows."""
    near: dict[str, Positive] = {"rel_inf": 0.05}
    """How small a difference in RelInf (`rel_inf`) counts as none, where a claim says that two things are near."""

    @model_validator(mode="after")
    def _control_is_a_probe_set(self) -> Self:
        if self.control not in self.probes:
            raise ValueError(f"the control {self.control!r} is not one of the probe sets {list(self.probes)}")
        for name in self.unwanted:
            if name not in self.targets:
                raise ValueError(f"unwanted names {name!r}, which is not one of the target sets {list(self.targets)}")
        if len(self.probes) < 2:
            raise ValueError("a study needs a probe set beside its control")
        if "layers" in self.figures:
            raise ValueError("figures: 'layers' is the figure of what each layer carries; take another name")
        return self


class ScoredStudy(Asked):
    """What studies of scores have: which evaluations and metrics, and what their intervals draw."""

    evaluations: list[str] = Field(min_length=1)
    """Evaluations by name; of one with a grid all points, or `name[factor=level]`."""
    metrics: list[str] = Field(min_length=1)
    """Metrics of these evaluations' scorers, as the scorers call them; `scorer.metric` where two scorers have one of the same name."""
    scorers: list[str] | None = None
    """Only these scorers of the evaluations; null: all."""
    unit: list[str] = Field(default=["task", "item"], min_length=1)
    """What intervals draw: `[task, item]` tasks and within them queries, `[item]` queries, or several crossed columns."""
    within: str | None = None
    """Draw within each level of this column, such as `evaluation` for queries within benchmarks; null: over all."""
    if_missing: Literal["null"] | None = None
    """`"null"`: a metric that no scorer gives is a gap in table and page, named there. null: it is an error."""


class Bars(Section):
    """Levels of one metric as bars, gains in one beside them; a pair of panels for each evaluation or group."""

    kind: Literal["bars"] = "bars"
    """Which figure it is."""
    levels: str | None = None
    """The metric on the left; null: the study's first."""
    gains: str | None = None
    """The metric whose gains are on the right; null: the study's second, or its only one."""


class HeatMap(Section):
    """A number in every cell of a grid; a panel for each evaluation, group or block that is not on an axis."""

    kind: Literal["heat_map"] = "heat_map"
    """Which figure it is."""
    metric: str | None = None
    """Which metric; null: the study's first."""
    show: Literal["gain", "value"] = "gain"
    """Its gains, in colours that are centred on 0, or its values."""
    rows: str = "row"
    """What stands on the vertical axis: `row`, `evaluation` (groups included), or a factor of the rows' runs or of the evaluations."""
    columns: str = "evaluation"
    """What stands on the horizontal axis, likewise."""


class Axis(Section):
    """A column of numbers of a comparison's table."""

    metric: str | None = None
    """Which metric; null: the study's first."""
    evaluation: str | None = None
    """In which evaluation or group; null: the study's first."""
    show: Literal["gain", "value"] = "value"
    """Its gains or its values."""


class Scatter(Section):
    """One column against another: a point with its name and both intervals for each row."""

    kind: Literal["scatter"] = "scatter"
    """Which figure it is."""
    x: Axis
    """The horizontal axis."""
    y: Axis
    """The vertical axis."""


class ComparisonStudy(ScoredStudy, ClaimedStudy):
    """Do rows (trainings on other data, scorers, annotators) differ in a metric?"""

    kind: Literal["comparison"] = "comparison"
    """Which kind of study it is."""
    rows: dict[Label, str | None] = Field(min_length=1)
    """Rows: the name, and a run, a family or some points of it (`sde[domain=d1]`). Seeds of a row are averaged; what else differs makes
    blocks of the table. With a factor in braces, `"{mode}": "sde[mode={mode}]"`, it is a row for each level. A null leaves a row out."""
    only: list[Label] | None = None
    """Only these rows, beside `against` and `control`; null: all."""
    against: str | dict[Label, str]
    """The row whose metrics the others' gains are measured from; or by row, for those that have one of their own."""
    control: str | None = None
    """The row of plain data, if that is another: gains over it are given as well, and agreement is about these. null: `against`."""
    context: Context | None = None
    """Whether the data are of the evaluations' tasks (in-task) or of others (cross-task)."""
    published: dict[Label, dict[Label, float]] = {}
    """Published values of the first metric, in its unit, by their name and the row: reference columns."""
    published_near: Positive = 0.01
    """Within this, published values count as near, where a claim says so."""
    chance: dict[str, float] = {}
    """By evaluation what chance gets: its values are then rescaled, (x - chance) / (1 - chance), before means of groups."""
    groups: dict[Label, list[str]] = {}
    """Means over evaluations, by name; a group may have groups before it as members. One that lacks a member is left out, and named."""
    figure: Annotated[Bars | HeatMap | Scatter, Field(discriminator="kind")] | None = None
    """Its figure: {kind: bars}, `heat_map` or `scatter`, each with keys of its own (docs/studies.md); null: bars."""

    @model_validator(mode="after")
    def _names_are_rows(self) -> Self:
        if isinstance(self.against, dict) and (unknown := [name for name in self.against if name not in self.rows]):
            raise ValueError(f"against.{unknown[0]}: there is no such row; rows are {list(self.rows)}")
        named = [*(self.against.values() if isinstance(self.against, dict) else [self.against]), *([self.control] if self.control else [])]
        for name in named:
            if name not in self.rows and not any(BRACES.search(run or "") for run in self.rows.values()):
                raise ValueError(f"against and control name the row {name!r}, which is not one of the rows {list(self.rows)}")
            if self.rows.get(name, "") is None:
                raise ValueError(f"the row {name!r} is left out (null), but others are compared with it; name another under against")
        for name in self.only or []:
            if name not in self.rows:
                raise ValueError(f"only: there is no row {name!r}; rows are {list(self.rows)}")
        for number, (group, members) in enumerate(self.groups.items()):
            before = [*self.evaluations, *list(self.groups)[:number]]
            if unknown := [m for m in members if m not in before]:
                raise ValueError(f"groups.{group}: {unknown[0]!r} is no evaluation of the study and no group before it; known: {before}")
        for name in self.chance:
            if name not in self.evaluations:
                raise ValueError(f"chance.{name}: this is none of the study's evaluations {self.evaluations}")
        return self

    @model_validator(mode="after")
    def _figure_shows_what_is_there(self) -> Self:
        shown = self.figure
        if isinstance(shown, HeatMap) and shown.rows == shown.columns:
            raise ValueError(f"figure: rows and columns are both {shown.rows!r}")
        metrics = {"levels": shown.levels, "gains": shown.gains} if isinstance(shown, Bars) else {}
        metrics |= {"metric": shown.metric} if isinstance(shown, HeatMap) else {}
        if isinstance(shown, Scatter):
            metrics = {"x.metric": shown.x.metric, "y.metric": shown.y.metric}
            known = [*self.evaluations, *self.groups]
            for axis, evaluation in (("x", shown.x.evaluation), ("y", shown.y.evaluation)):
                if evaluation is not None and evaluation not in known and evaluation.partition("[")[0] not in known:
                    raise ValueError(f"figure.{axis}.evaluation: {evaluation!r} is no evaluation and no group of the study; known: {known}")
        for key, metric in metrics.items():
            if metric is not None and metric not in self.metrics:
                raise ValueError(f"figure.{key}: {metric!r} is none of the study's metrics {self.metrics}")
        return self

    def reference(self, row: str) -> str | None:
        """The row that this one's gains are measured from; None for that row itself."""
        against = self.against.get(row, self.control) if isinstance(self.against, dict) else self.against
        return None if against == row else against

    @property
    def plain(self) -> str | None:
        """The row of plain data."""
        return self.control or (self.against if isinstance(self.against, str) else None)

    def taken(self) -> dict[str, str]:
        """The rows that are made."""
        kept = set(self.rows) if self.only is None else {*self.only, *filter(None, (self.plain, *map(self.reference, self.only)))}
        return {row: run for row, run in self.rows.items() if run is not None and row in kept}


class Phase(Section):
    """When a line reaches a bar."""

    metric: str
    """The metric."""
    bar: float = 0.0
    """The value that it is to reach."""
    over_start: bool = False
    """Take the metric minus its value at the smallest x."""


class Saving(Section):
    """How much of x one line saves against another at the same value of a metric."""

    metric: str
    """The metric."""
    line: dict[str, str | int | float]
    """Factors of the line."""
    against: dict[str, str | int | float]
    """Factors of the line that it is compared with."""


class SweepStudy(ScoredStudy):
    """How does a metric change with a number, such as how many examples there are?"""

    kind: Literal["sweep"] = "sweep"
    """Which kind of study it is."""
    runs: str
    """A family, or some points of it: `specialise[source=human]`."""
    x: str
    """The factor on the horizontal axis: a number."""
    lines: list[str] = []
    """Factors with a line for each level, beside a line for each metric."""
    panels: list[str] = []
    """Factors with a panel for each level."""
    phases: dict[Label, Phase] = {}
    """For each line the first x at which a metric reaches a bar, by a fit that never falls; there may be none within the grid."""
    savings: dict[Label, Saving] = {}
    """What one line saves against another, by name."""

    @model_validator(mode="after")
    def _factors_differ(self) -> Self:
        named = [self.x, *self.lines, *self.panels]
        if len(set(named)) < len(named):
            raise ValueError("x, lines and panels name a factor twice")
        for name, metric in [*((f"phases.{n}", p.metric) for n, p in self.phases.items()),
                             *((f"savings.{n}", s.metric) for n, s in self.savings.items())]:  # fmt: skip
            if metric not in self.metrics:
                raise ValueError(f"{name}.metric: {metric!r} is none of the study's metrics {self.metrics}")
        return self


class Predictor(Section):
    """A column of numbers that are laid beside others, item by item."""

    of: str | None = None
    """Which of the places of an item holds it: a name that the items have below them."""
    score: str = "rel_inf"
    """Of an influence study `rel_inf`, `rel_inf_mean_loss`, `cosine`, `bm25`, `similarity` or `loss_change`; of a comparison a metric."""
    evaluation: str | None = None
    """Of a comparison the evaluation, or a group of evaluations; null: its first."""
    file: FilePath | None = None
    """Instead of a study's number: a Parquet or CSV file with the columns `group`, `item` and the one named by `score`."""
    more_is_better: bool = True
    """False: a smaller number predicts more."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.of is None) == (self.file is None):
            raise ValueError("name either `of`, a place that the items have, or `file`")
        return self


class Place(Section):
    """Where an item's numbers stand: the row of a comparison, or the curve of an influence study."""

    study: str
    """The study."""
    row: str
    """Its row, or its curve such as `CoT → In-task non-CoT`."""
    block: dict[str, Level] = {}
    """Of a comparison with blocks, levels of the row's run that is meant, such as `{model: main}`; {}: the first."""


class AgreementStudy(Asked):
    """Do cheap predictors order items as the outcomes do?"""

    kind: Literal["agreement"] = "agreement"
    """Which kind of study it is."""
    items: dict[Label, dict[Label, dict[str, Place]]] = Field(min_length=1)
    """By group (only items of one group are compared) and item the places where its numbers stand."""
    predictors: dict[Label, Predictor] = Field(min_length=1)
    """What predicts, by name."""
    outcomes: dict[Label, Predictor] = Field(min_length=1)
    """What is predicted, by name."""
    over_control: bool = True
    """Numbers are differences from each study's control, which stands among the items with 0; else they are the levels themselves."""
    ceiling: bool = True
    """Also how well the outcome orders the items as itself would: as another seed does, or between halves of the queries."""

    @model_validator(mode="after")
    def _places_are_there(self) -> Self:
        if both := set(self.predictors) & set(self.outcomes):
            raise ValueError(f"{min(both)!r} is the name of a predictor and of an outcome; rename one")
        known = {place for items in self.items.values() for places in items.values() for place in places}
        for kind, named in (("predictors", self.predictors), ("outcomes", self.outcomes)):
            for name, p in named.items():
                if p.of is not None and p.of not in known:
                    raise ValueError(f"{kind}.{name}.of: no item has a place {p.of!r}; they have {sorted(known)}")
        return self

    def sources(self) -> list[str]:
        """The studies whose numbers are laid beside one another, each once."""
        found = [place.study for items in self.items.values() for places in items.values() for place in places.values()]
        return list(dict.fromkeys(found))

    def files(self) -> list[str]:
        """The user's tables among the predictors and outcomes."""
        return [p.file for p in (self.predictors | self.outcomes).values() if p.file is not None]


class CorrelationStudy(ScoredStudy):
    """Does a metric of responses go with another one, such as people's scores?"""

    kind: Literal["correlation"] = "correlation"
    """Which kind of study it is."""
    runs: list[str] = Field(min_length=1)
    """Whose responses: runs, families or some points of them."""
    reference: str
    """The metric that the others are held against, such as people's scores."""
    groups: list[str] = ["run"]
    """Columns (`task`, `query_id`, `run`, `evaluation` or a factor): for each the correlation within its levels and between their means."""
    unit: list[str] = Field(default=["query_id"], min_length=1)
    """What intervals draw: `[query_id]` queries with all their responses, or several crossed columns such as `[query_id, run]`."""


class AuditStudy(Asked):
    """Is a scorer right? It labels responses whose label is known."""

    kind: Literal["audit"] = "audit"
    """Which kind of study it is."""
    evaluation: str
    """Right and wrong responses are made from the golden answers of this evaluation."""
    scorers: list[str] = Field(min_length=1)
    """Scorers that give a label."""
    settings: Audit = Audit()
    """How responses with a known label are made."""


Study = Annotated[
    InfluenceStudy | ComparisonStudy | SweepStudy | AgreementStudy | CorrelationStudy | AuditStudy, Field(discriminator="kind")
]


def curve_name(probe_set: str, context: str, target_set: str) -> str:
    """As in the paper: `CoT → In-task non-CoT`."""
    return f"{probe_set} → {context.capitalize()} {target_set}"


def curve_names(probes: Iterable[str], targets: Iterable[str]) -> list[str]:
    return [curve_name(p, context, t) for p in probes for context in get_args(Context) for t in targets]
