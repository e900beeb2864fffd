"""The proof: what training with and without the data did to Q_eval, the paper's claims, and how the swift scores agree with it.

Every number is a mean over the queries of the evaluation set, and every difference is paired by query. Intervals come from one
bootstrap for everything (``Queries.weights``): it draws tasks with replacement and within a drawn task its queries, so that two
differences on the same queries are resampled together. They speak of other queries, not of other trainings: how much another seed
changes stands beside them as the standard deviation over seeds. Swift scores are resampled over tasks, probes and targets, as in
``statistics``; the resamples of different studies, and those of studies and queries, are independent.
"""

import itertools
import math
import zlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
import pyarrow as pa
import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from scipy import stats

from swift_study.config import MAIN, Near, Prediction, Statistics, Validation, ValidationTable, configure, nearest
from swift_study.errors import UserError
from swift_study.influence.statistics import (
    counted,
    curve_name,
    effect,
    grid,
    interval,
    mean,
    member_draws,
    resampled_means,
    sign_flip_p,
    task_draws,
    with_scores,
)
from swift_study.io.tables import ACCOUNTS, AGREEMENT, CLAIMS, COSTS, HISTORY, RANK_AGREEMENT, read_table
from swift_study.io.tables import VALIDATION as VALIDATION_SCHEMA

MEASURES = ("accuracy", "ll_token", "ll_answer")  # of one row of a table, each with a value for every query
CLAIMED = {"accuracy": "accuracy", "log_likelihood": "ll_token"}  # what claims and agreement are about
PREDICTORS = ("swift", "swift_mean_loss", "swift_cosine", "similarity", "loss_change", "proxy")
PAPER_NEAR = 1.0  # percentage points within which the paper's own accuracies count as alike
NAN = float("nan")
TIE = 1e-12  # differences below this are those of rounding


# ---- queries and differences ----


@dataclass(frozen=True)
class Queries:
    """The evaluation set, and its resamples: how often each query is drawn."""

    ids: list[str]
    task_of: np.ndarray  # (queries,) index of the task
    n_tasks: int
    weights: np.ndarray  # (resamples, queries)


@dataclass(frozen=True)
class Estimate:
    """A number with its interval, and its value in every resample; NaN where there is none."""

    value: float
    low: float
    high: float
    draws: np.ndarray  # (resamples,)


@dataclass(frozen=True)
class Measured:
    """What the runs of one table did on one model: ``values[measure]`` has shape (rows, seeds, queries), NaN where unparsed."""

    table: str
    model: str
    rows: list[str]
    seeds: list[int]
    values: dict[str, np.ndarray]


def draw_queries(ids: Sequence[str], tasks: Sequence[str], settings: Statistics) -> Queries:
    names = sorted(set(tasks))
    task_of = np.array([names.index(t) for t in tasks])
    rng = np.random.default_rng(settings.seed)
    weights = task_draws(len(names), settings.resamples, rng)[:, task_of] * member_draws(task_of, settings.resamples, rng)
    return Queries(list(ids), task_of, len(names), weights)


def by_query(frame: pl.DataFrame, column: pl.Expr, queries: Queries, source: object) -> np.ndarray:
    """The column's values in the order of the queries, null as NaN; shape (queries,).

    UserError, which names the file ``source``, unless the file has each of the queries once and no others.
    """
    ids = frame["query_id"].to_list()
    if sorted(ids) != sorted(queries.ids):
        missing, more = set(queries.ids) - set(ids), set(ids) - set(queries.ids)
        raise UserError(
            f"{source}: it does not hold each query of the evaluation set once ({len(ids)} rows for {len(queries.ids)} queries, "
            f"{len(missing)} missing, {len(more)} unknown). It was made from another evaluation set: delete it and run again."
        )
    values = dict(zip(ids, frame.select(column.cast(pl.Float64).alias("value"))["value"].to_list(), strict=True))
    return np.array([NAN if values[i] is None else values[i] for i in queries.ids])


