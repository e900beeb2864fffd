"""Draw a study's figures: its curves, and what each layer carries of its effects."""

import json
from argparse import Namespace
from pathlib import Path

from swift_study.config import Statistics
from swift_study.influence.confounds import layer_table
from swift_study.io import cli
from swift_study.io.tables import CURVES, LAYERS, read_table
from swift_study.io.work import publish
from swift_study.report.figures import draw_curves, draw_layers


def main(a: Namespace) -> None:
    table = read_table(Path(a.curves), CURVES)
    figures = json.loads(a.figures)
    with publish(Path(a.output)) as folder:
        folder.mkdir()
        for name, contexts in figures.items():
            where = f" ({', '.join(contexts)})" if len(figures) > 1 else ""
            draw_curves(table, contexts, f"{a.title.rstrip('.')}{where}", folder / name)
        layers = layer_table(read_table(Path(a.layers), LAYERS), a.control, Statistics.model_validate_json(a.statistics), a.unit)
        draw_layers(layers, a.control, f"{a.title.rstrip('.')}, by layer", folder / "layers")


if __name__ == "__main__":
    p = cli.parser(
        __doc__,
        curves="Parquet file",
        layers="Parquet file of the pairs by layer",
        statistics="the section `statistics` as JSON",
        control="the study's control",
        figures="name of each figure and the contexts it shows, as JSON",
        title="above the figures",
        output="folder to publish, with an SVG and a PNG file for each figure and for the layers",
    )
    p.add_argument("--unit", choices=["task", "item"], default="task", help="what is drawn: tasks, or single examples")
    cli.run(main, p)
