"""Tables of how scorers were tested, and their page."""

from argparse import Namespace
from pathlib import Path

import polars as pl

from swift_study.io import cli
from swift_study.io.tables import AUDIT, AUDIT_SUMMARY, CONFUSION, read_tables
from swift_study.report.pages import heading, html_table, page, paragraph, write_formats, write_page

NOTE = (
    "Responses whose label is known were given to the judge: how often it agrees (with Wilson's interval), Cohen's kappa (with a bootstrap "
    "interval), how often a second asking gives the same label, and how often a text at the end of a response that was judged wrong, which "
    "tells the judge what to say, makes it right. What could not be parsed has no label: it is counted, and never taken for wrong."
)


def main(a: Namespace) -> None:
    folder = Path(a.folder)
    rows, summary, confusion = (
        read_tables(paths, schema) for paths, schema in ((a.rows, AUDIT), (a.summary, AUDIT_SUMMARY), (a.confusion, CONFUSION))
    )
    differing = rows.filter(pl.col("label") != pl.col("expected"))  # not those without a label
    write_formats(folder, "audit", summary, AUDIT_SUMMARY)
    write_formats(folder, "confusion", confusion, CONFUSION)
    write_formats(folder, "disagreements", differing, AUDIT)
    parts = [paragraph(NOTE), html_table(summary), heading("Expected and given labels (none: not parsed)"), html_table(confusion)]
    parts += [heading("Where judge and label disagree"), html_table(differing) if len(differing) else paragraph("Nowhere.")]
    write_page(folder / "page.html", page("Audit of the scorers", *parts))


if __name__ == "__main__":
    p = cli.parser(__doc__, folder="folder of the results")
    for name in ("rows", "summary", "confusion"):
        p.add_argument(f"--{name}", nargs="+", required=True, help="Parquet files of the audits")
    cli.run(main, p)
