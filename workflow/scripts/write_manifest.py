"""Which scores a study reads: a row for each run, evaluation and scorer."""

from argparse import Namespace
from pathlib import Path

import pyarrow as pa
import yaml

from swift_study.config import configure
from swift_study.io import cli
from swift_study.io.tables import write_arrow
from swift_study.studies.manifest import entries, table


def main(a: Namespace) -> None:
    config = configure(yaml.safe_load(Path(a.config).read_text(encoding="utf-8")), Path(a.studies))
    found: pa.Table = table(entries(config, a.study)).to_arrow()
    strings = [f.with_type(pa.string()) if pa.types.is_large_string(f.type) or pa.types.is_string_view(f.type) else f for f in found.schema]
    write_arrow(Path(a.output), found.cast(pa.schema(strings)))


if __name__ == "__main__":
    cli.run(
        main,
        cli.parser(
            __doc__,
            study="its name",
            config="YAML file of the whole configuration",
            studies="folder of the collections",
            output="Parquet file",
        ),
    )
