"""How the scripts of studies begin and end: the arguments that all of them have, and the files that they write."""

from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import polars as pl
import pyarrow as pa

from swift_study.config import Statistics
from swift_study.config.studies import Asked
from swift_study.io import cli
from swift_study.report.pages import write_formats, write_page
from swift_study.studies.manifest import read
from swift_study.studies.scores import Scores, read_scores, rules_of

Kind = TypeVar("Kind", bound=Asked)
SCORES = {"manifest": "Parquet file of what the study reads", "scorers": "JSON: by scorer its file"}


def run_study(
    main: Callable[[Kind, Statistics, Namespace], None],
    kind: type[Kind],
    description: str | None,
    own: Mapping[str, str],
    claims: bool = False,
) -> None:
    """Call ``main`` with the study, its statistics and all arguments: ``own`` by name with their help, and ``claims`` if asked for."""
    p = cli.parser(
        description,
        study="its name",
        settings="the study as JSON",
        statistics="the section `statistics` as JSON",
        **own,
        folder="folder of the results",
    )
    if claims:
        p.add_argument("--claims", default="", help="YAML file of the study's claims")
    cli.run(lambda a: main(kind.model_validate(cli.unpack(a.settings)), Statistics.model_validate_json(a.statistics), a), p)


def scores_of(a: Namespace, statistics: Statistics, unit: Sequence[str], within: str | None) -> Scores:
    """The scores that the arguments ``SCORES`` name."""
    return read_scores(read(Path(a.manifest)), rules_of(cli.unpack(a.scorers)), statistics, unit, within)


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
