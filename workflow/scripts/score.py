"""Score the responses of a run to an evaluation's queries."""

from argparse import Namespace
from pathlib import Path

from swift_study.config import Scoring, Section
from swift_study.evaluation.scorers import load_scorer, read_items, score_items, summary, write_scores
from swift_study.io import cli


class Settings(Section):
    scoring: Scoring


def main(a: Namespace) -> None:
    settings, scorer = cli.settings(Settings, a).scoring, load_scorer(Path(a.scorer))
    items = read_items(Path(a.dataset), settings, Path(a.responses), a.opponents, design=a.design)
    scored = score_items(scorer, items)
    write_scores(Path(a.output), scorer, scored)
    cli.say(f"score {a.name}: {summary(scorer, scored)}")


if __name__ == "__main__":
    p = cli.parser(
        __doc__,
        name="run, evaluation and scorer, for people",
        scorer="the scorer's file",
        settings="JSON of Settings",
        dataset="Parquet file of the queries",
        responses="Parquet file of the responses",
        output="folder of scores.parquet and items.parquet",
    )
    p.add_argument("--opponents", type=Path, help="Parquet file of the responses that these are compared with")
    p.add_argument("--design", type=Path, help="file of the design in which the queries stand, which reads responses back")
    cli.run(main, p)
