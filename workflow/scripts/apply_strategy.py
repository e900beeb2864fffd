"""Make a dataset from another by a strategy."""

from argparse import Namespace
from pathlib import Path

import polars as pl

from swift_study.config import Section, Strategy
from swift_study.data.datasets import write_rejects
from swift_study.data.strategies import apply_strategy, load_strategy
from swift_study.io import cli
from swift_study.io.endpoint import EndpointSettings
from swift_study.io.tables import ACCOUNTS, read_examples, write_examples, write_table


class Settings(Section):
    strategy: Strategy
    teacher: EndpointSettings | None = None


def main(a: Namespace) -> None:
    settings = cli.settings(Settings, a)
    made, rejects, account = apply_strategy(
        load_strategy(Path(a.strategy), settings.strategy.options, [e for path in a.ancestors for e in read_examples(Path(path))]),
        settings.strategy,
        read_examples(Path(a.parent)),
        read_examples(Path(a.analogues)) if a.analogues else [],
        a.dataset,
        settings.teacher,
        Path(a.cache) / "replies",
        cli.Progress(a.dataset),
    )
    write_examples(Path(a.output), made)
    write_rejects(Path(a.rejects), rejects)
    costs = [{"dataset": a.dataset, **account.__dict__}] if account else []
    write_table(Path(a.account), pl.DataFrame(costs, schema=dict.fromkeys(ACCOUNTS.names)), ACCOUNTS)
    cli.say(f"{a.dataset}: {len(made)} examples made, {len(rejects)} rejected")


if __name__ == "__main__":
    p = cli.parser(
        __doc__,
        dataset="its name",
        strategy="the strategy file",
        settings="JSON of Settings",
        parent="Parquet file of the examples it is made from",
        cache="folder of the cache",
        output="Parquet file",
        rejects="Parquet file of what the strategy or the teacher did not make",
        account="Parquet file of what the teacher cost",
    )
    p.add_argument("--analogues", nargs="?", help="Parquet file of further examples of the same tasks, where there are any")
    p.add_argument("--ancestors", nargs="*", default=[], help="Parquet files of the examples that the parents were made from")
    cli.run(main, p)
