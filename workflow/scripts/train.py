"""Train a run (start it with torchrun), then publish its checkpoints and its history.

Everything happens in a work folder that no rule declares. There it goes on after a kill. Publishing links the finished files into place;
only when all are there is the work folder removed, so that nothing is lost if publishing fails.
"""

import json
import os
from argparse import Namespace
from pathlib import Path

import polars as pl
import torch

from swift_study import cli
from swift_study.config import Model, Run
from swift_study.datasets import model_folder
from swift_study.models import quiet_libraries
from swift_study.tables import HISTORY, SCHEDULE, read_examples, read_table, write_table
from swift_study.trainer import train
from swift_study.work import copy_tree, fingerprint, remove, work_folder


def main(a: Namespace) -> None:
    quiet_libraries()
    torch.set_num_threads(max(1, a.threads // int(os.environ.get("WORLD_SIZE", "1"))))
    run, model = Run.model_validate_json(a.settings), Model.model_validate_json(a.model_settings)
    base = json.loads(Path(a.model).read_text())
    schedule = read_table(Path(a.schedule), SCHEDULE)
    examples = {e.example_id: e for e in read_examples(Path(a.dataset))}
    key = fingerprint(run.model_dump(), model.model_dump(), base["weights"], schedule.rows())
    first = int(os.environ.get("RANK", "0")) == 0
    work = work_folder(Path(a.work), key) if first else Path(a.work) / key
    progress = cli.Progress(f"train {a.name}")
    about = {"run": a.name, "model": base, "settings": run.model_dump(), "schedule": fingerprint(schedule.rows())}
    train(run, model_folder(Path(a.model)), model, examples, schedule, work, about, lambda text: progress(text) if first else None)
    if first:
        history = pl.read_ndjson(work / "history.jsonl")
        for checkpoint in map(Path, a.checkpoints):
            copy_tree(work / checkpoint.name, checkpoint)
        write_table(Path(a.history), history, HISTORY)
        remove(work)  # all is published; a forced rerun starts anew
        progress(f"done, {len(history)} steps, loss {history['loss'][0]:.3f} at the first, {history['loss'][-1]:.3f} at the last", True)


if __name__ == "__main__":
    p = cli.parser(
        __doc__,
        name="the run's name",
        settings="the run's settings as JSON",
        model="model.json",
        model_settings="the section `model` as JSON",
        dataset="Parquet file of the examples",
        schedule="Parquet file of the schedule",
        work="folder for unfinished work",
        history="Parquet file, one row a step",
    )
    p.add_argument("--checkpoints", nargs="+", required=True, help="folders to publish, named checkpoint-STEP")
    p.add_argument("--threads", type=int, default=1, help="CPU threads, over all processes")
    cli.run(main, p)
