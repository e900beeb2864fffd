"""A study's verdicts again under other scores and on parts of the pairs, and how often they would be told: the confound panel."""

from argparse import Namespace
from pathlib import Path

from swift_study.config import Confounds, Statistics
from swift_study.influence.confounds import confound_table, disagreements, power_table
from swift_study.io import cli
from swift_study.io.tables import BASELINES, CONFOUNDS, FAMILIES, PAIRS, POWER, read_table, write_table


def main(a: Namespace) -> None:
    settings, statistics = Confounds.model_validate_json(a.settings), Statistics.model_validate_json(a.statistics)
    baselines = read_table(Path(a.baselines), BASELINES)
    pairs = read_table(Path(a.pairs), PAIRS)
    families = read_table(Path(a.families), FAMILIES)
    table = confound_table(pairs, a.control, statistics, settings.length_factor, a.unwanted, families, baselines, a.unit)
    write_table(Path(a.output), table, CONFOUNDS)
    write_table(Path(a.power), power_table(pairs, a.control, statistics, a.unwanted, a.unit), POWER)
    for sentence in disagreements(table):
        cli.say(sentence)


if __name__ == "__main__":
    p = cli.parser(
        __doc__,
        settings="the section `confounds` as JSON",
        statistics="the section `statistics` as JSON",
        control="the study's control",
        pairs="Parquet file",
        families="Parquet file of the pairs by family of modules",
        baselines="Parquet file of BM25, the similarity of hidden states and the loss change",
        output="Parquet file",
        power="Parquet file of how often an effect would be told from zero",
    )
    p.add_argument("--unwanted", nargs="*", default=[], help="target sets of responses that one does not want")
    p.add_argument("--unit", choices=["task", "item"], default="task", help="what is drawn: tasks, or single examples")
    cli.run(main, p)
