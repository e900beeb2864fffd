"""Which files a study reads: a row for each run, evaluation and scorer, with the run's factors as columns.

Rules that fan in read this table, so that nothing that grows stands on a command line.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from swift_study.config import ComparisonStudy, Config, CorrelationStudy, Level, Point, SweepStudy, matching, points, rows_of
from swift_study.errors import UserError
from swift_study.io.tables import MANIFEST, read_table

FIXED = tuple(MANIFEST.names)
Scored = ComparisonStudy | SweepStudy | CorrelationStudy


@dataclass(frozen=True)
class Entry:
    """A row of a manifest."""

    row: str
    point: Point
    evaluation: str
    scorer: str
    path: str
    factors: Mapping[str, Level]  # the run's and the evaluation's


def rows(config: Config, name: str) -> dict[str, list[Point]]:
    """The points behind every row of a study of scores."""
    study, every = config.studies[name], points(config)
    if isinstance(study, ComparisonStudy):
        return rows_of(study.taken(), every, f"studies.{name}.rows")
    if isinstance(study, SweepStudy):
        return {study.runs: matching(study.runs, every, f"studies.{name}.runs")}
    assert isinstance(study, CorrelationStudy)
    return {run: matching(run, every, f"studies.{name}.runs") for run in study.runs}


def entries(config: Config, name: str) -> list[Entry]:
    """Everything that a study of scores reads."""
    study = config.studies[name]
    assert isinstance(study, Scored)
    found = []
    for row, own in rows(config, name).items():
        for point in own:
            for evaluation in study.evaluations:
                for scorer in study.scorers or config.scorer_names():
                    path = f"{config.results}/scores/{point.path}/evaluation={evaluation}/scorer={scorer}/scores.parquet"
                    found.append(Entry(row, point, evaluation, scorer, path, point.factors))
    return found


def table(entries: Iterable[Entry]) -> pl.DataFrame:
    """The manifest: the columns ``FIXED`` and one for each factor, null where a run or evaluation has none of that name."""
    entries = list(entries)
    names = list(dict.fromkeys(f for e in entries for f in e.factors if f not in ("seed", "model")))
    if clash := [name for name in names if name in FIXED]:
        raise UserError(f"The factor {clash[0]!r} has the name of a column of the manifest ({', '.join(FIXED)}); rename it.")
    columns: dict[str, list[object]] = {
        "row": [e.row for e in entries],
        "run": [e.point.path for e in entries],
        "seed": [e.point.seed for e in entries],
        "model": [e.point.model for e in entries],
        "evaluation": [e.evaluation for e in entries],
        "scorer": [e.scorer for e in entries],
        "path": [e.path for e in entries],
    }
    kinds: dict[str, type[pl.DataType]] = dict.fromkeys(FIXED, pl.String) | {"seed": pl.Int64}
    for name in names:
        levels = [e.factors.get(name) for e in entries]
        kinds[name] = _kind([level for level in levels if level is not None])
        columns[name] = [None if level is None else str(level) if kinds[name] == pl.String else level for level in levels]
    return pl.DataFrame(columns, schema=kinds, strict=False)


def _kind(levels: Sequence[Level]) -> type[pl.DataType]:
    if any(isinstance(level, str | bool) for level in levels):
        return pl.String
    return pl.Int64 if all(isinstance(level, int) for level in levels) else pl.Float64


def digest(frame: pl.DataFrame) -> str:
    """Of all rows and columns: the parameter by which a manifest is made again when it would change."""
    return hashlib.sha256(json.dumps([frame.columns, frame.rows()], ensure_ascii=False).encode()).hexdigest()[:16]


def read(path: Path) -> pl.DataFrame:
    """A manifest. UserError names the file and a column that is missing."""
    return read_table(path, MANIFEST)
