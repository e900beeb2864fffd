"""Agreement: do cheap predictors order items as the outcomes do?

An item is a strategy, a design or a mix in one group (a context, a domain); its numbers stand in rows of comparisons and in curves of
influence studies. Both sides are resampled: queries as in the comparison, tasks, probes and targets as in the influence study. Resamples of
different influence studies, and those of studies and queries, are independent.
"""

import itertools
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa

from swift_study.config import AgreementStudy, InfluenceStudy, Place, Predictor, Statistics
from swift_study.config.grid import agrees, read_path
from swift_study.errors import UserError
from swift_study.influence.confounds import BASELINE_SCORES
from swift_study.influence.statistics import counted, effect, with_scores
from swift_study.io.tables import AGREEMENT, DECISIONS, RANK_AGREEMENT, as_frame
from swift_study.studies.claims import curves_of, is_curve
from swift_study.studies.comparison import Cell, Compared
from swift_study.studies.estimates import NAN, Statistic, nanmean, scored

INFLUENCE_SCORES = ("rel_inf", "rel_inf_mean_loss", "cosine")
CONTROL = "control"  # the item that stands for plain data, with score and outcome 0
SEEDS, HALVES = "ceiling: another seed", "ceiling: half of the queries"
N_HALVES = 200  # random halves of the queries
TIE = 1e-12  # differences below this are those of rounding


@dataclass(frozen=True)
class Influence:
    """An influence study with its tables: pairs, verdicts, and the cheap baselines on the same pairs."""

    study: InfluenceStudy
    pairs: pl.DataFrame
    verdicts: pl.DataFrame
    baselines: pl.DataFrame


Source = Influence | Compared


@dataclass(frozen=True)
class Number:
    """A predictor's or an outcome's number of one item, with its value in every resample.

    ``study``: the influence study that it comes from, None for queries. ``by_seed``: where it comes from trainings.
    """

    value: float
    low: float
    high: float
    draws: np.ndarray  # (resamples,)
    study: str | None = None
    wanted: bool = True  # False where the study's target is one to be pushed towards less
    by_seed: np.ndarray | None = None
    halves: np.ndarray | None = None  # (2, N_HALVES)


@dataclass(frozen=True)
class Item:
    """A strategy in one group; what is missing has no number."""

    group: str
    name: str
    verdict: str | None
    numbers: dict[str, Number]  # by predictor and outcome


def items_of(a: AgreementStudy, sources: Mapping[str, Source], statistics: Statistics) -> list[Item]:
    """The items of an agreement with all their numbers. UserError names a row or curve that a study does not have.

    Rows that a comparison leaves out are left out here.
    """
    tables = {name: _table(p.file) for name, p in (a.predictors | a.outcomes).items() if p.file is not None}
    found = []
    for group, items in a.items.items():
        for name, places in items.items():
            numbers: dict[str, Number] = {}
            verdict: str | None = None
            for column, p in (a.predictors | a.outcomes).items():
                if p.file is not None:
                    number = _from_table(tables[column], p, group, name, statistics)
                elif p.of not in places:
                    continue
                else:
                    place = places[p.of]
                    where = f"items.{group}.{name}.{p.of}"
                    source = sources.get(place.study)
                    if source is None:
                        continue
                    if isinstance(source, Influence):
                        number = _from_influence(source, place, p, a.over_control, statistics, where)
                        verdict = verdict or _verdict(source, place)
                    else:
                        number = _from_comparison(source, place, p, a, where, ceiling=column in a.outcomes and a.ceiling)
                if number is not None and not np.isnan(number.value):
                    numbers[column] = number
            if set(numbers) & set(a.outcomes):
                found.append(Item(group, name, verdict, numbers))
    return found


def _table(path: str) -> pl.DataFrame:
    if not Path(path).is_file():
        raise UserError(f"{path}: there is no such file, which a predictor names.")
    try:
        frame = pl.read_csv(path) if path.endswith(".csv") else pl.read_parquet(path)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise UserError(f"{path}: this is no table ({str(error).splitlines()[0]}).") from error
    if lacking := [c for c in ("group", "item") if c not in frame.columns]:
        raise UserError(f"{path}: the column {lacking[0]!r} is missing; a predictor's table has group, item and its numbers.")
    return frame


