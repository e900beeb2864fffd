"""Score the responses of a run to an evaluation's queries by a model behind an endpoint."""

from argparse import Namespace
from pathlib import Path

import polars as pl

from swift_study.config import Scoring, Section
from swift_study.errors import UserError
from swift_study.evaluation.scorers import load_scorer, read_items, score_by_endpoint, summary, write_scores
from swift_study.io import cli
from swift_study.io.tables import ACCOUNTS, write_table


class Settings(Section):
    scoring: Scoring


def main(a: Namespace) -> None:
    settings, scorer = cli.settings(Settings, a).scoring, load_scorer(Path(a.scorer))
    if settings.endpoint is None:
        raise UserError(f"scorers.{settings.name}: the scorer asks an endpoint, and none is given.")
    items = read_items(Path(a.dataset), settings, Path(a.responses), a.opponents, a.instructions, a.design)
    place = f"endpoints.{settings.endpoint_name}"
    progress = cli.Progress(f"score {a.name}")
    scored, account = score_by_endpoint(scorer, items, settings.endpoint, Path(a.cache) / "replies", progress, place)
    write_scores(Path(a.output), scorer, scored)
    costs = pl.DataFrame([{"dataset": a.name, **account.__dict__}])
    write_table(Path(a.output) / "account.parquet", costs, ACCOUNTS)
    cli.say(f"score {a.name}: {summary(scorer, scored)}")


if __name__ == "__main__":
    p = cli.parser(
        __doc__,
        name="run, evaluation and scorer, for people",
        scorer="the scorer's file",
        settings="JSON of Settings",
        cache="folder of the cache",
        dataset="Parquet file of the queries",
        responses="Parquet file of the responses",
        output="folder of scores.parquet, items.parquet and account.parquet",
    )
    p.add_argument("--opponents", type=Path, help="Parquet file of the responses that these are compared with")
    p.add_argument("--instructions", type=Path, help="text file of what the endpoint is told")
    p.add_argument("--design", type=Path, help="file of the design in which the queries stand, which reads responses back")
    cli.run(main, p)
