"""Write down which example a run sees at which step."""

from argparse import Namespace
from pathlib import Path

from swift_study import cli
from swift_study.config import Run
from swift_study.schedule import mixed
from swift_study.tables import SCHEDULE, read_examples, write_table


def main(a: Namespace) -> None:
    run = Run.model_validate_json(a.settings)
    schedule = mixed(read_examples(Path(a.dataset)), run.dataset, run.epochs, run.batch_size, run.seed)
    write_table(Path(a.output), schedule, SCHEDULE)
    cli.say(f"schedule: {len(schedule) // run.batch_size} steps of {run.batch_size} examples")


if __name__ == "__main__":
    cli.run(main, cli.parser(__doc__, settings="the run's settings as JSON", dataset="Parquet file", output="Parquet file"))
