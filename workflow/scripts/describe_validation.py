"""What the validation is made of: its datasets, what they lack, and that no evaluation query is in them."""

from argparse import Namespace
from pathlib import Path

import polars as pl

from swift_study.data.datasets import describe
from swift_study.io import cli
from swift_study.io.tables import DATASETS, LEAKAGE, REJECTS, read_table
from swift_study.io.work import publish
from swift_study.models.lengths import about_lengths
from swift_study.report.pages import heading, html_table, page, paragraph, write_formats


def main(a: Namespace) -> None:
    rejects = pl.concat([read_table(Path(p), REJECTS) for p in a.rejects])
    datasets = pl.DataFrame([describe(Path(p), rejects) for p in a.datasets])
    write_formats(Path(a.tables), "validation_datasets", datasets, DATASETS)
    parts = [html_table(datasets), heading("Leak check of the evaluation set"), html_table(read_table(Path(a.leakage), LEAKAGE))]
    parts += [heading("Rejects"), html_table(rejects) if len(rejects) else paragraph("Nothing was rejected.")]
    parts += [heading("Lengths, in tokens"), html_table(about_lengths(a.lengths))]
    with publish(Path(a.page)) as part:
        part.write_text(page("Data of the validation", *parts))


if __name__ == "__main__":
    p = cli.parser(__doc__, leakage="Parquet file of the leak check", tables="folder of the tables", page="HTML file of the report")
    for name in ("datasets", "rejects", "lengths"):
        p.add_argument(f"--{name}", nargs="+", required=True, help="Parquet files")
    cli.run(main, p)
