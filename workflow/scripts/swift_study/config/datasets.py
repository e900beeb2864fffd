"""Datasets, strategies, designs and selections."""

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, ValidationInfo, field_validator, model_validator

from swift_study.config.base import NAME, FilePath, Section, Seed, nearest
from swift_study.patterns import compile_pattern


def _code(name: str) -> str:
    if not NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no name of a code file: lower-case letters, digits and _, beginning with a letter")
    return name


Code = Annotated[str, AfterValidator(_code)]


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
    record: str | Annotated[list[str], Field(min_length=1)] | None = None
    """The structured content that designs render: a column with an object (or with its JSON text), or the columns that make it up."""


class Records(Section):
    """What a file and a hub data set have in common: rows that become examples."""

    columns: Columns | None = None
    """Which column holds what; what is not named is found by the columns' own names (docs/data.md lists them)."""
    task: str | None = None
    """The task name of rows that have none of their own."""
    check: Literal["number", "contains", "equals"] | None = None
    """Make one key point from the answer: an answer is right if its last number equals it, it contains it, or it is it."""
    limit: int | None = Field(default=None, ge=1)
    """Read only so many rows, from the top."""


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
Scalar = str | int | float | bool | None
Share = Annotated[float, Field(gt=0, lt=1)]


class Range(Section):
    min: float | None = None
    """The smallest number that is taken."""
    max: float | None = None
    """The largest number that is taken."""

    @model_validator(mode="after")
    def _has_an_end(self) -> Self:
        if self.min is None and self.max is None:
            raise ValueError("a range needs `min`, `max` or both")
        return self


# One value, one of several, or a range of numbers.
Condition = Range | list[Scalar] | Scalar


class Dataset(Section):
    sources: list[Source] = Field(min_length=1)
    """Where the examples come from."""
    where: dict[str, Condition] = {}
    """Only rows whose columns have these values: one (`part: train`), one of several (`[a, b]`), or numbers (`{min: 2, max: 9}`)."""
    tasks: list[str] | None = Field(default=None, min_length=1)
    """Only these tasks, in this order; null takes all."""
    exclude: list[str] = []
    """Datasets that are kept out: no example whose text is, or nearly is, one of theirs. The rejects table counts them."""
    per_task: Annotated[int, Field(ge=1)] | Literal["half"] | None = None
    """So many examples of each task, or `half` of them; those behind them are the dataset `<name>.analogues`. null takes all."""
    examples: int | None = Field(default=None, ge=1)
    """So many are drawn, by `data_seed`; null takes all."""
    split: dict[str, Annotated[int, Field(ge=1)] | Share | Literal["rest"]] = {}
    """Parts `<name>.<part>` that share no example: so many examples, a share of all, or the `rest`."""
    distinct: bool = False
    """Leave out analogues that nearly are one of the examples, and of a part what nearly is in a part before it."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.split and self.per_task is not None:
            raise ValueError("`split` and `per_task` both divide the examples; use one of them")
        if list(self.split.values()).count("rest") > 1:
            raise ValueError("`split`: only one part can be the rest")
        if sum(size for size in self.split.values() if isinstance(size, float)) > 1:
            raise ValueError("`split`: the shares add up to more than 1")
        if self.distinct and not self.split and self.per_task is None:
            raise ValueError("`distinct` is about analogues (`per_task`) or the parts of a `split`; there are none")
        return self

    def parts(self) -> list[str]:
        """What stands behind the dot in the names of its parts."""
        return list(self.split) or (["analogues"] if self.per_task is not None else [])


class Strategy(Section):
    by: Literal["fields", "teacher", "file"] = "fields"
    """From the example's own fields (no endpoint), by the teacher, or from replies in your own file."""
    endpoint: str = "teacher"
    """With `by: teacher`: the name of one of the `endpoints`."""
    file: FilePath | None = None
    """With `by: file`: JSONL or Parquet with the columns query and reply; a reply passes the same acceptance rule."""
    like: Code | None = None
    """Its code file strategies/<like>.py, where that has another name than the strategy."""
    options: dict[str, Any] = {}
    """Values for the functions of the code file that have the parameter `options`."""

    @model_validator(mode="after")
    def _file_goes_with_by_file(self) -> Self:
        if (self.by == "file") != (self.file is not None):
            raise ValueError("`by: file` and the key `file` go together")
        return self


