"""Score the responses of a run to an evaluation's queries."""

from argparse import Namespace
from pathlib import Path

from swift_study.config import Scoring
from swift_study.evaluation.scorers import load_scorer, read_items, read_responses, score_items, summary, write_scores
from swift_study.io import cli
from swift_study.io.tables import read_examples


def main(a: Namespace) -> None:
    settings, scorer = Scoring.model_validate_json(a.settings), load_scorer(Path(a.scorer))
    responses = read_responses(Path(a.responses))
    scored = score_items(scorer, read_items(read_examples(Path(a.dataset)), responses, settings.options, source=a.responses))
    write_scores(Path(a.output), scorer, scored)
    cli.say(f"score {a.name}: {summary(scorer, scored)}")


if __name__ == "__main__":
    cli.run(
        main,
        cli.parser(
            __doc__,
            name="run, evaluation and scorer, for people",
            scorer="the scorer's file",
            settings="its options as JSON",
            dataset="Parquet file of the queries",
            responses="Parquet file of the responses",
            output="folder of scores.parquet and items.parquet",
        ),
    )
