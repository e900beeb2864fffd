"""A comparison: its table, what it says of the claims, its figure and its page."""

from argparse import Namespace
from functools import partial

from swift_study.config import ComparisonStudy
from swift_study.report.figures import draw_comparison
from swift_study.report.scripts import MANIFEST, Settings, end_study, run_study, scores_of
from swift_study.report.studies import comparison_page
from swift_study.studies.claims import claims_about_rows, claims_schema, claims_sentence, read_claims
from swift_study.studies.comparison import compare, comparison_schema, comparison_table


def main(s: Settings[ComparisonStudy], a: Namespace) -> None:
    study, statistics = s.study, s.statistics
    scores = scores_of(s, a, study.unit, study.within)
    compared = compare(study, scores)
    rows = compared.rows()
    claims, left_out = read_claims(a.claims, rows, [row for row in study.rows if row not in rows], "row")
    table, held = comparison_table(compared), claims_about_rows(claims, compared, a.study)
    sentences = [*compared.missing, *([claims_sentence(held, left_out)] if a.claims else [])]
    end_study(
        a,
        {"table": (table, comparison_schema(study)), "claims": (held, claims_schema(study))},
        partial(draw_comparison, study, table, scores.manifest),
        comparison_page(study, table, held, sentences, statistics),
        sentences,
    )


if __name__ == "__main__":
    run_study(main, ComparisonStudy, __doc__, MANIFEST, claims=True)
