"""Evaluations: what is asked, how responses are generated, and what scores them; scorers and the audit of those that label."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from swift_study.config.base import NAME, FilePath, Section, Seed, nearest
from swift_study.config.grid import Level, agrees, fields, fill, label_of, path_of, points, text
from swift_study.errors import UserError
from swift_study.io.endpoint import EndpointSettings
from swift_study.io.settings import CHANGES_NOTHING
from swift_study.io.user_files import REPOSITORY, constants, find_file


class Generation(Section):
    """How responses are generated."""

    max_new_tokens: int = Field(default=32, ge=1, le=10**6)
    """Longest response in tokens."""
    prompt_tokens: int | None = Field(default=None, ge=1, le=10**6)
    """A longer prompt is cut to so many tokens from the left; null: it is not cut."""
    temperature: float = Field(default=0.0, ge=0)
    """0 takes the likeliest token (greedy)."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """With a temperature: only the likeliest tokens that together have this probability."""
    repetition_penalty: float = Field(default=1.0, gt=0, le=100)
    """Scores of tokens that stand in the prompt or the response are divided by this where positive, else multiplied; 1: no penalty."""
    seed: Seed = 17
    """With a temperature: another seed, other responses."""
    stop: list[str] = []
    """Texts at which a response ends, beside the model's end token; they are cut off."""
    endpoint: str | None = None
    """Name of one of the `endpoints`, which responds in place of the run's checkpoint; `{run}` in its `model` stands for the run's name."""
    batch_size: int = Field(default=64, ge=1, json_schema_extra=CHANGES_NOTHING)
    """Responses generated at once; the same ones for any value in float32."""

    @model_validator(mode="after")
    def _can_be_done(self) -> Self:
        if "" in self.stop:
            raise ValueError("`stop` holds an empty text, which would end every response before it begins")
        if self.endpoint is not None:
            for key in ("top_p", "repetition_penalty", "prompt_tokens"):
                value = getattr(self, key)
                if value != type(self).model_fields[key].default:
                    raise ValueError(f"{key} is {value}: it cannot be sent to an endpoint. Take it out, or set `endpoint` to null (a "
                                     "server may know the key under a name of its own: endpoints.<name>.extra_body)")  # fmt: skip
        return self


VERBATIM = ("stop",)  # keys of `generation` whose texts may hold braces of their own
UNCHANGED = ("endpoint",)  # keys of `generation` that are one for a whole evaluation: they decide by which rule responses are made


class Evaluation(Section):
    """Texts may refer to factors as `{factor}`: those of its own grid and those of the run; `{run}` is the run's name."""

    dataset: str
    """The queries. `{factor}` stands for the level of one of the evaluation's or the run's factors, as in `masa.test.{design}`."""
    scorers: list[str] = []
    """What scores the responses: names under `scorers`, or of files `scorers/<name>.py`."""
    generation: dict[str, Any] = {}
    """What differs from the section `generation`."""
    shots: int | str = 0
    """So many solved examples stand before each query."""
    shots_from: str | None = None
    """Dataset of these examples; null: the evaluation's own, without the query itself."""
    template: Literal["chat", "none"] = "chat"
    """`chat`: the model's chat template; `none`: raw text, a query and behind a space its answer, examples on lines of their own."""
    grid: dict[str, list[Level] | dict[str, dict[str, Any]]] = {}
    """Factors with their levels, each point an evaluation of its own. Levels with a mapping change keys for that level."""
    by_level: dict[str, dict[str, dict[str, Any]]] = {}
    """Changes of keys by a factor of the run and its level, such as {design: {json: {generation: {max_new_tokens: 90}}}}."""
    skip: list[dict[str, Level]] = []
    """Points that are left out, by factors of the evaluation and of the run."""
    responses: str | None = None
    """A file of responses in place of generated ones: JSONL, Parquet or CSV with the columns `query` and `response`."""

    @model_validator(mode="after")
    def _grid_is_usable(self) -> Self:
        for factor, levels in self.grid.items():
            if not NAME.fullmatch(factor) or factor in ("run", "evaluation", "scorer"):
                raise ValueError(f"grid: the factor {factor!r} cannot be used: take lower-case letters, digits and _; `run`, "
                                 "`evaluation` and `scorer` are columns already")  # fmt: skip
            names = [text(level) for level in levels]
            if not names or len(set(names)) < len(names) or "" in names:
                raise ValueError(f"grid.{factor}: it needs levels, each once and none empty")
        for where, changes in self.changes():
            for key in changes:
                if key not in CHANGED_BY_LEVEL:
                    known = ", ".join(CHANGED_BY_LEVEL)
                    raise ValueError(f"{where}: {key!r} cannot be changed by level{nearest(key, CHANGED_BY_LEVEL)}; {known} can")
        for where, changes in self.changes_of_generation():
            for key in changes:
                if key not in Generation.model_fields:
                    raise ValueError(f"unknown key `{where}.{key}`{nearest(key, Generation.model_fields)}")
                if key in UNCHANGED and where != "generation":
                    raise ValueError(f"{where}.{key}: it is the same for all points; write it into `generation` of the evaluation")
        self._check_overrides()
        return self

    def levels(self) -> dict[str, list[Level]]:
        return {factor: list(levels) for factor, levels in self.grid.items()}

    def changes(self) -> list[tuple[str, dict[str, Any]]]:
        """What levels change, with its place in the configuration."""
        of_grid = [(f"grid.{factor}", levels) for factor, levels in self.grid.items() if isinstance(levels, dict)]
        of_runs = [(f"by_level.{factor}", levels) for factor, levels in self.by_level.items()]
        return [(f"{where}.{level}", changes or {}) for where, levels in (*of_grid, *of_runs) for level, changes in levels.items()]

    def changes_of_generation(self) -> list[tuple[str, dict[str, Any]]]:
        inner = [(f"{where}.generation", changes["generation"]) for where, changes in self.changes() if "generation" in changes]
        for where, changes in inner:
            if not isinstance(changes, dict):
                raise ValueError(f"{where}: write its keys below it, such as {where}.max_new_tokens")
        return [("generation", self.generation), *inner]

    def _check_overrides(self) -> None:
        """Two factors must not change one key, since nothing says which of them is meant."""
        by_factor: dict[str, set[str]] = {}
        sources = {f: list(levels.values()) for f, levels in self.grid.items() if isinstance(levels, dict)}
        sources |= {f: [*sources.get(f, []), *of.values()] for f, of in self.by_level.items()}
        for factor, changes in sources.items():
            own = {key for c in changes for key in (c or {}) if key != "generation"}
            own |= {f"generation.{key}" for c in changes for key in (c or {}).get("generation", {})}
            for other, keys in by_factor.items():
                if both := own & keys:
                    raise ValueError(f"the factors {other!r} and {factor!r} both change `{min(both)}`; let one of them do it")
            by_factor[factor] = own


