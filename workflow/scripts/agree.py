"""An agreement: how well predictors order items as the outcomes do; its tables, figure and page."""

from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from swift_study.config import AgreementStudy, ComparisonStudy, InfluenceStudy, Statistics
from swift_study.io import cli
from swift_study.io.tables import BASELINES, DECISIONS, PAIRS, RANK_AGREEMENT, VERDICTS, read_table
from swift_study.io.work import publish
from swift_study.report.figures import draw_agreement
from swift_study.report.pages import write_formats
from swift_study.report.studies import agreement_page
from swift_study.studies.agreement import (
    Influence,
    Source,
    agreement_schema,
    agreement_table,
    decisions_table,
    items_of,
    rank_agreement,
    summary,
)
from swift_study.studies.comparison import compare
from swift_study.studies.estimates import Rule
from swift_study.studies.manifest import read
from swift_study.studies.scores import read_scores, rules_of


def main(a: Namespace) -> None:
    study, statistics = AgreementStudy.model_validate(cli.unpack(a.settings)), Statistics.model_validate_json(a.statistics)
    rules, folder = rules_of(cli.unpack(a.scorers)), Path(a.folder)
    sources = {name: read_source(entry, rules, statistics) for name, entry in cli.unpack(a.sources).items()}
    items = items_of(study, sources, statistics)
    table, ranks = agreement_table(items, study), rank_agreement(items, study, statistics)
    decisions = decisions_table(items, study, statistics)
    write_formats(folder, "agreement", table, agreement_schema(study))
    write_formats(folder, "rank_agreement", ranks, RANK_AGREEMENT)
    write_formats(folder, "decisions", decisions, DECISIONS)
    predictor = next(iter(study.predictors))
    draw_agreement(table, predictor, list(study.outcomes), study.question, folder / "figure.svg", folder / "figure.png")
    sentences = summary(table, study)
    for sentence in sentences:
        cli.say(sentence)
    with publish(folder / "page.html") as part:
        part.write_text(agreement_page(study, table, ranks, decisions, sentences))


def read_source(entry: Mapping[str, Any], rules: Mapping[str, Rule], statistics: Statistics) -> Source:
    """A study that items stand in: `settings`, and the files `pairs`, `verdicts` and `baselines`, or `manifest`."""
    if "manifest" in entry:
        compared = ComparisonStudy.model_validate(entry["settings"])
        manifest = read(Path(entry["manifest"]))
        return compare(compared, manifest, read_scores(manifest, statistics, compared.unit, compared.within), rules)
    study = InfluenceStudy.model_validate(entry["settings"])
    names = (("pairs", PAIRS), ("verdicts", VERDICTS), ("baselines", BASELINES))
    return Influence(study, *(read_table(Path(entry[name]), schema) for name, schema in names))


if __name__ == "__main__":
    cli.run(
        main,
        cli.parser(
            __doc__,
            study="its name",
            settings="the study as JSON",
            statistics="the section `statistics` as JSON",
            sources="JSON: by study its settings, and its files: manifest, or pairs, verdicts and baselines",
            scorers="JSON: by scorer its file",
            folder="folder of the results",
        ),
    )
