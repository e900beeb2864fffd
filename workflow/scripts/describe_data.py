"""What a study's runs were made from: their datasets, what these lack, and that no query of an evaluation is in them."""

from argparse import Namespace
from pathlib import Path

import polars as pl

from swift_study.data.datasets import describe
from swift_study.io import cli
from swift_study.io.tables import DATASETS, LEAKAGE, REJECTS, read_table, read_tables
from swift_study.models.lengths import about_lengths
from swift_study.report.pages import heading, html_table, page, paragraph, write_formats, write_page


def main(a: Namespace) -> None:
    rejects = read_tables(a.rejects, REJECTS)
    datasets = pl.DataFrame([describe(Path(p), rejects) for p in a.datasets])
    write_formats(Path(a.folder), "datasets", datasets, DATASETS)
    parts = [html_table(datasets), heading("Leak check of the evaluations"), html_table(read_table(Path(a.leakage), LEAKAGE))]
    parts += [heading("Rejects"), html_table(rejects) if len(rejects) else paragraph("Nothing was rejected.")]
    parts += [heading("Lengths, in tokens"), html_table(about_lengths(a.lengths))]
    write_page(Path(a.folder) / "data.html", page(f"Data of {a.study}", *parts))


if __name__ == "__main__":
    p = cli.parser(__doc__, study="its name", leakage="Parquet file of the leak check", folder="folder of the results")
    for name in ("datasets", "rejects", "lengths"):
        p.add_argument(f"--{name}", nargs="+", required=True, help="Parquet files")
    cli.run(main, p)
