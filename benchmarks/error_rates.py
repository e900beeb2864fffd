"""How often the verdict is wrong where nothing differs, and how often it finds what does: tables for docs/error_rates.md.

    python benchmarks/error_rates.py

Simulated studies (benchmarks/null_studies.py) and random panels of real gradients (benchmarks/null_pool.py) go through
``statistics.verdicts`` and ``statistics.effect`` with the default settings. Writes error_rates.json into ``--out``, and the tables between
the marks of ``--docs``. Ends with an error where more verdicts are wrong than 5% and the number of rates explain. The gradients stay in
``.cache``; delete the file to have them made anew.
"""

import argparse
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

for threads in ("POLARS_MAX_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(threads, "1")  # before the libraries are loaded: the processes share the work
ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "workflow" / "scripts"))

import null_pool  # noqa: E402
import numpy as np  # noqa: E402
import polars as pl  # noqa: E402
import torch  # noqa: E402
from machine import machine, versions  # noqa: E402
from null_studies import CONTROL, NULLS, SCORES, STRATEGY, pairs_of, plant, simulate  # noqa: E402
from scipy import stats  # noqa: E402

from swift_study.config import Statistics  # noqa: E402
from swift_study.influence.statistics import effect, verdict, verdicts  # noqa: E402
from swift_study.io.tables import CURVES  # noqa: E402
from swift_study.models.loading import quiet_libraries  # noqa: E402

SETTINGS = Statistics(after_step=0)
CONTEXTS = ("in-task", "cross-task")
VERDICT = {"rel_inf": "verdict", "rel_inf_mean_loss": "verdict_mean_loss", "cosine": "verdict_cosine"}
# (tasks, probes a task): studies, and studies with planted effects. Those of 100 tasks cost more: fewer of them.
SHAPES = {(12, 1): (2000, 500), (10, 2): (2000, 500), (24, 1): (2000, 500), (36, 1): (2000, 300), (100, 1): (200, 100)}
PLANTED = (0.25, 0.5, 1.0)
PLANTED_IN = ("even", "heavy tails")
UNIT_STUDIES = 100  # that give the unit of the planted effects
# (tasks, probes a task): sub-pools, draws of each; a sub-pool holds three plain and two shuffled examples of a family for each probe.
REAL = {(12, 1): (8, 250), (16, 1): (8, 250), (10, 2): (4, 500)}
POOL = (24, 16)  # plain and shuffled examples of each family
PARTS = ("simulation", "real")
MARKS = ("<!-- tables of benchmarks/error_rates.py -->", "<!-- end of tables -->")

Counts = Counter[tuple[str, str, str]]  # context, score, verdict


def judged(pairs: pl.DataFrame, settings: Statistics) -> Counts:
    """Verdicts of one study by context and score; for the main score also whether its test or its interval alone would have spoken."""
    no_curves = pl.DataFrame(CURVES.empty_table())  # they only say whether a strategy is `effective`
    counts: Counts = Counter()
    for row in verdicts(pairs, no_curves, CONTROL, settings).iter_rows(named=True):
        for score, column in VERDICT.items():
            counts[row["context"], score, row[column]] += 1
        counts[row["context"], "rel_inf", "test"] += row["p_value"] <= 1 - settings.confidence + 1e-12
        counts[row["context"], "rel_inf", "interval"] += row["ci_low"] > 0 or row["ci_high"] < 0
    return counts


def simulated_counts(null: str, tasks: int, per_task: int, first: int, last: int, settings: Statistics) -> Counts:
    counts: Counts = Counter()
    for number in range(first, last):
        rng = np.random.default_rng([tasks, per_task, number])
        counts += judged(pairs_of(simulate(NULLS[null], tasks, per_task, rng), tasks, per_task), settings)
    return counts


def real_counts(pool: Path, shuffled: bool, tasks: int, per_task: int, subpool: int, subpools: int, draws: int) -> Counts:
    rng, loaded = np.random.default_rng([tasks, per_task, subpool]), null_pool.load(pool)
    counts: Counts = Counter()
    for _ in range(draws):
        counts += judged(pairs_of(null_pool.draw(loaded, shuffled, tasks, per_task, subpool, subpools, rng), tasks, per_task), SETTINGS)
    return counts


