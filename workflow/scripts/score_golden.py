"""How probable a run's checkpoint finds the golden answers to the queries of a dataset."""

import time
from argparse import Namespace
from pathlib import Path

import torch

from swift_study.config import Lora, Model
from swift_study.data.datasets import model_folder
from swift_study.errors import UserError
from swift_study.evaluation.likelihood import golden_example, likelihood_frame, log_likelihoods
from swift_study.io import cli
from swift_study.io.tables import LIKELIHOODS, read_examples, write_table
from swift_study.models.checkpoints import last_checkpoint
from swift_study.models.gpus import check_gpus
from swift_study.models.loading import about_threads, load_checkpoint, quiet_libraries
from swift_study.models.rendering import load_renderer


def main(a: Namespace) -> None:
    check_gpus(int(a.gpus))
    quiet_libraries()
    torch.set_num_threads(a.threads)
    base, folder, checkpoint = (
        Model.model_validate_json(a.model_settings),
        model_folder(Path(a.model)),
        last_checkpoint(Path(a.checkpoints)),
    )
    examples, renderer = read_examples(Path(a.dataset)), load_renderer(folder, base)
    tokens = [renderer.tokens(golden_example(e)) for e in examples]
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
            f"{a.checkpoints}: the likelihood of {len(wrong)} of {len(examples)} golden answers is not a finite number (the first: example "
            f"{wrong[0]}). The run has probably diverged: see its loss, and lower its learning_rate."
        )
    write_table(Path(a.output), frame, LIKELIHOODS, about_threads())
    total = frame.sum()
    nats = -total["log_likelihood"].item() / total["n_tokens"].item()
    cli.say(f"{label}: {len(examples)} golden answers, {nats:.3f} nats a token")


if __name__ == "__main__":
    p = cli.parser(
        __doc__,
        gpus="GPUs that each node of a Slurm job must have",
        run="its name",
        model="model.json",
        model_settings="the section `model` as JSON",
        lora="the run's adapter settings as JSON",
        checkpoints="folder of the run's checkpoints, of which the last is taken",
        dataset="Parquet file of the queries and their golden answers",
        output="Parquet file",
    )
    p.add_argument("--batch-size", type=int, default=8, help="answers in one forward pass; the numbers do not depend on it")
    p.add_argument("--threads", type=int, default=1, help="CPU threads")
    cli.run(main, p)
