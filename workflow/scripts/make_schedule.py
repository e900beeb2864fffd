"""Write down which example a run sees at which step, and which ones it leaves out since its model's context does not hold them."""

from argparse import Namespace
from pathlib import Path

from swift_study.config import Run, Section, Seed
from swift_study.data.datasets import check_values, write_rejects
from swift_study.data.strategies import Reject
from swift_study.io import cli
from swift_study.io.tables import SCHEDULE, read_examples, write_table
from swift_study.models.lengths import left_out
from swift_study.training.schedule import chosen, make_schedule


class Settings(Section):
    run: Run
    data_seed: Seed
    """Draws the examples that the run takes of a dataset."""


def main(a: Namespace) -> None:
    settings = cli.settings(Settings, a)
    run = settings.run
    datasets = {Path(path).stem: read_examples(Path(path)) for path in a.datasets}
    reasons = left_out(a.lengths)
    schedule = make_schedule(run, datasets, settings.data_seed, reasons)
    tasks = {e.example_id: e.task for examples in datasets.values() for e in examples}
    taken = chosen(run, datasets, settings.data_seed)
    if run.loss_on == "values":  # told here, before anything is trained
        seen = {i for ids in taken.values() for i in ids}
        for name, own in datasets.items():
            check_values((e for e in own if e.example_id in seen), name)
        if a.held_out:
            check_values(read_examples(Path(a.held_out)), Path(a.held_out).stem)
    dropped = dict.fromkeys((name, i) for (_, name), ids in taken.items() for i in ids if i in reasons)
    write_rejects(Path(a.rejects), [Reject(name, tasks[i], i, reasons[i], 0, None) for name, i in dropped])
    write_table(Path(a.output), schedule, SCHEDULE)
    examples = schedule["example_id"].n_unique()
    too_long = f"; {len(dropped)} examples are too long and left out" if dropped else ""
    cli.say(f"schedule {a.run}: {schedule['step'].n_unique()} steps, {len(schedule)} uses of {examples} examples{too_long}")


if __name__ == "__main__":
    p = cli.parser(__doc__, run="its name", settings="its settings as JSON", output="Parquet file", rejects="Parquet file")
    p.add_argument("--datasets", nargs="*", default=[], help="Parquet files of the datasets that the schedule names")
    p.add_argument("--lengths", nargs="*", default=[], help="Parquet files of the lengths of their examples for the run's model")
    p.add_argument("--held-out", nargs="?", help="Parquet file of the dataset that early stopping measures the loss on")
    cli.run(main, p)