def query_values(labels: pl.DataFrame, likelihoods: pl.DataFrame, queries: Queries, sources: tuple[object, object]) -> np.ndarray:
    """One run's values: labels 0 or 1, NaN where unparsed, and the golden answers' log-likelihoods; shape (measures, queries)."""
    return np.stack(
        [
            by_query(labels, pl.col("right"), queries, sources[0]),
            nats_per_token(likelihoods, queries, sources[1]),
            by_query(likelihoods, pl.col("nats"), queries, sources[1]),
        ]
    )


def nats_per_token(likelihoods: pl.DataFrame, queries: Queries, source: object) -> np.ndarray:
    return by_query(likelihoods, pl.col("nats_token"), queries, source)


def measured(table: str, model: str, rows: Iterable[str], seeds: Sequence[int], runs: Mapping[tuple[str, int], np.ndarray]) -> Measured:
    """A table's runs on one model; ``runs`` holds by row and seed what ``query_values`` gave."""
    names = list(rows)
    for row, seed in itertools.product(names, seeds):
        if (row, seed) not in runs:
            raise UserError(f"The row {row!r} of {table} has no run on the model {model!r} with seed {seed} among the given ones.")
    values = np.array([[runs[row, seed] for seed in seeds] for row in names])  # (rows, seeds, measures, queries)
    return Measured(table, model, names, list(seeds), {m: values[:, :, k] for k, m in enumerate(MEASURES)})


def nanmean(values: np.ndarray, axis: int) -> np.ndarray:
    """The mean of what is not NaN; NaN, without a warning, where nothing is."""
    there = ~np.isnan(values)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(there, values, 0.0).sum(axis=axis) / there.sum(axis=axis))


def estimate(values: np.ndarray, queries: Queries, settings: Statistics) -> Estimate:
    """The mean over queries, those left out that are NaN; ``values`` has shape (queries,)."""
    there = ~np.isnan(values)
    with np.errstate(invalid="ignore", divide="ignore"):
        draws = (queries.weights @ np.where(there, values, 0.0)) / (queries.weights @ there)
    low, high = interval(draws, len(set(queries.task_of[there])), settings.confidence)
    value = float(nanmean(values, 0))
    if there.any() and np.ptp(values[there]) == 0:
        # Resampling shows no spread where all values are the same, such as no changed label. That is not certainty: a share that happens in
        # none of n queries may be as large as this (the rule of three, at the two-sided level).
        most = 1 - ((1 - settings.confidence) / 2) ** (1 / int(there.sum()))
        low, high = value - most, value + most
    return Estimate(value, low, high, draws)


def differences(m: Measured, measure: str, this: str, that: str) -> np.ndarray:
    """This row minus that one, averaged over the seeds in which both are there; shape (queries,)."""
    a, b = (m.values[measure][m.rows.index(row)] for row in (this, that))
    return nanmean(a - b, 0)


def paired_p(m: Measured, measure: str, this: str, that: str, settings: Statistics) -> float:
    """Two-sided p of a paired sign-flip test over queries; for labels of a single seed that is McNemar's exact test.

    NaN where no query has a label of both.
    """
    d = differences(m, measure, this, that)
    if np.isnan(d).all():
        return NAN
    if measure == "accuracy" and len(m.seeds) == 1:
        better, worse = int((d > 0).sum()), int((d < 0).sum())
        return float(stats.binomtest(better, better + worse).pvalue) if better + worse else 1.0
    return sign_flip_p(d, np.random.default_rng(settings.seed))


# ---- tables ----


def paper_models(settings: Validation) -> list[str]:
    """The models for which the tables give the paper's accuracies."""
    return list(dict.fromkeys(model for table in settings.tables.values() for model in table.paper))


def with_paper(schema: pa.Schema, models: Sequence[str], kind: Any) -> pa.Schema:
    """The schema with a reference column for each of the paper's models."""
    return pa.schema([*schema, *(pa.field(f"paper_{model}", kind) for model in models)])


def validation_schema(settings: Validation) -> pa.Schema:
    return with_paper(VALIDATION_SCHEMA, paper_models(settings), pa.float64())


