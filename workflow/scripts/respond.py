"""Let a run's checkpoint, or a server, respond to the queries of a dataset.

Finished batches are kept in a work folder, a server's replies in the cache, so that a killed job goes on with what is missing.
"""

import json
import sys
import time
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path

import polars as pl
import torch

from swift_study.config import Lora, Model, Responses
from swift_study.data.datasets import model_folder
from swift_study.evaluation.responses import Response, merge_adapter, respond, respond_by_server
from swift_study.examples import Example
from swift_study.io import cli
from swift_study.io.tables import RESPONSES, read_examples, write_table
from swift_study.io.work import fingerprint, hash_files, remove, work_folder
from swift_study.models.checkpoints import last_checkpoint
from swift_study.models.gpus import check_gpus
from swift_study.models.loading import about_threads, load_checkpoint, quiet_libraries
from swift_study.models.rendering import load_renderer


def complete(settings: str, limits: str) -> Responses:
    """The settings from the keys that affect responses and the others."""
    given, other = json.loads(settings), json.loads(limits)
    if given.get("server") is not None:
        given["server"] |= other.get("server") or {}
    return Responses(**{key: value for key, value in other.items() if key != "server"} | given)


def main(a: Namespace) -> None:
    check_gpus(int(a.gpus))
    quiet_libraries()
    settings, examples = complete(a.settings, a.limits), read_examples(Path(a.dataset))
    label = f"respond {a.run} to {Path(a.dataset).stem}"
    if settings.server is None:
        respond_here(a, settings, examples, label)
        return
    model = Model.model_validate_json(a.model_settings)
    responses, account = respond_by_server(settings, a.run, examples, Path(a.cache) / "replies", cli.Progress(label), model)
    write(Path(a.output), responses, settings, label, f"{account.replies_from_cache} from the cache, {account.cost_usd:.4f} USD")


def respond_here(a: Namespace, settings: Responses, examples: list[Example], label: str) -> None:
    """By the model at the checkpoint, in this process."""
    torch.set_num_threads(a.threads)
    base, lora, checkpoint = (
        Model.model_validate_json(a.model_settings),
        Lora.model_validate_json(a.lora),
        last_checkpoint(Path(a.checkpoints)),
    )
    weights = json.loads(Path(a.model).read_text())["weights"]
    affecting = settings.model_dump(exclude={"server"})
    ids = [e.example_id for e in examples]
    key = fingerprint(affecting, base.model_dump(), lora.model_dump(), weights, hash_files(*filter(None, [checkpoint])), ids)
    work = work_folder(Path(a.work), key)
    folder = model_folder(Path(a.model))
    model = merge_adapter(load_checkpoint(folder, base, checkpoint, lora))
    progress, start = cli.Progress(label), time.monotonic()
    speed = "nothing left to generate"

    def report(done: int, tokens: int) -> None:
        nonlocal speed
        speed = f"{tokens / (time.monotonic() - start):.0f} tokens/s"
        progress(f"{done} of {len(examples)} responses, {speed}")

    responses = respond(model, load_renderer(folder, base), examples, settings, work / "responses.jsonl", report)
    write(Path(a.output), responses, settings, label, speed, about_threads())
    remove(work)


def write(
    output: Path, responses: list[Response], settings: Responses, label: str, pace: str, metadata: Mapping[str, str] | None = None
) -> None:
    write_table(output, pl.DataFrame([vars(r) for r in responses], schema_overrides={"seed": pl.Int64}), RESPONSES, metadata)
    cut, refused = (sum(r.finish_reason == reason for r in responses) for reason in ("length", "refused"))
    tokens = sum(r.n_tokens for r in responses)
    text = f"{label}: {len(responses)} responses of {tokens} tokens, {cut} cut at {settings.max_new_tokens} tokens; {pace}"
    text += f"; the server refused {refused} queries, which have no response" if refused else ""
    cli.say(text)
    print(text, file=sys.stderr)


if __name__ == "__main__":
    p = cli.parser(
        __doc__,
        gpus="GPUs that each node of a Slurm job must have",
        run="its name",
        settings="the section `responses` as JSON, without keys that affect no response",
        model="model.json",
        model_settings="the section `model` as JSON",
        lora="the run's adapter settings as JSON",
        checkpoints="folder of the run's checkpoints, of which the last is taken",
        dataset="Parquet file of the queries",
        work="folder for unfinished work",
        cache="folder of the cache",
        output="Parquet file",
    )
    p.add_argument("--limits", default="{}", help="its other keys as JSON: batch_size, and those of its server")
    p.add_argument("--threads", type=int, default=1, help="CPU threads")
    cli.run(main, p)
