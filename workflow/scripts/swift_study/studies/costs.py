"""What each way of finding out costs: the one table that holds timings, and so differs from run to run."""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl
from pydantic import BaseModel, ConfigDict

from swift_study.config import ComparisonStudy, Graph, InfluenceStudy, lineage
from swift_study.errors import UserError
from swift_study.io.tables import ACCOUNTS, COSTS, HISTORY, as_frame, read_table
from swift_study.io.work import publish

NAN = float("nan")
BASELINES = "similarity and loss change"


class Spent(BaseModel):
    """Where the costs of one part of a way are found."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    benchmarks: list[Path] = []
    histories: list[Path] = []
    accounts: list[Path] = []


def ways(graph: Graph, name: str) -> dict[str, dict[str, Spent]]:
    """For each kind of place that an agreement's items have, and for the cheap baselines, by part the files that tell what it cost."""
    studies, items = graph.config.studies, graph.agreement(name).items
    found: dict[str, dict[str, Spent]] = {}
    kinds = dict.fromkeys(place for own in items.values() for places in own.values() for place in places)
    for kind in kinds:
        named = dict.fromkeys(p[kind].study for own in items.values() for p in own.values() if kind in p)
        influence = [s for s in named if isinstance(studies[s], InfluenceStudy)]
        compared = [s for s in named if isinstance(studies[s], ComparisonStudy)]
        found[kind] = (_influence(graph, influence) if influence else {}) | (_compared(graph, compared) if compared else {})
        if influence:
            found[BASELINES] = {"all": _part(graph, "compute_baselines", influence)}
    return found


def _influence(graph: Graph, names: Sequence[str]) -> dict[str, Spent]:
    trained = list(dict.fromkeys(r for s in names for r in graph.config.ancestry(graph.run_of(s))))
    return {
        "training": _part(graph, "train", trained, histories=trained),
        "data by a teacher": _replies(graph, [d for s in names for d in graph.panel(s)]),
        "gradients": _part(graph, "gradients", [f"{graph.run_of(s)}/{s}" for s in names]),
        "influence": _part(graph, "pair_influence", names),
        "verdicts": _part(graph, "decide_verdicts", names),
        "confounds": _part(graph, "check_confounds", names),
    }


def _compared(graph: Graph, names: Sequence[str]) -> dict[str, Spent]:
    runs: dict[str, None] = {}
    responses: dict[str, None] = {}
    scores: dict[str, dict[str, str]] = {}
    for entry in (e for name in names for e in graph.entries(name)):
        runs[entry.run] = None
        needs = graph.config.scorer_needs(entry.scorer)
        kind = next((k for k in ("model", "endpoint") if k in needs), None)
        rule = f"score_with_{kind}" if kind else "score"
        scores.setdefault(f"{entry.scorer}:{rule}", {})[f"{entry.run}/{entry.evaluation}/{entry.scorer}"] = entry.path
        if "response" in needs:
            responses[f"{entry.run}/{entry.evaluation}"] = None
    trained = list(dict.fromkeys(r for run in runs for r in graph.config.ancestry(run)))
    parts = {
        "training": _part(graph, "train", trained, histories=trained),
        "data by a teacher": _replies(graph, [d for run in trained for d in graph.scheduled(run)]),
    }
    if responses:
        parts["responses"] = _part(graph, "respond", responses)
    for key, targets in scores.items():
        scorer, _, rule = key.partition(":")
        asked = [Path(p).with_name("account.parquet") for p in targets.values()] if rule == "score_with_endpoint" else []
        parts[f"scores: {scorer}"] = _part(graph, rule, targets, accounts=asked)
    return parts


def _part(graph: Graph, rule: str, targets: Iterable[str], histories: Iterable[str] = (), accounts: Iterable[Path] = ()) -> Spent:
    results = graph.config.results
    return Spent(
        benchmarks=[Path(f"{results}/benchmarks/{rule}/{t}.tsv") for t in targets],
        histories=[Path(f"{results}/runs/{run}/history.parquet") for run in histories],
        accounts=list(accounts),
    )


def _replies(graph: Graph, datasets: Iterable[str]) -> Spent:
    """What a teacher cost for the datasets on the way to these that it made."""
    return Spent(accounts=[Path(file) for file in graph.accounts(lineage.needed(graph.config, datasets))])


def digest(found: Mapping[str, Mapping[str, Spent]]) -> str:
    """Of all files: the parameter by which the costs are counted again when others would be."""
    return hashlib.sha256(_text(found).encode()).hexdigest()[:16]


