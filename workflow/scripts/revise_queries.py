"""The revised queries: what a clarification answers becomes the query, with the golden answer."""

from argparse import Namespace
from pathlib import Path

from swift_study.evaluation.responses import revise
from swift_study.io import cli
from swift_study.io.tables import read_examples, write_examples


def main(a: Namespace) -> None:
    originals = {e.example_id: e for e in read_examples(Path(a.originals))}
    write_examples(Path(a.output), revise(read_examples(Path(a.clarifications)), originals))


if __name__ == "__main__":
    cli.run(main, cli.parser(__doc__, originals="Parquet file", clarifications="Parquet file", output="Parquet file"))
