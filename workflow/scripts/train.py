"""Train a run (start it with torchrun), then publish its checkpoints, its history and what each process consumed.

Everything happens in a work folder that no rule declares. There it goes on after a kill. Publishing links the finished files into place;
only when all are there is the work folder removed, so that nothing is lost if publishing fails.
"""

import json
import os
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

import polars as pl
import torch

from swift_study.config import Gradients, Model, Run, Section
from swift_study.data.datasets import model_folder
from swift_study.io import cli
from swift_study.io.settings import deciding
from swift_study.io.tables import CHECKPOINTS, CONSUMED, HISTORY, SCHEDULE, read_examples, read_table, write_table
from swift_study.io.work import copy_tree, fingerprint, hash_files, publish, remove, work_folder
from swift_study.models.checkpoints import TABLE, folder_name, last_checkpoint
from swift_study.models.gpus import check_gpus
from swift_study.models.loading import quiet_libraries
from swift_study.numerics import TRAINING
from swift_study.training.trainer import check_notes, read_stage, train


class Settings(Section):
    run: Run
    model: Model
    gradients: Gradients | None = None
    """Those that are computed at its checkpoints: they change no training, which is refused where they cannot be."""


def main(a: Namespace) -> None:
    check_gpus(int(a.gpus))
    quiet_libraries()
    torch.set_num_threads(max(1, a.threads // int(os.environ.get("WORLD_SIZE", "1"))))
    settings = cli.settings(Settings, a)
    run, model, gradients = settings.run, settings.model, settings.gradients
    base = json.loads(Path(a.model).read_text())
    schedule = read_table(Path(a.schedule), SCHEDULE)
    used = set(schedule["example_id"])
    examples = {e.example_id: e for path in a.datasets for e in read_examples(Path(path)) if e.example_id in used}
    start = last_checkpoint(Path(a.start_from)) if a.start_from else None
    started_from = hash_files(*start.glob("*.safetensors")) if start else base["weights"]
    held_out = read_examples(Path(a.held_out)) if a.held_out else []
    ids = [e.example_id for e in held_out]
    key = fingerprint(TRAINING, deciding(run), model.model_dump(), base["weights"], started_from, schedule.rows(), ids)
    first = int(os.environ.get("RANK", "0")) == 0
    work = work_folder(Path(a.work), key) if first else Path(a.work) / key
    progress = cli.Progress(f"train {a.name}")
    if schedule.is_empty():
        if first:
            publish_checkpoints([] if start is None else [(0, start)], run, Path(a.checkpoints))
            write_table(Path(a.history), pl.DataFrame(schema=HISTORY.names), HISTORY)
            write_table(Path(a.consumed), pl.DataFrame(schema=CONSUMED.names), CONSUMED)
            remove(work)
            progress("nothing to train: its schedule is empty", True)
        return
    about = {
        "run": a.name,
        "model": base,
        "start": {"run": run.start, "weights": started_from},
        "settings": deciding(run),
        "schedule": fingerprint(schedule.rows()),
        "numerics": TRAINING,
    }
    stage = read_stage(Path(a.deepspeed))
    tell = progress if first else lambda text: None
    last = train(
        run, model_folder(Path(a.model)), model, start, examples, schedule, stage, work, about, tell, Path(a.stop), gradients, held_out
    )
    if first:
        history = pl.read_ndjson(work / "history.jsonl", schema_overrides={"held_out_loss": pl.Float64})
        consumed = pl.concat([pl.read_ndjson(f) for f in sorted(work.glob("consumed-*.jsonl")) if f.stat().st_size])
        check_notes(history, consumed, schedule, last, work)
        found = {int(folder.name.removeprefix("step-")): folder for folder in work.glob("step-*") if folder.suffix == ""}
        publish_checkpoints(sorted(found.items()), run, Path(a.checkpoints))
        write_table(Path(a.history), history, HISTORY)
        write_table(Path(a.consumed), consumed.sort("step", "process", "micro_batch", maintain_order=True), CONSUMED)
        remove(work)  # all is published; a forced rerun starts anew
        progress(f"done, {len(history)} steps, loss {history['loss'][0]:.3f} at the first, {history['loss'][-1]:.3f} at the last", True)


def publish_checkpoints(found: Sequence[tuple[int, Path]], run: Run, folder: Path) -> None:
    """All checkpoints and their table in one go. Where nothing was trained, from the model: the table alone, which says so."""
    kind = "adapter" if run.method == "lora" else "full"
    rows: list[tuple[int, int, str | None, str]] = [(n, step, folder_name(step), kind) for n, (step, _) in enumerate(found, start=1)]
    rows = rows or [(1, 0, None, "model")]
    with publish(folder) as part:
        for step, checkpoint in found:
            copy_tree(checkpoint, part / folder_name(step))
        write_table(part / TABLE, pl.DataFrame(rows, schema=CHECKPOINTS.names, orient="row"), CHECKPOINTS)


if __name__ == "__main__":
    p = cli.parser(
        __doc__,
        gpus="GPUs that each node of a Slurm job must have",
        name="the run's name",
        settings="JSON of Settings",
        model="model.json",
        schedule="Parquet file of the schedule",
        deepspeed="DeepSpeed's JSON file for the run's ZeRO stage",
        work="folder for unfinished work",
        stop="file whose appearance asks for a stop after the step at hand",
        checkpoints="folder to publish: a folder step-STEP for each, and a table of them",
        history="Parquet file, one row a step",
        consumed="Parquet file, one row an example that a process worked on",
    )
    p.add_argument("--start-from", nargs="?", help="folder of the checkpoints of the run that it starts from, where that is not the model")
    p.add_argument("--held-out", nargs="?", help="Parquet file of the dataset that early stopping measures the loss on")
    p.add_argument("--datasets", nargs="*", default=[], help="Parquet files of the datasets that the schedule names")
    p.add_argument("--threads", type=int, default=1, help="CPU threads, over all processes")
    cli.run(main, p)
