"""Load a dataset, or a part of one, from its sources."""

from argparse import Namespace
from pathlib import Path

from swift_study.config import Dataset
from swift_study.data.datasets import write_rejects
from swift_study.data.load import load
from swift_study.data.sources import read_sources
from swift_study.io import cli
from swift_study.io.tables import read_examples, write_examples


def main(a: Namespace) -> None:
    settings = Dataset.model_validate_json(a.settings)
    name, _, part = a.dataset.partition(".")
    pool = read_sources(settings.sources, settings.where)
    others = {Path(path).stem: read_examples(Path(path)) for path in a.exclude}
    loaded = load(name, settings, pool, others, float(a.near_duplicate), int(a.seed))
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
        settings="its entry of `datasets` as JSON",
        near_duplicate="Jaccard similarity from which texts are near-duplicates",
        seed="of the draw and the split",
        output="Parquet file",
        rejects="Parquet file of what was left out",
    )
    p.add_argument("--exclude", nargs="*", default=[], help="Parquet files of datasets that are kept out")
    cli.run(main, p)
