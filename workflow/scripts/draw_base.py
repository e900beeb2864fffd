"""Draw the base dataset: no probe and no near-duplicate of one is in it."""

from argparse import Namespace
from pathlib import Path

import polars as pl

from swift_study.config import BaseData
from swift_study.data.datasets import write_rejects
from swift_study.data.sources import draw_base, read_sources
from swift_study.io import cli
from swift_study.io.tables import EXCLUSIONS, read_examples, write_examples, write_table


def main(a: Namespace) -> None:
    base = BaseData.model_validate_json(a.settings)
    examples = read_sources(base.sources)
    probes = [e for path in a.probes for e in read_examples(Path(path))]
    drawn, counts = draw_base(examples, probes, base, a.near_duplicate, a.seed)
    write_examples(Path(a.output), drawn)
    write_rejects(Path(a.rejects), [])
    write_table(Path(a.exclusions), pl.DataFrame([{"dataset": "base", **counts}]), EXCLUSIONS)
    cli.say(
        f"base: {len(drawn)} of {counts['pool']} examples; left out {counts['same_as_probe']} probes and "
        f"{counts['near_duplicates']} near-duplicates of probes"
    )


if __name__ == "__main__":
    p = cli.parser(
        __doc__,
        settings="the section `data.base` as JSON",
        output="Parquet file of the base dataset",
        rejects="Parquet file of what was left out",
        exclusions="Parquet file of the counts",
    )
    p.add_argument("--probes", nargs="+", required=True, help="Parquet files of probes to keep out")
    p.add_argument("--near-duplicate", type=float, required=True, help="Jaccard similarity from which queries are near-duplicates")
    p.add_argument("--seed", type=int, required=True, help="of the draw")
    cli.run(main, p)
