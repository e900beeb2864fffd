"""Load a dataset, or a part of one, from its sources."""

from argparse import Namespace
from pathlib import Path

from swift_study.config import Dataset, Section, Seed
from swift_study.data.datasets import write_rejects
from swift_study.data.load import load
from swift_study.data.sources import read_sources
from swift_study.io import cli
from swift_study.io.tables import read_examples, write_examples


class Settings(Section):
    dataset: Dataset
    near_duplicate: float
    seed: Seed
    """Of the draw and the split."""


def main(a: Namespace) -> None:
    settings = cli.settings(Settings, a)
    name, _, part = a.dataset.partition(".")
    pool = read_sources(settings.dataset.sources, settings.dataset.where)
    others = {Path(path).stem: read_examples(Path(path)) for path in a.exclude}
    loaded = load(name, settings.dataset, pool, others, settings.near_duplicate, settings.seed)
    examples, rejects = loaded.parts[part], loaded.rejects[part]
    write_examples(Path(a.output), examples)
    write_rejects(Path(a.rejects), rejects)
    cli.say(
        f"{a.dataset}: {len(examples)} examples of {len({e.task for e in examples})} tasks, {len(rejects)} left out, of {len(pool)} read"
    )


if __name__ == "__main__":
    p = cli.parser(
        __doc__,
        dataset="its name, with that of the part",
        settings="JSON of Settings",
        output="Parquet file",
        rejects="Parquet file of what was left out",
    )
    p.add_argument("--exclude", nargs="*", default=[], help="Parquet files of datasets that are kept out")
    cli.run(main, p)
