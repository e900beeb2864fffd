"""Influence aggregation: every probe × target from the files of their gradients to the pairs table, over what it takes at least.

    python benchmarks/influence.py --probes 10000 --targets 1000 --dimensions 8192 --repeats 3

The floor is reading the file of gradients and one float32 matrix product of all probes and targets; ``ratio`` is ours / floor, the median
over the repeats. Ours is what the workflow's script does: it reads the file, checks it, multiplies sketches with their error bars, and
writes the pairs table, so many pairs at a time. Each has a process of its own every time, as in the workflow, in turn: memory that was in
use before would speed up whichever got it. ``peak_gb`` is the largest resident size of ours. Vectors are random; they stand for sketches.
Prints JSON with machine and versions.
"""

import argparse
import json
import multiprocessing
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "workflow" / "scripts"))

import numpy as np  # noqa: E402
import polars as pl  # noqa: E402
import torch  # noqa: E402
from machine import machine, resident, versions  # noqa: E402

from swift_study.examples import Example, Message  # noqa: E402
from swift_study.gradients.engine import PanelGradients, gradient_table  # noqa: E402
from swift_study.influence.pairs import pairs_at_checkpoint, read_gradients  # noqa: E402
from swift_study.io.tables import PAIRS, write_arrow, writing_table  # noqa: E402
from swift_study.models.tokens import Tokens  # noqa: E402


def make_file(path: Path, probes: int, targets: int, dimensions: int) -> None:
    count = probes + targets
    vectors = np.random.default_rng(1).standard_normal((count, dimensions), dtype=np.float32)
    examples = [
        Example(task=f"task {i % 12}", messages=[Message(role="user", content=str(i)), Message(role="assistant", content="x")])
        for i in range(count)
    ]
    norms = np.square(vectors, dtype=np.float64).sum(axis=1)
    found = PanelGradients(np.ones(count), norms, vectors, sketched=True)
    table = gradient_table(1, ["probes"] * probes + ["targets"] * targets, examples, [Tokens([1, 2, 3], 1)] * count, found)
    about = {"scope": "lora", "representation": "sketch", "projection_seed": "17", "panel": "x", "checkpoint": "x"}
    write_arrow(path, table, about)


def ours(gradients: Path, output: Path) -> tuple[int, float, float]:
    """Pairs, seconds, and the largest resident size in GB."""
    start, count = time.perf_counter(), 0
    with writing_table(output, PAIRS) as add:
        for pairs in pairs_at_checkpoint(read_gradients(gradients), "study", "base", {"P": "probes"}, {"T": "targets"}, 0.0):
            add(pairs)
            count += len(pairs)
    return count, time.perf_counter() - start, resident("VmHWM")


def floor(gradients: Path, probes: int) -> tuple[float, float]:
    """Seconds to read the file, and of the product."""
    start = time.perf_counter()
    vectors = read_gradients(gradients).vectors
    read = time.perf_counter()
    torch.mm(torch.from_numpy(vectors[:probes]), torch.from_numpy(vectors[probes:]).T)
    return read - start, time.perf_counter() - read


def in_a_process(call: Callable[..., Any], *given: Any) -> Any:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        return process.submit(call, *given).result()


def main(a: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as work:
        gradients, output = Path(work) / "gradients.parquet", Path(work) / "pairs.parquet"
        in_a_process(make_file, gradients, a.probes, a.targets, a.dimensions)
        floors, seconds, peaks = [], [], []
        for _ in range(a.repeats):
            floors.append(in_a_process(floor, gradients, a.probes))
            count, took, peak = in_a_process(ours, gradients, output)
            seconds.append(took)
            peaks.append(peak)
        assert count == a.probes * a.targets == pl.scan_parquet(output).select(pl.len()).collect().item()
        sizes = {name: round(file.stat().st_size / 1e9, 2) for name, file in (("gradients_gb", gradients), ("pairs_gb", output))}
    ratios = [s / sum(f) for s, f in zip(seconds, floors, strict=True)]
    result = {
        "benchmark": "influence",
        **vars(a),
        "ratio": round(statistics.median(ratios), 2),
        "ratios": [round(r, 2) for r in ratios],
        "ours_s": round(statistics.median(seconds), 2),
        "reading_s": round(statistics.median(f[0] for f in floors), 2),
        "product_s": round(statistics.median(f[1] for f in floors), 2),
        "peak_gb": round(max(peaks), 2),
        **sizes,
        "machine": machine(),
        "versions": versions("torch", "numpy", "polars", "pyarrow"),
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--probes", type=int, default=10_000)
    p.add_argument("--targets", type=int, default=1_000)
    p.add_argument("--dimensions", type=int, default=8192)
    p.add_argument("--repeats", type=int, default=3)
    main(p.parse_args())
