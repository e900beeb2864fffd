"""The one trainer: DeepSpeed, following a schedule exactly, resumable, the same numbers for any number of processes.

Invariant: the state after step s depends on the start model, the schedule and the run's settings only; not on how often the job
was killed before s, and up to rounding not on the number of processes. All work happens in a work folder; nothing is published here.
"""

import json
import logging
import math
import os
import platform
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import polars as pl
import torch

from swift_study import __version__
from swift_study.config import Model, Run
from swift_study.errors import UserError
from swift_study.examples import Example
from swift_study.models import add_lora, load_model, load_tokenizer
from swift_study.tokens import Tokens, collate, sum_losses, tokenize
from swift_study.work import publish, remove, writing_to

log = logging.getLogger(__name__)


def learning_rate(run: Run, step: int, steps: int) -> float:
    """Linear warm-up over ``warmup_steps``, then linear decay that reaches ``final_learning_rate`` at the last step."""
    if step <= run.warmup_steps:
        return run.learning_rate * step / run.warmup_steps
    share = (step - run.warmup_steps) / (steps - run.warmup_steps)
    return run.final_learning_rate + (1 - share) * (run.learning_rate - run.final_learning_rate)


def deepspeed_config(run: Run) -> dict[str, Any]:
    """DeepSpeed's JSON for this run."""
    return {
        "train_batch_size": run.batch_size,
        "train_micro_batch_size_per_gpu": run.micro_batch_size,
        "gradient_accumulation_steps": run.batch_size // (run.micro_batch_size * run.processes),
        "gradient_clipping": run.clip_norm,
        "zero_optimization": {"stage": run.zero_stage},
        "zero_allow_untested_optimizer": True,
        "optimizer": {
            "type": "AdamW",
            "params": {
                "lr": run.learning_rate,
                "betas": list(run.betas),
                "eps": run.epsilon,
                "weight_decay": run.weight_decay,
                "torch_adam": True,
            },
        },
        "steps_per_print": 10**9,
    }


def train(
    run: Run,
    model_folder: Path,
    model_settings: Model,
    examples: Mapping[str, Example],
    schedule: pl.DataFrame,
    work: Path,
    about: Mapping[str, Any],
    progress: Callable[[str], None],
) -> None:
    """Train to the end of the schedule, from the last state in ``work`` where there is one.

    Leaves ``work/checkpoint-{step}/`` (PEFT adapter, tokenizer, ``run.json``) for every checkpoint step and
    ``work/history.jsonl``, one line a step. ``about`` goes into every ``run.json``. Call it in every process of a torchrun.
    """
    import deepspeed

    world, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    if world != run.processes:
        raise UserError(f"The run asks for {run.processes} processes, but {world} were started. Launch it with torchrun as the rule does.")
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    deepspeed.init_distributed(dist_backend="nccl" if torch.cuda.is_available() else "gloo")

    tokenizer = load_tokenizer(model_folder, model_settings)
    tokens = {i: tokenize(e, tokenizer, model_settings.max_length, model_settings.overlong == "truncate") for i, e in examples.items()}
    batches = _batches(schedule, tokens, run.batch_size)
    steps = len(batches)
    model = add_lora(load_model(model_folder, model_settings), run.lora, run.seed)
    model.train()
    engine, _, _, _ = deepspeed.initialize(
        model=model, model_parameters=[p for p in model.parameters() if p.requires_grad], config=deepspeed_config(run)
    )

    start = _resume(engine, work)
    if start:
        progress(f"resuming after step {start} of {steps}")
    history = work / "history.jsonl"
    if rank == 0:
        _truncate(history, start)
    for step in range(start + 1, steps + 1):
        batch = batches[step - 1]
        n_tokens = sum(t.n_completion for t in batch)
        rate = learning_rate(run, step, steps)
        for group in engine.optimizer.param_groups:
            group["lr"] = rate
        loss = _accumulate(engine, batch[rank::world], run.micro_batch_size, n_tokens, world, tokenizer.pad_token_id)
        norm = _grad_norm(engine)
        if not math.isfinite(loss) or not math.isfinite(norm):
            raise UserError(
                f"At step {step} the loss is {loss} and the gradient norm {norm}: training has diverged. Lower "
                f"the run's learning_rate (at this step {rate:.2e}) or its lora.alpha."
            )
        engine.step()
        if rank == 0:
            row = {"step": step, "loss": loss, "learning_rate": rate, "grad_norm": norm, "tokens": n_tokens}
            with history.open("a") as stream:
                stream.write(json.dumps(row) + "\n")
            progress(f"step {step}/{steps}  loss {loss:.3f}")
        if step % run.checkpoint_every == 0:
            _save_checkpoint(engine, tokenizer, work / f"checkpoint-{step}", {**about, **_versions(world, run), "step": step}, rank)
            _save_state(engine, work / "state", step, rank)


