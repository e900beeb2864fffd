"""Load a panel's sources: the examples that are used, and their analogues."""

from argparse import Namespace
from pathlib import Path

from pydantic import TypeAdapter

from swift_study.config import Panel
from swift_study.data.datasets import write_rejects
from swift_study.data.sources import read_sources, split_panel, without_near_duplicates
from swift_study.data.strategies import Reject
from swift_study.io import cli
from swift_study.io.tables import write_examples


def main(a: Namespace) -> None:
    panel = TypeAdapter(Panel).validate_json(a.settings)
    rejects: list[Reject] = []
    used, analogues = split_panel(read_sources(panel.sources), panel)
    if a.unlike is not None:
        analogues, near = without_near_duplicates(analogues, used, a.unlike)
        rejects += [Reject(a.dataset, e.task, e.example_id, "an analogue that is nearly one of the queries", 1, None) for e in near]
    write_examples(Path(a.output), used)
    write_examples(Path(a.analogues), analogues)
    write_rejects(Path(a.rejects), rejects)
    cli.say(
        f"{a.dataset}: {len(used)} examples of {len({e.task for e in used})} tasks, {len(analogues)} analogues, {len(rejects)} rejected"
    )


if __name__ == "__main__":
    p = cli.parser(
        __doc__,
        dataset="its name",
        settings="the panel's section as JSON",
        output="Parquet file of the examples that are used",
        analogues="Parquet file of their analogues",
        rejects="Parquet file of what was left out",
    )
    p.add_argument("--unlike", type=float, help="leave out analogues whose query is at least so similar to one that is used")
    cli.run(main, p)