def between_tasks_sd(null: str, tasks: int, per_task: int) -> dict[str, float]:
    """By context: the between-task standard deviation of the paired difference in RelInf, median over null studies."""
    found: dict[str, list[float]] = {context: [] for context in CONTEXTS}
    ours, theirs = (pl.col("rel_inf").filter(pl.col("probe_set") == name).mean() for name in (STRATEGY, CONTROL))
    for number in range(UNIT_STUDIES):
        rng = np.random.default_rng([tasks, per_task, number, 1])
        pairs = pairs_of(simulate(NULLS[null], tasks, per_task, rng), tasks, per_task)
        differences = pairs.group_by("context", "probe_task").agg(ours - theirs)
        for context in CONTEXTS:
            found[context].append(float(differences.filter(pl.col("context") == context)["rel_inf"].to_numpy().std(ddof=1)))
    return {context: float(np.median(values)) for context, values in found.items()}


def power_counts(null: str, tasks: int, per_task: int, first: int, last: int, sd: Mapping[str, float]) -> Counter[tuple[str, float]]:
    """Of studies with a planted effect in units of ``sd``: how many *helps*, by context and effect."""
    counts: Counter[tuple[str, float]] = Counter()
    for number in range(first, last):
        rng = np.random.default_rng([tasks, per_task, number, 2])
        pairs = pairs_of(simulate(NULLS[null], tasks, per_task, rng), tasks, per_task)
        for context in CONTEXTS:
            part = pairs.filter(pl.col("context") == context)
            for size in PLANTED:
                e = effect(plant(part, size * sd[context]), "rel_inf", STRATEGY, CONTROL, context == "in-task", SETTINGS)
                counts[context, size] += verdict(e, SETTINGS.confidence) == "helps"
    return counts


