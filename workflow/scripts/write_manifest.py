"""Write down which scores a study reads: a row for each run, evaluation and scorer."""

from argparse import Namespace
from pathlib import Path

from swift_study.config import Graph, configure
from swift_study.io import cli
from swift_study.io.settings import unpack
from swift_study.studies import manifest


def main(a: Namespace) -> None:
    config = configure(unpack(a.config), Path(a.studies))
    manifest.write(Path(a.output), manifest.table(Graph(config).entries(a.study)))


if __name__ == "__main__":
    cli.run(
        main,
        cli.parser(
            __doc__, study="its name", config="the configuration as JSON", studies="folder of the collections", output="Parquet file"
        ),
    )
