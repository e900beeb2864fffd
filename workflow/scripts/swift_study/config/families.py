"""Questions about runs: a family's grid of factors becomes points, and each point is a run of its own.

A point is named ``family[a=1,b=x]`` in the configuration, and ``family/a=1/b=x`` on disk and in Snakemake's wildcards; a family without
a grid is one point of its plain name. All points are resolved once, so that looking one up costs nothing.
"""

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from swift_study.config.base import nearest
from swift_study.config.grid import FACTORS, Level, agrees, fill, label_of, path_of, read_path, text
from swift_study.config.runs import Family, Grid, Run

PATH = rf"[a-z][a-z0-9_]*{FACTORS}"  # of a point, as a regular expression


@dataclass(frozen=True)
class Point:
    """A run: a family with one level of each of its factors."""

    family: str
    levels: Mapping[str, str]
    """By factor the level as text, in the grid's order."""
    run: Run
    """Its settings. ``start`` is `model` or the path of the point that it starts from."""
    path: str
    """Where its results are: its own path, or that of the point that stands for it (`shared`)."""
    keep: str
    """Whether its checkpoints stay: `all` or `none`."""

    @property
    def name(self) -> str:
        """As in the configuration."""
        return label_of(self.family, self.levels)

    @property
    def is_own(self) -> bool:
        """Whether no other point stands for it."""
        return self.path == path_of(self.family, self.levels)


def parse_name(name: str) -> tuple[str, dict[str, str]]:
    """Family and levels of ``family[a=1,b=x]`` or of a plain ``family``. ValueError for what is neither."""
    found = re.fullmatch(r"([^\[\]]+)(?:\[(.*)\])?", name)
    parts = [part.strip().partition("=") for part in (found[2] or "").split(",") if part.strip()] if found else []
    if found is None or any(not factor.strip() or not equals for factor, equals, _ in parts):
        raise ValueError(f"{name!r} names no run; write `family`, or `family[factor=level,…]` for points of a family")
    return found[1], {factor.strip(): level.strip() for factor, _, level in parts}


def means(name: str, path: str) -> bool:
    """Whether a name in the configuration means the point at a path, as `x` and `x[a=1]` do of `x/a=1/b=2`."""
    family, given = parse_name(name)
    own, levels = read_path(path)
    return family == own and agrees(levels, given)


def levels_of(grid: Grid) -> dict[str, dict[str, Level]]:
    """For each factor its levels by their text."""
    return {factor: {text(level): level for level in levels} for factor, levels in grid.items()}


def expand(grid: Grid, skip: Sequence[Mapping[str, Any]] = ()) -> Iterator[dict[str, str]]:
    """The levels of every point, the last factor varying fastest; without those that an entry of ``skip`` describes."""
    factors = levels_of(grid)
    left_out = [{factor: _texts(levels) for factor, levels in entry.items()} for entry in skip]
    for combination in itertools.product(*factors.values()):
        levels = dict(zip(factors, combination, strict=True))
        if not any(all(levels[factor] in given for factor, given in entry.items()) for entry in left_out):
            yield levels


def filled(values: Mapping[str, Any], levels: Mapping[str, Level]) -> dict[str, Any]:
    """Settings with their ``{factor}`` filled in.

    ValueError for a name that is no factor, and where two datasets of a phase become the same.
    """
    found: dict[str, Any] = fill(values, levels)
    for before, phase in zip(values.get("schedule", []), found.get("schedule", []), strict=True):
        if len(phase) < len(before):
            raise ValueError(f"the datasets {', '.join(before)} of a phase become the same one: {', '.join(phase)}")
    return found


def resolve_runs(families: Mapping[str, Family]) -> dict[str, list[Point]]:
    """The points of every family, those that others stand for included.

    ValueError, its text beginning with the key's path, for a family that is like or starts from itself, for one or a point that is not
    there, for two factors that set one key, and for settings that no run can have.
    """
    found: dict[str, list[Point]] = {}
    for name in families:
        _resolve(name, families, found, [])
    return found


def _resolve(name: str, families: Mapping[str, Family], found: dict[str, list[Point]], before: list[str]) -> list[Point]:
    if name in found:
        return found[name]
    if name in before:
        raise ValueError(f"runs.{before[0]}.start: the run starts from itself in the end")
    where = f"runs.{name}"
    values, grid, skip, shared, keep = _inherited(name, families)
    _check_grid(where, grid, skip, shared)
    factors, points = levels_of(grid), []
    first: dict[str, str] = {}
    made = list(expand(grid, skip))
    for texts in made:
        own = path_of(name, texts)
        at = where if len(made) == 1 else f"runs.{label_of(name, texts)}"
        try:
            settings = filled(_with_levels(values, grid, texts), {f: factors[f][level] for f, level in texts.items()})
            run = Run.model_validate(settings)
        except ValidationError as error:
            problem = error.errors(include_url=False)[0]
            raise ValueError(f"{'.'.join([at, *map(str, problem['loc'])])}: {problem['msg'].removeprefix('Value error, ')}") from error
        except ValueError as error:
            raise ValueError(f"{at}: {error}") from error
        start = _start(f"{at}.start", run.start, texts, families, found, [*before, name])
        taken = [{dataset: part for dataset, part in phase.items() if part.examples != 0} for phase in run.schedule]
        run = run.model_copy(update={"start": start, "schedule": taken})
        is_shared = bool(shared) and all(texts[factor] in _texts(levels) for factor, levels in shared.items())
        path = first.setdefault(run.model_dump_json(), own) if is_shared else own
        points.append(Point(name, texts, run, path, keep))
    if not points:
        raise ValueError(f"{where}.skip leaves no point of the grid")
    found[name] = points
    return points