def exact_interval(k: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Clopper–Pearson interval of a rate that was found k times in n."""
    ci = stats.binomtest(k, n).proportion_ci(confidence)
    return float(ci.low), float(ci.high)


def rates(counts: Counts, n: int, score: str, context: str) -> dict[str, Any]:
    helps, hurts = counts[context, score, "helps"], counts[context, score, "hurts"]
    found = {"context": context, "score": score, "studies": n, "helps": helps / n, "hurts": hurts / n, "wrong": helps + hurts}
    found |= {"rate": (helps + hurts) / n, "interval": exact_interval(helps + hurts, n)}
    if score == "rel_inf":
        found |= {"test_alone": counts[context, score, "test"] / n, "interval_alone": counts[context, score, "interval"] / n}
    return found


def clustered(values: Sequence[float], draws: int) -> dict[str, Any]:
    """Mean rate of sub-pools that share no example, its t interval over sub-pools, and the independent draws that this is worth."""
    mean, se = float(np.mean(values)), float(np.std(values, ddof=1) / np.sqrt(len(values)))
    half = float(stats.t.ppf(0.975, len(values) - 1)) * se
    worth = min(float(draws), mean * (1 - mean) / se**2) if se > 0 else float(draws)
    return {"rate": mean, "interval": (max(0.0, mean - half), mean + half), "effective_draws": round(worth)}


def blocks(n: int, size: int = 50) -> Iterator[tuple[int, int]]:
    return ((start, min(start + size, n)) for start in range(0, n, size))


def simulation(workers: ProcessPoolExecutor, shapes: Mapping[tuple[int, int], tuple[int, int]]) -> dict[str, list[dict[str, Any]]]:
    false: list[dict[str, Any]] = []
    power: list[dict[str, Any]] = []
    for (tasks, per_task), (studies, planted) in shapes.items():
        shape = {"tasks": tasks, "per_task": per_task}
        jobs = {null: [workers.submit(simulated_counts, null, tasks, per_task, *b, SETTINGS) for b in blocks(studies)] for null in NULLS}
        units = {null: workers.submit(between_tasks_sd, null, tasks, per_task) for null in PLANTED_IN}
        for null, parts in jobs.items():
            counts = sum((job.result() for job in parts), Counter())
            for context in CONTEXTS:
                for score in SCORES:
                    false.append({**shape, "world": null, "null": score in NULLS[null].scores, **rates(counts, studies, score, context)})
        for null, unit in units.items():
            sd = unit.result()
            told = sum(
                (j.result() for j in [workers.submit(power_counts, null, tasks, per_task, *b, sd) for b in blocks(planted)]), Counter()
            )
            for context in CONTEXTS:
                for size in PLANTED:
                    k = told[context, size]
                    row = {"world": null, "context": context, "planted_sd": size, "studies": planted, "sd": sd[context]}
                    power.append({**shape, **row, "power": k / planted, "interval": exact_interval(k, planted)})
        log(f"{tasks} × {per_task}: simulated")
    return {"false": false, "power": power}


def real(workers: ProcessPoolExecutor, pool: Path, shapes: Mapping[tuple[int, int], tuple[int, int]]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for (tasks, per_task), (subpools, draws) in shapes.items():
        for shuffled in (False, True):
            jobs = [workers.submit(real_counts, pool, shuffled, tasks, per_task, g, subpools, draws) for g in range(subpools)]
            parts = [job.result() for job in jobs]
            total = sum(parts, Counter())
            for context in CONTEXTS:
                for score in SCORES:
                    row = rates(total, draws * subpools, score, context)
                    wrong = [(p[context, score, "helps"] + p[context, score, "hurts"]) / draws for p in parts]
                    row |= {"interval_this_pool": row["interval"], **clustered(wrong, draws * subpools), "subpools": subpools}
                    kind = "shuffled completions" if shuffled else "relabelled"
                    rows.append({"tasks": tasks, "per_task": per_task, "world": kind, "null": True, **row})
        log(f"{tasks} × {per_task}: real gradients")
    return rows


def exceeding(rows: Iterable[Mapping[str, Any]], nominal: float) -> list[str]:
    """Sentences on null worlds with more wrong verdicts than ``nominal``, by intervals that hold for all rates at once."""
    nulls = [r for r in rows if r["null"]]
    return [
        f"{r['world']}, {r['tasks']} × {r['per_task']}, {r['context']}, {r['score']}: {r['wrong']} of {r['studies']} verdicts are wrong."
        for r in nulls
        if exact_interval(r["wrong"], r["studies"], 1 - 0.05 / len(nulls))[0] > nominal
    ]


# ---- the tables ----


def tables(result: Mapping[str, Any]) -> str:
    """Markdown of the result."""
    parts = []
    if "false" in result:
        head = [
            "tasks × probes",
            "world",
            "context",
            "studies",
            "helps",
            "hurts",
            "either [95%]",
            "mean loss",
            "cosine",
            "test alone",
            "interval alone",
        ]
        parts += ["### Simulated: wrong verdicts where nothing differs", _table(head, _false_rows(result["false"]))]
    if "power" in result:
        head = ["tasks × probes", "world", "context", "studies", *(f"{size:g} sd" for size in PLANTED)]
        parts += ["### Simulated: planted effects that are found", _table(head, _power_rows(result["power"]))]
    if "real" in result:
        head = [
            "tasks × probes",
            "world",
            "context",
            "draws",
            "helps",
            "hurts",
            "either [95%]",
            "this pool [95%]",
            "worth",
            "mean loss",
            "cosine",
        ]
        parts += ["### Real gradients: wrong verdicts where nothing differs", _table(head, _real_rows(result["real"]))]
    return "\n\n".join(parts) + "\n"


def _percent(value: float) -> str:
    return f"{100 * value:.1f}%"


def _with_interval(rate: float, interval: Sequence[float]) -> str:
    return f"{_percent(rate)} [{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]"


def _by_study(rows: Iterable[Mapping[str, Any]]) -> dict[tuple[Any, ...], dict[str, Mapping[str, Any]]]:
    found: dict[tuple[Any, ...], dict[str, Mapping[str, Any]]] = {}
    for r in rows:
        found.setdefault((f"{r['tasks']} × {r['per_task']}", r["world"], r["context"], r["studies"]), {})[r["score"]] = r
    return found


def _false_rows(rows: Iterable[Mapping[str, Any]]) -> Iterator[list[str]]:
    for key, scores in _by_study(rows).items():
        main = scores["rel_inf"]
        cells = [_with_interval(r["rate"], r["interval"]) + ("" if r["null"] else " (differs)") for r in scores.values()]
        alone = [_percent(main["test_alone"]), _percent(main["interval_alone"])]
        yield [*map(str, key), _percent(main["helps"]), _percent(main["hurts"]), *cells, *alone]


def _real_rows(rows: Iterable[Mapping[str, Any]]) -> Iterator[list[str]]:
    for key, scores in _by_study(rows).items():
        main, *others = scores.values()
        whole = [_with_interval(main["rate"], main["interval"]), _with_interval(main["rate"], main["interval_this_pool"])]
        rest = [_with_interval(r["rate"], r["interval"]) for r in others]
        yield [*map(str, key), _percent(main["helps"]), _percent(main["hurts"]), *whole, str(main["effective_draws"]), *rest]


def _power_rows(rows: Iterable[Mapping[str, Any]]) -> Iterator[list[str]]:
    found: dict[tuple[Any, ...], list[str]] = {}
    for r in rows:
        key = (f"{r['tasks']} × {r['per_task']}", r["world"], r["context"], r["studies"])
        found.setdefault(key, []).append(_with_interval(r["power"], r["interval"]))
    return ([*map(str, key), *cells] for key, cells in found.items())


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [head, ["---"] * len(head), *rows])


def insert(document: str, text: str) -> str:
    """The document with ``text`` between its marks. ValueError where it lacks them."""
    before, start, rest = document.partition(MARKS[0])
    _, end, after = rest.partition(MARKS[1])
    if not end:
        raise ValueError(f"The document lacks the lines {MARKS[0]!r} and {MARKS[1]!r}, between which the tables stand.")
    return f"{before}{start}\n\n{text}\n{end}{after}"


def log(message: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {message}", file=sys.stderr, flush=True)


def main(a: argparse.Namespace) -> None:
    start = time.perf_counter()
    parts = [a.only] if a.only else PARTS
    shapes, pool_shapes, examples = dict(SHAPES), dict(REAL), POOL
    if a.quick:
        shapes, pool_shapes, examples = {(12, 1): (40, 20)}, {(12, 1): (2, 20)}, (6, 4)
    path = a.out / "error_rates.json"
    result: dict[str, Any] = json.loads(path.read_text()) if path.exists() and len(parts) == 1 else {}
    if "real" in parts:
        pool = ROOT / ".cache" / "error_rates" / f"pool-{examples[0]}-{examples[1]}.npz"
        if not pool.exists():
            quiet_libraries()
            torch.set_num_threads(len(os.sched_getaffinity(0)))
            null_pool.save(null_pool.make_pool(ROOT / ".cache", *examples, seed=17), pool)
            log("made the pool of gradients")
    with ProcessPoolExecutor(2, get_context("spawn")) as workers:
        if "simulation" in parts:
            result |= simulation(workers, shapes)
        if "real" in parts:
            result["real"] = real(workers, pool, pool_shapes)
    result |= {"confidence": SETTINGS.confidence, "machine": machine(), "versions": versions("numpy", "scipy", "polars", "torch")}
    result.setdefault("seconds", {})["+".join(parts)] = round(time.perf_counter() - start)
    a.out.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    a.docs.write_text(insert(a.docs.read_text(), tables(json.loads(path.read_text()))))
    problems = exceeding([*result.get("false", []), *result.get("real", [])], 1 - SETTINGS.confidence)
    if problems:
        sys.exit("More verdicts are wrong than the confidence promises:\n" + "\n".join(problems))


if __name__ == "__main__":
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--only", choices=PARTS, help="one part; the other's numbers stay as they are")
    p.add_argument("--quick", action="store_true", help="a few studies of one shape, to see that it works")
    p.add_argument("--out", type=Path, default=ROOT / "benchmarks", help="folder for error_rates.json")
    p.add_argument("--docs", type=Path, default=ROOT / "docs" / "error_rates.md", help="document whose tables are replaced")
    main(p.parse_args())
