"""Sources, datasets, strategies and the selection."""

from typing import Annotated, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from swift_study.config.base import FilePath, Section, Seed
from swift_study.patterns import compile_pattern

# Datasets that the selection makes, beside the sources and what strategies derive.
SOURCES = ("panel", "candidates", "questions", "base")
SELECTED = ("negative", "positive", "negative.similar", "positive.similar", "negative.clarify")


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
    endpoint: str = "teacher"
    """With `by: teacher`: the name of one of the `endpoints`."""
    file: FilePath | None = None
    """With `by: file`: JSONL or Parquet with the columns query and reply; a reply passes the same acceptance rule."""

    @model_validator(mode="after")
    def _file_goes_with_by_file(self) -> Self:
        if (self.by == "file") != (self.file is not None):
            raise ValueError("`by: file` and the key `file` go together")
        return self


class Selection(Section):
    tasks: int = Field(default=10, ge=2)
    """So many distinct tasks, one negative and one positive each (the paper: 10)."""
    positive_response: Literal["model", "golden"] = "golden"
    """Z_pos keeps the base model's satisfactory response to the revised query (the paper), or the golden answer."""
