"""How the scripts of studies begin and end: the arguments that all of them have, and the files that they write."""

from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

import polars as pl
import pyarrow as pa
from pydantic import Field

from swift_study.config import Section, Statistics
from swift_study.config.studies import Asked
from swift_study.io import cli
from swift_study.report.pages import write_formats, write_page
from swift_study.studies.manifest import read
from swift_study.studies.scores import Scores, read_scores, rules_of

Kind = TypeVar("Kind", bound=Asked)
MANIFEST = {"manifest": "Parquet file of what the study reads"}


class Settings(Section, Generic[Kind]):
    """What a study's script is told."""

    study: Kind
    statistics: Statistics
    scorers: dict[str, str] = Field(default={})
    """By scorer its file."""
    sources: dict[str, dict[str, Any]] = Field(default={})
    """By study that an agreement's items stand in its settings, and its files: manifest, or pairs, verdicts and baselines."""


def run_study(
    main: Callable[[Settings[Kind], Namespace], None],
    kind: type[Kind],
    description: str | None,
    own: Mapping[str, str],
    claims: bool = False,
) -> None:
    """Call ``main`` with the study's settings and all arguments: ``own`` by name with their help, and ``claims`` if asked for."""
    p = cli.parser(
        description,
        study="its name",
        settings="JSON of Settings",
        **own,
        folder="folder of the results",
    )
    if claims:
        p.add_argument("--claims", default="", help="YAML file of the study's claims")
    cli.run(lambda a: main(cli.settings(Settings[kind], a), a), p)  # type: ignore[valid-type]


def scores_of(s: Settings[Kind], a: Namespace, unit: Sequence[str], within: str | None) -> Scores:
    """The scores that a study's manifest names."""
    return read_scores(read(Path(a.manifest)), rules_of(s.scorers), s.statistics, unit, within)


def end_study(
    a: Namespace,
    tables: Mapping[str, tuple[pl.DataFrame, pa.Schema]],
    draw: Callable[[Path], None],
    page: str,
    sentences: Sequence[str] = (),
) -> None:
    """Write the tables, the figure and the page to the folder of the results, and say the sentences."""
    folder = Path(a.folder)
    for name, (table, schema) in tables.items():
        write_formats(folder, name, table, schema)
    draw(folder / "figure")
    write_page(folder / "page.html", page)
    for sentence in sentences:
        cli.say(f"{a.study}: {sentence}")
