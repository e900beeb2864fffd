"""Correlations: does a metric of responses go with another one, such as people's scores?

A response is one query of one run on one evaluation. Spearman's ρ is taken over all responses (`pooled`), within the levels of a column
and then averaged over them (`within`), in each level (`group`), and between the levels' means (`between`). Intervals draw what the study
says: queries with all their responses, or several crossed columns.
"""

from collections.abc import Sequence

import numpy as np
import polars as pl

from swift_study.config import CorrelationStudy, Statistics
from swift_study.errors import UserError
from swift_study.io.tables import CORRELATION, as_frame
from swift_study.studies.estimates import ITEM, NAN, Resamples, nanmean, resample, spearman
from swift_study.studies.scores import Scores, metric_of


def responses_of(study: CorrelationStudy, scores: Scores) -> pl.DataFrame:
    """A row for each response: `query_id`, `task`, `run`, `evaluation`, the factors, and the value of each metric (NaN: not scored)."""
    frames = []
    factors = [c for c in scores.manifest.columns if c not in ("row", "scorer", "path", "evaluation", "run")]
    wanted = [*study.metrics, study.reference]
    runs = scores.manifest.select("run", "evaluation", *factors).unique(["run", "evaluation"], maintain_order=True)
    for entry in runs.iter_rows(named=True):
        own = scores.statistics[entry["run"], entry["evaluation"]]
        asked = scores.asked[entry["evaluation"]]
        columns: dict[str, object] = {"query_id": np.array(scores.resamples.ids)[asked].tolist()}
        for metric in wanted:
            place = metric_of(metric, scores.rules, own)
            if place is None:
                if study.if_missing is not None:
                    columns[metric] = np.full(int(asked.sum()), NAN)
                    continue
                raise UserError(f"No scorer of {entry['evaluation']} gives the metric {metric!r}. Add one that does.")
            statistics = own[place[0]]
            one_each = np.eye(len(asked))[asked]
            columns[metric] = scores.rules[place[0]].of(statistics, one_each)[place[1]]
        about = {name: pl.lit(value) for name, value in entry.items()}
        frames.append(pl.DataFrame(columns).with_columns(**about))
    return pl.concat(frames, how="vertical_relaxed").join(tasks_of(scores), on="query_id", how="left", maintain_order="left")


def tasks_of(scores: Scores) -> pl.DataFrame:
    return pl.DataFrame({"query_id": scores.resamples.ids, "task": scores.tasks})


def correlation_table(study: CorrelationStudy, responses: pl.DataFrame, statistics: Statistics) -> pl.DataFrame:
    """For each metric ρ with the reference: pooled, and for each of the study's columns in its groups, within and between them."""
    for column in (*study.groups, *(c for c in study.unit if c != ITEM)):
        if column not in responses.columns:
            raise UserError(f"Responses have no column {column!r}; they have {', '.join(responses.columns)}. Change `groups` or `unit`.")
    items = responses.rename({"query_id": "query"}).with_columns(pl.int_range(pl.len()).cast(pl.String).alias("query_id"))
    unit = ["query" if c == "query_id" else c for c in study.unit]
    resamples = resample(items, statistics, unit, study.within)
    rows: list[dict[str, object]] = []
    y = responses[study.reference].to_numpy()
    for metric in study.metrics:
        x = responses[metric].to_numpy()
        there = ~np.isnan(x) & ~np.isnan(y)
        rows.append(_row(study, metric, "pooled", None, None, 1, there, _both(x, y, there, resamples), resamples))
        for column in study.groups:
            labels = responses[column].cast(pl.String).to_list()
            levels = list(dict.fromkeys(label for label, t in zip(labels, there, strict=True) if t))
            masks = [there & np.array([label == level for label in labels]) for level in levels]
            found = [_both(x, y, mask, resamples) for mask in masks]
            rows += [
                _row(study, metric, "group", column, level, 1, mask, rho, resamples)
                for level, mask, rho in zip(levels, masks, found, strict=True)
            ]
            if found:
                mean = nanmean(np.stack(found), 0)
                defined = sum(not np.isnan(rho[0]) for rho in found)
                rows.append(_row(study, metric, "within", column, None, defined, there, mean, resamples))
            between = _between(x, y, masks, resamples)
            rows.append(_row(study, metric, "between", column, None, len(levels), there, between, resamples))
    return as_frame(rows, CORRELATION)


def _both(x: np.ndarray, y: np.ndarray, mask: np.ndarray, resamples: Resamples) -> np.ndarray:
    """ρ over the masked responses: the value itself first, then every resample."""
    if mask.sum() < 2:
        return np.full(1 + len(resamples.weights), NAN)
    weights = np.concatenate([np.ones((1, int(mask.sum()))), resamples.weights[:, mask]])
    return spearman(x[mask], y[mask], weights)


def _between(x: np.ndarray, y: np.ndarray, masks: Sequence[np.ndarray], resamples: Resamples) -> np.ndarray:
    """ρ between the levels' means, each level once; a level of which nothing is drawn is left out of that resample."""
    if len(masks) < 2:
        return np.full(1 + len(resamples.weights), NAN)
    weights = np.concatenate([np.ones((1, len(x))), resamples.weights])
    means, drawn = [], []
    for mask in masks:
        total = weights[:, mask].sum(axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            means.append([(weights[:, mask] @ side[mask]) / total for side in (x, y)])
        drawn.append(total > 0)
    return np.array(
        [
            spearman(
                np.array([m[0][k] for m in means]), np.array([m[1][k] for m in means]), np.array([[d[k] for d in drawn]], dtype=float)
            )[0]
            for k in range(len(weights))
        ]
    )


def _row(
    study: CorrelationStudy,
    metric: str,
    scope: str,
    column: str | None,
    level: str | None,
    n_groups: int,
    there: np.ndarray,
    rho: np.ndarray,
    resamples: Resamples,
) -> dict[str, object]:
    low, high = resamples.interval(rho[1:], there) if there.any() else (NAN, NAN)
    return {
        "metric": metric,
        "reference": study.reference,
        "scope": scope,
        "column": column,
        "level": level,
        "n_groups": n_groups,
        "n": int(there.sum()),
        "rho": float(rho[0]),
        "low": low,
        "high": high,
    }
