"""Gradients of a study's panel at every checkpoint of its run.

Each finished checkpoint, and each shard of a sketched pool, is kept in a work folder, so that a killed job goes on with the next one; all
are published together.
"""

import json
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from swift_study.config import Gradients, LossOn, Model, Run, Section
from swift_study.data.datasets import model_folder
from swift_study.errors import UserError
from swift_study.gradients.certificate import certificate, certify
from swift_study.gradients.engine import adam_preconditioner, gradient_table, module_table, panel_gradients
from swift_study.gradients.files import CERTIFICATE, gradient_file, module_file
from swift_study.gradients.memory import keep_freed_memory
from swift_study.gradients.panel import Member, read_panel
from swift_study.gradients.sketch import about_projection
from swift_study.io import cli
from swift_study.io.settings import deciding
from swift_study.io.tables import vector_storage, write_arrow
from swift_study.io.work import copy_file, fingerprint, hash_files, publish, remove, work_folder
from swift_study.models.checkpoints import read_checkpoints
from swift_study.models.gpus import check_gpus
from swift_study.models.loading import about_threads, add_lora, load_adapter, load_checkpoint, load_model, load_moments, quiet_libraries
from swift_study.models.rendering import load_renderer
from swift_study.models.weights import select_weights, trainable_weights
from swift_study.numerics import GRADIENTS


class Settings(Section):
    gradients: Gradients
    run: Run
    model: Model
    loss_on: dict[str, LossOn]
    """By dataset the tokens whose loss has the gradients."""


def main(a: Namespace) -> None:
    check_gpus(int(a.gpus))
    quiet_libraries()
    torch.set_num_threads(a.threads)
    keep_freed_memory()
    told = cli.settings(Settings, a)
    settings, run, base = told.gradients, told.run, told.model
    folder = model_folder(Path(a.model))
    renderer = load_renderer(folder, base)
    panel = read_panel(a.datasets, renderer, told.loss_on)
    weights = json.loads(Path(a.model).read_text())["weights"]
    checkpoints = {c.step: c.folder for c in read_checkpoints(Path(a.checkpoints)) if c.folder is not None}
    ids = fingerprint([m.example.example_id for m in panel])
    hashes = [hash_files(c) for c in checkpoints.values()]
    key = fingerprint(GRADIENTS, deciding(settings), base.model_dump(), deciding(run), weights, ids, hashes, told.loss_on)
    work = work_folder(Path(a.work), key)

    steps = sorted({*checkpoints, *([0] if settings.include_step_0 else [])})
    if not steps:
        raise UserError(f"{a.checkpoints}: the run trains nothing, so only gradients.include_step_0 gives it gradients; set that to true.")
    models = models_at(steps, checkpoints, folder, base, run, settings, done={s for s in steps[:-1] if is_done(work, s)})
    progress = cli.Progress(f"gradients {a.panel}")
    for step, model in models:
        moments = load_moments(checkpoints[step]) if step and settings.scope == run.method and settings.representation != "sketch" else None
        scales = adam_preconditioner(moments, step, run.betas, run.epsilon) if moments else None
        metadata = {
            "scope": settings.scope if settings.modules is None else f"{settings.scope} {settings.modules}",
            "representation": settings.representation,
            **about_projection(settings),
            "panel": ids,
            "checkpoint": hash_files(*sorted(checkpoints[step].glob("*.safetensors"))) if step else f"seed {run.seed}",
            "model": weights,
            "numerics": str(GRADIENTS),
            **about_threads(),
        }
        where = f"checkpoint {steps.index(step) + 1} of {len(steps)}"
        certificate_file = work / CERTIFICATE if step == steps[-1] else None
        say = lambda text, where=where: progress(f"{where}, {text}")  # noqa: E731
        one_checkpoint(work, step, model, a.panel, panel, renderer.pad_id, settings, scales, metadata, certificate_file, say)
        (work / f"{step}.done").touch()
    with publish(Path(a.output)) as folder:
        for step in steps:
            for file in (gradient_file(step), module_file(step)):
                copy_file(work / file, folder / file)
        copy_file(work / CERTIFICATE, folder / CERTIFICATE)
    remove(work)
    progress(f"done, {len(panel)} examples at {len(steps)} checkpoints", True)


