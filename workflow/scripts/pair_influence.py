"""Influence of every probe on every target at every checkpoint of a study, and by family and layer of the modules."""

from argparse import Namespace
from pathlib import Path

from swift_study.config import Section, StudyPanel
from swift_study.gradients.files import gradient_files
from swift_study.influence.pairs import pairs_at_checkpoint, part_pairs, read_gradients, read_modules
from swift_study.io import cli
from swift_study.io.tables import FAMILIES, LAYERS, PAIRS, writing_table


class Settings(Section):
    panel: StudyPanel
    norm_floor: float
    """Smallest squared norm of a target gradient."""


def main(a: Namespace) -> None:
    settings = cli.settings(Settings, a)
    panel, norm_floor = settings.panel, settings.norm_floor
    pairs_file, families_file, layers_file = Path(a.output), Path(a.families), Path(a.layers)
    count = skipped = 0
    with (
        writing_table(pairs_file, PAIRS) as add_pairs,
        writing_table(families_file, FAMILIES) as add_families,
        writing_table(layers_file, LAYERS) as add_layers,
    ):
        for path, modules_path in gradient_files(Path(a.gradients)):
            gradients = read_gradients(path)
            modules = read_modules(modules_path, gradients)
            for probes, targets in panel.grids():
                for pairs in pairs_at_checkpoint(gradients, a.study, panel.run, probes, targets, norm_floor):
                    add_pairs(pairs)
                    add_families(part_pairs(pairs, modules, "family", norm_floor))
                    add_layers(part_pairs(pairs, modules, "layer", norm_floor))
                    count += len(pairs)
                    skipped += pairs["rel_inf"].null_count()
    cli.say(f"{a.study}: {count} pairs, {skipped} of them without RelInf (target gradient zero or not finite)")


if __name__ == "__main__":
    p = cli.parser(
        __doc__,
        study="its name",
        settings="JSON of Settings",
        gradients="folder of the panel's gradients at each checkpoint",
        output="Parquet file",
        families="Parquet file",
        layers="Parquet file",
    )
    cli.run(main, p)
