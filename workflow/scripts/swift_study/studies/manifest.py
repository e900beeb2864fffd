"""Which files a study reads: a row for each run, evaluation and scorer, with the run's factors as columns.

Rules that fan in read this table, so that nothing that grows stands on a command line.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import polars as pl
import pyarrow as pa

from swift_study.config import Entry
from swift_study.errors import UserError
from swift_study.io.tables import MANIFEST, read_table, write_arrow

FIXED = tuple(MANIFEST.names)
Level = str | int | float


def table(entries: Iterable[Entry]) -> pl.DataFrame:
    """The manifest: the columns ``FIXED`` and one for each factor, null where a run or evaluation has none of that name.

    A factor whose levels are all numbers is a column of numbers.
    """
    entries = list(entries)
    names = list(dict.fromkeys(f for e in entries for f in e.factors if f not in ("seed", "model")))
    if clash := [name for name in names if name in FIXED]:
        raise UserError(f"The factor {clash[0]!r} has the name of a column of the manifest ({', '.join(FIXED)}); rename it.")
    columns: dict[str, list[object]] = {name: [getattr(e, name) for e in entries] for name in FIXED}
    kinds: dict[str, type[pl.DataType]] = {name: pl.Int64 if name == "seed" else pl.String for name in FIXED}
    for name in names:
        levels = [e.factors.get(name) for e in entries]
        kinds[name] = _kind([level for level in levels if level is not None])
        read: Callable[[str], Level] = int if kinds[name] == pl.Int64 else float if kinds[name] == pl.Float64 else str
        columns[name] = [None if level is None else read(level) for level in levels]
    return pl.DataFrame(columns, schema=kinds)


def _kind(levels: Sequence[str]) -> type[pl.DataType]:
    if all(re.fullmatch(r"-?\d{1,15}", level) for level in levels):
        return pl.Int64
    return pl.Float64 if all(re.fullmatch(r"-?\d+(\.\d+)?(e-?\d+)?", level) for level in levels) else pl.String


def digest(frame: pl.DataFrame) -> str:
    """Of all rows and columns: the parameter by which a manifest is made again when it would change."""
    return hashlib.sha256(json.dumps([frame.columns, frame.rows()], ensure_ascii=False).encode()).hexdigest()[:16]


def write(path: Path, frame: pl.DataFrame) -> None:
    found: pa.Table = frame.to_arrow()
    texts = [f.with_type(pa.string()) if frame.schema[f.name] == pl.String else f for f in found.schema]
    write_arrow(path, found.cast(pa.schema(texts)))


def read(path: Path) -> pl.DataFrame:
    """A manifest. UserError names the file and a column that is missing."""
    return read_table(path, MANIFEST)
