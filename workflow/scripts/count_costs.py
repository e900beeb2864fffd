"""What each way of finding out cost that an agreement lays beside the others. The one table that holds timings."""

from argparse import Namespace
from pathlib import Path

import polars as pl

from swift_study.io import cli
from swift_study.io.tables import COSTS
from swift_study.report.pages import html_table, page, paragraph, write_formats, write_page
from swift_study.studies.costs import cost_sentences, costs, read_ways, untimed

NOTE = (
    "Seconds are those of the jobs, as Snakemake measured them, one after the other; CPU seconds add up the cores. Tokens are those "
    "trained on, and of teacher and judge those of prompts and completions. What two ways share is counted in both."
)


def main(a: Namespace) -> None:
    found = read_ways(Path(a.ways))
    table = costs(found)
    write_formats(Path(a.folder), "costs", table, COSTS)
    sentences = cost_sentences(table)
    if missing := untimed(found):
        sentences.append(f"The timing of {len(missing)} of the jobs was lost (the first: {missing[0]}); they are not counted.")
    for sentence in sentences:
        cli.say(sentence)
    shown = table.with_columns(pl.col("seconds", "cpu_seconds").round(1))
    write_page(Path(a.folder) / "costs.html", page("Costs", paragraph(" ".join(sentences)), html_table(shown), paragraph(NOTE)))


if __name__ == "__main__":
    cli.run(
        main,
        cli.parser(
            __doc__,
            ways="JSON file: by way of finding out and its parts the files that tell what they cost",
            folder="folder of the results",
        ),
    )
