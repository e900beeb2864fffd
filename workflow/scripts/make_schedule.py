"""Write down which example a run sees at which step."""

from argparse import Namespace
from pathlib import Path

from swift_study.config import Run
from swift_study.io import cli
from swift_study.io.tables import SCHEDULE, read_examples, write_table
from swift_study.training.schedule import make_schedule


def main(a: Namespace) -> None:
    schedule = make_schedule(Run.model_validate_json(a.settings), {Path(path).stem: read_examples(Path(path)) for path in a.datasets})
    write_table(Path(a.output), schedule, SCHEDULE)
    examples = schedule["example_id"].n_unique()
    cli.say(f"schedule {Path(a.output).stem}: {schedule['step'].n_unique()} steps, {len(schedule)} uses of {examples} examples")


if __name__ == "__main__":
    p = cli.parser(__doc__, settings="the run's settings as JSON", output="Parquet file")
    p.add_argument("--datasets", nargs="+", required=True, help="Parquet files of the datasets that the schedule names")
    cli.run(main, p)
