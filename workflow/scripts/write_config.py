"""Write down the configuration of these results, as it was given."""

from argparse import Namespace
from pathlib import Path

import yaml

from swift_study.io import cli
from swift_study.io.settings import unpack
from swift_study.io.work import publish


def main(a: Namespace) -> None:
    with publish(Path(a.output)) as part:
        part.write_text(yaml.safe_dump(unpack(a.config), allow_unicode=True, sort_keys=False))


if __name__ == "__main__":
    cli.run(main, cli.parser(__doc__, config="the configuration as JSON", output="YAML file"))
