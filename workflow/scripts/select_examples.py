"""Choose examples by scores, and write one of the datasets that the selection makes of them."""

from argparse import Namespace
from pathlib import Path

import polars as pl

from swift_study.config import Section, Seed, Selection
from swift_study.data.selection import choose, put_out, rows_of, scores_of_file
from swift_study.errors import UserError
from swift_study.evaluation.scorers import read_responses, read_statistics
from swift_study.io import cli
from swift_study.io.tables import read_examples, write_examples


class Settings(Section):
    selection: Selection
    seed: Seed
    """Of a random order."""


def main(a: Namespace) -> None:
    settings = cli.settings(Settings, a)
    selection = settings.selection
    datasets = {Path(path).stem: read_examples(Path(path)) for path in a.datasets}
    rows = rows_of(selection, datasets)
    scores: dict[str, float | None] = {}
    if selection.scores is not None and selection.scores.file is not None:
        scores = scores_of_file(selection.scores, list({e.example_id: e for row in rows for e in row.values()}.values()))
    for path in map(Path, a.scores):
        table = read_statistics(path)
        statistic = selection.scores.statistic if selection.scores else ""
        if statistic not in table.columns:
            raise UserError(
                f"{path}: there is no statistic {statistic!r} (selections.{a.selection}.scores.statistic); it has "
                f"{', '.join(c for c in table.columns if c not in ('query_id', 'task'))}."
            )
        scores |= dict(table.select("query_id", pl.col(statistic)).iter_rows())
    responses = {query: text for path in a.responses for query, text in read_responses(Path(path)).items()}
    chosen = choose(selection, rows, scores, responses, settings.seed, a.selection)
    examples = put_out(selection, Path(a.output).stem, chosen, responses)
    write_examples(Path(a.output), examples)
    tasks = len({row["example"].task for row in chosen})
    cli.say(f"{Path(a.output).stem}: {len(examples)} examples of {tasks} tasks, of {len(rows)} in {selection.examples}")


if __name__ == "__main__":
    p = cli.parser(
        __doc__,
        selection="its name",
        settings="JSON of Settings",
        output="Parquet file, called like the output",
    )
    p.add_argument("--datasets", nargs="+", required=True, help="Parquet files of the examples, of their relatives and of all between them")
    p.add_argument("--scores", nargs="*", default=[], help="Parquet files of their scores")
    p.add_argument("--responses", nargs="*", default=[], help="Parquet files of the responses to them")
    cli.run(main, p)
