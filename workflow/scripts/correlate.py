"""A correlation study: its table, its figure and its page."""

from argparse import Namespace
from functools import partial

from swift_study.config import CorrelationStudy
from swift_study.io.tables import CORRELATION
from swift_study.report.figures import draw_correlation
from swift_study.report.scripts import MANIFEST, Settings, end_study, run_study, scores_of
from swift_study.report.studies import correlation_page
from swift_study.studies.correlation import correlation_table, responses_of


def main(s: Settings[CorrelationStudy], a: Namespace) -> None:
    study, statistics = s.study, s.statistics
    scores = scores_of(s, a, ["item"], None)
    table = correlation_table(study, responses_of(study, scores), statistics)
    end_study(
        a,
        {"table": (table, CORRELATION)},
        partial(draw_correlation, table, study.question),
        correlation_page(study, table, statistics, scores.pairing),
    )


if __name__ == "__main__":
    run_study(main, CorrelationStudy, __doc__, MANIFEST)
