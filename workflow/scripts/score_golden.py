"""How probable a run's checkpoint finds the golden answers to the queries of a dataset."""

import time
from argparse import Namespace
from pathlib import Path

import polars as pl
import torch

from swift_study.config import Lora, Model
from swift_study.data.datasets import model_folder
from swift_study.errors import UserError
from swift_study.evaluation.likelihood import golden_example, likelihood_frame, log_likelihoods
from swift_study.io import cli
from swift_study.io.tables import LIKELIHOODS, read_examples, write_table
from swift_study.models.gpus import check_gpus
from swift_study.models.loading import about_threads, load_checkpoint, quiet_libraries
from swift_study.models.rendering import load_renderer


def main(a: Namespace) -> None:
    check_gpus(int(a.gpus))
    quiet_libraries()
    torch.set_num_threads(a.threads)
    base, folder, checkpoint = Model.model_validate_json(a.model_settings), model_folder(Path(a.model)), Path(a.checkpoint)
    renderer = load_renderer(folder, base)
    measured = [(e, renderer.tokens_or_none(golden_example(e))) for e in read_examples(Path(a.dataset))]
    examples, tokens = [e for e, t in measured if t is not None], [t for _, t in measured if t is not None]
    model = load_checkpoint(folder, base, checkpoint, Lora.model_validate_json(a.lora))
    label = f"likelihood of {Path(a.dataset).stem} by {a.run}"
    progress, start = cli.Progress(label), time.monotonic()

    def report(done: int) -> None:
        progress(f"{done} of {len(examples)} answers, {done / (time.monotonic() - start):.1f} a second")

    found = log_likelihoods(model, tokens, renderer.pad_id, a.batch_size, report)
    frame = likelihood_frame(examples, tokens, found)
    wrong = [e.example_id for e, number in zip(examples, found.tolist(), strict=True) if not abs(number) < float("inf")]
    if wrong:
        raise UserError(
            f"{checkpoint}: the likelihood of {len(wrong)} of {len(examples)} golden answers is not a finite number (the first: example "
            f"{wrong[0]}). The run has probably diverged: see its loss, and lower its learning_rate."
        )
    total = frame.sum()
    too_long = pl.DataFrame({"query_id": [e.example_id for e, t in measured if t is None]}, schema={"query_id": pl.String})
    write_table(Path(a.output), pl.concat([frame, too_long], how="diagonal"), LIKELIHOODS, about_threads())
    nats = -total["log_likelihood"].item() / total["n_tokens"].item()
    cli.say(
        f"{label}: {len(examples)} golden answers, {nats:.3f} nats a token"
        + (f"; {len(too_long)} are too long and have none" if len(too_long) else "")
    )


if __name__ == "__main__":
    p = cli.parser(
        __doc__,
        gpus="GPUs that each node of a Slurm job must have",
        run="its name",
        model="model.json",
        model_settings="the section `model` as JSON",
        lora="the run's adapter settings as JSON",
        checkpoint="the checkpoint's folder",
        dataset="Parquet file of the queries and their golden answers",
        output="Parquet file",
    )
    p.add_argument("--batch-size", type=int, default=8, help="answers in one forward pass; the numbers do not depend on it")
    p.add_argument("--threads", type=int, default=1, help="CPU threads")
    cli.run(main, p)
