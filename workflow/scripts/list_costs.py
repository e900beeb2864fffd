"""Write down which files tell what each way of finding out cost that an agreement lays beside the others."""

from argparse import Namespace
from pathlib import Path

from swift_study.config import Graph, configure
from swift_study.io import cli
from swift_study.io.settings import unpack
from swift_study.studies import costs


def main(a: Namespace) -> None:
    costs.write_ways(Path(a.output), costs.ways(Graph(configure(unpack(a.config), Path(a.studies))), a.study))


if __name__ == "__main__":
    cli.run(
        main,
        cli.parser(__doc__, study="its name", config="the configuration as JSON", studies="folder of the collections", output="JSON file"),
    )
