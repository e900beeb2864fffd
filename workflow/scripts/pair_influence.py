"""Influence of every probe on every target at every checkpoint of a study."""

from argparse import Namespace
from pathlib import Path

import polars as pl

from swift_study import cli
from swift_study.config import Comparison
from swift_study.influence import pairs_at_checkpoint, read_gradients
from swift_study.tables import PAIRS, write_table


def main(a: Namespace) -> None:
    comparison = Comparison.model_validate_json(a.settings)
    parts = [
        pairs_at_checkpoint(gradients, a.study, comparison.run, probes, targets, a.norm_floor)
        for gradients in (read_gradients(Path(path)) for path in a.gradients)
        for probes, targets in comparison.grids()
    ]
    pairs = pl.concat(parts)
    write_table(Path(a.output), pairs, PAIRS)
    skipped = pairs["rel_inf"].null_count()
    cli.say(f"{a.study}: {len(pairs)} pairs, {skipped} of them without RelInf (target gradient zero or not finite)")


if __name__ == "__main__":
    p = cli.parser(__doc__, study="its name", settings="the study's run, probes, targets and references as JSON", output="Parquet file")
    p.add_argument("--gradients", nargs="+", required=True, help="Parquet files of the panel's gradients, one a checkpoint")
    p.add_argument("--norm-floor", type=float, required=True, help="smallest squared norm of a target gradient")
    cli.run(main, p)