def is_done(work: Path, step: int) -> bool:
    """Whether everything of a checkpoint is in the work folder."""
    tables = (work / gradient_file(step), work / module_file(step))
    return (work / f"{step}.done").is_file() and all(map(is_whole, tables))


def is_whole(table: Path) -> bool:
    """Whether a Parquet file is there to its end, where its table of contents stands."""
    try:
        pq.read_metadata(table)
    except (OSError, pa.ArrowInvalid):
        return False
    return True


def models_at(
    steps: list[int], checkpoints: dict[int, Path], folder: Path, base: Model, run: Run, settings: Gradients, done: set[int]
) -> Iterator[tuple[int, Any]]:
    """The model at each step that is not done, its weights of the scope trainable. With an adapter the base model is loaded once."""
    adapted = add_lora(load_model(folder, base), run.lora, run.seed).eval() if settings.scope == "lora" else None
    for step in steps:
        if step in done:
            continue
        if adapted is not None:
            model = load_adapter(adapted, checkpoints[step]) if step else adapted
        elif step == 0:
            model = load_model(folder, base)
        else:
            model = load_checkpoint(folder, base, checkpoints[step], run.lora)
            model = model.merge_and_unload() if run.method == "lora" else model
        select_weights(model, settings.scope, settings.modules)
        yield step, model


def one_checkpoint(
    work: Path,
    step: int,
    model: Any,
    name: str,
    panel: Sequence[Member],
    pad_id: int,
    settings: Gradients,
    scales: Any,
    metadata: dict[str, str],
    certificate_file: Path | None,
    say: Callable[[str], None],
) -> None:
    """Write the checkpoint's tables into the work folder, sketches a shard at a time; of the last one also the certificate."""
    n, sketched = len(panel), settings.representation == "sketch"
    size = settings.shard if sketched else n
    whole, shards = work / gradient_file(step), []
    for number, start in enumerate(range(0, n, size)):
        shards.append(whole.with_suffix(f".{number}.parquet"))
        if sketched and is_whole(shards[-1]):
            continue
        part = panel[start : start + size]

        def tell(done: int, start: int = start, size: int = len(part)) -> None:
            again = (done - 1) // size
            say(f"{start + done - again * size} of {n} examples" + (f", layer group {again + 1}" if again else ""))

        tokens = [m.tokens for m in part]
        found = panel_gradients(model, tokens, pad_id, settings, scales, tell)
        table = gradient_table(step, [m.dataset for m in part], [m.example for m in part], tokens, found)
        if sketched:
            write_arrow(shards[-1], table, metadata)
    by_weight = {} if sketched or not settings.by_module else found.by_weight
    write_arrow(work / module_file(step), module_table(step, trainable_weights(model), by_weight), metadata)
    if certificate_file is not None:
        if sketched:  # of a pool, some examples are looked at
            part = panel[: min(settings.shard, 1000)]
            tokens = [m.tokens for m in part]
            found = panel_gradients(model, tokens, pad_id, settings)
        made = certificate(model, found, tokens, [m.example for m in part], pad_id, settings.certificate_examples, scales)
        about = {"panel": name, "step": step, "threads": torch.get_num_threads(), **certify(made, settings)}
        metadata = metadata | {"certificate": json.dumps(about)}
        with publish(certificate_file) as file:
            file.write_text(json.dumps(about, indent=2) + "\n")
    if sketched:
        join(shards, whole, metadata)
    else:
        write_arrow(whole, table, metadata)


def join(shards: list[Path], path: Path, metadata: dict[str, str]) -> None:
    """One file of all shards; never all of them in memory."""
    schema = pq.read_schema(shards[0])
    schema = schema.with_metadata({**schema.metadata, **metadata})
    with publish(path) as part:
        pl.scan_parquet(shards).sink_parquet(part, **vector_storage(schema))


if __name__ == "__main__":
    p = cli.parser(
        __doc__,
        gpus="GPUs that each node of a Slurm job must have",
        panel="its name",
        settings="JSON of Settings",
        model="model.json",
        work="folder for unfinished work",
        checkpoints="folder of the run's checkpoints",
        output="folder to publish: for each checkpoint the gradients and each weight's own inner products, and the numerics certificate",
    )
    p.add_argument("--datasets", nargs="+", required=True, help="Parquet files of the panel's datasets")
    p.add_argument("--threads", type=int, default=1, help="CPU threads")
    cli.run(main, p)
