"""Draw a study's figures: its curves, and what each layer carries of its effects."""

from argparse import Namespace
from pathlib import Path
from typing import Literal

from swift_study.config import Context, Section, Statistics
from swift_study.influence.confounds import layer_table
from swift_study.io import cli
from swift_study.io.tables import CURVES, LAYERS, read_table
from swift_study.io.work import publish
from swift_study.report.figures import draw_curves, draw_layers


class Settings(Section):
    statistics: Statistics
    control: str
    unit: Literal["task", "item"]
    figures: dict[str, list[Context]]
    """By figure the contexts that it shows."""
    title: str


def main(a: Namespace) -> None:
    table = read_table(Path(a.curves), CURVES)
    s = cli.settings(Settings, a)
    title = s.title.rstrip(".")
    with publish(Path(a.output)) as folder:
        folder.mkdir()
        for name, contexts in s.figures.items():
            where = f" ({', '.join(contexts)})" if len(s.figures) > 1 else ""
            draw_curves(table, contexts, f"{title}{where}", folder / name)
        layers = layer_table(read_table(Path(a.layers), LAYERS), s.control, s.statistics, s.unit)
        draw_layers(layers, s.control, f"{title}, by layer", folder / "layers")


if __name__ == "__main__":
    p = cli.parser(
        __doc__,
        curves="Parquet file",
        layers="Parquet file of the pairs by layer",
        settings="JSON of Settings",
        output="folder to publish, with an SVG and a PNG file for each figure and for the layers",
    )
    cli.run(main, p)
