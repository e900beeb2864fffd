"""Made-up scores and manifests for tests of studies."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from swift_study.config import Entry
from swift_study.io.tables import SCORES, write_table
from swift_study.studies.estimates import Rule
from swift_study.studies.manifest import table

RULES = {
    "key_points": Rule(lambda s: {"accuracy": s["right"] / s["n"]}),
    "likelihood": Rule(lambda s: {"nats_token": s["nats_token"] / s["n"], "nats": s["nats"] / s["n"]}),
    "cells": Rule(lambda s: {"f1": 2 * s["tp"] / (2 * s["tp"] + s["fp"] + s["fn"])}),
}


def write_scores(path: Path, statistics: Mapping[str, np.ndarray], ids: Sequence[str], tasks: Sequence[str]) -> Path:
    """A file of scores in long form; NaN is a query without a score, null in all its rows."""
    rows = [
        (query, task, name, None if np.isnan(values[k]) else float(values[k]))
        for k, (query, task) in enumerate(zip(ids, tasks, strict=True))
        for name, values in statistics.items()
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_table(path, pl.DataFrame(rows, schema=["query_id", "task", "statistic", "value"], orient="row", infer_schema_length=None), SCORES)
    return path


class Made:
    """A manifest that grows: each call writes a run's scores and adds its rows."""

    def __init__(self, folder: Path, n: int = 24, n_tasks: int = 6) -> None:
        self.folder, self.ids = folder, [f"q{k:03}" for k in range(n)]
        self.tasks = [f"task{k % n_tasks}" for k in range(n)]
        self.entries: list[Entry] = []

    def add(
        self, row: str, run: str, scores: Mapping[str, Mapping[str, np.ndarray]], seed: int = 17, model: str = "main",
        evaluation: str = "questions", factors: Mapping[str, Any] | None = None, ids: Sequence[str] | None = None,
        queries: Path | None = None,
    ) -> None:  # fmt: skip
        """``scores`` by scorer and statistic, (queries,)."""
        own = list(ids or [f"{evaluation}-{q}" for q in self.ids])
        for scorer, statistics in scores.items():
            path = (
                self.folder / "scores" / run / f"seed={seed}-{model}" / f"evaluation={evaluation}" / f"scorer={scorer}" / "scores.parquet"
            )
            write_scores(path, statistics, own, self.tasks)
            texts = {name: str(level) for name, level in (factors or {}).items()}
            about = (row, f"{run}/seed={seed}/model={model}", seed, model, evaluation, scorer, str(path), texts)
            self.entries.append(Entry(*about, None if queries is None else str(queries)))

    @property
    def manifest(self) -> pl.DataFrame:
        return table(self.entries)


def labels(values: Sequence[float] | np.ndarray) -> dict[str, dict[str, np.ndarray]]:
    """Scores of key points, and of the likelihood: labels − 1, over two tokens."""
    right = np.asarray(values, dtype=float)
    one = np.where(np.isnan(right), np.nan, 1.0)
    nats = np.nan_to_num(right) - 1
    return {
        "key_points": {"right": right, "n": one},
        "likelihood": {"nats": nats, "tokens": np.full(len(right), 2.0), "nats_token": nats / 2, "n": np.ones(len(right))},
    }