def _from_table(table: pl.DataFrame, p: Predictor, group: str, item: str, statistics: Statistics) -> Number | None:
    if p.score not in table.columns:
        raise UserError(f"{p.file}: the column {p.score!r} is missing; it has {', '.join(table.columns)}.")
    own = table.filter((pl.col("group") == group) & (pl.col("item") == item))[p.score].drop_nulls()
    if own.is_empty():
        return None
    value = float(own[0])
    return Number(value, value, value, np.full(statistics.resamples, value))


def _from_influence(source: Influence, place: Place, p: Predictor, over_control: bool, statistics: Statistics, where: str) -> Number:
    """The strategy's mean score minus the control's, over the counted checkpoints; or the strategy's own."""
    statistics, known = statistics.of_study(source.study.after_step), curves_of(source.pairs)
    if place.row not in known:
        raise UserError(f"{where}: the study {place.study!r} has no curve {place.row!r}; it has {', '.join(known)}.")
    probe_set, target_set, context = source.pairs.filter(is_curve(place.row)).select("probe_set", "target_set", "context").row(0)
    if p.score in INFLUENCE_SCORES:
        table = counted(with_scores(source.pairs), statistics)
    elif p.score in BASELINE_SCORES.values():
        table = counted(source.baselines, statistics)
        table = source.baselines if table.is_empty() else table
    else:
        raise UserError(
            f"{where}: influence studies have no score {p.score!r}; they have {', '.join((*INFLUENCE_SCORES, *BASELINE_SCORES.values()))}."
        )
    own = table.filter((pl.col("target_set") == target_set) & (pl.col("context") == context))
    e = effect(own, p.score, probe_set, source.study.control, context == "in-task", statistics, source.study.unit)
    wanted = target_set not in source.study.unwanted
    if over_control:
        return Number(e.difference, e.low, e.high, e.draws, place.study, wanted)
    shift = e.strategy - e.difference
    return Number(e.strategy, e.low + shift, e.high + shift, e.draws + shift, place.study, wanted)


def _verdict(source: Influence, place: Place) -> str | None:
    told = source.verdicts.filter(_verdict_is(place.row))
    return str(told["verdict"][0]) if len(told) else "no evidence"


def _verdict_is(curve: str) -> pl.Expr:
    context = pl.col("context").str.head(1).str.to_uppercase() + pl.col("context").str.slice(1)
    return pl.format("{} → {} {}", "strategy", context, "target_set") == curve


def _from_comparison(c: Compared, place: Place, p: Predictor, a: AgreementStudy, where: str, ceiling: bool) -> Number | None:
    if place.row not in c.rows():
        if place.row in c.study.rows:
            return None  # left out
        raise UserError(f"{where}: the study {place.study!r} has no row {place.row!r}; it has {', '.join(c.rows())}.")
    own = [cell for cell in c.cells if cell.row == place.row]
    meant = [cell for cell in own if agrees({"model": cell.model} | read_path(cell.run)[1], place.block)]
    if not meant:
        raise UserError(f"{where}.block: none of the row's runs is meant; there are {', '.join(dict.fromkeys(cell.run for cell in own))}.")
    evaluation = c.evaluation(p.evaluation)
    cell = next((cell for cell in meant if (cell.evaluation, cell.metric) == (evaluation, p.score)), None)
    if cell is None:
        if any((other.evaluation, other.metric) == (evaluation, p.score) for other in c.cells):
            return None  # this row is not asked there
        raise UserError(f"{where}: the study {place.study!r} has no metric {p.score!r} on {evaluation!r}.")
    if not a.over_control:
        e = cell.level
    else:
        gain = c.gain(cell, c.study.plain)
        if gain is None:
            return None
        e = gain.estimate
    halves = _halves(c, cell, a.over_control) if ceiling and len(cell.seeds) == 1 else None
    return Number(e.value, e.low, e.high, e.draws, by_seed=e.by_seed if ceiling else None, halves=halves)


