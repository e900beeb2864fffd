"""Points of families by the names that studies give them: a run, a family, or some points of it, such as `sde[domain=d1,n=500]`."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from swift_study.config.base import MAIN, nearest
from swift_study.config.studies import BRACES

if TYPE_CHECKING:
    from swift_study.config.root import Config

Level = str | int | float
NAMED = re.compile(r"([a-z][a-z0-9_]*)(?:\[([^\[\]]*)\])?")


@dataclass(frozen=True)
class Point:
    """One point of a family: its path (that of the point that stands for it), and its factors."""

    family: str
    path: str
    factors: Mapping[str, Level]
    seed: int
    model: str = MAIN


def points(config: "Config") -> list[Point]:
    """Every point of every family."""
    return [Point(name, name, {}, config.run(name).seed) for name in config.runs]


def parse(name: str, where: str) -> tuple[str, dict[str, str]]:
    """Family and the factors named in brackets: `sde[domain=d1,n=500]`. ValueError where it is neither."""
    match = NAMED.fullmatch(name.strip())
    if match is None:
        raise ValueError(f"{where}: {name!r} is neither a name nor one with factors, such as sde[domain=d1,n=500]")
    factors: dict[str, str] = {}
    for part in filter(None, (p.strip() for p in (match[2] or "").split(","))):
        factor, equals, level = (x.strip() for x in part.partition("="))
        if not equals or not factor or factor in factors:
            raise ValueError(f"{where}: in {name!r}, {part!r} is not one factor and its level, such as domain=d1")
        factors[factor] = level
    return match[1], factors


def matching(name: str, of: Sequence[Point], where: str, what: str = "run") -> list[Point]:
    """The points that a name means: of one family, with the levels that it gives. ValueError where there is none."""
    family, factors = parse(name, where)
    own = [p for p in of if p.family == family]
    if not own:
        families = list(dict.fromkeys(p.family for p in of))
        raise ValueError(f"{where}: there is no {what} {family!r}{nearest(family, families)}; known: {', '.join(families)}")
    for factor in factors:
        if not any(factor in p.factors for p in own):
            known = list(dict.fromkeys(f for p in own for f in p.factors))
            raise ValueError(f"{where}: {family} has no factor {factor!r}{nearest(factor, known)}; it has {', '.join(known) or 'none'}")
    found = [p for p in own if all(str(p.factors.get(f)) == level for f, level in factors.items())]
    if not found:
        lacking = {f: v for f, v in factors.items() if not any(str(p.factors.get(f)) == v for p in own)} or factors
        factor, level = next(iter(lacking.items()))
        levels = list(dict.fromkeys(str(p.factors[factor]) for p in own if factor in p.factors))
        raise ValueError(f"{where}: {name!r} is no point of {family}: none has {factor}={level}; the levels of {factor} are "
                         f"{', '.join(levels)}")  # fmt: skip
    return found


def rows_of(rows: Mapping[str, str], of: Sequence[Point], where: str) -> dict[str, list[Point]]:
    """The points of every row. One whose run has factors in braces, `sde[mode={mode}]`, is a row a level, also in its name."""
    found: dict[str, list[Point]] = {}
    for name, run in rows.items():
        factors = BRACES.findall(run)
        if not factors:
            found[name] = matching(run, of, f"{where}.{name}")
            continue
        family, _ = parse(BRACES.sub("x", run), f"{where}.{name}")
        own = [p for p in of if p.family == family and all(f in p.factors for f in factors)]
        levels = dict.fromkeys(tuple(p.factors[f] for f in factors) for p in own)
        if not levels:
            raise ValueError(f"{where}.{name}: {family} has no points with {', '.join(factors)}, which its name has in braces")
        for chosen in levels:
            named = dict(zip(factors, chosen, strict=True))
            row, points_ = _filled(name, named), matching(_filled(run, named), of, f"{where}.{name}")
            if row in found:
                raise ValueError(f"{where}: two rows are called {row!r}; name one of them otherwise")
            found[row] = points_
    return found


def _filled(text: str, levels: Mapping[str, Level]) -> str:
    return BRACES.sub(lambda m: str(levels.get(m[1], m[0])), text)
