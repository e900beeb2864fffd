"""Draw a study's figures."""

import json
from argparse import Namespace
from pathlib import Path

from swift_study import cli
from swift_study.figures import draw_curves
from swift_study.tables import CURVES, read_table


def main(a: Namespace) -> None:
    table = read_table(Path(a.curves), CURVES)
    figures = json.loads(a.figures)
    folder = Path(a.folder)
    for name, contexts in figures.items():
        where = f" ({', '.join(contexts)})" if len(figures) > 1 else ""
        draw_curves(table, contexts, f"{a.title.rstrip('.')}{where}", folder / f"{name}.svg", folder / f"{name}.png")


if __name__ == "__main__":
    p = cli.parser(
        __doc__,
        curves="Parquet file",
        figures="name of each figure and the contexts it shows, as JSON",
        title="above the figures",
        folder="where the SVG and PNG files go",
    )
    cli.run(main, p)
