"""The gradient engine over its floor: a plain forward and backward pass over the same tokens, in one process, in turn.

    python benchmarks/engine.py --scopes lora full --examples 36 --tokens 64 256 --repeats 5

At scope `lora` the floor makes the summed gradient of the adapter, and ours writes every example's: the `exact` representation and its
Parquet file, whose share is ``writing_s``. ``plain_write_s`` is what the same numbers take to be written without any format, and
``ratio_with_write`` is ours over the floor and that. At scope `full` (the decoder's linear layers) the floor makes gradients of layer
inputs, and ours all inner products: `gram`. ``ratio`` is ours / floor, the median over the repeats; the floor has the best of
--floor-batches, tried once each beforehand. ``rate_gflops`` is that of float32 matrix products in the same run, and ``modelled_s`` what the
operations of the two passes, and those after them, take at it: 4 PNT for passes over P linear weights; then at scope `lora` the gradients,
2 DKNT a layer, at scope `full` for each layer the cheaper of DK·N(2T + N) and N²T²(D + K). Attention scores, norms and writing are not in
the model. The numerics certificate of the last repeat is among the results; one that fails ends the benchmark.
Prints JSON with machine and versions.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "workflow" / "scripts"))

import torch  # noqa: E402
from arguments import parser  # noqa: E402
from machine import gpu, machine, versions  # noqa: E402
from ways import make_model, make_tokens, wanted  # noqa: E402

from swift_study.config import Gradients, Model  # noqa: E402
from swift_study.data.generator import generate  # noqa: E402
from swift_study.gradients.certificate import certificate, certify  # noqa: E402
from swift_study.gradients.engine import PanelGradients, gradient_table, panel_gradients  # noqa: E402
from swift_study.gradients.memory import keep_freed_memory  # noqa: E402
from swift_study.io.tables import write_arrow  # noqa: E402
from swift_study.io.work import publish  # noqa: E402
from swift_study.models.batches import collate, sum_losses  # noqa: E402
from swift_study.models.loading import exact_numerics, packaged_model, quiet_libraries  # noqa: E402
from swift_study.models.rendering import Renderer, load_renderer  # noqa: E402
from swift_study.models.tokens import Tokens  # noqa: E402


def floor(model: Any, scope: str, tokens: Sequence[Tokens], pad_id: int, batch_size: int) -> None:
    """Losses and the gradients that any way needs at least. Leaves the model as it was."""
    weights = [p for p in model.parameters() if p.requires_grad]
    if scope == "full":
        model.requires_grad_(False)
        model.enable_input_require_grads()
    for start in range(0, len(tokens), batch_size):
        sum_losses(model, collate(tokens[start : start + batch_size], pad_id, model.device)).sum().backward()
    if scope == "full":
        model.disable_input_require_grads()
        for weight in weights:
            weight.requires_grad_(True)
    model.zero_grad()


def ours(model: Any, scope: str, tokens: Sequence[Tokens], pad_id: int, settings: Gradients, file: Path) -> tuple[PanelGradients, float]:
    """The gradients, and the seconds that writing took."""
    gradients = panel_gradients(model, tokens, pad_id, settings)
    examples = generate("gcd", len(tokens), 1)  # the table wants names; the tokens are the benchmark's own
    start = time.perf_counter()
    if scope == "lora":
        write_arrow(file, gradient_table(1, ["panel"] * len(tokens), examples, tokens, gradients))
    return gradients, time.perf_counter() - start


def write_plainly(gradients: PanelGradients, file: Path) -> None:
    """As ours is published, and a while after it: memory that ours let go of a moment ago would not be fresh."""
    with publish(file) as part:
        gradients.vectors.tofile(part)


def matrix_rate(device: str, size: int) -> float:
    """Float32 operations per second of a square matrix product."""
    a, b = torch.randn(size, size, device=device), torch.randn(size, size, device=device)
    return 2 * size**3 / timed(lambda: a @ b, device)


def timed(call: Callable[[], Any], device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    call()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def operations(model: Any, scope: str, tokens: Sequence[Tokens]) -> dict[str, float]:
    """Of the two passes, and of what comes after them, by the cost model."""
    n, t = len(tokens), len(tokens[0].ids) - 1
    supervised = tokens[0].n_completion
    passes = 0.0
    after = 0.0
    chosen = set(wanted(model))
    for name, module in model.named_modules():
        if not isinstance(module, torch.nn.Linear):
            continue
        d, k = module.weight.shape
        passes += 4.0 * d * k * n * (supervised if module is model.get_output_embeddings() else t)
        if name in chosen:
            dense, ghost = d * k * n * (2.0 * t + n), float(n * n * t * t * (d + k))
            after += 2.0 * d * k * n * t if scope == "lora" else min(dense, ghost)
    return {"passes": passes, "after": after}


def compare(scope: str, length: int, a: argparse.Namespace, folder: Path, renderer: Renderer) -> dict[str, Any]:
    model, pad = make_model(scope, folder, a.device), renderer.pad_id
    tokens, warm_up = make_tokens(renderer.tokenizer, a.examples, length), make_tokens(renderer.tokenizer, 2, length, seed=2)
    with exact_numerics(), tempfile.TemporaryDirectory() as work:
        file, plain = Path(work) / "gradients.parquet", Path(work) / "gradients"
        settings = Gradients(representation="exact" if scope == "lora" else "gram", batch_size=a.batch_size, memory_gb=a.memory_gb)
        floor(model, scope, warm_up, pad, 2)
        ours(model, scope, warm_up, pad, settings, file)
        tried = {size: timed(lambda size=size: floor(model, scope, tokens, pad, size), a.device) for size in a.floor_batches}
        best = min(tried, key=lambda size: tried[size])
        floor_s, ours_s, writing_s, plain_write_s, rates = [], [], [], [], []
        found: list[PanelGradients] = []

        def timed_ours() -> None:
            found.clear()  # what the last repeat made is given back first
            gradients, writing = ours(model, scope, tokens, pad, settings, file)
            found.append(gradients)
            writing_s.append(writing)

        for repeat in range(a.repeats):
            rates.append(matrix_rate(a.device, a.matrix))
            for who in ("floor", "ours") if repeat % 2 else ("ours", "floor"):
                if who == "floor":
                    floor_s.append(timed(lambda: floor(model, scope, tokens, pad, best), a.device))
                    plain_write_s.append(timed(lambda: write_plainly(found[0], plain), "cpu") if scope == "lora" else 0.0)
                else:
                    ours_s.append(timed(timed_ours, a.device))
        written = round(file.stat().st_size / 1e9, 2) if scope == "lora" else None
        proof = certify(certificate(model, found[0], tokens, generate("gcd", len(tokens), 1), pad, 4), Gradients())
    ratios = [o / f for o, f in zip(ours_s, floor_s, strict=True)]
    with_write = [o / (f + w) for o, f, w in zip(ours_s, floor_s, plain_write_s, strict=True)]
    rate, counted = statistics.median(rates), operations(model, scope, tokens)
    return {
        "scope": scope,
        "examples": a.examples,
        "tokens": length,
        "ratio": round(statistics.median(ratios), 3),
        "ratios": [round(r, 3) for r in ratios],
        "ours_s": round(statistics.median(ours_s), 2),
        "floor_s": round(statistics.median(floor_s), 2),
        "floor_batch": best,
        "floor_tried_s": {str(size): round(s, 2) for size, s in tried.items()},
        "writing_s": round(statistics.median(writing_s), 2),
        "plain_write_s": round(statistics.median(plain_write_s), 2),
        "ratio_with_write": round(statistics.median(with_write), 3),
        "parquet_gb": written,
        "rate_gflops": round(rate / 1e9, 1),
        "rates_gflops": [round(r / 1e9, 1) for r in rates],
        "gflop": {part: round(value / 1e9, 1) for part, value in counted.items()},
        "certificate": {name: proof[name] for name in ("alone_vs_batched", "against_float64")},
        "modelled_s": {part: round(value / rate, 2) for part, value in counted.items()},
    }


def main(a: argparse.Namespace) -> None:
    quiet_libraries()
    torch.set_num_threads(a.threads)
    keep_freed_memory()
    folder = packaged_model(ROOT / ".cache")
    renderer = load_renderer(folder, Model())
    cells = []
    for scope in a.scopes:
        for length in a.tokens:
            cells.append(compare(scope, length, a, folder, renderer))
            print(json.dumps(cells[-1]), file=sys.stderr, flush=True)
    result = {
        "benchmark": "engine",
        "cells": cells,
        **vars(a),
        "machine": machine() | gpu(a.device),
        "versions": versions("torch", "transformers", "peft", "pyarrow"),
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    p = parser(__doc__)
    p.add_argument("--batch-size", type=int, default=Gradients().batch_size, help="ours; by default the configuration's")
    p.add_argument("--memory-gb", type=float, default=Gradients().memory_gb, help="ours")
    p.add_argument("--floor-batches", type=int, nargs="+", default=[1, 4, 8, 16])
    p.add_argument("--repeats", type=int, default=5)
    p.add_argument("--matrix", type=int, default=2048, help="rows and columns of the matrices whose product is timed")
    main(p.parse_args())
