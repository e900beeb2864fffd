"""Score an evaluation's queries by what a run's checkpoint makes of completions, such as the golden answers."""

import time
from argparse import Namespace
from pathlib import Path

import torch

from swift_study.config import Lora, Model, Scoring, Section
from swift_study.data.datasets import model_folder
from swift_study.errors import UserError
from swift_study.evaluation.likelihood import with_candidates
from swift_study.evaluation.prompts import Prompts, draw_shots
from swift_study.evaluation.scorers import load_scorer, read_items, score_items, summary, write_scores
from swift_study.io import cli
from swift_study.io.tables import read_examples
from swift_study.models.checkpoints import last_checkpoint
from swift_study.models.gpus import check_gpus
from swift_study.models.loading import about_threads, load_checkpoint, quiet_libraries
from swift_study.models.rendering import load_renderer


class Settings(Section):
    scoring: Scoring
    model: Model
    lora: Lora


def main(a: Namespace) -> None:
    check_gpus(int(a.gpus))
    quiet_libraries()
    torch.set_num_threads(a.threads)
    settings, scorer = cli.settings(Settings, a), load_scorer(Path(a.scorer))
    how, base, folder, checkpoint = settings.scoring, settings.model, model_folder(Path(a.model)), last_checkpoint(Path(a.checkpoints))
    items = read_items(Path(a.dataset), how, a.responses, design=a.design)
    examples = [item.example for item in items]
    shots = draw_shots(examples, read_examples(Path(a.shots)) if a.shots else examples, how.shots)
    prompts = Prompts(load_renderer(folder, base), how.template, shots, how.prompt_tokens)
    model = load_checkpoint(folder, base, checkpoint, settings.lora)
    progress, start = cli.Progress(f"score {a.name}"), time.monotonic()

    def report(done: int, of: int) -> None:
        progress(f"{done} of {of} completions, {done / (time.monotonic() - start):.1f} a second")

    try:
        scored = score_items(scorer, with_candidates(scorer, items, model, prompts, a.batch_size, report))
    except UserError as error:
        raise UserError(f"{a.checkpoints}: {error}") from error
    write_scores(Path(a.output), scorer, scored, about_threads())
    cli.say(f"score {a.name}: {summary(scorer, scored)}")


if __name__ == "__main__":
    p = cli.parser(
        __doc__,
        gpus="GPUs that each node of a Slurm job must have",
        name="run, evaluation and scorer, for people",
        scorer="the scorer's file",
        settings="JSON of Settings",
        model="model.json",
        checkpoints="folder of the run's checkpoints, of which the last is taken",
        dataset="Parquet file of the queries",
        output="folder of scores.parquet and items.parquet",
    )
    p.add_argument("--responses", type=Path, help="Parquet file of the responses, where the scorer needs them")
    p.add_argument("--shots", help="Parquet file of the solved examples, where they are not the dataset's own")
    p.add_argument("--batch-size", type=int, default=8, help="completions in one forward pass; the numbers do not depend on it")
    p.add_argument("--threads", type=int, default=1, help="CPU threads")
    p.add_argument("--design", type=Path, help="file of the design in which the queries stand, which reads responses back")
    cli.run(main, p)
