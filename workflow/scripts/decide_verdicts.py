"""Curves with intervals, and the verdicts of a study."""

from argparse import Namespace
from pathlib import Path
from typing import Literal

from swift_study.config import Section, Statistics
from swift_study.influence.statistics import curves, verdicts
from swift_study.io import cli
from swift_study.io.tables import CURVES, PAIRS, VERDICTS, read_table, write_table


class Settings(Section):
    statistics: Statistics
    control: str
    unit: Literal["task", "item"]
    unwanted: list[str]


def main(a: Namespace) -> None:
    settings = cli.settings(Settings, a)
    pairs = read_table(Path(a.pairs), PAIRS)
    curve_table = curves(pairs, settings.statistics)
    verdict_table = verdicts(pairs, curve_table, settings.control, settings.statistics, settings.unwanted, settings.unit)
    write_table(Path(a.curves), curve_table, CURVES)
    write_table(Path(a.verdicts), verdict_table, VERDICTS)
    for row in verdict_table.iter_rows(named=True):
        cli.say(f"{row['study']}: {row['strategy']} → {row['context']} {row['target_set']}: {row['verdict']}")


if __name__ == "__main__":
    p = cli.parser(
        __doc__,
        settings="JSON of Settings",
        pairs="Parquet file",
        curves="Parquet file",
        verdicts="Parquet file",
    )
    cli.run(main, p)