CHANGED_BY_LEVEL = ("dataset", "generation", "shots", "shots_from", "responses")


class Asked(Section):
    """One evaluation of one run: what its rules are told."""

    dataset: str
    generation: Generation = Generation()
    shots: int = Field(default=0, ge=0, le=10_000)
    shots_from: str | None = None
    template: Literal["chat", "none"] = "chat"
    responses: FilePath | None = None

    @model_validator(mode="after")
    def _can_be_asked(self) -> Self:
        if self.template == "none" and self.generation.endpoint is not None and self.responses is None:
            raise ValueError("template: none cannot be sent to an endpoint, which has a chat template of its own; set `template: chat`")
        return self


def evaluation_points(name: str, evaluation: Evaluation, factors: Mapping[str, Level]) -> list[str]:
    """The paths of an evaluation's points for a run with these factors, without those that are skipped."""
    found = points(evaluation.levels())
    return [path_of(name, point) for point in found if not any(agrees({**factors, **point}, p) for p in evaluation.skip)]


def resolve(name: str, evaluation: Evaluation, generation: Generation, levels: Mapping[str, str], factors: Mapping[str, Level]) -> Asked:
    """The evaluation at one of its points, for a run with these factors. UserError where it cannot be had.

    ``levels`` are the texts of the point's path.
    """
    own = evaluation.levels()
    point = {f: next((level for level in own.get(f, []) if text(level) == given), None) for f, given in levels.items()}
    where = f"evaluations.{label_of(name, levels)}"
    if list(point) != list(own) or None in point.values():
        raise UserError(f"{where}: there is no such point; `evaluations.{name}` has the factors {', '.join(own) or 'none'}.")
    if both := [factor for factor in point if factor in factors]:
        run = factors.get("run", "")
        raise UserError(f"{where}: the run {run!r} has a factor {both[0]!r} as well, and one column cannot hold both. Rename one.")
    known = {**factors, **{f: level for f, level in point.items() if level is not None}}
    values: dict[str, Any] = {key: getattr(evaluation, key) for key in ("dataset", "shots", "shots_from", "template", "responses")}
    generated = dict(evaluation.generation)
    for factor, level in known.items():
        of_grid = evaluation.grid.get(factor)
        for changes in (
            of_grid.get(text(level)) if isinstance(of_grid, dict) else None,
            evaluation.by_level.get(factor, {}).get(text(level)),
        ):
            values |= {key: value for key, value in (changes or {}).items() if key != "generation"}
            generated |= (changes or {}).get("generation", {})
    try:
        filled = {key: value if key in VERBATIM else fill(value, known) for key, value in generated.items()}
        return Asked.model_validate(fill(values, known) | {"generation": generation.model_dump() | filled})
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        key, message = ".".join(map(str, problem["loc"])), problem["msg"].removeprefix("Value error, ")
        raise UserError(f"{where}.{key}: {message} (it is {problem['input']!r}).") from error
    except ValueError as error:
        raise UserError(f"{where}: {error}.") from error