def validation_table(
    name: str, by_model: Sequence[Measured], queries: Queries, settings: Validation, statistics: Statistics
) -> pl.DataFrame:
    """One row for each model and each of the table's runs: the columns of ``validation_schema``.

    Accuracies are shares of the parsed labels. ``ll_token`` is the mean over queries of the golden answer's log-likelihood in nats a
    token, ``ll_answer`` in nats. Each is the mean over seeds, with its standard deviation over seeds (null for one seed); gains over
    the baseline are null in the baseline's own row.
    """
    table = settings.tables[name]
    rows = [
        _row(m, row, table, queries, settings.scorer, statistics)
        | {f"paper_{p}": table.paper[p][row] / 100 if row in table.paper.get(p, {}) else None for p in paper_models(settings)}
        for m in by_model
        for row in m.rows
    ]
    return _frame(rows, validation_schema(settings))


def _frame(rows: Sequence[Mapping[str, object]], schema: pa.Schema) -> pl.DataFrame:
    """Rows as a frame of the schema; what a row lacks, and NaN, is null."""
    kinds = dict(zip(schema.names, pl.DataFrame(schema.empty_table()).dtypes, strict=True))
    return pl.DataFrame(rows, schema=kinds).fill_nan(None)


def _row(m: Measured, row: str, table: ValidationTable, queries: Queries, scorer: str, statistics: Statistics) -> dict[str, object]:
    own = {measure: m.values[measure][m.rows.index(row)] for measure in MEASURES}  # (seeds, queries) each
    level = estimate(nanmean(own["accuracy"], 0), queries, statistics)
    cells: dict[str, object] = {
        "model": m.model,
        "training_data": row,
        "run": table.runs[row],
        "scorer": scorer,
        "n_seeds": len(m.seeds),
        "n": len(queries.ids),
        "unparsed": int(np.isnan(own["accuracy"]).sum()),
        "accuracy_low": level.low,
        "accuracy_high": level.high,
    }
    for measure, values in own.items():
        of_seeds = nanmean(values, 1)
        cells[measure] = float(nanmean(of_seeds, 0))
        cells[f"{measure}_sd"] = float(of_seeds.std(ddof=1)) if len(of_seeds) > 1 else None
        if row != table.baseline:
            gain = estimate(differences(m, measure, row, table.baseline), queries, statistics)
            cells[f"{measure}_gain"], cells[f"{measure}_gain_low"], cells[f"{measure}_gain_high"] = gain.value, gain.low, gain.high
            cells[f"{measure}_gain_p"] = paired_p(m, measure, row, table.baseline, statistics)
    return cells


# ---- claims ----


