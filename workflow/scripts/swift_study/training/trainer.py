"""The one trainer: DeepSpeed, following a schedule exactly, resumable, the same numbers for any number of processes.

Invariant: the state after step s depends on the start model, the schedule and the run's settings only; not on how often the job
was killed before s, and without dropout up to rounding not on the number of processes. All work happens in a work folder; nothing is
published here.
"""

import json
import logging
import math
import os
import platform
import re
import subprocess
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl
import torch

from swift_study import __version__
from swift_study.config import Gradients, Model, Run
from swift_study.errors import Stopped, UserError
from swift_study.examples import Example
from swift_study.io.lines import append_lines, read_lines, replace_lines
from swift_study.io.work import fingerprint, publish, remove, writing_to
from swift_study.models.batches import collate, sum_losses
from swift_study.models.checkpoints import folder_name
from swift_study.models.loading import check_fits, load_adapter, load_model
from swift_study.models.rendering import Renderer, load_renderer
from swift_study.models.tokens import Tokens
from swift_study.models.weights import train_weights
from swift_study.training.extensions import compile_in_turns

log = logging.getLogger(__name__)
Batch = list[tuple[str, Tokens]]  # ids of examples, and their tokens


def learning_rate(run: Run, step: int, steps: int) -> float:
    """Linear warm-up over ``warmup_steps``, then the run's decay; `linear` and `cosine` reach ``final_learning_rate`` at step ``steps``."""
    if step <= run.warmup_steps:
        return run.learning_rate * step / run.warmup_steps
    if run.decay == "constant":
        return run.learning_rate
    if run.decay == "inverse_sqrt":
        scale = run.warmup_steps or 10_000  # as in transformers
        return run.learning_rate / math.sqrt((step + scale - run.warmup_steps) / scale)
    share = (step - run.warmup_steps) / (steps - run.warmup_steps)
    left = 1 - share if run.decay == "linear" else (1 + math.cos(math.pi * share)) / 2
    return run.final_learning_rate + left * (run.learning_rate - run.final_learning_rate)


def is_enough(losses: Sequence[float], patience: int | None) -> bool:
    """Whether the last ``patience`` of the losses are no new lowest ones."""
    return patience is not None and bool(losses) and len(losses) - 1 - losses.index(min(losses)) >= patience


def read_stage(path: Path) -> dict[str, Any]:
    """DeepSpeed's JSON file for a ZeRO stage. UserError if it is missing, is not JSON, or says nothing of ZeRO."""
    try:
        stage = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: the DeepSpeed file cannot be read: {error.strerror}. Take it from the project again.") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: the DeepSpeed file is not JSON: {error}. Mend it, or take it from the project again.") from error
    if not isinstance(stage, dict) or not isinstance(stage.get("zero_optimization"), dict):
        raise UserError(f"{path}: expected a JSON object with the key zero_optimization, itself an object. Take it from the project again.")
    return stage


def deepspeed_config(run: Run, dtype: str, stage: Mapping[str, Any]) -> dict[str, Any]:
    """DeepSpeed's JSON for this run; ``stage`` is what its ZeRO stage's file says."""
    zero = dict(stage["zero_optimization"])
    if zero.get("stage") != run.zero_stage:
        raise UserError(f"The DeepSpeed file for ZeRO stage {run.zero_stage} has zero_optimization.stage = {zero.get('stage')}; mend it.")
    if run.offload != "none":
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": torch.cuda.is_available()}
    if run.offload == "parameters":
        zero["offload_param"] = {"device": "cpu", "pin_memory": torch.cuda.is_available()}
    half = run.method == "full" and dtype == "bfloat16"
    adamw = {
        "lr": run.learning_rate,
        "betas": list(run.betas),
        "eps": run.epsilon,
        "weight_decay": run.weight_decay,
        "torch_adam": True,
    }
    return {
        **stage,
        "zero_optimization": zero,
        "train_batch_size": run.batch_size,
        "train_micro_batch_size_per_gpu": run.micro_batch_size,
        "gradient_accumulation_steps": run.batch_size // (run.micro_batch_size * run.processes),
        # Where every process holds all gradients they are clipped here, once, with the norm that the history records.
        "gradient_clipping": run.clip_norm if run.zero_stage else 0.0,
        "bf16": {"enabled": half},
        "data_types": {"grad_accum_dtype": "fp32"},
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": 10**9,
    } | ({"optimizer": {"type": "AdamW", "params": adamw}} if run.optimizer == "adamw" else {})