def refers_to_run(evaluation: Evaluation) -> set[str]:
    """The factors of a run, and `run`, that an evaluation needs to be resolved."""
    used = fields([evaluation.dataset, evaluation.shots, evaluation.shots_from, evaluation.responses])
    for _, changes in evaluation.changes_of_generation():
        used |= fields({key: value for key, value in changes.items() if key not in VERBATIM})
    for _, changes in evaluation.changes():
        used |= fields({key: value for key, value in changes.items() if key != "generation"})
    return (used | set(evaluation.by_level)) - set(evaluation.grid)


class Scorer(Section):
    """A use of a scorer file, under a name of its own."""

    by: str | None = Field(default=None, pattern=r"^[a-z][a-z0-9_]{0,63}$")
    """The file `scorers/<by>.py`; null: the file that has the scorer's own name."""
    options: dict[str, Any] = {}
    """Values for the file, which reads them as `item.options`."""
    endpoint: str | None = None
    """For a scorer that asks an endpoint: the name of one of the `endpoints`; null: the one called `judge`."""
    instructions: FilePath | None = None
    """For a scorer that asks an endpoint: text file of what the endpoint is told; null: `prompts/<file>.txt`."""
    model: str | None = None
    """For a scorer with a model of its own: a folder, or a hub id that is in the hub's cache on this machine."""
    against: str | None = None
    """For a scorer that compares two responses: the run whose response to the same query is `item.opponent`."""


class Responding(Section):
    """How a run is asked an evaluation."""

    generation: Generation = Generation()
    shots: int = 0
    template: Literal["chat", "none"] = "chat"
    endpoint: EndpointSettings | None = None
    endpoint_name: str = ""


class Scoring(Section):
    """How a scorer is used."""

    name: str = ""
    options: dict[str, Any] = {}
    model: str | None = None
    shots: int = 0
    template: Literal["chat", "none"] = "chat"
    prompt_tokens: int | None = None
    design_options: dict[str, Any] = {}
    endpoint: EndpointSettings | None = None
    endpoint_name: str = ""


@dataclass(frozen=True)
class Declared:
    """What a scorer file says of itself."""

    statistics: tuple[str, ...]
    needs: frozenset[str]


NEEDS = ("response", "model", "endpoint", "prompt", "values")


def declared(path: Path) -> Declared:
    """The statistics and needs of a scorer file, read without running it. UserError if the file is missing or lacks them."""
    if not path.is_file():
        raise UserError(f"{path}: there is no such scorer file. Write it (docs/evaluations.md shows how), or remove the scorer's name.")
    found = constants(path, "scorer")
    statistics, needs = found.get("STATISTICS"), found.get("NEEDS", ("response",))
    if not isinstance(statistics, tuple | list) or not statistics or not all(isinstance(s, str) and s for s in statistics):
        raise UserError(
            f'{path}: the constant `STATISTICS` is missing, or no literal. Write the names of the statistics, such as ("right", "n").'
        )
    if isinstance(needs, str) or not isinstance(needs, tuple | list | set) or not set(needs) <= set(NEEDS):
        raise UserError(f"{path}: NEEDS is {needs!r}; it is a tuple of some of {', '.join(map(repr, NEEDS))}.")
    if {"model", "endpoint"} <= set(needs):
        raise UserError(f"{path}: NEEDS names a model and an endpoint; a scorer has one of them.")
    if set(needs) & {"prompt", "values"} and "model" not in needs:
        raise UserError(f"{path}: NEEDS is {needs!r}; the log-probabilities of prompt and values come from the run's model. Add 'model'.")
    return Declared(tuple(dict.fromkeys(statistics)), frozenset(needs))


def scorer_file(name: str, use: Scorer) -> Path:
    return find_file("scorers", use.by or name)


def scorer_instructions(name: str, use: Scorer) -> str | None:
    """The text file of what an endpoint is told: the one that the configuration names, or the one that has the scorer file's name."""
    own = f"prompts/{use.by or name}.txt"
    if use.instructions is not None:
        return use.instructions
    return next((str(path) for path in (Path(own), REPOSITORY / own) if path.is_file()), None)


def is_here(model: str) -> bool:
    """Whether a scorer's own model is on this machine: a folder, or in the hub's cache."""
    if Path(model).expanduser().is_dir():
        return True
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        return isinstance(try_to_load_from_cache(model, "config.json"), str)
    except HFValidationError:
        return False


class Audit(Section):
    labels: FilePath | None = None
    """Your labels: JSONL, Parquet or CSV with `query`, `response` and `label` (1 right, 0 not); null: answers of the evaluation."""
    examples: int = Field(default=60, ge=2)
    """So many responses, at most, are judged for the audit, each twice; each one rightly judged wrong once more, with a hostile text."""
    reference: float = Field(default=0.87, ge=0, le=1)
    """The agreement that is shown beside: 87% in the paper, between its judge and people."""