def _inherited(name: str, families: Mapping[str, Family]) -> tuple[dict[str, Any], Grid, list[dict[str, Any]], dict[str, Any], str]:
    """Settings of a run as plain values, its grid with what goes with it, and what is kept; from the runs that it is like as well."""
    chain: list[Family] = []
    following: str | None = name
    while following is not None:
        if following not in families:
            where = f"runs.{name}.like" if chain else "runs"
            raise ValueError(f"{where}: there is no run {following!r}{nearest(following, families)}; known: {', '.join(families)}")
        if families[following] in chain:
            raise ValueError(f"runs.{name}.like: the run is like itself in the end")
        chain.append(families[following])
        following = chain[-1].like
    values: dict[str, Any] = {}
    of_grid, keep = Family(), Family()
    for family in reversed(chain):
        values |= {key: value for key, value in family.model_dump().items() if key in family.model_fields_set & {*Run.model_fields}}
        of_grid = family if "grid" in family.model_fields_set else of_grid
        keep = family if "keep" in family.model_fields_set else keep
    own = chain[0]
    skip = own.skip if "skip" in own.model_fields_set else of_grid.skip
    shared = own.shared if "shared" in own.model_fields_set else of_grid.shared
    return values, of_grid.grid, skip, shared, keep.keep


def _check_grid(where: str, grid: Grid, skip: Sequence[Mapping[str, Any]], shared: Mapping[str, Any]) -> None:
    setters: dict[str, str] = {}
    for factor, levels in grid.items():
        overrides = levels.values() if isinstance(levels, Mapping) else []
        keys = {factor} & {*Run.model_fields} | {key for override in overrides for key in override}
        for key in sorted(keys):
            if key not in Run.model_fields:
                raise ValueError(f"{where}.grid.{factor}: a level sets {key!r}, which is no key of a run{nearest(key, Run.model_fields)}")
            if (other := setters.setdefault(key, factor)) != factor:
                raise ValueError(f"{where}.grid: the factors {other!r} and {factor!r} both set {key!r}; let one of them set it")
    factors = levels_of(grid)
    for place, entry in [*((f"{where}.skip", entry) for entry in skip), (f"{where}.shared", shared)]:
        for factor, levels in entry.items():
            if factor not in factors:
                raise ValueError(
                    f"{place}: the grid has no factor {factor!r}{nearest(factor, factors)}; known: {', '.join(factors) or 'none'}"
                )
            for level in _texts(levels):
                if level not in factors[factor]:
                    raise ValueError(f"{place}: the factor {factor!r} has no level {level!r}; known: {', '.join(factors[factor])}")


def _with_levels(values: Mapping[str, Any], grid: Grid, texts: Mapping[str, str]) -> dict[str, Any]:
    """The family's settings with what the levels set: each its own key, where the factor is one, and its overrides."""
    found = dict(values)
    for factor, levels in grid.items():
        level = levels_of(grid)[factor][texts[factor]]
        if factor in Run.model_fields:
            found[factor] = level
        if isinstance(levels, Mapping):
            for key, value in levels[str(level)].items():
                found[key] = found.get(key, {}) | value if isinstance(value, Mapping) and isinstance(found.get(key, {}), Mapping) else value
    return found


def _start(
    where: str, name: str, levels: Mapping[str, str], families: Mapping[str, Family], found: dict[str, list[Point]], before: list[str]
) -> str:
    """The path of the point that a point with these levels starts from: factors of the same name have the same level."""
    if name == "model":
        return name
    family, given = parse_name(name)
    if family not in families:
        raise ValueError(f"{where}: there is no run {family!r}{nearest(family, families)}; known: {', '.join(families)}")
    points = _resolve(family, families, found, before)
    _check_given(where, name, points, given)
    left = [p for p in points if all(p.levels[f] == level for f, level in {**levels, **given}.items() if f in p.levels)]
    if len({p.path for p in left}) != 1:
        open_ = [f for f in points[0].levels if f not in {**levels, **given}]
        say = f"say which level of {', '.join(map(repr, open_))}, as in {label_of(family, points[0].levels)}" if left else "it is not made"
        raise ValueError(f"{where}: {name!r} is {len(left)} points of the run family {family!r} for this run; {say}")
    return left[0].path


def matching(where: str, name: str, points: Mapping[str, Sequence[Point]]) -> list[Point]:
    """The points that a name in the configuration means: all of a family, or those with the levels in brackets. ValueError if none."""
    family, given = parse_name(name)
    if family not in points:
        raise ValueError(f"{where}: there is no run {family!r}{nearest(family, points)}; known: {', '.join(points)}")
    _check_given(where, name, points[family], given)
    found = [p for p in points[family] if all(p.levels[factor] == level for factor, level in given.items())]
    if not found:
        raise ValueError(f"{where}: {name!r} is no point of the grid; its family skips it")
    return found


def _check_given(where: str, name: str, points: Sequence[Point], given: Mapping[str, str]) -> None:
    for factor, level in given.items():
        known = list(dict.fromkeys(p.levels[factor] for p in points if factor in p.levels))
        if not known:
            factors = ", ".join(points[0].levels) or "none"
            raise ValueError(f"{where}: {name!r} names the factor {factor!r}; the factors of {points[0].family!r} are {factors}")
        if level not in known:
            raise ValueError(f"{where}: {name!r}: the factor {factor!r} has no level {level!r}; known: {', '.join(known)}")


def _texts(levels: Any) -> list[str]:
    """A level or several, as text."""
    return [text(level) for level in (levels if isinstance(levels, list | tuple) else [levels])]