def _text(found: Mapping[str, Mapping[str, Spent]]) -> str:
    return json.dumps({way: {part: files.model_dump(mode="json") for part, files in parts.items()} for way, parts in found.items()})


def write_ways(path: Path, found: Mapping[str, Mapping[str, Spent]]) -> None:
    with publish(path) as part:
        part.write_text(_text(found), encoding="utf-8")


def read_ways(path: Path) -> dict[str, dict[str, Spent]]:
    read = json.loads(path.read_text(encoding="utf-8"))
    return {way: {part: Spent.model_validate(files) for part, files in parts.items()} for way, parts in read.items()}


def costs(found: Mapping[str, Mapping[str, Spent]]) -> pl.DataFrame:
    """What each way of finding out costs: one row for each part, and one for the `total`.

    Seconds and CPU seconds are those of Snakemake's benchmark files, summed over jobs. Tokens are those trained on (histories) and those
    of teacher and judge, prompt and completion (accounts). A file that stands twice in a part counts once, and a benchmark file that is
    missing is no job (see ``untimed``): Snakemake does not make a result again for the loss of its timing.
    """
    rows: list[dict[str, object]] = []
    for way, parts in found.items():
        own = [_cost(files) for files in parts.values()]
        rows += [{"way": way, "part": part, **cost} for part, cost in zip(parts, own, strict=True)]
        rows.append({"way": way, "part": "total", **{key: sum(cost[key] for cost in own) for key in COSTS.names[2:]}})
    return as_frame(rows, COSTS)


def _cost(files: Spent) -> dict[str, float]:
    times = [read_benchmark(path) for path in dict.fromkeys(files.benchmarks) if path.is_file()]
    tables = [read_table(path, ACCOUNTS) for path in dict.fromkeys(files.accounts)]
    tokens = sum(int(read_table(path, HISTORY)["tokens"].sum()) for path in dict.fromkeys(files.histories))
    return {
        "jobs": len(times),
        "seconds": sum(t[0] for t in times),
        "cpu_seconds": sum(t[1] for t in times),
        "tokens": tokens + sum(int(a["prompt_tokens"].sum()) + int(a["completion_tokens"].sum()) for a in tables),
        "cost_usd": sum(float(a["cost_usd"].sum()) for a in tables),
    }


def untimed(ways: Mapping[str, Mapping[str, Spent]]) -> list[Path]:
    """The benchmark files that are missing."""
    found = (path for parts in ways.values() for files in parts.values() for path in files.benchmarks)
    return [path for path in dict.fromkeys(found) if not path.is_file()]


def read_benchmark(path: Path) -> tuple[float, float]:
    """Seconds and CPU seconds of a job. Of one too short for Snakemake to look at its CPU time, the seconds stand for both."""
    what = f"{path}: this is not one of Snakemake's benchmark files, which have the columns s and cpu_time and a row"
    remedy = "Remove it: its timing is then left out of the costs, and nothing is made anew."
    try:
        frame = pl.read_csv(path, separator="\t", infer_schema=False)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise UserError(f"{what}; it cannot be read ({str(error).splitlines()[0]}). {remedy}") from error
    if not {"s", "cpu_time"} <= set(frame.columns) or frame.is_empty():
        raise UserError(f"{what}. {remedy}")
    numbers = frame.select(pl.col("s", "cpu_time").cast(pl.Float64, strict=False)).fill_nan(None)
    for row, seconds in enumerate(numbers["s"], 1):
        if seconds is None or not math.isfinite(seconds):
            raise UserError(f"{what}; row {row}, column s: expected seconds, found {frame['s'][row - 1]!r}. {remedy}")
    numbers = numbers.with_columns(pl.col("cpu_time").fill_null(pl.col("s")))
    return float(numbers["s"].sum()), float(numbers["cpu_time"].sum())


def cost_sentences(table: pl.DataFrame) -> list[str]:
    """One sentence a way: what it cost in all, and how many times that of the first way."""
    totals = table.filter(pl.col("part") == "total").to_dicts()
    sentences = []
    for row in totals:
        times = row["cpu_seconds"] / totals[0]["cpu_seconds"] if totals[0]["cpu_seconds"] else NAN
        relative = "" if row is totals[0] or np.isnan(times) else f", {times:.2g} times the {totals[0]['way']}"
        price = f" and ${row['cost_usd']:.2f} for teacher and judge" if row["cost_usd"] else ""
        sentences.append(f"{row['way'].capitalize()}: {row['cpu_seconds']:.0f} CPU seconds{relative}, {row['tokens']} tokens{price}.")
    return sentences
