"""A sweep: its table, phases and savings, its figure and its page."""

from argparse import Namespace
from functools import partial

from swift_study.config import SweepStudy
from swift_study.io.tables import PHASES, SAVINGS, SWEEP
from swift_study.report.figures import draw_sweep
from swift_study.report.scripts import MANIFEST, Settings, end_study, run_study, scores_of
from swift_study.report.studies import sweep_page
from swift_study.studies.sweep import lines_of, phases_table, savings_table, sweep_table


def main(s: Settings[SweepStudy], a: Namespace) -> None:
    study, statistics = s.study, s.statistics
    scores = scores_of(s, a, study.unit, study.within)
    lines = lines_of(study, scores)
    table, confidence = sweep_table(lines), statistics.confidence
    phases, savings = phases_table(study, lines, confidence), savings_table(study, lines, confidence)
    sentences = []
    for row in phases.iter_rows(named=True):
        first = "none within the grid" if row["x"] is None else f"{study.x} {row['x']:g}"
        sentences.append(f"{row['phase']} ({', '.join(filter(None, [row['panel'], row['line'], row['metric']]))}): {first}")
    end_study(
        a,
        {"table": (table, SWEEP), "phases": (phases, PHASES), "savings": (savings, SAVINGS)},
        partial(draw_sweep, table, phases, study.x, study.question),
        sweep_page(study, table, phases, savings, statistics, scores.pairing),
        sentences,
    )


if __name__ == "__main__":
    run_study(main, SweepStudy, __doc__, MANIFEST)
