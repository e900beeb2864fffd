"""An agreement: how well predictors order items as the outcomes do; its tables, figure and page."""

from argparse import Namespace
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from swift_study.config import AgreementStudy, ComparisonStudy, InfluenceStudy, Statistics
from swift_study.io.tables import BASELINES, DECISIONS, PAIRS, RANK_AGREEMENT, VERDICTS, read_table
from swift_study.report.figures import draw_agreement
from swift_study.report.scripts import Settings, end_study, run_study
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


def main(s: Settings[AgreementStudy], a: Namespace) -> None:
    study, statistics = s.study, s.statistics
    rules = rules_of(s.scorers)
    items = items_of(study, {name: read_source(entry, rules, statistics) for name, entry in s.sources.items()}, statistics)
    table, ranks = agreement_table(items, study), rank_agreement(items, study, statistics)
    decisions = decisions_table(items, study, statistics)
    sentences = summary(table, study)
    end_study(
        a,
        {"agreement": (table, agreement_schema(study)), "rank_agreement": (ranks, RANK_AGREEMENT), "decisions": (decisions, DECISIONS)},
        partial(draw_agreement, table, next(iter(study.predictors)), list(study.outcomes), study.question),
        agreement_page(study, table, ranks, decisions, sentences),
        sentences,
    )


def read_source(entry: Mapping[str, Any], rules: Mapping[str, Rule], statistics: Statistics) -> Source:
    """A study that items stand in: `settings`, and the files `pairs`, `verdicts` and `baselines`, or `manifest`."""
    if "manifest" in entry:
        compared = ComparisonStudy.model_validate(entry["settings"])
        return compare(compared, read_scores(read(Path(entry["manifest"])), rules, statistics, compared.unit, compared.within))
    study = InfluenceStudy.model_validate(entry["settings"])
    names = (("pairs", PAIRS), ("verdicts", VERDICTS), ("baselines", BASELINES))
    return Influence(study, *(read_table(Path(entry[name]), schema) for name, schema in names))


if __name__ == "__main__":
    run_study(main, AgreementStudy, __doc__, {})
