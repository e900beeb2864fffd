"""Make a dataset from another by a strategy."""

import json
from argparse import Namespace
from pathlib import Path

import polars as pl

from swift_study.config import Strategy
from swift_study.data.datasets import write_rejects
from swift_study.data.strategies import apply_strategy, load_strategy
from swift_study.io import cli
from swift_study.io.endpoint import EndpointSettings
from swift_study.io.tables import ACCOUNTS, read_examples, write_examples, write_table


def main(a: Namespace) -> None:
    teacher = json.loads(a.teacher)
    if teacher is not None:
        teacher = EndpointSettings(**teacher, **json.loads(a.teacher_limits))
    settings = Strategy.model_validate_json(a.settings)
    made, rejects, account = apply_strategy(
        load_strategy(Path(a.strategy), settings.options, [e for path in a.ancestors for e in read_examples(Path(path))]),
        settings,
        read_examples(Path(a.parent)),
        read_examples(Path(a.analogues)) if a.analogues else [],
        a.dataset,
        teacher,
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
        settings="the strategy's settings as JSON",
        teacher="the keys of `teacher` that affect a reply as JSON, or null",
        teacher_limits="its other keys as JSON, or null",
        parent="Parquet file of the examples it is made from",
        cache="folder of the cache",
        output="Parquet file",
        rejects="Parquet file of what the strategy or the teacher did not make",
        account="Parquet file of what the teacher cost",
    )
    p.add_argument("--analogues", nargs="?", help="Parquet file of further examples of the same tasks, where there are any")
    p.add_argument("--ancestors", nargs="*", default=[], help="Parquet files of the examples that the parents were made from")
    cli.run(main, p)
