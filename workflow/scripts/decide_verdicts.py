"""Curves with intervals, and the verdicts of a study."""

from argparse import Namespace
from pathlib import Path

from swift_study.config import Statistics
from swift_study.influence.statistics import curves, verdicts
from swift_study.io import cli
from swift_study.io.tables import CURVES, PAIRS, VERDICTS, read_table, write_table


def main(a: Namespace) -> None:
    settings = Statistics.model_validate_json(a.settings)
    pairs = read_table(Path(a.pairs), PAIRS)
    curve_table = curves(pairs, settings)
    verdict_table = verdicts(pairs, curve_table, a.control, settings, a.unwanted, a.unit)
    write_table(Path(a.curves), curve_table, CURVES)
    write_table(Path(a.verdicts), verdict_table, VERDICTS)
    for row in verdict_table.iter_rows(named=True):
        cli.say(f"{row['study']}: {row['strategy']} → {row['context']} {row['target_set']}: {row['verdict']}")


if __name__ == "__main__":
    p = cli.parser(
        __doc__,
        settings="the section `statistics` as JSON",
        control="the study's control",
        pairs="Parquet file",
        curves="Parquet file",
        verdicts="Parquet file",
    )
    p.add_argument("--unwanted", nargs="*", default=[], help="target sets of responses that one does not want")
    p.add_argument("--unit", choices=["task", "item"], default="task", help="what is drawn: tasks, or single examples")
    cli.run(main, p)
