"""Responses, scorers, and the audit of a scorer that labels."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from pydantic import Field, model_validator

from swift_study.config.base import FilePath, Section, Seed
from swift_study.errors import UserError
from swift_study.io.endpoint import EndpointSettings
from swift_study.io.user_files import REPOSITORY, constants, find_file


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


class Scorer(Section):
    """A use of a scorer file, under a name of its own."""

    by: str | None = Field(default=None, pattern=r"^[a-z][a-z0-9_]{0,63}$")
    """The file `scorers/<by>.py`; null: the file that has the scorer's own name."""
    options: dict[str, Any] = {}
    """Values for the file, which reads them as `item.options`."""
    instructions: FilePath | None = None
    """For a scorer that asks an endpoint: text file of what the endpoint is told; null: `prompts/<file>.txt`."""


class Scoring(Section):
    """What a script that scores is told."""

    name: str = ""
    options: dict[str, Any] = {}
    endpoint: EndpointSettings | None = None
    endpoint_name: str = ""


@dataclass(frozen=True)
class Declared:
    """What a scorer file says of itself."""

    statistics: tuple[str, ...]
    needs: frozenset[str]


NEEDS = ("response", "model", "endpoint")


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
    return Declared(tuple(dict.fromkeys(statistics)), frozenset(needs))


def scorer_file(name: str, use: Scorer) -> Path:
    return find_file("scorers", use.by or name)


def scorer_instructions(name: str, use: Scorer) -> str | None:
    """The text file of what an endpoint is told: the one that the configuration names, or the one that has the scorer file's name."""
    own = f"prompts/{use.by or name}.txt"
    if use.instructions is not None:
        return use.instructions
    return next((str(path) for path in (Path(own), REPOSITORY / own) if path.is_file()), None)


class Audit(Section):
    labels: FilePath | None = None
    """Your labels: JSONL, Parquet or CSV with `query`, `response` and `label` (1 right, 0 not); null: right and wrong answers of Q_eval."""
    examples: int = Field(default=60, ge=2)
    """So many responses, at most, are judged for the audit, each twice; each one rightly judged wrong once more, with a hostile text."""
    reference: float = Field(default=0.87, ge=0, le=1)
    """The agreement that is shown beside: 87% in the paper, between its judge and people."""
