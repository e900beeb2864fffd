"""The points of families that the rows of a study name: a run, a family, or some points of it, such as `sde[domain=d1,n=500]`."""

from collections.abc import Mapping, Sequence

from swift_study.config.families import Point, matching, parse_name
from swift_study.config.studies import BRACES


def rows_of(rows: Mapping[str, str], points: Mapping[str, Sequence[Point]], where: str) -> dict[str, list[Point]]:
    """The points of every row. One whose run has factors in braces, `sde[mode={mode}]`, is a row a level, also in its name.

    ValueError for a name that means no point, and for two rows of one name.
    """
    found: dict[str, list[Point]] = {}
    for name, run in rows.items():
        factors = BRACES.findall(run)
        family, _ = parse_name(BRACES.sub("x", run))
        own = [p for p in points.get(family, []) if all(f in p.levels for f in factors)]
        if factors and family in points and not own:
            raise ValueError(f"{where}.{name}: {family} has no points with {', '.join(factors)}, which its name has in braces")
        for levels in dict.fromkeys(tuple(p.levels[f] for f in factors) for p in own) if factors else [()]:
            named = dict(zip(factors, levels, strict=True))
            row = _filled(name, named)
            if row in found:
                raise ValueError(f"{where}: two rows are called {row!r}; name one of them otherwise")
            found[row] = matching(f"{where}.{name}", _filled(run, named), points)
    return found


def _filled(text: str, levels: Mapping[str, str]) -> str:
    return BRACES.sub(lambda m: levels.get(m[1], m[0]), text) if levels else text
