"""Grids: points of the product of factors, their names `family[a=1,b=x]`, their paths `family/a=1/b=x`, and texts that refer to factors."""

import itertools
import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote, unquote

Level = str | int | float | bool
# What follows a name in the path of a point: its factors, each with its level, as a pattern for wildcards.
FACTORS = r"(?:/[a-z][a-z0-9_]*=[^/]+)*"
FIELD = re.compile(r"\{([a-z][a-z0-9_]*)\}")


def points(grid: Mapping[str, Iterable[Level]], skip: Iterable[Mapping[str, Level]] = ()) -> list[dict[str, Level]]:
    """The points of a grid in its order, without those that `skip` names: the levels by factor. A grid without factors has one point."""
    found = (dict(zip(grid, levels, strict=True)) for levels in itertools.product(*grid.values()))
    return [point for point in found if not any(agrees(point, pattern) for pattern in skip)]


def agrees(levels: Mapping[str, Level], pattern: Mapping[str, Level]) -> bool:
    """Whether all factors of a pattern are there with its levels."""
    return all(factor in levels and text(levels[factor]) == text(level) for factor, level in pattern.items())


def text(level: Level) -> str:
    """A level as it stands in names: true and false as YAML writes them."""
    return str(level).lower() if isinstance(level, bool) else str(level)


def path_of(name: str, levels: Mapping[str, Level]) -> str:
    """The point's path: `name/a=1/b=x`, levels percent-encoded."""
    return "/".join([name, *(f"{factor}={quote(text(level), safe='')}" for factor, level in levels.items())])


def label_of(name: str, levels: Mapping[str, Level]) -> str:
    """The point's name in the configuration: `name[a=1,b=x]`."""
    inner = ",".join(f"{factor}={text(level)}" for factor, level in levels.items())
    return f"{name}[{inner}]" if inner else name


def read_path(path: str) -> tuple[str, dict[str, str]]:
    """Name and levels, as texts, from a point's path."""
    name, *rest = path.split("/")
    return name, {factor: unquote(level) for factor, _, level in (part.partition("=") for part in rest)}


def fill(value: Any, levels: Mapping[str, Level]) -> Any:
    """A value whose texts refer to factors as `{factor}`, filled in: a text that is one field alone becomes the level itself.

    ValueError names a factor that is not known.
    """
    if isinstance(value, Mapping):
        return {fill(key, levels): fill(below, levels) for key, below in value.items()}
    if isinstance(value, list | tuple):
        return [fill(below, levels) for below in value]
    if not isinstance(value, str):
        return value
    missing = [name for name in FIELD.findall(value) if name not in levels]
    if missing:
        known = ", ".join(levels) or "none"
        raise ValueError(f"{value!r} refers to the factor {missing[0]!r}, which is not there; there are: {known}")
    whole = FIELD.fullmatch(value)
    return levels[whole.group(1)] if whole else FIELD.sub(lambda field: text(levels[field.group(1)]), value)


def fields(value: Any) -> set[str]:
    """The factors that a value's texts refer to."""
    if isinstance(value, Mapping):
        return {name for pair in value.items() for part in pair for name in fields(part)}
    if isinstance(value, list | tuple):
        return {name for part in value for name in fields(part)}
    return set(FIELD.findall(value)) if isinstance(value, str) else set()