def _halves(c: Compared, cell: Cell, over_control: bool) -> np.ndarray | None:
    """The number on each half of the queries, for many random halves that all items share: (2, N_HALVES)."""
    if cell.scorer is None:
        return None
    rng = np.random.default_rng([c.resamples.settings.seed, zlib.crc32(b"halves")])
    asked = np.flatnonzero(scored(cell.statistics[0]))
    first = np.zeros((N_HALVES, len(c.resamples.ids)))
    for row in first:
        row[rng.permutation(len(row))[: len(row) // 2]] = 1
    name, rule = cell.metric.rpartition(".")[2], c.rules[cell.scorer]
    other = c.cell(c.study.plain, cell.evaluation, cell.metric, cell.block) if over_control and c.study.plain else None

    def on(statistics: Statistic, weights: np.ndarray) -> np.ndarray:
        return rule.of(statistics, weights)[name]

    sides = []
    for weights in (first, 1 - first):
        value = on(cell.statistics[0], weights)
        sides.append(value - on(other.statistics[0], weights) if other is not None else value)
    return np.stack(sides) if len(asked) > 1 else None


# ---- tables ----


def agreement_schema(a: AgreementStudy) -> pa.Schema:
    names = [f"{column}{part}" for column in (*a.predictors, *a.outcomes) for part in ("", "_low", "_high")]
    return pa.schema([*AGREEMENT, *(pa.field(name, pa.float64()) for name in names)])


def agreement_table(items: Sequence[Item], a: AgreementStudy) -> pl.DataFrame:
    """A row for each item: every predictor and outcome with its interval."""
    rows = []
    for item in items:
        row: dict[str, object] = {"group": item.group, "item": item.name, "verdict": item.verdict}
        for name, e in item.numbers.items():
            row |= {name: e.value, f"{name}_low": e.low, f"{name}_high": e.high}
        rows.append(row)
    return as_frame(rows, agreement_schema(a))


def rank_agreement(items: Sequence[Item], a: AgreementStudy, statistics: Statistics) -> pl.DataFrame:
    """How well each predictor orders the items by each outcome: Kendall's τ-b, and the share of pairs ordered right.

    With ``over_control`` the control stands among the items with score 0 and outcome 0, so that whether a strategy helps at all is one of
    the decisions. A tie on either side is a decision half right. Pairs are always of one group; `all` pools them. A pair is decided where
    the interval of its difference in the outcome excludes 0. Intervals are percentiles over resamples of both sides. The rows that begin
    with `ceiling` have the outcome itself as predictor: of another seed's training, or on the other half of the queries.
    """
    groups = list(dict.fromkeys(item.group for item in items))
    pools = {g: [g] for g in groups} | ({"all": groups} if len(groups) > 1 else {})
    rows: list[dict[str, object]] = []
    for pool, members in pools.items():
        for predictor, outcome in itertools.product(a.predictors, a.outcomes):
            used = _parts(items, members, {predictor, outcome})
            values, draws = _order_signs(used, predictor, outcome, a, statistics)
            tau, decision = tau_and_decisions(*values)
            taus, decisions = tau_and_decisions(*draws)
            decided = decided_pairs(used, outcome, a, statistics)
            sure = tau_and_decisions(*(v[:, decided] for v in values))[1]
            sures = tau_and_decisions(*(d[:, decided] for d in draws))[1]
            row: dict[str, object] = {
                "group": pool,
                "predictor": predictor,
                "outcome": outcome,
                "n_items": sum(len(p) + a.over_control for p in used),
            }
            row |= {"kendall_tau": tau[0], "n_decisions": values[0].shape[1], "decision_accuracy": decision[0]}
            row |= {"n_decided": int(decided.sum()), "decided_accuracy": sure[0]}
            for name, drawn in (("tau", taus), ("decision", decisions), ("decided", sures)):
                row[f"{name}_low"], row[f"{name}_high"] = percentiles(drawn, statistics.confidence)
            rows.append(row)
        if a.ceiling:
            ceilings = (_ceiling(items, pool, members, outcome, a, statistics) for outcome in a.outcomes)
            rows += [found for found in ceilings if found is not None]
    return as_frame(rows, RANK_AGREEMENT)


def _parts(items: Sequence[Item], groups: Sequence[str], needed: set[str]) -> list[list[Item]]:
    parts = [[i for i in items if i.group == g and needed <= i.numbers.keys()] for g in groups]
    return [part for part in parts if part]


def _ceiling(
    items: Sequence[Item], pool: str, groups: Sequence[str], outcome: str, a: AgreementStudy, statistics: Statistics
) -> dict[str, object] | None:
    """The outcome as predictor of itself; None where it comes from no training."""
    parts = _parts(items, groups, {outcome})
    numbers = [[i.numbers[outcome] for i in part] for part in parts]
    flat = [n for part in numbers for n in part]
    seeds = {0 if n.by_seed is None else len(n.by_seed) for n in flat}
    sides: list[tuple[np.ndarray, np.ndarray]] = []  # each (trials, items) within a part
    if len(seeds) == 1 and (count := seeds.pop()) > 1:
        name = SEEDS
        for part in numbers:
            by_seed = np.stack([n.by_seed for n in part if n.by_seed is not None], axis=1)  # (seeds, items)
            others = np.stack([np.delete(by_seed, s, axis=0).mean(axis=0) for s in range(count)])
            sides.append((by_seed, others))
    elif flat and all(n.halves is not None for n in flat):
        name = HALVES
        for part in numbers:
            halves = np.stack([n.halves for n in part if n.halves is not None], axis=2)  # (2, trials, items)
            sides.append((halves[0], halves[1]))
    else:
        return None
    signs = []
    for side in (0, 1):
        found = [pair_signs(_with_control(part[side], a.over_control)) for part in sides]
        signs.append(np.concatenate(found, axis=1))
    tau, decisions = tau_and_decisions(signs[0], signs[1])
    decided = decided_pairs(parts, outcome, a, statistics)
    sure = tau_and_decisions(signs[0][:, decided], signs[1][:, decided])[1]
    return {
        "group": pool,
        "predictor": name,
        "outcome": outcome,
        "n_items": sum(len(part) + a.over_control for part in parts),
        "kendall_tau": float(nanmean(tau, 0)),
        "n_decisions": signs[0].shape[1],
        "decision_accuracy": float(nanmean(decisions, 0)),
        "n_decided": int(decided.sum()),
        "decided_accuracy": float(nanmean(sure, 0)),
    }


def _with_control(values: np.ndarray, over_control: bool) -> np.ndarray:
    return np.concatenate([np.zeros((len(values), 1)), values], axis=1) if over_control else values


def _order_signs(
    parts: Sequence[Sequence[Item]], predictor: str, outcome: str, a: AgreementStudy, statistics: Statistics
) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Signs of the differences in score and in outcome, of every pair within a part: of the values, shapes (1, pairs), and of the draws."""
    value_signs: list[list[np.ndarray]] = [[], []]
    draw_signs: list[list[np.ndarray]] = [[], []]
    for part in parts:
        for side, key in enumerate((predictor, outcome)):
            values, draws = _numbers(part, key, a, statistics)
            value_signs[side].append(pair_signs(values))
            draw_signs[side].append(pair_signs(draws))
    if not parts:
        nothing = np.zeros((1, 0)), np.zeros((1, 0))
        return nothing, nothing
    first, second = (np.concatenate(s, axis=1) for s in value_signs)
    third, fourth = (np.concatenate(s, axis=1) for s in draw_signs)
    return (first, second), (third, fourth)


def _numbers(part: Sequence[Item], key: str, a: AgreementStudy, statistics: Statistics) -> tuple[np.ndarray, np.ndarray]:
    """One predictor or outcome of a part's items, the control first, more meaning better: values (1, items), draws (draws, items)."""
    sign = 1.0 if (a.predictors | a.outcomes)[key].more_is_better else -1.0
    found = [_independent(item.numbers[key], statistics) for item in part]
    values = sign * np.array([[e.value for e in found]])
    draws = sign * np.stack([e.draws for e in found], axis=1)
    return _with_control(values, a.over_control), _with_control(draws, a.over_control)


def _independent(e: Number, statistics: Statistics) -> Number:
    """The number with more meaning better; draws of an influence study are shuffled, the same way for all that is from the study."""
    if e.study is None:
        return e
    sign = 1.0 if e.wanted else -1.0
    order = np.random.default_rng([statistics.seed, zlib.crc32(e.study.encode())]).permutation(len(e.draws))
    return replace(e, value=sign * e.value, draws=sign * e.draws[order])


def pair_differences(values: np.ndarray) -> np.ndarray:
    """The difference of every two items; ``values`` (draws, items), result (draws, pairs)."""
    left, right = np.triu_indices(values.shape[1], 1)
    return np.asarray(values[:, left] - values[:, right])


def pair_signs(values: np.ndarray) -> np.ndarray:
    """Sign of the difference of every two items, 0 for a tie; ``values`` (draws, items), result (draws, pairs)."""
    d = pair_differences(values)
    return np.asarray(np.sign(np.where(np.abs(d) < TIE, 0.0, d)))


def decided_pairs(parts: Sequence[Sequence[Item]], outcome: str, a: AgreementStudy, statistics: Statistics) -> np.ndarray:
    """Which pairs have an interval of the difference in the outcome that excludes 0, (pairs,)."""
    found = []
    for part in parts:
        for low, high in _pair_intervals(part, outcome, a, statistics):
            found.append(low > 0 or high < 0)
    return np.array(found, dtype=bool)


def _pair_intervals(part: Sequence[Item], outcome: str, a: AgreementStudy, statistics: Statistics) -> list[tuple[float, float]]:
    d = pair_differences(_numbers(part, outcome, a, statistics)[1])
    return [percentiles(column, statistics.confidence) for column in d.T]


def tau_and_decisions(scores: np.ndarray, outcomes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Kendall's τ-b and the share of pairs ordered right, from the signs of differences; shapes (draws, pairs) to (draws,).

    τ-b is NaN where one side is all ties; both are where there is no pair.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        tau = (scores * outcomes).sum(1) / np.sqrt((scores**2).sum(1) * (outcomes**2).sum(1))
    decisions = (1 + nanmean(scores * outcomes, 1)) / 2
    return tau, decisions


def percentiles(draws: np.ndarray, confidence: float) -> tuple[float, float]:
    draws = draws[~np.isnan(draws)]
    if len(draws) == 0:
        return NAN, NAN
    low, high = np.quantile(draws, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def decisions_table(items: Sequence[Item], a: AgreementStudy, statistics: Statistics) -> pl.DataFrame:
    """A row for each pair of items, outcome and predictor: what was measured, whether it is decided, and whether it was foretold."""
    rows = []
    for group, outcome, predictor in itertools.product(dict.fromkeys(i.group for i in items), a.outcomes, a.predictors):
        for part in _parts(items, [group], {predictor, outcome}):
            names = [*([CONTROL] if a.over_control else []), *(item.name for item in part)]
            measured, predicted = (pair_differences(_numbers(part, key, a, statistics)[0])[0] for key in (outcome, predictor))
            intervals = _pair_intervals(part, outcome, a, statistics)
            pairs = itertools.combinations(names, 2)
            for (one, two), m, (low, high), d in zip(pairs, measured, intervals, predicted, strict=True):
                signs = [0.0 if abs(x) < TIE else float(np.sign(x)) for x in (m, d)]
                rows.append(
                    {
                        "group": group,
                        "item_a": one,
                        "item_b": two,
                        "outcome": outcome,
                        "measured_difference": float(m),
                        "low": low,
                        "high": high,
                        "decided": low > 0 or high < 0,
                        "predictor": predictor,
                        "predicted_difference": float(d),
                        "right": (1 + signs[0] * signs[1]) / 2,
                    }
                )
    return as_frame(rows, DECISIONS)


def measured_verdict(low: float | None, high: float | None) -> str:
    """What the interval of a measured difference says: helps, hurts or cannot tell."""
    if low is None or high is None:
        return "cannot tell"
    return "helps" if low > 0 else "hurts" if high < 0 else "cannot tell"


def summary(table: pl.DataFrame, a: AgreementStudy) -> list[str]:
    """In plain words: how many verdicts agree with what was measured, and what cannot be told."""
    judged = table.filter(pl.col("verdict").is_not_null())
    told = judged.filter(pl.col("verdict") != "no evidence")
    if judged.is_empty():
        return []
    number = "1 item" if len(judged) == 1 else f"{len(judged)} items"
    sentences = [
        f"The influence studies say of {len(told)} of {number} that the data help or hurt, compared with plain data; of the other "
        f"{len(judged) - len(told)} they say nothing (no evidence)."
    ]
    for name in a.outcomes:
        found = [measured_verdict(r[f"{name}_low"], r[f"{name}_high"]) for r in told.iter_rows(named=True)]
        said = told["verdict"].to_list()
        agree = sum(f == s for f, s in zip(found, said, strict=True))
        unknown = found.count("cannot tell")
        if len(told):
            sentences.append(
                f"By {name}, {agree} of these {len(told)} agree with what training with the data did, {len(told) - agree - unknown} "
                f"contradict it, and {unknown} cannot be told: the interval of the measured gain includes 0."
            )
    return sentences