def _batches(schedule: pl.DataFrame, tokens: Mapping[str, Tokens], batch_size: int) -> list[list[Tokens]]:
    ordered = schedule.sort("step", "position")
    missing = set(ordered["example_id"]) - set(tokens)
    if missing:
        raise UserError(f"The schedule uses the example {min(missing)}, which is not in the dataset; make the schedule anew.")
    used = [tokens[i] for i in ordered["example_id"]]
    return [used[i : i + batch_size] for i in range(0, len(used), batch_size)]


def _accumulate(engine: Any, mine: list[Tokens], micro: int, n_tokens: int, world: int, pad_id: int) -> float:
    """Forward and backward over this process's share. Returns the batch's mean loss per completion token, over all processes.

    The batch's loss is the sum over its tokens divided by their number. DeepSpeed divides by processes and micro-batches, so
    each part is multiplied by them.
    """
    parts = [mine[i : i + micro] for i in range(0, len(mine), micro)]
    total = torch.zeros((), dtype=torch.float64, device=engine.device)
    for part in parts:
        loss = sum_losses(engine, collate(part, pad_id, engine.device)).sum()
        engine.backward(loss * (world * len(parts) / n_tokens))
        total += loss.detach()
        if part is not parts[-1]:
            engine.step()  # counts the micro-batch; updates nothing before the batch is whole
    if world > 1:
        torch.distributed.all_reduce(total)
    return float(total) / n_tokens


def _grad_norm(engine: Any) -> float:
    """Norm of the averaged gradient, before clipping, over all processes."""
    from deepspeed.utils import safe_get_full_grad

    squares = [safe_get_full_grad(p) for p in engine.module.parameters() if p.requires_grad]
    return math.sqrt(sum(float(g.double().square().sum()) for g in squares if g is not None))


def _save_checkpoint(engine: Any, tokenizer: Any, folder: Path, about: dict[str, Any], rank: int) -> None:
    import deepspeed

    trainable = [p for p in engine.module.parameters() if p.requires_grad]
    with deepspeed.zero.GatheredParameters(trainable, enabled=engine.zero_optimization_stage() == 3):
        if rank == 0:
            with publish(folder) as part:
                engine.module.save_pretrained(part, safe_serialization=True)
                tokenizer.save_pretrained(part)
                (part / "run.json").write_text(json.dumps(about, indent=2, ensure_ascii=False) + "\n")
    torch.distributed.barrier()


def _save_state(engine: Any, folder: Path, step: int, rank: int) -> None:
    """DeepSpeed's own state for resuming. Its file `latest` is written last, so a kill leaves the state before it whole."""
    folder.mkdir(exist_ok=True)
    with writing_to(folder / f"step-{step}"):
        engine.save_checkpoint(str(folder), tag=f"step-{step}", client_state={"step": step}, exclude_frozen_parameters=True)
    torch.distributed.barrier()
    if rank == 0:
        for other in folder.glob("step-*"):
            if other.name != f"step-{step}":
                remove(other)


def _resume(engine: Any, work: Path) -> int:
    if not (work / "state" / "latest").is_file():
        return 0
    _, state = engine.load_checkpoint(str(work / "state"), load_module_strict=False)
    return int(state["step"])


def _truncate(history: Path, step: int) -> None:
    """Forget what was logged after the state that the run resumes from."""
    lines = history.read_text().splitlines() if history.is_file() else []
    kept = [line for line in lines if line.endswith("}") and json.loads(line)["step"] <= step]
    history.write_text("".join(line + "\n" for line in kept))


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
        "zero_stage": run.zero_stage,
        "seed": run.seed,
    }
