"""Let a run's checkpoint, or an endpoint, respond to an evaluation's queries.

Finished batches are kept in a work folder, an endpoint's replies in the cache, so that a killed job goes on with what is missing.
"""

import json
import sys
import time
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path

import polars as pl
import torch

from swift_study.config import Lora, Model, Responding, Section
from swift_study.data.datasets import model_folder
from swift_study.evaluation.prompts import Prompts, draw_shots
from swift_study.evaluation.responses import Response, merge_adapter, respond, respond_by_endpoint
from swift_study.examples import Example
from swift_study.io import cli
from swift_study.io.settings import deciding
from swift_study.io.tables import RESPONSES, read_examples, write_table
from swift_study.io.work import fingerprint, hash_files, remove, work_folder
from swift_study.models.checkpoints import last_checkpoint
from swift_study.models.gpus import check_gpus
from swift_study.models.loading import about_threads, load_checkpoint, quiet_libraries
from swift_study.models.rendering import load_renderer


class Settings(Section):
    responding: Responding
    model: Model
    lora: Lora


def main(a: Namespace) -> None:
    check_gpus(int(a.gpus))
    quiet_libraries()
    settings, examples = cli.settings(Settings, a), read_examples(Path(a.dataset))
    how, label = settings.responding, f"respond {a.name}"
    shots = draw_shots(examples, read_examples(Path(a.shots)) if a.shots else examples, how.shots)
    if how.endpoint is None:
        respond_here(a, settings, examples, shots, label)
        return
    place, cache, progress = f"endpoints.{how.endpoint_name}", Path(a.cache) / "replies", cli.Progress(label)
    responses, account = respond_by_endpoint(how.generation, how.endpoint, a.run, examples, cache, progress, settings.model, shots, place)
    write(Path(a.output), responses, how, label, f"{account.replies_from_cache} from the cache, {account.cost_usd:.4f} USD")


def respond_here(a: Namespace, settings: Settings, examples: list[Example], shots: Mapping[str, list[Example]], label: str) -> None:
    """By the model at the checkpoint, in this process."""
    torch.set_num_threads(a.threads)
    how, base, lora, checkpoint = settings.responding, settings.model, settings.lora, last_checkpoint(Path(a.checkpoints))
    weights = json.loads(Path(a.model).read_text())["weights"]
    ids = [[e.example_id, *(shot.example_id for shot in shots.get(e.example_id, ()))] for e in examples]
    key = fingerprint(deciding(how), base.model_dump(), lora.model_dump(), weights, hash_files(*filter(None, [checkpoint])), ids)
    work = work_folder(Path(a.work), key)
    folder = model_folder(Path(a.model))
    model = merge_adapter(load_checkpoint(folder, base, checkpoint, lora))
    prompts = Prompts(load_renderer(folder, base), how.template, shots, how.generation.prompt_tokens)
    progress, start = cli.Progress(label), time.monotonic()
    speed = "nothing left to generate"

    def report(done: int, tokens: int) -> None:
        nonlocal speed
        speed = f"{tokens / (time.monotonic() - start):.0f} tokens/s"
        progress(f"{done} of {len(examples)} responses, {speed}")

    responses = respond(model, prompts, examples, how.generation, work / "responses.jsonl", report)
    write(Path(a.output), responses, how, label, speed, about_threads())
    remove(work)


def write(
    output: Path, responses: list[Response], how: Responding, label: str, pace: str, metadata: Mapping[str, str] | None = None
) -> None:
    write_table(output, pl.DataFrame([vars(r) for r in responses], schema_overrides={"seed": pl.Int64}), RESPONSES, metadata)
    cut, refused = (sum(r.finish_reason == reason for r in responses) for reason in ("length", "refused"))
    tokens = sum(r.n_tokens for r in responses)
    text = f"{label}: {len(responses)} responses of {tokens} tokens, {cut} cut at {how.generation.max_new_tokens} tokens; {pace}"
    text += f"; the server refused {refused} queries, which have no response" if refused else ""
    cli.say(text)
    print(text, file=sys.stderr)


if __name__ == "__main__":
    p = cli.parser(
        __doc__,
        gpus="GPUs that each node of a Slurm job must have",
        name="run and evaluation, for people",
        run="the run's name",
        settings="JSON of Settings",
        dataset="Parquet file of the queries",
        cache="folder of the cache",
        output="Parquet file",
    )
    p.add_argument("--model", help="model.json; not needed where an endpoint responds")
    p.add_argument("--checkpoints", help="folder of the run's checkpoints; not needed where an endpoint responds")
    p.add_argument("--work", help="folder for unfinished work; not needed where an endpoint responds")
    p.add_argument("--shots", help="Parquet file of the solved examples, where they are not the dataset's own")
    p.add_argument("--threads", type=int, default=1, help="CPU threads")
    cli.run(main, p)
