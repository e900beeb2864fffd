"""Influence of every probe on every target at every checkpoint of a study, and by family and layer of the modules."""

from argparse import Namespace
from pathlib import Path

import polars as pl

from swift_study import cli
from swift_study.config import Comparison
from swift_study.influence import pairs_at_checkpoint, part_pairs, read_gradients, read_modules
from swift_study.tables import FAMILIES, LAYERS, PAIRS, write_table


def main(a: Namespace) -> None:
    comparison = Comparison.model_validate_json(a.settings)
    parts, by_family, by_layer = [], [], []
    for path, modules_path in zip(a.gradients, a.modules, strict=True):
        gradients = read_gradients(Path(path))
        modules = read_modules(Path(modules_path), gradients)
        pairs = pl.concat(
            [
                pairs_at_checkpoint(gradients, a.study, comparison.run, probes, targets, a.norm_floor)
                for probes, targets in comparison.grids()
            ]
        )
        parts.append(pairs)
        by_family.append(part_pairs(pairs, modules, "family", a.norm_floor))
        by_layer.append(part_pairs(pairs, modules, "layer", a.norm_floor))
    pairs = pl.concat(parts)
    write_table(Path(a.output), pairs, PAIRS)
    write_table(Path(a.families), pl.concat(by_family), FAMILIES)
    write_table(Path(a.layers), pl.concat(by_layer), LAYERS)
    skipped = pairs["rel_inf"].null_count()
    cli.say(f"{a.study}: {len(pairs)} pairs, {skipped} of them without RelInf (target gradient zero or not finite)")


if __name__ == "__main__":
    p = cli.parser(
        __doc__,
        study="its name",
        settings="the study's run, probes, targets and references as JSON",
        output="Parquet file",
        families="Parquet file",
        layers="Parquet file",
    )
    p.add_argument("--gradients", nargs="+", required=True, help="Parquet files of the panel's gradients, one a checkpoint")
    p.add_argument("--modules", nargs="+", required=True, help="Parquet files of the modules' inner products, one a checkpoint")
    p.add_argument("--norm-floor", type=float, required=True, help="smallest squared norm of a target gradient")
    cli.run(main, p)