def lion(run: Run) -> Callable[[Any], torch.optim.Optimizer] | None:
    """Makes the optimizer from the weights, where it is not the one that DeepSpeed makes itself."""
    from pytorch_optimizer import Lion

    if run.optimizer != "lion":
        return None
    return lambda weights: Lion(weights, lr=run.learning_rate, betas=run.betas, weight_decay=run.weight_decay)


def train(
    run: Run,
    model_folder: Path,
    model_settings: Model,
    start: Path | None,
    examples: Mapping[str, Example],
    schedule: pl.DataFrame,
    stage: Mapping[str, Any],
    work: Path,
    about: Mapping[str, Any],
    progress: Callable[[str], None],
    stop: Path | None = None,
    gradients: Gradients | None = None,
    held_out: Sequence[Example] = (),
) -> int:
    """Train to the end of the schedule or until the run's early stopping, from the last state in ``work`` where there is one.

    Returns the step at which training ended.

    Where the file ``stop`` appears, the state is saved after the step at hand, and Stopped is raised in every process.

    ``gradients`` says which gradients are going to be computed at its checkpoints, None: none; UserError where that cannot be done.
    ``held_out`` are the examples of the dataset that early stopping names.
    ``start`` is another run's checkpoint, or None for the model itself. Leaves in ``work`` a folder ``step-STEP`` (all weights as
    safetensors, or a PEFT adapter; tokenizer, ``run.json``) for every state to publish; ``history.jsonl``, one line a step; and
    ``consumed-{process}.jsonl``, one line an example. ``about`` goes into every ``run.json``. Call it in every process of a torchrun.
    """
    import deepspeed

    world, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    if world != run.processes:
        raise UserError(f"The run asks for {run.processes} processes, but {world} were started. Launch it with torchrun as the rule does.")
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    compile_in_turns()
    deepspeed.init_distributed(dist_backend="nccl" if torch.cuda.is_available() else "gloo")

    renderer = load_renderer(model_folder, model_settings)
    batches = _batches(schedule, _tokens(run, examples, renderer))
    measured = list(_tokens(run, {e.example_id: e for e in held_out}, renderer).items())
    if run.early_stopping is not None and not measured:
        raise UserError(f"The dataset {run.early_stopping.dataset!r} of the run's early_stopping is empty; name another.")
    steps = len(batches)
    if run.warmup_steps >= steps:
        raise UserError(f"The run's warmup_steps {run.warmup_steps} is not below its {steps} steps; lower it.")
    settings = model_settings.model_copy(update={"dtype": run.dtype or model_settings.dtype})
    with _telling_of_memory(run):
        model = _start(run, model_folder, settings, start, gradients)
        _check_vocabulary(model, [*batches, measured], model_folder)
        engine, _, _, _ = deepspeed.initialize(
            model=model,
            optimizer=lion(run),
            model_parameters=[p for p in model.parameters() if p.requires_grad],
            config=deepspeed_config(run, settings.dtype, stage),
        )
    history, consumed = work / "history.jsonl", work / f"consumed-{rank}.jsonl"

    def shares(step: int) -> list[Batch]:
        return share_of(batches[step - 1], rank, world, run.micro_batch_size, engine.gradient_accumulation_steps())

    def notes_are_whole(done: int) -> bool:
        """Of the steps that the saved state has behind it each is noted once, and by this process what it worked on."""
        steps_behind = range(1, done + 1)
        used = [row for step in steps_behind for row in _consumption(step, rank, shares(step))]
        noted = [row["step"] for row in _up_to(history, done)] if rank == 0 else list(steps_behind)
        return _up_to(consumed, done) == used and noted == list(steps_behind)

    done = saved = _saved_step(work / "state")
    if saved and _any_process(not (is_whole(work / "state") and notes_are_whole(saved)), world, engine.device):
        done = 0
        progress(f"what is kept in {work} is not whole; training starts again at the first step")
    if done:
        engine.load_checkpoint(str(work / "state"), tag=f"step-{done}", load_module_strict=False)
        progress(f"resuming after step {done} of {steps}")
    elif saved:
        if rank == 0:
            remove(work / "state")
        torch.distributed.barrier()
    for file in (history, consumed) if rank == 0 else (consumed,):
        replace_lines(file, _up_to(file, done))  # what came after the state is done again
    losses = _from_first([row["held_out_loss"] for row in _up_to(history, done) if row["held_out_loss"] is not None], world)
    stopping = run.early_stopping
    patience, every = (stopping.patience, stopping.every) if stopping is not None else (None, steps + 1)
    step = done
    while step < steps and not is_enough(losses, patience):
        step += 1
        rate = learning_rate(run, step, steps)
        batch = batches[step - 1]
        parts = shares(step)
        torch.manual_seed(_draw(run.seed, step, rank))  # of dropout
        with _telling_of_memory(run):
            loss, norm = take_step(engine, run, batch, parts, rate, world, renderer.pad_id)
        if not math.isfinite(loss) or not math.isfinite(norm):
            raise UserError(
                f"At step {step} the loss is {loss} and the gradient norm {norm}: training has diverged. Lower "
                f"the run's learning_rate (at this step {rate:.2e}){' or its lora.alpha' if run.method == 'lora' else ''}."
            )
        there = None
        if measured and (step % every == 0 or step == steps):
            there = held_out_loss(engine, measured, run.micro_batch_size, rank, world, renderer.pad_id)
            losses.append(there)
        append_lines(consumed, _consumption(step, rank, parts))
        if rank == 0:
            tokens = sum(t.n_labels for _, t in batch)
            numbers = {"loss": loss, "learning_rate": rate, "grad_norm": norm, "tokens": tokens, "held_out_loss": there}
            append_lines(history, [{"step": step, **numbers}])
            progress(f"step {step}/{steps}  loss {loss:.3f}" + ("" if there is None else f", held out {there:.3f}"))
        last = step == steps or is_enough(losses, patience)
        if is_published(run, step, last, is_best=there is not None and there == min(losses) and losses.index(there) == len(losses) - 1):
            folder = work / folder_name(step)
            moments = second_moments(engine) if run.export_second_moments else None
            _save_checkpoint(engine, run, renderer.tokenizer, folder, {**about, **_versions(world, run), "step": step}, moments, rank)
            if run.publish == "best" and rank == 0:
                remove_others(folder)
        asked = not last and stop is not None and _any_process(stop.exists(), world, engine.device)
        if step % (run.checkpoint_every or run.resume_every) == 0 or last or asked:
            _save_state(engine, work / "state", step, rank)
        if asked:
            raise Stopped(f"Stopped on request after step {step} of {steps}; its state is saved, and the same command goes on from there.")
    return step


