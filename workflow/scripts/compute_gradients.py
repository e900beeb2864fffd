"""Gradients of a study's panel at every checkpoint of its run. The base model is loaded once.

Each finished checkpoint is kept in a work folder, so that a killed job goes on with the next one; all are published together.
"""

import json
from argparse import Namespace
from pathlib import Path
from typing import Any

import torch

from swift_study import cli
from swift_study.config import Gradients, Model, Run
from swift_study.datasets import model_folder
from swift_study.errors import UserError
from swift_study.examples import Example
from swift_study.gpus import check_gpus
from swift_study.gradients import PanelGradients, certificate, gradient_table, panel_gradients
from swift_study.models import add_lora, load_adapter, load_model, load_tokenizer, quiet_libraries
from swift_study.tables import read_examples, write_arrow
from swift_study.tokens import tokenize
from swift_study.work import copy_file, fingerprint, hash_files, publish, remove, work_folder


def main(a: Namespace) -> None:
    check_gpus(int(a.gpus))
    quiet_libraries()
    torch.set_num_threads(a.threads)
    settings, run, base = (
        Gradients.model_validate_json(a.settings),
        Run.model_validate_json(a.run_settings),
        Model.model_validate_json(a.model_settings),
    )
    datasets = {Path(path).stem: read_examples(Path(path)) for path in a.datasets}
    panel: list[tuple[str, Example]] = [(name, e) for name, examples in datasets.items() for e in examples]
    names, examples = [name for name, _ in panel], [e for _, e in panel]

    folder = model_folder(Path(a.model))
    tokenizer = load_tokenizer(folder, base)
    tokens = [tokenize(e, tokenizer, base.max_length, base.overlong == "truncate") for e in examples]
    weights = json.loads(Path(a.model).read_text())["weights"]
    checkpoints = {int(Path(c).name.removeprefix("checkpoint-")): Path(c) for c in a.checkpoints}
    ids = fingerprint([e.example_id for e in examples])
    key = fingerprint(
        settings.model_dump(), base.model_dump(), run.model_dump(), weights, ids, [hash_files(c) for c in checkpoints.values()]
    )
    work = work_folder(Path(a.work), key)

    steps = sorted({*checkpoints, *([0] if settings.include_step_0 else [])})
    model = add_lora(load_model(folder, base), run.lora, run.seed).eval()
    progress = cli.Progress(f"gradients {a.panel}")
    for position, step in enumerate(steps):
        path, last = work / f"checkpoint-{step}.parquet", step == steps[-1]
        if path.is_file() and not last:
            continue
        if step in checkpoints:
            load_adapter(model, checkpoints[step])

        def report(done: int, position: int = position) -> None:
            progress(f"checkpoint {position + 1} of {len(steps)}, {done} of {len(examples)} examples")

        result = panel_gradients(model, tokens, tokenizer.pad_token_id, settings.batch_size, settings.representation, report)
        metadata = {
            "scope": "lora",
            "representation": settings.representation,
            "projection_seed": "none",
            "panel": ids,
            "checkpoint": hash_files(checkpoints[step] / "adapter_model.safetensors") if step else f"seed {run.seed}",
            "model": weights,
        }
        if last:
            metadata["certificate"] = json.dumps(certify(model, result, tokens, examples, tokenizer.pad_token_id, settings))
            with publish(Path(a.certificate)) as part:
                part.write_text(json.dumps({"panel": a.panel, "step": step} | json.loads(metadata["certificate"]), indent=2) + "\n")
        write_arrow(path, gradient_table(step, names, examples, tokens, result), metadata)
    for output in map(Path, a.outputs):
        copy_file(work / output.name, output)
    remove(work)
    progress(f"done, {len(examples)} examples at {len(steps)} checkpoints", True)


def certify(model: Any, result: PanelGradients, tokens: Any, examples: Any, pad_id: int, settings: Gradients) -> dict[str, Any]:
    found = certificate(model, result, tokens, examples, pad_id, settings.certificate_examples)
    worst = max(found["alone_vs_batched"], found["against_float64"])
    found |= {"tolerance": settings.tolerance, "passed": bool(worst <= settings.tolerance)}
    if not found["passed"]:
        raise UserError(
            f"The numerics certificate failed: inner products are off by {worst:.1e} of the norms (alone or in float64), more than "
            f"gradients.tolerance = {settings.tolerance:.1e}. Use model.dtype: float32, or raise it if your effects are far larger."
        )
    return found


if __name__ == "__main__":
    p = cli.parser(
        __doc__,
        gpus="GPUs that each node of a Slurm job must have",
        panel="its name",
        settings="the section `gradients` as JSON",
        run_settings="the run's settings as JSON",
        model="model.json",
        model_settings="the section `model` as JSON",
        work="folder for unfinished work",
        certificate="JSON file of the numerics certificate",
    )
    p.add_argument("--datasets", nargs="+", required=True, help="Parquet files of the panel's datasets")
    p.add_argument("--checkpoints", nargs="+", required=True, help="folders of the run's checkpoints")
    p.add_argument("--outputs", nargs="+", required=True, help="Parquet files, one a checkpoint")
    p.add_argument("--threads", type=int, default=1, help="CPU threads")
    cli.run(main, p)
