"""Make a dataset from another by a design: the same items as other queries and completions."""

from argparse import Namespace
from pathlib import Path

from swift_study.config import Design
from swift_study.data.datasets import write_rejects
from swift_study.data.designs import apply_design, load_design
from swift_study.io import cli
from swift_study.io.tables import read_examples, write_examples


def main(a: Namespace) -> None:
    options, examples = cli.settings(Design, a).options, read_examples(Path(a.parent))
    made, rejects = apply_design(load_design(Path(a.design)), options, examples, a.dataset)
    write_examples(Path(a.output), made)
    write_rejects(Path(a.rejects), rejects)
    cli.say(f"{a.dataset}: {len(made)} examples rendered, {len(rejects)} rejected")


if __name__ == "__main__":
    p = cli.parser(
        __doc__,
        dataset="its name",
        design="the design file",
        settings="its entry of `designs` as JSON",
        parent="Parquet file of the examples that it renders",
        output="Parquet file",
        rejects="Parquet file of what the design cannot render",
    )
    cli.run(main, p)