class Claim(BaseModel):
    """One thing that the paper says, as in the head of data/claims.yaml."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    source: str
    claim: str
    where: str
    of: Literal["mean", "first", "last", "trend"] = "mean"
    says: Literal["above", "below", "near"]
    this: str
    that: str | None = None
    value: float = 0.0

    @model_validator(mode="after")
    def _two_things(self) -> "Claim":
        if self.this == self.that:
            raise ValueError(f"this and that are both {self.this!r}")
        return self


def load_claims(path: Path) -> list[Claim]:
    """The claims of a file. UserError names the file, the claim's number and what is wrong with it."""
    if not path.is_file():
        raise UserError(f"{path}: there is no such file. Set validation.claims to the file of claims.")
    try:
        rows = yaml.safe_load(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: byte {error.object[error.start]:#04x} at position {error.start} is not UTF-8. Convert it.") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a date or a number that is none
        raise UserError(f"{path}: this is not YAML: {' '.join(str(error).split())}.") from error
    if not isinstance(rows, list):
        raise UserError(f"{path}: expected a list of claims, each with the keys {', '.join(Claim.model_fields)}.")
    claims = []
    for number, row in enumerate(rows, 1):
        try:
            claims.append(Claim.model_validate(row))
        except ValidationError as error:
            problem = error.errors(include_url=False)[0]
            key = ".".join(map(str, problem["loc"]))
            if problem["type"] == "extra_forbidden":
                what = f"unknown key `{key}`{nearest(key, Claim.model_fields)}; known are {', '.join(Claim.model_fields)}"
            elif problem["type"] == "missing":
                what = f"`{key}` is missing"
            else:
                what = (f"`{key}`: " if key else "") + problem["msg"].removeprefix("Value error, ")
            raise UserError(f"{path}, claim {number}: {what}.") from error
    return claims


def curve_names(probes: Iterable[str], targets: Iterable[str]) -> list[str]:
    return [curve_name(p, context, t) for p in probes for context in ("in-task", "cross-task") for t in targets]


def default_names() -> dict[str, list[str]]:
    """What claims may name in the default configuration: rows of tables and curves of studies."""
    default = configure({}, Path(__file__).parents[4] / "studies")
    tables = {name: list(table.runs) for name, table in default.validation.tables.items()}
    return tables | {name: curve_names(study.probes, study.targets) for name, study in default.studies.items()}


def usable_claims(
    claims: Sequence[Claim], tables: Mapping[str, Collection[str]], curves: Mapping[str, Collection[str]], path: object
) -> list[Claim]:
    """The claims about what is configured: rows in ``tables`` and curves in ``curves``, by table and study.

    Left out are those about tables, studies, rows and curves of the default configuration that are not configured. Any other name is
    a UserError, with the nearest known one.
    """
    configured = {**curves, **tables}
    defaults = default_names()
    usable = []
    for number, claim in enumerate(claims, 1):
        where = f"{path}, claim {number} ({claim.source})"
        if claim.where not in configured:
            if claim.where in defaults:
                continue
            known = [*configured, *defaults]
            raise UserError(
                f"{where}: there is no table or study {claim.where!r}{nearest(claim.where, known)}; configured are {', '.join(configured)}."
            )
        names = [claim.this] if claim.that is None else [claim.this, claim.that]
        missing = [name for name in names if name not in configured[claim.where]]
        for name in missing:
            if name not in defaults.get(claim.where, []):
                kind = "row" if claim.where in tables else "curve"
                raise UserError(
                    f"{where}: {claim.where} has no {kind} {name!r}{nearest(name, configured[claim.where])}; "
                    f"it has {', '.join(configured[claim.where])}."
                )
        if claim.where in tables and (claim.of != "mean" or claim.value != 0):
            raise UserError(f"{where}: `of` and `value` are about curves; the claim is about the table {claim.where}.")
        if not missing:
            usable.append(claim)
    return usable


def outcome(says: str, low: float, high: float, near: float, value: float = 0.0) -> str:
    """Whether a claim about a number with the interval [low, high] holds, fails, or cannot be told; ``near`` is the tolerance of near."""
    low, high = low - value, high - value
    if says == "near":
        holds, fails = -near <= low and high <= near, low > near or high < -near
    else:
        holds, fails = (low > 0, high < 0) if says == "above" else (high < 0, low > 0)
    return "holds" if holds else "fails" if fails else "cannot tell"  # NaN is none of these


def paper_outcome(claim: Claim, table: ValidationTable, model: str) -> str | None:
    """What the paper's own accuracies of one model say of a claim about a table: by sign, and near within PAPER_NEAR."""
    accuracy = table.paper.get(model, {})
    this, that = accuracy.get(claim.this), accuracy.get(claim.that or table.baseline)
    if this is None or that is None:
        return None
    d = round(this - that, 9)
    holds = {"above": d > 0, "below": d < 0, "near": abs(d) <= PAPER_NEAR}[claim.says]
    return "holds" if holds else "fails"


def curve_estimate(pairs: pl.DataFrame, this: str, that: str | None, of: str, settings: Statistics) -> Estimate:
    """This curve minus that one (or 0) of one study: its mean over the counted checkpoints, its value at the first published or the last
    checkpoint, or the last minus the first counted one. Both sides follow the same draws of tasks. NaN where there is no such checkpoint.
    """
    published = pairs.filter(pl.col("step") > 0)["step"].unique().sort().to_list()
    steps = counted(pairs, settings)["step"].unique().sort().to_list()
    signs: list[tuple[float, list[int]]]
    match of:
        case "mean":
            signs = [(1.0, steps)]
        case "first":
            signs = [(1.0, published[:1])]
        case "last":
            signs = [(1.0, published[-1:])]
        case _:
            signs = [(1.0, steps[-1:]), (-1.0, steps[:1])] if len(steps) > 1 else [(1.0, [])]
    tasks = sorted({*pairs["probe_task"], *pairs["target_task"]})
    drawn = task_draws(len(tasks), settings.resamples, np.random.default_rng(settings.seed))
    value, draws, n_tasks = 0.0, np.zeros(settings.resamples), len(tasks)
    for side, curve in ((1.0, this), (-1.0, that)):
        if curve is None:
            continue
        own = pairs.filter(_is_curve(curve))
        n_tasks = min(n_tasks, own["probe_task"].n_unique())
        for sign, chosen in signs:
            v, d = _resampled_curve(own.filter(pl.col("step").is_in(chosen)), tasks, drawn, settings)
            value, draws = value + side * sign * v, draws + side * sign * d
    return Estimate(value, *interval(draws, n_tasks, settings.confidence), draws)


def curves_of(pairs: pl.DataFrame) -> list[str]:
    """The curves of a pairs table."""
    return [curve_name(*row) for row in pairs.select("probe_set", "context", "target_set").unique(maintain_order=True).iter_rows()]


def _is_curve(name: str) -> pl.Expr:
    context = pl.col("context").str.head(1).str.to_uppercase() + pl.col("context").str.slice(1)
    return pl.format("{} → {} {}", "probe_set", context, "target_set") == name


def _resampled_curve(pairs: pl.DataFrame, tasks: list[str], drawn: np.ndarray, settings: Statistics) -> tuple[float, np.ndarray]:
    if pairs.is_empty():
        return NAN, np.full(settings.resamples, NAN)
    g = grid(pairs, "rel_inf", tasks, pairs["context"][0] == "in-task")

    def members(side: int, task_of: np.ndarray) -> np.ndarray:
        """The same draws for probe sets, or target sets, with the same tasks: their k-th examples belong together."""
        rng = np.random.default_rng([settings.seed, side, zlib.crc32(task_of.astype(np.int64).tobytes())])
        return member_draws(task_of, settings.resamples, rng)

    return mean(g), resampled_means(g, drawn, members(1, g.probe_task), members(2, g.target_task))


def claims_schema(settings: Validation) -> pa.Schema:
    return with_paper(CLAIMS, paper_models(settings), pa.string())


def claims_table(
    claims: Sequence[Claim],
    tables: Mapping[str, Sequence[Measured]],
    pairs: Mapping[str, pl.DataFrame],
    queries: Queries,
    settings: Validation,
    statistics: Statistics,
) -> pl.DataFrame:
    """Each of the usable claims: about a table once for each model and measure, about curves once."""
    rows: list[dict[str, object]] = []
    papers = paper_models(settings)
    near: Near = settings.near
    for claim in claims:
        if claim.where in tables:
            table = settings.tables[claim.where]
            that = claim.that or table.baseline
            paper = {f"paper_{p}": paper_outcome(claim, table, p) for p in papers}
            for m, (measure, column) in itertools.product(tables[claim.where], CLAIMED.items()):
                found = estimate(differences(m, column, claim.this, that), queries, statistics)
                rows.append(_claim_row(claim, m.model, measure, that, found, getattr(near, measure)) | paper)
        else:
            found = curve_estimate(pairs[claim.where], claim.this, claim.that, claim.of, statistics)
            rows.append(_claim_row(claim, MAIN, "rel_inf", claim.that, found, near.rel_inf) | {f"paper_{p}": None for p in papers})
    return _frame(rows, claims_schema(settings))


def _claim_row(claim: Claim, model: str, measure: str, that: str | None, found: Estimate, near: float) -> dict[str, object]:
    return {
        "source": claim.source,
        "claim": claim.claim,
        "model": model,
        "measure": measure,
        "this": claim.this,
        "that": that,
        "estimate": found.value,
        "ci_low": found.low,
        "ci_high": found.high,
        "outcome": outcome(claim.says, found.low, found.high, near, claim.value),
    }


# ---- agreement ----


@dataclass(frozen=True)
class SwiftStudy:
    """What a swift study and the cheap rivals on the same pairs say."""

    baseline: str
    pairs: pl.DataFrame
    verdicts: pl.DataFrame
    rivals: pl.DataFrame


@dataclass(frozen=True)
class Item:
    """A strategy in one context: what was predicted and what was measured, each over plain data. What is missing has no entry."""

    strategy: str
    context: str
    study: str
    verdict: str
    wanted: bool  # False where the study's target is one to be pushed towards less
    estimates: dict[str, Estimate]  # by PREDICTORS, accuracy_gain and log_likelihood_gain


def agreement_items(
    predictions: Mapping[str, Prediction],
    studies: Mapping[str, SwiftStudy],
    tables: Mapping[str, Measured],
    proxies: Mapping[str, Mapping[str, np.ndarray]],
    queries: Queries,
    settings: Validation,
    statistics: Statistics,
) -> list[Item]:
    """Strategies by context. ``tables`` are those of one model; ``proxies`` holds, by context and then strategy or `control`, the nats a
    token of every query.

    Swift and rival scores are those of the strategy's probes minus those of the study's baseline probes, over the counted checkpoints;
    a proxy's is the log-likelihood a token minus that of the proxy run on plain data; gains are those over the table's control row.
    """
    items = []
    for name, p in predictions.items():
        study = studies[p.study]
        for context, row in p.measured.items():
            table = next(t for t, v in settings.tables.items() if v.context == context)
            found = _swift_scores(study, p, context, statistics)
            proxy = proxies.get(context, {})
            if name in proxy and "control" in proxy:
                found["proxy"] = estimate(proxy[name] - proxy["control"], queries, statistics)
            for measure, column in CLAIMED.items():
                d = differences(tables[table], column, row, settings.tables[table].control)
                found[f"{measure}_gain"] = estimate(d, queries, statistics)
            told = study.verdicts.filter(
                (pl.col("strategy") == p.probes) & (pl.col("target_set") == p.targets) & (pl.col("context") == context)
            )
            verdict, wanted = (told["verdict"][0], told["wanted"][0]) if len(told) else ("no evidence", True)
            known = {key: e for key, e in found.items() if not np.isnan(e.value)}
            items.append(Item(name, context, p.study, verdict, wanted, known))
    return items


def _swift_scores(study: SwiftStudy, p: Prediction, context: str, statistics: Statistics) -> dict[str, Estimate]:
    pairs = counted(with_scores(study.pairs), statistics)
    rivals = counted(study.rivals, statistics)
    rivals = study.rivals if rivals.is_empty() else rivals
    scores = {"swift": (pairs, "rel_inf"), "swift_mean_loss": (pairs, "rel_inf_mean_loss"), "swift_cosine": (pairs, "cosine")}
    scores |= {name: (rivals, name) for name in ("similarity", "loss_change")}
    found = {}
    for name, (table, column) in scores.items():
        own = table.filter((pl.col("target_set") == p.targets) & (pl.col("context") == context))
        e = effect(own, column, p.probes, study.baseline, context == "in-task", statistics)
        found[name] = Estimate(e.difference, e.low, e.high, e.draws)
    return found


def agreement_table(items: Sequence[Item]) -> pl.DataFrame:
    rows = []
    for item in items:
        row: dict[str, object] = {"strategy": item.strategy, "context": item.context, "verdict": item.verdict}
        for name, e in item.estimates.items():
            row |= {name: e.value, f"{name}_low": e.low, f"{name}_high": e.high}
        rows.append(row)
    return _frame(rows, AGREEMENT)


def rank_agreement(items: Sequence[Item], statistics: Statistics) -> pl.DataFrame:
    """How well each predictor orders the strategies by what was measured: Kendall's τ-b, and the share of pairs ordered right.

    The control stands among the strategies with score 0 and gain 0, so that whether a strategy helps at all is one of the decisions.
    A tie on either side is a decision half right. Pairs are always of one context; `all` pools them. Intervals are percentiles over
    resamples of both sides.
    """
    contexts = list(dict.fromkeys(item.context for item in items))
    groups = {c: [c] for c in contexts} | ({"all": contexts} if len(contexts) > 1 else {})
    rows = []
    for group, members in groups.items():
        for predictor, measure in itertools.product(PREDICTORS, CLAIMED):
            parts = [[i for i in items if i.context == c and {predictor, f"{measure}_gain"} <= i.estimates.keys()] for c in members]
            used = [part for part in parts if part]
            values, draws = _order_signs(used, predictor, measure, statistics)
            tau, decision = tau_and_decisions(*values)
            taus, decisions = tau_and_decisions(*draws)
            tau_low, tau_high = _percentiles(taus, statistics.confidence)
            decision_low, decision_high = _percentiles(decisions, statistics.confidence)
            rows.append(
                {
                    "context": group,
                    "predictor": predictor,
                    "measure": measure,
                    "n_items": sum(len(part) + 1 for part in used),
                    "kendall_tau": tau[0],
                    "tau_low": tau_low,
                    "tau_high": tau_high,
                    "n_decisions": values[0].shape[1],
                    "decision_accuracy": decision[0],
                    "decision_low": decision_low,
                    "decision_high": decision_high,
                }
            )
    return _frame(rows, RANK_AGREEMENT)


def _order_signs(
    parts: Sequence[Sequence[Item]], predictor: str, measure: str, statistics: Statistics
) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Signs of the differences in score and in gain, of every pair within a part: of the values, shapes (1, pairs), and of the draws."""
    value_signs: list[list[np.ndarray]] = [[], []]
    draw_signs: list[list[np.ndarray]] = [[], []]
    for part in parts:
        for side, key in enumerate((predictor, f"{measure}_gain")):
            found = [_independent(item, key, statistics) for item in part]
            values = np.array([[0.0, *(e.value for e in found)]])
            draws = np.stack([np.zeros(statistics.resamples), *(e.draws for e in found)], axis=1)
            value_signs[side].append(_pair_signs(values))
            draw_signs[side].append(_pair_signs(draws))
    if not parts:
        nothing = np.zeros((1, 0)), np.zeros((1, 0))
        return nothing, nothing
    first, second = (np.concatenate(s, axis=1) for s in value_signs)
    third, fourth = (np.concatenate(s, axis=1) for s in draw_signs)
    return (first, second), (third, fourth)


def _independent(item: Item, key: str, statistics: Statistics) -> Estimate:
    """The estimate with more meaning better; draws of a study are shuffled, the same way for all that is from the study."""
    e = item.estimates[key]
    if key == "proxy" or key.endswith("_gain"):
        return e
    sign = 1.0 if item.wanted else -1.0
    order = np.random.default_rng([statistics.seed, zlib.crc32(item.study.encode())]).permutation(len(e.draws))
    return replace(e, value=sign * e.value, draws=sign * e.draws[order])


def _pair_signs(values: np.ndarray) -> np.ndarray:
    """Sign of the difference of every two items, 0 for a tie; ``values`` (draws, items), result (draws, pairs)."""
    left, right = np.triu_indices(values.shape[1], 1)
    d = values[:, left] - values[:, right]
    return np.asarray(np.sign(np.where(np.abs(d) < TIE, 0.0, d)))


def tau_and_decisions(scores: np.ndarray, gains: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Kendall's τ-b and the share of pairs ordered right, from the signs of differences; shapes (draws, pairs) to (draws,).

    τ-b is NaN where one side is all ties; both are where there is no pair.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        tau = (scores * gains).sum(1) / np.sqrt((scores**2).sum(1) * (gains**2).sum(1))
    decisions = (1 + nanmean(scores * gains, 1)) / 2
    return tau, decisions


def _percentiles(draws: np.ndarray, confidence: float) -> tuple[float, float]:
    draws = draws[~np.isnan(draws)]
    if len(draws) == 0:
        return NAN, NAN
    low, high = np.quantile(draws, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def measured_verdict(low: float | None, high: float | None) -> str:
    """What the interval of a measured gain says: helps, hurts or cannot tell."""
    if low is None or high is None:
        return "cannot tell"
    return "helps" if low > 0 else "hurts" if high < 0 else "cannot tell"


def summary(agreement: pl.DataFrame, claims: pl.DataFrame, skipped: int) -> list[str]:
    """In plain words: how many verdicts agree with what was measured, what cannot be told, and how the claims fare."""
    told = agreement.filter(pl.col("verdict") != "no evidence")
    sentences = [
        f"The swift studies say of {len(told)} of {_number(len(agreement), 'strategy and context', 'strategies and contexts')} that the "
        f"data help or hurt, compared with plain data; of the other {len(agreement) - len(told)} they say nothing (no evidence)."
    ]
    for measure, name in (("log_likelihood", "the likelihood of the golden answers"), ("accuracy", "accuracy")):
        found = [measured_verdict(r[f"{measure}_gain_low"], r[f"{measure}_gain_high"]) for r in told.iter_rows(named=True)]
        said = told["verdict"].to_list()
        agree = sum(f == s for f, s in zip(found, said, strict=True))
        unknown = found.count("cannot tell")
        if len(told):
            sentences.append(
                f"By {name}, {agree} of these {len(told)} agree with what training with the data did, {len(told) - agree - unknown} "
                f"contradict it, and {unknown} cannot be told: the interval of the measured gain includes 0."
            )
    counts = {o: int((claims["outcome"] == o).sum()) for o in ("holds", "fails", "cannot tell")}
    sentences.append(
        f"The paper's claims were held against these results {len(claims)} times (a claim about a table once for each model and measure): "
        f"{counts['holds']} hold, {counts['fails']} fail, {counts['cannot tell']} cannot be told."
    )
    if skipped:
        sentences.append(f"{_number(skipped, 'claim is', 'claims are')} about tables, studies or rows that are not configured.")
    return sentences


def _number(n: int, one: str, many: str) -> str:
    return f"{n} {one if n == 1 else many}"


# ---- costs ----


class Files(BaseModel):
    """Where the costs of one part of a way are found."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    benchmarks: list[Path] = []
    histories: list[Path] = []
    accounts: list[Path] = []


def costs(ways: Mapping[str, Mapping[str, Files]]) -> pl.DataFrame:
    """What each way of finding out costs: one row for each part, and one for the `total`.

    Seconds and CPU seconds are those of Snakemake's benchmark files, summed over jobs. Tokens are those trained on (histories) and those
    of teacher and judge, prompt and completion (accounts). A file that stands twice in a part counts once, and a benchmark file that is
    missing is no job (see ``untimed``): Snakemake does not make a result again for the loss of its timing.
    """
    rows: list[dict[str, object]] = []
    for way, parts in ways.items():
        found = [_cost(files) for files in parts.values()]
        rows += [{"way": way, "part": part, **cost} for part, cost in zip(parts, found, strict=True)]
        rows.append({"way": way, "part": "total", **{key: sum(cost[key] for cost in found) for key in COSTS.names[2:]}})
    return _frame(rows, COSTS)


def _cost(files: Files) -> dict[str, float]:
    times = [read_benchmark(path) for path in dict.fromkeys(files.benchmarks) if path.is_file()]
    accounts = [read_table(path, ACCOUNTS) for path in dict.fromkeys(files.accounts)]
    tokens = sum(int(read_table(path, HISTORY)["tokens"].sum()) for path in dict.fromkeys(files.histories))
    return {
        "jobs": len(times),
        "seconds": sum(t[0] for t in times),
        "cpu_seconds": sum(t[1] for t in times),
        "tokens": tokens + sum(int(a["prompt_tokens"].sum()) + int(a["completion_tokens"].sum()) for a in accounts),
        "cost_usd": sum(float(a["cost_usd"].sum()) for a in accounts),
    }


def untimed(ways: Mapping[str, Mapping[str, Files]]) -> list[Path]:
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
