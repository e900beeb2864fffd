"""Our training step's time over that of a bare DeepSpeed loop, on the same model and batches, all parameters, one process.

    python benchmarks/trainer.py --steps 12 --threads 2

Two engines on the packaged model take the same batches in turn, in one process. ``ratio`` (ours / bare; below 1: ours is faster) is of the
bare loop on the very micro-batches that ours makes, collated beforehand: what our bookkeeping costs. ``ratio_as_it_comes`` is of the loop
that one writes first: the batch cut up as it comes, and the model's own loss over all positions. Prints JSON with machine and versions.
Where the losses of ours and of the first loop differ, it ends with an error.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "workflow" / "scripts"))

import torch  # noqa: E402
from machine import machine, versions  # noqa: E402

from swift_study.config import Model, Run  # noqa: E402
from swift_study.data.generator import generate  # noqa: E402
from swift_study.data.strategies import load_strategy  # noqa: E402
from swift_study.io.lines import append_lines  # noqa: E402
from swift_study.models.batches import IGNORED, collate, sum_losses  # noqa: E402
from swift_study.models.loading import load_model, packaged_model, quiet_libraries  # noqa: E402
from swift_study.models.rendering import Renderer, load_renderer  # noqa: E402
from swift_study.training.trainer import Batch, deepspeed_config, share_of, take_step  # noqa: E402

RUN = Run(method="full", learning_rate=1e-5, batch_size=8, micro_batch_size=4, checkpoint_every=None)


def batches(renderer: Renderer, steps: int) -> list[Batch]:
    """Short answers and long chains of thought in one batch, as in a mixture of base data and CoT."""
    plain = generate("chain_sum", 4 * steps, 1)
    cot = [load_strategy(ROOT / "strategies" / "cot.py").from_fields(e, None) for e in generate("gcd", 4 * steps, 1)]
    items = [(e.example_id, renderer.tokens(e)) for pair in zip(plain, cot, strict=True) for e in pair]
    return [items[i : i + 8] for i in range(0, len(items), 8)]


def engine_of(folder: Path) -> Any:
    import deepspeed

    model = load_model(folder, Model()).requires_grad_(True).train()
    stage = json.loads((ROOT / "deepspeed" / "zero-0.json").read_text())
    config = deepspeed_config(RUN, "float32", stage)
    return deepspeed.initialize(model=model, model_parameters=list(model.parameters()), config=config)[0]


def main(a: argparse.Namespace) -> None:
    import deepspeed

    os.environ |= {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29617"}
    quiet_libraries()
    torch.set_num_threads(a.threads)
    deepspeed.init_distributed(dist_backend="gloo")
    folder = packaged_model(ROOT / ".cache")
    renderer = load_renderer(folder, Model())
    pad = renderer.pad_id
    engines = {name: engine_of(folder) for name in ("ours", "bare", "as it comes")}
    notes = Path(tempfile.mkdtemp()) / "history.jsonl"

    def ours(batch: Batch) -> float:
        parts = share_of(batch, 0, 1, 4, 2)
        loss, norm = take_step(engines["ours"], RUN, batch, parts, 1e-5, 1, pad)
        append_lines(notes, [{"loss": loss, "norm": norm, "ids": [i for part in parts for i, _ in part]}])
        return loss

    def bare(batch: Batch) -> float:
        engine, total = engines["bare"], 0.0
        for micro in collated[id(batch)]:
            loss = sum_losses(engine, micro).sum()
            engine.backward(loss * (2 / sum(t.n_completion for _, t in batch)))
            total += float(loss.detach())
            if micro is collated[id(batch)][-1]:
                torch.nn.utils.clip_grad_norm_(engine.module.parameters(), RUN.clip_norm)
            engine.step()
        return total / sum(t.n_completion for _, t in batch)

    def as_it_comes(batch: Batch) -> float:
        engine, total = engines["as it comes"], 0.0
        for start in (0, 4):
            part = [t for _, t in batch[start : start + 4]]
            width = max(len(t.ids) for t in part)
            ids = torch.tensor([t.ids + [pad] * (width - len(t.ids)) for t in part])
            mask = torch.tensor([[1] * len(t.ids) + [0] * (width - len(t.ids)) for t in part])
            labels = ids.masked_fill(mask == 0, IGNORED)
            for row, t in enumerate(part):
                labels[row, : t.prompt_length] = IGNORED
            loss = engine(input_ids=ids, attention_mask=mask, labels=labels).loss
            engine.backward(loss)
            total += float(loss.detach())
            if start:
                torch.nn.utils.clip_grad_norm_(engine.module.parameters(), RUN.clip_norm)
            engine.step()
        return total / 2

    ways: dict[str, Callable[[Batch], float]] = {"ours": ours, "bare": bare, "as it comes": as_it_comes}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    losses: dict[str, list[float]] = {name: [] for name in ways}
    given = batches(renderer, a.steps + 1)
    collated = {id(b): [collate([t for _, t in part], pad) for part in share_of(b, 0, 1, 4, 2)] for b in given}
    for number, batch in enumerate(given):
        for name in list(ways) if number % 2 else reversed(ways):
            start = time.perf_counter()
            losses[name].append(ways[name](batch))
            if number:  # the first warms up
                seconds[name].append(time.perf_counter() - start)
    if max(abs(o - b) for o, b in zip(losses["ours"], losses["bare"], strict=True)) > 1e-5:
        sys.exit("The losses differ: the times are not those of the same work.")

    def ratios(other: str) -> list[float]:
        return [o / b for o, b in zip(seconds["ours"], seconds[other], strict=True)]

    low, median, high = statistics.quantiles(ratios("bare"), n=4)
    result = {
        "benchmark": "trainer",
        "ratio": round(median, 3),
        "ratio_quartiles": [round(low, 3), round(high, 3)],
        "ratio_as_it_comes": round(statistics.median(ratios("as it comes")), 3),
        "seconds_a_step": {name: round(statistics.median(s), 3) for name, s in seconds.items()},
        "losses_equal": True,
        **vars(a),
        "machine": machine(),
        "versions": versions("torch", "transformers", "deepspeed"),
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--steps", type=int, default=12, help="steps of each of the three loops")
    p.add_argument("--threads", type=int, default=2, help="CPU threads")
    main(p.parse_args())
