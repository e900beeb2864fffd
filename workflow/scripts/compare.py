"""A comparison: its table, what it says of the claims, its figure and its page."""

from argparse import Namespace
from pathlib import Path

from swift_study.config import ComparisonStudy, Statistics
from swift_study.io import cli
from swift_study.io.work import publish
from swift_study.report.figures import draw_comparison
from swift_study.report.pages import write_formats
from swift_study.report.studies import comparison_page
from swift_study.studies.claims import claims_about_rows, claims_schema, claims_sentence, load_claims, usable_claims
from swift_study.studies.comparison import compare, comparison_schema, comparison_table
from swift_study.studies.manifest import read
from swift_study.studies.scores import read_scores, rules_of


def main(a: Namespace) -> None:
    study, statistics = ComparisonStudy.model_validate(cli.unpack(a.settings)), Statistics.model_validate_json(a.statistics)
    folder, manifest = Path(a.folder), read(Path(a.manifest))
    scores = read_scores(manifest, statistics, study.unit, study.within)
    compared = compare(study, manifest, scores, rules_of(cli.unpack(a.scorers)))
    table = comparison_table(compared)
    write_formats(folder, "table", table, comparison_schema(study))
    claims = load_claims(Path(a.claims)) if a.claims else []
    rows = compared.rows()
    usable = usable_claims(claims, rows, [row for row in study.rows if row not in rows], "row", a.claims)
    held = claims_about_rows(usable, compared, a.study)
    write_formats(folder, "claims", held, claims_schema(study))
    draw_comparison(study, table, manifest, folder / "figure.svg", folder / "figure.png")
    sentences = [*compared.missing, *([claims_sentence(held, len(claims) - len(usable))] if claims else [])]
    for sentence in sentences:
        cli.say(f"{a.study}: {sentence}")
    with publish(folder / "page.html") as part:
        part.write_text(comparison_page(study, table, held, sentences, statistics))


if __name__ == "__main__":
    p = cli.parser(
        __doc__,
        study="its name",
        settings="the study as JSON",
        statistics="the section `statistics` as JSON",
        manifest="Parquet file of what the study reads",
        scorers="JSON: by scorer its file",
        folder="folder of the results",
    )
    p.add_argument("--claims", default="", help="YAML file of the study's claims")
    cli.run(main, p)
