"""What the swift study, its rivals and the validation cost. The one table that holds timings: it differs from run to run."""

from argparse import Namespace
from pathlib import Path

import polars as pl

from swift_study.io import cli
from swift_study.io.tables import COSTS
from swift_study.io.work import publish
from swift_study.report.pages import html_table, page, paragraph, write_formats
from swift_study.studies.validation import Files, cost_sentences, costs, untimed


def main(a: Namespace) -> None:
    ways = {way: {part: Files.model_validate(f) for part, f in parts.items()} for way, parts in cli.unpack(a.ways).items()}
    table = costs(ways)
    write_formats(Path(a.tables), "costs", table, COSTS)
    sentences = cost_sentences(table)
    if missing := untimed(ways):
        sentences.append(f"The timing of {len(missing)} of the jobs was lost (the first: {missing[0]}); they are not counted.")
    for sentence in sentences:
        cli.say(sentence)
    note = (
        "Seconds are those of the jobs, as Snakemake measured them, one after the other; CPU seconds add up the cores. Tokens are those "
        "trained on, and of teacher and judge those of prompts and completions. What two ways share is counted in both."
    )
    shown = table.with_columns(pl.col("seconds", "cpu_seconds").round(1))
    with publish(Path(a.page)) as part:
        part.write_text(page("Costs", paragraph(" ".join(sentences)), html_table(shown), paragraph(note)))


if __name__ == "__main__":
    cli.run(
        main,
        cli.parser(
            __doc__,
            ways="JSON: by way of finding out and its parts, {benchmarks, histories, accounts}: lists of files",
            tables="folder of the tables",
            page="HTML file of the report",
        ),
    )
