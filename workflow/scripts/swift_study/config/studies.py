"""What studies compare."""

import typing
from typing import Annotated, Self

from pydantic import Field, model_validator

from swift_study.config.base import Context, FileName, FilePath, Label, LossOn, Prose, Section
from swift_study.config.evaluations import Audit
from swift_study.config.statistics import Near

CEILING, FLOOR = "paraphrase", "unrelated"  # the names of the reference probe sets in tables and figures


class References(Section):
    """Probe sets that give the scale a meaning. They are shown beside the others and get no verdict."""

    ceiling: dict[str, str]
    """For each target set the dataset of its paraphrases: what a probe could do for these targets at best."""
    floor: str
    """The dataset of texts that have nothing to do with any task: what any text does."""


class Sides(Section):
    probes: LossOn = "completion"
    """Of the probe sets, and of references among them."""
    targets: LossOn = "completion"
    """Of the target sets."""


class Comparison(Section):
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
        sides = ("probes", "targets")
        return {d: getattr(self.loss_on, sides[side]) for side in (0, 1) for grid in self.grids() for d in grid[side].values()}

    @model_validator(mode="after")
    def _a_dataset_has_one_loss(self) -> Self:
        both = {d for g in self.grids() for d in g[0].values()} & {d for g in self.grids() for d in g[1].values()}
        if both and self.loss_on.probes != self.loss_on.targets:
            raise ValueError(f"loss_on: {min(both)!r} is a probe set and a target set, which cannot have losses on different tokens")
        return self

    @model_validator(mode="after")
    def _references_fit(self) -> Self:
        for name in (CEILING, FLOOR):
            if name in self.probes:
                raise ValueError(f"a probe set may not be called {name!r}: that is the name of a reference")
        for name in self.references.ceiling if self.references else ():
            if name not in self.targets:
                raise ValueError(f"references.ceiling names {name!r}, which is not one of the target sets {list(self.targets)}")
        return self


class Study(Comparison):
    question: Prose
    """What it asks, in one sentence."""
    baseline: str
    """The probe set that the others are compared with."""
    unwanted: list[str] = []
    """Target sets of responses that one does not want: there a strategy helps if it pushes towards them less than the baseline."""
    figures: dict[FileName, Annotated[list[Context], Field(min_length=1)]]
    """Figures: the file's name, and the contexts that it shows."""
    caption: Prose = ""
    """Below the figures in the report."""

    @model_validator(mode="after")
    def _baseline_is_a_probe_set(self) -> Self:
        if self.baseline not in self.probes:
            raise ValueError(f"the baseline {self.baseline!r} is not one of the probe sets {list(self.probes)}")
        for name in self.unwanted:
            if name not in self.targets:
                raise ValueError(f"unwanted names {name!r}, which is not one of the target sets {list(self.targets)}")
        if len(self.probes) < 2:
            raise ValueError("a study needs a probe set beside its baseline")
        return self


class ValidationTable(Section):
    """Runs whose responses to the evaluation set are compared, such as the paper's Table 1."""

    question: Prose
    """What it asks, in one sentence."""
    context: Context
    """Whether the data are of the evaluation set's tasks (in-task) or of others (cross-task)."""
    baseline: str = "Base"
    """The row whose accuracy the others' gains are measured from."""
    control: str
    """The row that stands for plain data, as the baseline probes of the swift studies do: agreement is about gains over it."""
    runs: dict[Label, str]
    """Rows: the name of the training data, and the run."""
    paper: dict[Label, dict[str, float]] = {}
    """The paper's accuracies in percent, by the name of its model and the row; reference columns."""

    @model_validator(mode="after")
    def _names_are_rows(self) -> Self:
        for key, name in (("baseline", self.baseline), ("control", self.control)):
            if name not in self.runs:
                raise ValueError(f"the {key} {name!r} is not one of the rows {list(self.runs)}")
        return self


class Prediction(Section):
    """What a swift study says of a strategy, and the measurements to hold it against."""

    study: str
    """The swift study."""
    probes: str
    """Its probe set."""
    targets: str
    """Its target set."""
    measured: dict[Context, str]
    """For each context the row of the table of that context."""
    proxy: dict[Context, str] = {}
    """For each context a short run on the strategy's data, a rival of the swift study; `control` beside it."""


class Validation(Section):
    rows: list[str] | None = None
    """Only these rows of the tables, and what goes with them, beside baselines and controls: a smaller subset. null takes all."""
    scorer: str = "key_points"
    """Whose labels make the accuracy: a scorer with the statistic `right`, such as the machine-checkable key points, or `judge`."""
    tables: dict[str, ValidationTable] = {}
    """Tables of runs, by name."""
    predictions: dict[Label, Prediction] = {}
    """For each strategy what is held against what, in the table `agreement`."""
    proxy_control: dict[Context, str] = {}
    """For each context the short run on plain data that the `proxy` runs are compared with."""
    claims: FilePath = "data/claims.yaml"
    """File of the paper's claims; each is held against these results by its interval."""
    near: Near = Near()
    """The rule for claims that two things are alike."""
    audit: Audit = Audit()
    """How the judge itself is tested."""

    def taken(self, studies: typing.Collection[str]) -> Self:
        """What of this is made: by ``rows``, and by which studies are there to predict something."""
        tables = {}
        for name, table in self.tables.items():
            kept = {*table.runs} if self.rows is None else {*self.rows, table.baseline, table.control}
            tables[name] = table.model_copy(update={"runs": {row: run for row, run in table.runs.items() if row in kept}})
        rows = {context: {row for t in tables.values() if t.context == context for row in t.runs} for context in typing.get_args(Context)}
        predictions = {}
        for name, prediction in self.predictions.items():
            measured = {context: row for context, row in prediction.measured.items() if row in rows[context]}
            if prediction.study in studies and measured:
                proxy = {context: run for context, run in prediction.proxy.items() if context in measured}
                predictions[name] = prediction.model_copy(update={"measured": measured, "proxy": proxy})
        contexts = {context for prediction in predictions.values() for context in prediction.proxy}
        control = {context: run for context, run in self.proxy_control.items() if context in contexts}
        return self.model_copy(update={"tables": tables, "predictions": predictions, "proxy_control": control})
