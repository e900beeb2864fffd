"""Take the responses to an evaluation's queries from a file."""

from argparse import Namespace
from pathlib import Path

import polars as pl

from swift_study.evaluation.responses import read_given
from swift_study.io import cli
from swift_study.io.tables import RESPONSES, read_examples, write_table


def main(a: Namespace) -> None:
    responses = read_given(Path(a.file), read_examples(Path(a.dataset)))
    write_table(Path(a.output), pl.DataFrame([vars(r) for r in responses], schema_overrides={"seed": pl.Int64}), RESPONSES)
    cli.say(f"responses {a.name}: {len(responses)} from {a.file}")


if __name__ == "__main__":
    cli.run(
        main,
        cli.parser(
            __doc__,
            name="run and evaluation, for people",
            file="JSONL, Parquet or CSV with the columns query and response",
            dataset="Parquet file of the queries",
            output="Parquet file",
        ),
    )
