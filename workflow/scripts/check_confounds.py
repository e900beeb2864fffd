"""A study's verdicts again under other scores and on parts of the pairs, and how often they would be told: the confound panel."""

from argparse import Namespace
from pathlib import Path
from typing import Literal

from swift_study.config import Confounds, Section, Statistics
from swift_study.influence.confounds import confound_table, disagreements, power_table
from swift_study.io import cli
from swift_study.io.tables import BASELINES, CONFOUNDS, FAMILIES, PAIRS, POWER, read_table, write_table


class Settings(Section):
    confounds: Confounds
    statistics: Statistics
    control: str
    unit: Literal["task", "item"]
    unwanted: list[str]


def main(a: Namespace) -> None:
    s = cli.settings(Settings, a)
    baselines = read_table(Path(a.baselines), BASELINES)
    pairs = read_table(Path(a.pairs), PAIRS)
    families = read_table(Path(a.families), FAMILIES)
    table = confound_table(pairs, s.control, s.statistics, s.confounds.length_factor, s.unwanted, families, baselines, s.unit)
    write_table(Path(a.output), table, CONFOUNDS)
    write_table(Path(a.power), power_table(pairs, s.control, s.statistics, s.unwanted, s.unit), POWER)
    for sentence in disagreements(table):
        cli.say(sentence)


if __name__ == "__main__":
    p = cli.parser(
        __doc__,
        settings="JSON of Settings",
        pairs="Parquet file",
        families="Parquet file of the pairs by family of modules",
        baselines="Parquet file of BM25, the similarity of hidden states and the loss change",
        output="Parquet file",
        power="Parquet file of how often an effect would be told from zero",
    )
    cli.run(main, p)