def is_published(run: Run, step: int, is_last: bool, is_best: bool) -> bool:
    """Whether the run publishes its state after this step; a new best one takes the place of the one before."""
    if run.publish == "best":
        return is_best
    return is_last or (run.checkpoint_every is not None and step % run.checkpoint_every == 0)


def remove_others(checkpoint: Path) -> None:
    for other in checkpoint.parent.glob("step-*"):
        if other != checkpoint:
            remove(other)


def held_out_loss(engine: Any, examples: Batch, micro: int, rank: int, world: int, pad_id: int) -> float:
    """Mean loss per token over these examples, without dropout; equal in all processes, among which they are divided."""
    passes = -(-len(examples) // (world * micro))
    total = torch.zeros((), dtype=torch.float64, device=engine.device)
    engine.eval()
    with torch.no_grad():
        for part in share_of(examples, rank, world, micro, passes):
            batch = collate([t for _, t in part or examples[:1]], pad_id, engine.device)
            total += sum_losses(engine, batch).sum() * bool(part)
    engine.train()
    if world > 1:
        torch.distributed.all_reduce(total)
    return float(total) / sum(t.n_labels for _, t in examples)


def _draw(seed: int, step: int, rank: int) -> int:
    """A number for the random generators of one process at one step: a resumed run draws what an uninterrupted one does."""
    return int(fingerprint(seed, step, rank), 16) >> 1


def _from_first(values: list[float], world: int) -> list[float]:
    """What the first process knows, in all of them."""
    if world > 1:
        torch.distributed.broadcast_object_list(held := [values])
        return held[0]
    return values


def _consumption(step: int, rank: int, parts: Sequence[Batch]) -> list[dict[str, Any]]:
    """One line for each example of this process's micro-batches."""
    return [{"step": step, "process": rank, "micro_batch": k, "example_id": i} for k, part in enumerate(parts) for i, _ in part]


def _up_to(file: Path, step: int) -> list[dict[str, Any]]:
    """What was noted up to this step."""
    return [row for row in read_lines(file) if row["step"] <= step]


def _any_process(here: bool, world: int, device: torch.device) -> bool:
    """Whether it is so in any process: a file on a shared disk is not seen everywhere at once, and all must stop after one step."""
    if world == 1:
        return here
    count = torch.tensor(float(here), device=device)
    torch.distributed.all_reduce(count)
    return bool(count > 0)


def _tokens(run: Run, examples: Mapping[str, Example], renderer: Renderer) -> dict[str, Tokens]:
    return {i: renderer.tokens(e, run.loss_on) for i, e in examples.items()}


def _start(run: Run, model_folder: Path, settings: Model, start: Path | None, gradients: Gradients | None = None) -> Any:
    """The model as the run finds it, in training mode; what is trained asks for gradients."""
    if run.method == "lora":
        model = train_weights(load_model(model_folder, settings), run, gradients)
        if start is not None:
            load_adapter(model, start)
    else:
        if start is not None:
            check_fits(start, model_folder)
        model = train_weights(load_model(start or model_folder, settings), run, gradients)
    if run.activation_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return model.train()


def _check_vocabulary(model: Any, batches: Sequence[Batch], folder: Path) -> None:
    rows = model.get_input_embeddings().weight.shape[0]
    largest = max((max(t.ids) for batch in batches for _, t in batch), default=0)
    if largest >= rows:
        raise UserError(
            f"{folder}: the tokenizer makes the token {largest}, but the model's vocabulary has {rows} tokens: they are not of one model."
        )


def _batches(schedule: pl.DataFrame, tokens: Mapping[str, Tokens]) -> list[Batch]:
    """For each step its examples in the order of the schedule."""
    missing = set(schedule["example_id"]) - set(tokens)
    if missing:
        raise UserError(f"The schedule uses the example {min(missing)}, which is not in the datasets; make the schedule anew.")
    ordered = schedule.sort("step", "position").group_by("step", maintain_order=True).agg("example_id")
    return [[(i, tokens[i]) for i in ids] for ids in ordered["example_id"]]


def share_of(batch: Batch, rank: int, world: int, micro: int, accumulation: int) -> list[Batch]:
    """What one process works on in one step: ``accumulation`` micro-batches of at most ``micro`` examples, of similar length each.

    All shares together are the batch. In a batch that is smaller than it should be, some may be empty.
    """
    mine = sorted(batch, key=lambda item: -len(item[1].ids))[rank::world]
    return [mine[k * micro : (k + 1) * micro] for k in range(accumulation)]


def take_step(engine: Any, run: Run, batch: Batch, parts: Sequence[Batch], rate: float, world: int, pad_id: int) -> tuple[float, float]:
    """One step on a batch, of which ``parts`` are this process's micro-batches.

    Returns the batch's mean loss per token, and the norm of its gradient before clipping; both are over all processes.
    """
    for group in engine.optimizer.param_groups:
        group["lr"] = rate
    loss = _accumulate(engine, batch, parts, world, pad_id)
    if run.zero_stage == 0:
        weights = [p for p in engine.module.parameters() if p.requires_grad]
        norm = torch.nn.utils.clip_grad_norm_(weights, run.clip_norm or math.inf)
        if norm.isfinite():
            engine.step()
    else:
        engine.step()
        norm = engine.get_global_grad_norm()
    return loss, float(norm)


def _accumulate(engine: Any, batch: Batch, parts: Sequence[Batch], world: int, pad_id: int) -> float:
    """Forward and backward over this process's share. Returns the batch's mean loss per token, over all processes.

    The batch's loss is the sum over its tokens divided by their number. DeepSpeed divides by processes and micro-batches, so
    each part is multiplied by them. All processes must do the same number of passes: for an empty part an example goes through, times 0.
    """
    n_tokens = sum(t.n_labels for _, t in batch)
    total = torch.zeros((), dtype=torch.float64, device=engine.device)
    for k, part in enumerate(parts):
        loss = sum_losses(engine, collate([t for _, t in part or batch[:1]], pad_id, engine.device)).sum() * bool(part)
        engine.backward(loss * (world * len(parts) / n_tokens))
        total += loss.detach()
        if k < len(parts) - 1:
            engine.step()  # counts the micro-batch; updates nothing before the batch is whole
    if world > 1:
        torch.distributed.all_reduce(total)
    return float(total) / n_tokens


@contextmanager
def _telling_of_memory(run: Run) -> Iterator[None]:
    """Turns the errors by which torch says that memory is full into a sentence that says what to change."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        said = str(error)
        if not isinstance(error, torch.OutOfMemoryError | MemoryError) and not re.search("can't allocate memory|out of memory", said):
            raise
        raise UserError(
            f"Memory ran out ({said.splitlines()[0][:200] if said else 'no more is known'}). Lower the run's micro_batch_size "
            f"({run.micro_batch_size}; batch_size may stay), set activation_checkpointing, raise zero_stage ({run.zero_stage}) or offload, "
            "or use more processes. The run goes on from its last saved step."
        ) from error


def _save_checkpoint(
    engine: Any, run: Run, tokenizer: Any, folder: Path, about: dict[str, Any], moments: Mapping[str, torch.Tensor] | None, rank: int
) -> None:
    """Consolidated weights as safetensors, whatever the ZeRO stage: gathered on process 0, one weight at a time."""
    import deepspeed
    from safetensors.torch import save_file

    trained = {n: p for n, p in engine.module.named_parameters() if p.requires_grad}
    whole = run.method == "full"
    weights = {n: b.detach().cpu() for n, b in engine.module.named_buffers() if n in engine.module.state_dict()} if whole else {}
    sharded = engine.zero_optimization_stage() == 3
    for name, weight in trained.items() if whole else ():
        with deepspeed.zero.GatheredParameters([weight], enabled=sharded):
            if rank == 0:
                weights[name] = weight.detach().to("cpu", copy=True)
    with deepspeed.zero.GatheredParameters([] if whole else list(trained.values()), enabled=sharded and not whole):
        if rank == 0:
            with publish(folder) as part:
                # The base model's embedding is no part of an adapter, also where the adapter is on it.
                engine.module.save_pretrained(part, **({"state_dict": weights} if whole else {"save_embedding_layers": False}))
                tokenizer.save_pretrained(part)
                if moments is not None:
                    save_file(dict(moments), part / "exp_avg_sq.safetensors")
                (part / "run.json").write_text(json.dumps(about, indent=2, ensure_ascii=False) + "\n")
    torch.distributed.barrier()


def second_moments(engine: Any) -> dict[str, torch.Tensor]:
    """Adam's second moments by the weights' names, whole, in float32 on the CPU; equal for every ZeRO stage. Call it in all processes."""
    from deepspeed.utils import safe_get_full_optimizer_state

    found = {}
    for name, weight in engine.module.named_parameters():
        if weight.requires_grad:
            if engine.zero_optimization_stage() == 0:
                moment = engine.optimizer.state[weight]["exp_avg_sq"]
            else:
                moment = safe_get_full_optimizer_state(weight, "exp_avg_sq")
            found[name] = moment.detach().float().cpu().contiguous().clone()
    return found


def _save_state(engine: Any, folder: Path, step: int, rank: int) -> None:
    """DeepSpeed's own state for resuming. Its file `latest` is put in place last and in one go, so that a kill leaves the state before it
    whole: DeepSpeed itself would empty the file and then write it."""
    folder.mkdir(exist_ok=True)
    tag = f"step-{step}"
    with writing_to(folder / tag):
        engine.save_checkpoint(str(folder), tag=tag, client_state={"step": step}, save_latest=False, exclude_frozen_parameters=True)
    torch.distributed.barrier()
    if rank == 0:
        names = sorted(file.name for file in (folder / tag).glob("*.pt"))
        with publish(folder / tag / "files.json") as part:
            part.write_text(json.dumps(names))
        with publish(folder / "latest") as part:
            part.write_text(tag)
        for other in folder.glob("step-*"):
            if other.name != tag:
                remove(other)


def _saved_step(folder: Path) -> int:
    """The step after which the last state was saved; 0 where there is none."""
    latest = folder / "latest"
    found = re.fullmatch(r"step-(\d+)", latest.read_text()) if latest.is_file() else None
    return int(found[1]) if found else 0


def is_whole(folder: Path) -> bool:
    """Whether every file of the last state is there to its end: they are zip archives, whose table of contents stands last."""
    tag = folder / (folder / "latest").read_text()
    try:
        names = json.loads((tag / "files.json").read_text())
    except (OSError, ValueError):
        return False
    return bool(names) and all(zipfile.is_zipfile(tag / name) for name in names)


def check_notes(history: pl.DataFrame, consumed: pl.DataFrame, schedule: pl.DataFrame, last: int, work: Path) -> None:
    """UserError unless the history has each step up to ``last``, and each use of an example in them was worked on, exactly once."""
    schedule = schedule.filter(pl.col("step") <= last)
    steps = list(range(1, last + 1))
    if history["step"].to_list() != steps:
        _refuse(f"the history has the steps {_ranges(history['step'].to_list())}, not each of 1 to {last} once", work)
    used, asked = (frame.select("step", "example_id").sort("step", "example_id") for frame in (consumed, schedule))
    if not used.cast(pl.String).equals(asked.cast(pl.String)):
        _refuse(f"{len(used)} uses of examples are noted, which are not the {len(asked)} of the schedule", work)


def _refuse(why: str, work: Path) -> None:
    raise UserError(f"{work}: {why}. Nothing was published. Run the same command again: training starts again at the first step.")


def _ranges(steps: Sequence[int]) -> str:
    """`1 to 3, 7, 7 to 8`."""
    runs: list[list[int]] = []
    for step in steps:
        if runs and runs[-1][-1] == step - 1:
            runs[-1].append(step)
        else:
            runs.append([step])
    return ", ".join(f"{r[0]} to {r[-1]}" if len(r) > 1 else str(r[0]) for r in runs) or "none"


def _versions(world: int, run: Run) -> dict[str, Any]:
    import deepspeed
    import peft
    import transformers

    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    return {
        "swift_study": __version__,
        "git_commit": commit.stdout.strip() or None,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "peft": peft.__version__,
        "deepspeed": deepspeed.__version__,
        "world_size": world,
        "threads": torch.get_num_threads(),  # of each process
        "zero_stage": run.zero_stage,
        "seed": run.seed,
    }
