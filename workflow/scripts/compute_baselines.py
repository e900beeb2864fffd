"""Cheap baselines for a study's pairs, at its run's last checkpoint: BM25, similarity, and the loss's change after a step.

Each finished probe is kept in a work folder, so that a killed job goes on with the next one.
"""

import json
import time
from argparse import Namespace
from pathlib import Path

import polars as pl
import torch

from swift_study.config import Model, Run, Section, StudyPanel
from swift_study.data.datasets import model_folder
from swift_study.errors import UserError
from swift_study.gradients.panel import read_panel
from swift_study.influence.baselines import STEP, baselines_at_checkpoint
from swift_study.io import cli
from swift_study.io.lines import append_lines, read_lines
from swift_study.io.settings import deciding
from swift_study.io.tables import BASELINES, write_table
from swift_study.io.work import fingerprint, hash_files, remove, work_folder
from swift_study.models.checkpoints import read_checkpoints
from swift_study.models.gpus import check_gpus
from swift_study.models.loading import about_threads, load_checkpoint, quiet_libraries
from swift_study.models.rendering import load_renderer
from swift_study.models.weights import select_weights


class Settings(Section):
    panel: StudyPanel
    run: Run
    model: Model


def main(a: Namespace) -> None:
    check_gpus(int(a.gpus))
    quiet_libraries()
    torch.set_num_threads(a.threads)
    settings = cli.settings(Settings, a)
    panel, run, base = settings.panel, settings.run, settings.model
    folder, last = model_folder(Path(a.model)), read_checkpoints(Path(a.checkpoints))[-1]
    renderer = load_renderer(folder, base)
    members = read_panel(a.datasets, renderer, panel.loss_of())
    missing = set(panel.datasets()) - {m.dataset for m in members}
    if missing:
        raise UserError(f"{a.study} compares the dataset '{min(missing)}', but the datasets given are {', '.join(a.datasets)}.")
    weights = json.loads(Path(a.model).read_text())["weights"]
    ids = [[m.dataset, m.example.example_id] for m in members]
    key = fingerprint(panel.model_dump(), deciding(run), base.model_dump(), weights, hash_files(*filter(None, [last.folder])), ids, STEP)
    work = work_folder(Path(a.work), key)
    file = work / "probes.jsonl"
    model = load_checkpoint(folder, base, last.folder, run.lora)
    select_weights(model, run.method, None)
    kept = {row["probe_id"]: row["losses"] for row in read_lines(file)}
    progress, start = cli.Progress(f"baselines {a.study}"), time.monotonic()
    total = len({m.example.example_id for m in members if m.dataset in panel.probes.values()})

    def keep(done: int, probe_id: str, losses: list[float]) -> None:
        append_lines(file, [{"probe_id": probe_id, "losses": losses}])
        progress(f"{done} of {total} probes")

    rows = baselines_at_checkpoint(model, members, panel.grids(), renderer.pad_id, a.batch_size, kept, keep).with_columns(
        pl.lit(a.study).alias("study"),
        pl.lit(panel.run).alias("run"),
        pl.lit(last.step).alias("step"),
    )
    write_table(Path(a.output), rows, BASELINES, about_threads())
    remove(work)
    progress(f"{len(rows)} pairs of {total} probes in {time.monotonic() - start:.0f} s", True)


if __name__ == "__main__":
    p = cli.parser(
        __doc__,
        gpus="GPUs that each node of a Slurm job must have",
        study="its name",
        settings="JSON of Settings",
        model="model.json",
        checkpoints="folder of the run's checkpoints, of which the last is taken",
        work="folder for unfinished work",
        output="Parquet file",
    )
    p.add_argument("--datasets", nargs="+", required=True, help="Parquet files of the panel's datasets")
    p.add_argument("--batch-size", type=int, default=8, help="targets in one forward pass; the numbers do not depend on it")
    p.add_argument("--threads", type=int, default=1, help="CPU threads")
    cli.run(main, p)
