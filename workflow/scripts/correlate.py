"""A correlation study: its table, its figure and its page."""

from argparse import Namespace
from pathlib import Path

from swift_study.config import CorrelationStudy, Statistics
from swift_study.io import cli
from swift_study.io.tables import CORRELATION
from swift_study.io.work import publish
from swift_study.report.figures import draw_correlation
from swift_study.report.pages import write_formats
from swift_study.report.studies import correlation_page
from swift_study.studies.correlation import correlation_table, responses_of
from swift_study.studies.manifest import read
from swift_study.studies.scores import read_scores, rules_of


def main(a: Namespace) -> None:
    study, statistics = CorrelationStudy.model_validate(cli.unpack(a.settings)), Statistics.model_validate_json(a.statistics)
    folder, manifest = Path(a.folder), read(Path(a.manifest))
    scores = read_scores(manifest, statistics, ["item"], None)
    table = correlation_table(study, responses_of(study, manifest, scores, rules_of(cli.unpack(a.scorers))), statistics)
    write_formats(folder, "table", table, CORRELATION)
    draw_correlation(table, study.question, folder / "figure.svg", folder / "figure.png")
    with publish(folder / "page.html") as part:
        part.write_text(correlation_page(study, table, statistics, scores.pairing))


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
