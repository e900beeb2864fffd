"""A sweep: its table, phases and savings, its figure and its page."""

from argparse import Namespace
from pathlib import Path

from swift_study.config import Statistics, SweepStudy
from swift_study.io import cli
from swift_study.io.tables import PHASES, SAVINGS, SWEEP
from swift_study.io.work import publish
from swift_study.report.figures import draw_sweep
from swift_study.report.pages import write_formats
from swift_study.report.studies import sweep_page
from swift_study.studies.manifest import read
from swift_study.studies.scores import read_scores, rules_of
from swift_study.studies.sweep import lines_of, phases_table, savings_table, sweep_table


def main(a: Namespace) -> None:
    study, statistics = SweepStudy.model_validate(cli.unpack(a.settings)), Statistics.model_validate_json(a.statistics)
    folder, manifest = Path(a.folder), read(Path(a.manifest))
    scores = read_scores(manifest, statistics, study.unit, study.within)
    lines = lines_of(study, manifest, scores, rules_of(cli.unpack(a.scorers)))
    table = sweep_table(lines)
    phases, savings = phases_table(study, lines, statistics.confidence), savings_table(study, lines, statistics.confidence)
    for name, frame, schema in (("table", table, SWEEP), ("phases", phases, PHASES), ("savings", savings, SAVINGS)):
        write_formats(folder, name, frame, schema)
    draw_sweep(table, phases, study.x, study.question, folder / "figure.svg", folder / "figure.png")
    with publish(folder / "page.html") as part:
        part.write_text(sweep_page(study, table, phases, savings, statistics, scores.pairing))
    for row in phases.iter_rows(named=True):
        first = "none within the grid" if row["x"] is None else f"{study.x} {row['x']:g}"
        cli.say(f"{a.study}: {row['phase']} ({', '.join(filter(None, [row['panel'], row['line'], row['metric']]))}): {first}")


if __name__ == "__main__":
    cli.run(
        main,
        cli.parser(
            __doc__,
            study="its name",
            settings="the study as JSON",
            statistics="the section `statistics` as JSON",
            manifest="Parquet file of what the study reads",
            scorers="JSON: by scorer its file",
            folder="folder of the results",
        ),
    )