class Design(Section):
    like: Code | None = None
    """Its code file designs/<like>.py, where that has another name than the design."""
    options: dict[str, Any] = {}
    """Values for `render` and `parse`."""


class Scores(Section):
    run: str | None = None
    """A run whose responses are scored, by its name, ..."""
    evaluation: str | None = None
    """in this evaluation, ..."""
    scorer: str = "key_points"
    """by this scorer: ..."""
    statistic: str = "right"
    """this one of its statistics."""
    file: FilePath | None = None
    """Or a table of your own (JSONL, Parquet, CSV or TSV) ..."""
    column: str | None = None
    """with the scores in this column ..."""
    key: str = "example_id"
    """and the examples' ids, or their queries in a column `query`, in this one."""

    @model_validator(mode="after")
    def _of_a_run_or_a_file(self) -> Self:
        if (self.run is None) == (self.file is None):
            raise ValueError("scores are those of a `run` or those in a `file`; name one of the two")
        if (self.run is None) != (self.evaluation is None):
            raise ValueError("`run` and `evaluation` go together")
        if (self.file is None) != (self.column is None):
            raise ValueError("`file` and `column` go together")
        if self.key not in ("example_id", "query"):
            raise ValueError("`key` is example_id or query")
        return self


class Take(Section):
    order: Literal["first", "top", "bottom", "random"] = "first"
    """Which come first: as in the dataset, by the highest or lowest score, or as `data_seed` draws them."""
    of: str = "example"
    """Whose score: the example's, or that of a relative."""
    per_task: int | None = Field(default=None, ge=1)
    """At most so many of each task."""
    tasks: int | None = Field(default=None, ge=1)
    """From the first so many tasks that have one; fewer are an error."""
    examples: int | None = Field(default=None, ge=1)
    """At most so many in all; fewer are an error."""


class Output(Section):
    of: str = "example"
    """The example itself, or a relative."""
    completion: Literal["own", "response", "golden"] = "own"
    """Its own completion, the run's response, or the golden answer."""


class Selection(Section):
    examples: str
    """The dataset from which is chosen."""
    relatives: dict[str, str] = {}
    """By a name, datasets that are made from it: the first example there that descends from the example in question is its relative."""
    scores: Scores | None = None
    """By what is chosen; null: by no score."""
    where: dict[str, Condition] = {}
    """Scores that the `example` and its relatives must have, all of them. An example that lacks a score or a relative is not taken."""
    take: Take = Take()
    """How many of these, and which."""
    outputs: dict[str, Output] = Field(min_length=1)
    """The datasets that it makes, by name, row by row of the same choice."""

    @model_validator(mode="after")
    def _relatives_are_named(self) -> Self:
        if "example" in self.relatives:
            raise ValueError("`relatives`: the name 'example' is that of the example itself; take another")
        known = ["example", *self.relatives]
        named = [("where", name) for name in self.where] + [(f"outputs.{o}.of", output.of) for o, output in self.outputs.items()]
        for key, name in [*named, ("take.of", self.take.of)]:
            if name not in known:
                raise ValueError(f"`{key}` names {name!r}{nearest(name, known)}; known are {', '.join(known)}")
        if self.scores is None and (self.where or self.take.order in ("top", "bottom")):
            raise ValueError("`where` and the orders top and bottom need `scores`")
        responses = any(output.completion == "response" for output in self.outputs.values())
        if responses and (self.scores is None or self.scores.run is None):
            raise ValueError("an output with `completion: response` needs the responses of a run: scores.run")
        return self

    def dataset_of(self, relative: str) -> str:
        return self.examples if relative == "example" else self.relatives[relative]

    def scored(self) -> list[str]:
        """The datasets of which scores are needed, each once."""
        names = [*self.where, *([self.take.of] if self.take.order in ("top", "bottom") else [])]
        names += [output.of for output in self.outputs.values() if output.completion == "response"]
        return list(dict.fromkeys(map(self.dataset_of, names))) if self.scores else []
