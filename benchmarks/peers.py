"""Seconds and peak memory of all inner products of per-example gradients: our engine beside public libraries and a loop over examples.

    PYTHONPATH=$PWD/.peers python benchmarks/peers.py --scopes lora full --examples 36 --tokens 64 256 --repeats 3 > peers.json

Needs the libraries of benchmarks/peers.lock, which says where they go. Every way (`ways.py`) gets the same model (the packaged one,
float32), weights (an adapter of rank 64 with B other than zero, or the decoder's linear layers), examples and threads. A way is written
name@batch, or name@batch/queries for one that holds the gradients of that many queries at a time; ours@batch/GB has a memory budget. First
all ways compute a few short examples of different lengths, and their inner products are held against plain autograd's on the same float32
model: ours and dattri-llm must agree to 1e-4 of the norms, all others to 1e-3, or this ends with an error.

Every measurement is a process of its own, and the ways take turns, so ``ratio`` (theirs / ours; above 1: ours is faster) is of runs side
by side: the median over the repeats. Seconds are of the call alone, from examples to inner products, after a batch to warm up;
``cpu_ratio`` is of CPU seconds, the steadier one beside other work. ``peak_gb`` is the largest resident size in the call, the model
(0.5 GB) included; ``gpu_gb`` the allocator's peak. A way that goes over --memory-limit-gb or --timeout is stopped, and that is its
result. Prints JSON with machine and versions.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "workflow" / "scripts"))

from arguments import parser  # noqa: E402
from machine import forget_peak, gpu, machine, resident, versions  # noqa: E402

DEFAULTS = {
    "lora": "ours@8 loop@1 dattri-llm@4 dattri-llm-once@4 bergson@1 bergson@4 kronfluence@4/36",
    "full": "ours@8/6 loop@1 dattri-llm@4 dattri-llm-once@4 bergson@1 kronfluence@4/12",
}
TOLERANCE = {"ours": 1e-4, "dattri-llm": 1e-4, "dattri-llm-once": 1e-4}


def parse(way: str) -> tuple[str, int, int]:
    """Name, batch size, and queries held at a time or GB; 0 for what the way has by itself."""
    name, _, sizes = way.partition("@")
    batch, _, queries = (sizes or "4").partition("/")
    return name, int(batch), int(queries or 0)


# ---- one measurement, in a process of its own ----


def measure(job: dict[str, Any]) -> dict[str, Any]:
    import torch
    from ways import WAYS, make_model, make_tokens

    from swift_study.config import Model
    from swift_study.gradients.memory import keep_freed_memory
    from swift_study.models.loading import exact_numerics, packaged_model, quiet_libraries
    from swift_study.models.rendering import load_renderer

    quiet_libraries()
    torch.set_num_threads(job["threads"])
    keep_freed_memory()
    cuda = job["device"] == "cuda"
    folder = packaged_model(ROOT / ".cache")
    renderer = load_renderer(folder, Model())
    model = make_model(job["scope"], folder, job["device"])
    tokens = make_tokens(renderer.tokenizer, job["examples"], job["tokens"], shorter=job["shorter"])
    name, batch_size, queries = parse(job["way"])
    with exact_numerics():
        way = WAYS[name](model, renderer.pad_id, batch_size, queries)
        way(make_tokens(renderer.tokenizer, batch_size, job["tokens"], seed=2))
        forget_peak()
        if cuda:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
        before = resident("VmRSS")
        start, start_cpu = time.perf_counter(), time.process_time()
        gram = way(tokens)
        seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - start_cpu
    np.save(job["output"], gram)
    found = {"seconds": seconds, "cpu_seconds": cpu_seconds, "peak_gb": resident("VmHWM"), "before_gb": before}
    return found | ({"gpu_gb": torch.cuda.max_memory_allocated() / 1e9} if cuda else {})


# ---- all of them, in turn ----


def run(job: dict[str, Any], a: argparse.Namespace) -> dict[str, Any]:
    """Its measurement, or what stopped it as ``result``; ``gram`` if it ended."""
    with tempfile.TemporaryDirectory() as folder:
        output, log = Path(folder) / "gram.npy", Path(folder) / "log.txt"
        command = [sys.executable, __file__, "--job", json.dumps(job | {"output": str(output)})]
        with log.open("w") as errors:
            process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=errors, text=True, cwd=folder, env=os.environ | {"TMPDIR": folder}
            )
            watched, deadline, stopped = psutil.Process(process.pid), time.monotonic() + a.timeout, ""
            while process.poll() is None and not stopped:
                time.sleep(0.05)
                try:
                    size = watched.memory_info().rss / 1e9
                except psutil.NoSuchProcess:
                    break
                if size > a.memory_limit_gb:
                    stopped = f"over {a.memory_limit_gb:g} GB"
                elif time.monotonic() > deadline:
                    stopped = f"over {a.timeout:g} s"
            if stopped:
                process.kill()
            printed = process.communicate()[0]
        if stopped:
            return {"result": stopped}
        if process.returncode:
            last = (log.read_text().strip().splitlines() or [f"exit code {process.returncode}"])[-1]
            return {"result": "out of GPU memory" if "OutOfMemoryError" in last else f"failed: {last[:300]}"}
        return json.loads(printed.splitlines()[-1]) | {"gram": np.load(output)}


def compare(scope: str, tokens: int, ways: list[str], a: argparse.Namespace) -> dict[str, Any]:
    """All ways in turn, on one scope and length."""
    runs: dict[str, list[dict[str, Any]]] = {way: [] for way in ways}
    for repeat in range(a.repeats):
        for way in ways[repeat % len(ways) :] + ways[: repeat % len(ways)]:
            if any("result" in r for r in runs[way]):
                continue  # it would be stopped again
            job = {
                "way": way,
                "scope": scope,
                "examples": a.examples,
                "tokens": tokens,
                "shorter": 0,
                "device": a.device,
                "threads": a.threads,
            }
            runs[way].append(run(job, a))
            shown = {k: v if isinstance(v, str) else round(v, 2) for k, v in runs[way][-1].items() if k != "gram"}
            print(f"{scope}, {a.examples} × {tokens} tokens, repeat {repeat + 1}: {way} {shown}", file=sys.stderr, flush=True)
    ours = next((runs[way] for way in ways if way.startswith("ours@") and "result" not in runs[way][-1]), None)
    return {way: summary(found, ours) for way, found in runs.items()}


def summary(found: list[dict[str, Any]], ours: list[dict[str, Any]] | None) -> dict[str, Any]:
    from ways import disagreement

    if "result" in found[-1]:
        return {"result": found[-1]["result"]}
    result: dict[str, Any] = {"seconds": round(statistics.median(r["seconds"] for r in found), 2)}
    result["seconds_each"] = [round(r["seconds"], 2) for r in found]
    result["cpu_seconds"] = round(statistics.median(r["cpu_seconds"] for r in found), 2)
    result["peak_gb"] = round(max(r["peak_gb"] for r in found), 2)
    if "gpu_gb" in found[0]:
        result["gpu_gb"] = round(max(r["gpu_gb"] for r in found), 2)
    if ours is not None and found is not ours:
        ratios = [r["seconds"] / o["seconds"] for r, o in zip(found, ours, strict=True)]
        result["ratio"] = round(statistics.median(ratios), 2)
        result["ratios"] = [round(r, 2) for r in ratios]
        result["cpu_ratio"] = round(statistics.median(r["cpu_seconds"] / o["cpu_seconds"] for r, o in zip(found, ours, strict=True)), 2)
        result["disagreement_with_ours"] = float(f"{max(disagreement(r['gram'], ours[0]['gram']) for r in found):.1e}")
    return result


def agreement(scope: str, ways: list[str], a: argparse.Namespace) -> dict[str, float | str]:
    """How far every way's inner products of a few short examples are from plain autograd's, relative to the norms."""
    from ways import disagreement

    job = {"scope": scope, "examples": a.check_examples, "tokens": a.check_tokens, "shorter": 3, "device": a.device, "threads": a.threads}
    reference = run(job | {"way": "autograd@1"}, a)
    if "result" in reference:
        sys.exit(f"Plain autograd did not get through the check: {reference['result']}")
    reached: dict[str, float | str] = {}
    for way in ways:
        found = run(job | {"way": way}, a)
        reached[way] = found["result"] if "result" in found else float(f"{disagreement(found['gram'], reference['gram']):.1e}")
        print(f"{scope}, check: {way} {reached[way]}", file=sys.stderr, flush=True)
    return reached


def main(a: argparse.Namespace) -> None:
    from swift_study.models.loading import packaged_model

    packaged_model(ROOT / ".cache")
    ways = {scope: a.ways or DEFAULTS[scope].split() for scope in a.scopes}
    checks = {scope: agreement(scope, ways[scope], a) for scope in a.scopes}
    for scope, reached in checks.items():
        for way, error in reached.items():
            if isinstance(error, float) and not error <= TOLERANCE.get(parse(way)[0], 1e-3):
                sys.exit(f"{scope}: the inner products of {way} are {error:.1e} of the norms away from plain autograd's.")
    cells = [
        {"scope": scope, "examples": a.examples, "tokens": tokens, "ways": compare(scope, tokens, ways[scope], a)}
        for scope in (a.scopes if a.repeats else [])
        for tokens in a.tokens
    ]
    result = {
        "benchmark": "peers",
        "agreement_with_autograd": checks,
        "cells": cells,
        **{k: v for k, v in vars(a).items() if k != "job"},
        "machine": machine() | gpu(a.device),
        "versions": versions("torch", "transformers", "peft", "dattri-llm", "bergson", "kronfluence"),
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    p = parser(__doc__)
    p.add_argument("--ways", nargs="+", metavar="NAME@BATCH[/QUERIES or GB]", help=f"by default, {DEFAULTS}".replace("%", "%%"))
    p.add_argument("--repeats", type=int, default=3, help="0: only the check")
    p.add_argument("--check-examples", type=int, default=4)
    p.add_argument("--check-tokens", type=int, default=32)
    p.add_argument("--timeout", type=float, default=1800, help="seconds for one process, loading included")
    p.add_argument("--memory-limit-gb", type=float, default=15, help="resident size of one process")
    p.add_argument("--job", help=argparse.SUPPRESS)
    given = p.parse_args()
    if given.job:
        print(json.dumps(measure(json.loads(given.job))))
    else:
        main(given)
