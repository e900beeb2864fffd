"""Influence aggregation: every probe × target from the files of their gradients to the pairs table, over what it takes at least.

    python benchmarks/influence.py --probes 10000 --targets 1000 --dimensions 8192 --repeats 3

The floor is reading the file of gradients and one float32 matrix product of all probes and targets; ``ratio`` is ours / floor, the median
over the repeats. Ours is what the workflow's script does: it reads the file, checks it, multiplies sketches with their error bars, and
writes the pairs table, so many pairs at a time. ``peak_gb`` is the largest resident size meanwhile. Vectors are random; they stand for
sketches. Prints JSON with machine and versions.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "workflow" / "scripts"))

import numpy as np  # noqa: E402
import polars as pl  # noqa: E402
import torch  # noqa: E402
from machine import forget_peak, machine, resident, versions  # noqa: E402

from swift_study.examples import Example, Message  # noqa: E402
from swift_study.gradients import PanelGradients, gradient_table  # noqa: E402
from swift_study.influence import pairs_at_checkpoint, read_gradients  # noqa: E402
from swift_study.tables import PAIRS, write_arrow, writing_table  # noqa: E402
from swift_study.tokens import Tokens  # noqa: E402


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


def ours(gradients: Path, output: Path) -> int:
    count = 0
    with writing_table(output, PAIRS) as add:
        for pairs in pairs_at_checkpoint(read_gradients(gradients), "study", "base", {"P": "probes"}, {"T": "targets"}, 0.0):
            add(pairs)
            count += len(pairs)
    return count


def floor(gradients: Path, probes: int) -> tuple[float, float]:
    """Seconds to read the file, and of the product."""
    start = time.perf_counter()
    vectors = read_gradients(gradients).vectors
    read = time.perf_counter()
    torch.mm(torch.from_numpy(vectors[:probes]), torch.from_numpy(vectors[probes:]).T)
    return read - start, time.perf_counter() - read


def main(a: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as work:
        gradients, output = Path(work) / "gradients.parquet", Path(work) / "pairs.parquet"
        make_file(gradients, a.probes, a.targets, a.dimensions)
        floors, seconds, peaks = [], [], []
        for _ in range(a.repeats):
            floors.append(floor(gradients, a.probes))
            forget_peak()
            start = time.perf_counter()
            count = ours(gradients, output)
            seconds.append(time.perf_counter() - start)
            peaks.append(resident("VmHWM"))
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
