"""The scores of a manifest's rows, on the items that all rows share."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from swift_study.config import Statistics
from swift_study.errors import UserError
from swift_study.evaluation.scorers import ScorerFile, load_scorer
from swift_study.io.tables import SCORES, read_table
from swift_study.studies.estimates import NAN, Resamples, Rule, Statistic, resample, scored


@dataclass(frozen=True)
class Scores:
    """What every run of the manifest did: ``statistics[run, evaluation][scorer]`` on the items of ``resamples``, NaN where there is no
    score; ``rules`` has the metrics of every scorer.

    ``asked[evaluation]`` (items,) says which items an evaluation asks, whether or not a run has a score for them.
    """

    manifest: pl.DataFrame
    rules: Mapping[str, Rule]
    resamples: Resamples
    asked: dict[str, np.ndarray]
    tasks: list[str]  # of the items
    statistics: dict[tuple[str, str], dict[str, Statistic]]


def read_scores(manifest: pl.DataFrame, rules: Mapping[str, Rule], settings: Statistics, unit: Sequence[str], within: str | None) -> Scores:
    """Read every file of a manifest once. UserError names a file whose queries are not those of the other runs of its evaluation.

    Items are queries: one that two evaluations ask is one item, drawn for both alike. Their columns are `task` and `evaluation`.
    """
    wide: dict[str, pl.DataFrame] = {}
    order: dict[str, list[str]] = {}
    tasks: dict[str, tuple[str, str]] = {}
    first: dict[str, str] = {}
    for evaluation, path in manifest.select("evaluation", "path").unique(maintain_order=True).iter_rows():
        frame = wide[path] = by_query(read_table(Path(path), SCORES), path)
        ids = frame["query_id"].to_list()
        if evaluation not in order:
            order[evaluation], first[evaluation] = ids, path
            for query, task in zip(ids, frame["task"], strict=True):
                tasks.setdefault(query, (task, evaluation))
        elif set(ids) != set(order[evaluation]):
            missing, more = set(order[evaluation]) - set(ids), set(ids) - set(order[evaluation])
            raise UserError(
                f"{path}: it does not hold the queries of {first[evaluation]} ({len(missing)} missing, {len(more)} unknown). One of the "
                f"two was made from another dataset of the evaluation {evaluation!r}: delete it and run again."
            )
    items = pl.DataFrame(
        [(query, *about) for query, about in tasks.items()], schema=["query_id", "task", "evaluation"], orient="row"
    )  # fmt: skip
    resamples = resample(items, settings, unit, within)
    asked = {evaluation: np.isin(np.arange(len(items)), [resamples.place[q] for q in ids]) for evaluation, ids in order.items()}
    statistics: dict[tuple[str, str], dict[str, Statistic]] = {}
    for run, evaluation, scorer, path in manifest.select("run", "evaluation", "scorer", "path").unique(maintain_order=True).iter_rows():
        frame = wide[path]
        places = np.array([resamples.place[q] for q in frame["query_id"]], dtype=np.int64)
        own: dict[str, np.ndarray] = {}
        for name in frame.columns[2:]:
            values = np.full(len(items), NAN)
            values[places] = frame[name].to_numpy()
            own[name] = values
        statistics.setdefault((run, evaluation), {})[scorer] = own
    return Scores(manifest, rules, resamples, asked, items["task"].to_list(), statistics)


def by_query(long: pl.DataFrame, source: object) -> pl.DataFrame:
    """One row a query, in the file's order: `query_id`, `task` and a column for each statistic. UserError if one stands there twice."""
    twice = long.select("query_id", "statistic").is_duplicated()
    if twice.any():
        query, name = long.filter(twice).select("query_id", "statistic").row(0)
        raise UserError(f"{source}: the statistic {name!r} of the query {query} stands there twice. Delete the file and run again.")
    wide = long.pivot("statistic", index=["query_id", "task"], values="value", maintain_order=True)
    return wide.with_columns(pl.exclude("query_id", "task").cast(pl.Float64))


def metric_of(name: str, rules: Mapping[str, Rule], statistics: Mapping[str, Statistic]) -> tuple[str, str] | None:
    """The scorer that gives a metric, and the metric's own name; None where no scorer does. `judge.accuracy` names the scorer.

    UserError where several scorers give it.
    """
    scorer, dot, own = name.rpartition(".")
    found = []
    for other in statistics:
        if dot and other != scorer:
            continue
        rule = rules[other]
        one = rule.of({k: np.where(scored(statistics[other]), v, NAN)[:1] for k, v in statistics[other].items()}, np.ones((1, 1)))
        if own in one:
            found.append(other)
    if len(found) > 1:
        raise UserError(
            f"The metric {name!r} comes from several scorers ({', '.join(found)}). Name one, as {found[0]}.{name}, or set the study's "
            "`scorers`."
        )
    return (found[0], own) if found else None


def rules_of(files: Mapping[str, str]) -> dict[str, Rule]:
    """The metrics of scorers, by the scorers' files. UserError if one cannot be loaded."""
    return {name: rule_of(load_scorer(Path(file))) for name, file in files.items()}


def rule_of(scorer: ScorerFile) -> Rule:
    def metrics(sums: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        return scorer.metrics(sums)

    return Rule(metrics, scorer.estimate if "estimate" in scorer.functions else None)
