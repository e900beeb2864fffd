"""Draw a run's loss curve."""

from argparse import Namespace
from pathlib import Path

from swift_study.io import cli
from swift_study.io.tables import HISTORY, read_table
from swift_study.report.figures import draw_loss


def main(a: Namespace) -> None:
    draw_loss(read_table(Path(a.history), HISTORY), f"Training loss of the run '{a.run}'", Path(a.svg).with_suffix(""))


if __name__ == "__main__":
    cli.run(main, cli.parser(__doc__, run="its name", history="Parquet file", svg="SVG file; a PNG file of the same name stands beside it"))
