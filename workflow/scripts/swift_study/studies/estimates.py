"""One bootstrap for every metric: numbers with intervals, from resamples that all rows of a study share.

A scorer gives every item (a query) additive statistics, and metrics from their sums. A resample says how often each item is drawn, so a
metric's value in all resamples is ``metrics(weights @ statistics)``. Rows share the weights: differences, relative gains and means of
groups are paired by item without further work.

Draws follow the study's units. `[task, item]` draws tasks with replacement and within a drawn task its items; `[item]` draws items;
`[document, system]` draws each column by itself and multiplies (a crossed design). ``within`` draws inside each of its levels.

A metric that is one statistic's sum over that of ``n`` is a mean. Its difference is the mean of the items' differences, and its p is
that of a sign-flip test (McNemar's exact test for labels of one seed). Any other metric has its p from swapping the two rows' statistics
by item.
Several seeds: the metric by seed, then the mean; units are drawn, seeds are not.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import polars as pl
from scipy import stats

from swift_study.config import Statistics
from swift_study.errors import UserError
from swift_study.influence.statistics import EXACT_FLIPS, RANDOM_FLIPS, interval, member_draws, sign_flip_p, sign_patterns, task_draws

ITEM = "item"  # the unit that is the query itself
TASK_AND_ITEM = ("task", ITEM)
COUNT = "n"  # the statistic that is 1 for every scored item
NAN = float("nan")
NEAR_ZERO = 0.02  # a relative gain over a start below this is null
FLIPS_AT_ONCE = 2000  # rows of a matrix of swaps in memory
ESTIMATE_FLIPS = 2000  # where each swap costs one pass over the items

Sums = Mapping[str, np.ndarray]
Statistic = Mapping[str, np.ndarray]  # by name, (items,), NaN where an item has no score


@dataclass(frozen=True)
class Rule:
    """How a scorer makes metrics of statistics.

    ``metrics`` takes sums of statistics, each of one shape, and gives metrics of that shape. ``estimate``, where there is one, takes
    the statistics (items,) and weights (draws, items) and gives metrics (draws,): for metrics that sums cannot give.
    """

    metrics: Callable[[Sums], Sums]
    estimate: Callable[[Statistic, np.ndarray], Sums] | None = None

    def of(self, statistics: Statistic, weights: np.ndarray) -> dict[str, np.ndarray]:
        """Every metric in every resample, (draws,); items without a score count nothing."""
        there = scored(statistics)
        with np.errstate(invalid="ignore", divide="ignore"):
            if self.estimate is not None:
                found = self.estimate({name: np.where(there, values, NAN) for name, values in statistics.items()}, weights * there)
            else:
                found = self.metrics({name: weights @ np.where(there, values, 0.0) for name, values in statistics.items()})
        return {name: np.broadcast_to(np.asarray(value, dtype=np.float64), len(weights)) for name, value in found.items()}

    def means(self, statistics: Statistic) -> dict[str, str]:
        """The metrics that are means, each with its statistic: one statistic's sum over that of ``n``, which is 1 for every item."""
        there = scored(statistics)
        if self.estimate is not None or COUNT not in statistics or not (statistics[COUNT][there] == 1).all():
            return {}
        return _means(self.metrics, tuple(statistics))


@functools.lru_cache(maxsize=64)
def _means(metrics: Callable[[Sums], Sums], names: tuple[str, ...]) -> dict[str, str]:
    """Told by sums that no data have: only that very ratio gives the same numbers."""
    rng = np.random.default_rng(0)
    sums = {name: rng.uniform(1.5, 2.5, 8) for name in names}
    with np.errstate(all="ignore"):
        found = metrics(sums)
    return {
        metric: name
        for metric, value in found.items()
        for name in names
        if name != COUNT and np.array_equal(np.asarray(value), sums[name] / sums[COUNT])
    }


def scored(statistics: Statistic) -> np.ndarray:
    """Which items have a score, (items,): all statistics are there."""
    return np.asarray(np.logical_and.reduce([~np.isnan(values) for values in statistics.values()]))


@dataclass(frozen=True)
class Resamples:
    """Items and how often each is drawn. ``units`` has by column the index of each item's unit, ``strata`` that of its stratum."""

    ids: list[str]
    units: dict[str, np.ndarray]
    strata: np.ndarray
    weights: np.ndarray  # (resamples, items)
    settings: Statistics
    place: dict[str, int] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        self.place.update({item: k for k, item in enumerate(self.ids)})

    def interval(self, draws: np.ndarray, there: np.ndarray) -> tuple[float, float]:
        """The interval of these draws; the units of the items ``there`` (of the column that has fewest) say how wide a tail is needed."""
        n = min((len(np.unique(codes[there])) for codes in self.units.values()), default=0)
        return interval(draws, n, self.settings.confidence, max(1, len(np.unique(self.strata[there]))))


def resample(items: pl.DataFrame, settings: Statistics, unit: Sequence[str] = TASK_AND_ITEM, within: str | None = None) -> Resamples:
    """The resamples of items (column `query_id`, each once) by the columns of ``unit``, inside each level of the column ``within``."""
    columns = [*(c for c in unit if c != ITEM), *([within] if within else [])]
    for column in columns:
        if column not in items.columns:
            raise UserError(
                f"The items have no column {column!r} to be drawn by; they have {', '.join(items.columns)}. Change `unit` or `within`."
            )
    n = len(items)
    rng = np.random.default_rng(settings.seed)
    strata = _codes(items.select(within).rows() if within else [()] * n)
    keys = {c: list(zip(strata.tolist(), items[c], strict=True)) for c in unit if c != ITEM}
    units = {c: _codes(keys[c]) for c in keys}
    weights = np.ones((settings.resamples, n))
    for codes in units.values():
        weights = _drawn_within(codes, strata, settings.resamples, rng)[:, codes] * weights
    if ITEM in unit:
        cells = _codes(list(zip(*(codes.tolist() for codes in units.values()), strict=True))) if units else strata
        weights = weights * member_draws(cells, settings.resamples, rng)
        units[ITEM] = np.arange(n)
    return Resamples(items["query_id"].to_list(), units, strata, weights, settings)


def _codes(keys: Sequence[tuple[object, ...]]) -> np.ndarray:
    names = {key: k for k, key in enumerate(sorted(set(keys), key=lambda key: tuple(map(_sortable, key))))}
    return np.array([names[key] for key in keys], dtype=np.int64)


def _sortable(value: object) -> tuple[int, object]:
    return (0, value) if isinstance(value, int | float) else (1, str(value))


def _drawn_within(codes: np.ndarray, strata: np.ndarray, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """How often each unit is drawn, (resamples, units), each stratum by itself."""
    drawn = np.ones((resamples, codes.max(initial=-1) + 1))
    for stratum in np.unique(strata):
        own = np.unique(codes[strata == stratum])
        drawn[:, own] = task_draws(len(own), resamples, rng)
    return drawn


# ---- numbers with intervals ----


@dataclass(frozen=True)
class Estimate:
    """A number with its interval, its value in every resample and by seed; NaN where there is none. ``there``: the items behind it."""

    value: float
    low: float
    high: float
    draws: np.ndarray  # (resamples,)
    there: np.ndarray  # (items,) bool
    by_seed: np.ndarray  # (seeds,)

    @property
    def sd(self) -> float:
        """Standard deviation over seeds; NaN for one."""
        return float(self.by_seed.std(ddof=1)) if len(self.by_seed) > 1 else NAN


@dataclass(frozen=True)
class Gain:
    """A row's metric minus another's, and the p of that difference."""

    estimate: Estimate
    p: float


def nanmean(values: np.ndarray, axis: int) -> np.ndarray:
    """The mean of what is not NaN; NaN, without a warning, where nothing is."""
    there = ~np.isnan(values)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(there, values, 0.0).sum(axis=axis) / there.sum(axis=axis))


def made(by_seed: np.ndarray, draws: np.ndarray, there: np.ndarray, still: bool, resamples: Resamples) -> Estimate:
    """An estimate from the values by seed and the draws. ``still``: no item differs from any other, so that no resample does."""
    value = float(nanmean(by_seed, 0))
    low, high = resamples.interval(draws, there)
    if there.any() and still:
        # Resampling shows no spread where all values are the same, such as no changed label. That is not certainty: a share that happens in
        # none of n items may be as large as this (the rule of three, at the two-sided level).
        most = 1 - ((1 - resamples.settings.confidence) / 2) ** (1 / int(there.sum()))
        low, high = value - most, value + most
    return Estimate(value, low, high, draws, there, by_seed)


def mean_estimate(values: np.ndarray, resamples: Resamples) -> Estimate:
    """The mean over items of ``values`` (seeds, items), NaN left out."""
    return _mean_estimate(np.atleast_2d(values), resamples)


def _mean_estimate(values: np.ndarray, resamples: Resamples) -> Estimate:
    by_seed, draws = [], []
    for own in values:
        here = ~np.isnan(own)
        with np.errstate(invalid="ignore", divide="ignore"):
            draws.append((resamples.weights @ np.where(here, own, 0.0)) / (resamples.weights @ here))
        by_seed.append(float(nanmean(own, 0)))
    pooled = nanmean(values, 0)
    there = ~np.isnan(pooled)
    still = bool(there.any()) and bool(np.ptp(pooled[there]) == 0)
    return made(np.array(by_seed), nanmean(np.stack(draws), 0), there, still, resamples)


def levels(row: Sequence[Statistic], rule: Rule, resamples: Resamples) -> dict[str, Estimate]:
    """Every metric of a row; ``row`` holds one seed's statistics after the other."""
    means = _means_of(row, rule)
    found = {metric: _mean_estimate(np.stack([own[name] for own in row]), resamples) for metric, name in means.items()}
    drawn, whole = _of_seeds(row, rule, resamples.weights), _of_seeds(row, rule, _all(resamples))
    there = np.logical_or.reduce([scored(own) for own in row])
    for metric, draws in drawn.items():
        if metric not in found:
            found[metric] = made(whole[metric][:, 0], nanmean(draws, 0), there, _is_still(draws), resamples)
    return {metric: found[metric] for metric in drawn}


def gains(row: Sequence[Statistic], other: Sequence[Statistic], rule: Rule, resamples: Resamples, with_p: bool = True) -> dict[str, Gain]:
    """Every metric of a row minus that of another, over the items that both have a score for, seed by seed. p is NaN without ``with_p``."""
    means = _means_of([*row, *other], rule)
    found: dict[str, Gain] = {}
    for metric, name in means.items():
        d = np.stack([a[name] - b[name] for a, b in zip(row, other, strict=True)])
        found[metric] = Gain(_mean_estimate(d, resamples), paired_p(d, resamples.settings) if with_p else NAN)
    ours, theirs = zip(*(_in_both(a, b) for a, b in zip(row, other, strict=True)), strict=True)
    names = list(_of_seeds(ours, rule, _all(resamples)))
    if set(names) - set(means):
        there = np.logical_or.reduce([scored(own) for own in ours])
        drawn = [_of_seeds(side, rule, resamples.weights) for side in (ours, theirs)]
        whole = [_of_seeds(side, rule, _all(resamples)) for side in (ours, theirs)]
        p = swap_p(ours, theirs, rule, resamples.settings) if with_p else dict.fromkeys(names, NAN)
        for metric in names:
            if metric not in means:
                draws = drawn[0][metric] - drawn[1][metric]
                by_seed = (whole[0][metric] - whole[1][metric])[:, 0]
                found[metric] = Gain(made(by_seed, nanmean(draws, 0), there, _is_still(draws), resamples), p[metric])
    return {metric: found[metric] for metric in names}


def _means_of(rows: Sequence[Statistic], rule: Rule) -> dict[str, str]:
    found = [rule.means(own) for own in rows]
    return {metric: name for metric, name in found[0].items() if all(other.get(metric) == name for other in found)}


def _of_seeds(row: Sequence[Statistic], rule: Rule, weights: np.ndarray) -> dict[str, np.ndarray]:
    """By metric (seeds, draws)."""
    found = [rule.of(own, weights) for own in row]
    return {metric: np.stack([own[metric] for own in found]) for metric in found[0]}


def _all(resamples: Resamples) -> np.ndarray:
    return np.ones((1, len(resamples.ids)))


def _is_still(draws: np.ndarray) -> bool:
    finite = draws[np.isfinite(draws)]
    return bool(len(finite)) and bool(np.ptp(finite) <= 1e-12 * max(1.0, float(np.abs(finite).max())))


def _in_both(a: Statistic, b: Statistic) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    both = scored(a) & scored(b)
    one, two = ({name: np.where(both, values, NAN) for name, values in side.items()} for side in (a, b))
    return one, two


# ---- p ----


def paired_p(differences: np.ndarray, settings: Statistics) -> float:
    """Two-sided p of the mean of paired differences (seeds, items) under random signs; NaN where no item has both sides.

    Items are taken as independent. Differences of one seed that are all of one size, as those of labels are, have McNemar's exact test.
    """
    d = nanmean(differences, 0)
    if np.isnan(d).all():
        return NAN
    sizes = np.abs(d[~np.isnan(d) & (d != 0)])
    if len(differences) == 1 and (len(sizes) == 0 or np.ptp(sizes) == 0):
        better, worse = int((d > 0).sum()), int((d < 0).sum())
        return float(stats.binomtest(better, better + worse).pvalue) if better + worse else 1.0
    return sign_flip_p(d, np.random.default_rng(settings.seed))


def swap_p(row: Sequence[Statistic], other: Sequence[Statistic], rule: Rule, settings: Statistics) -> dict[str, float]:
    """Two-sided p of every metric's difference if the two rows' statistics are swapped at random, item by item and in all seeds alike.

    Up to 14 items all swaps are tried, beyond that 20,000 random ones (2,000 where a metric is none of sums). NaN where no item is scored.
    """
    there = np.logical_or.reduce([scored(own) for own in (*row, *other)])
    n = int(there.sum())
    ours, theirs = ([{k: v[there] for k, v in own.items()} for own in side] for side in (row, other))
    observed = _difference(ours, theirs, rule, np.zeros((1, n)))
    if n == 0:
        return dict.fromkeys(observed, NAN)
    exact = n <= EXACT_FLIPS
    rng = np.random.default_rng(settings.seed)
    flips = len(sign_patterns(n)) if exact else RANDOM_FLIPS if rule.estimate is None else ESTIMATE_FLIPS
    beyond = dict.fromkeys(observed, 0)
    for first in range(0, flips, FLIPS_AT_ONCE):
        number = min(FLIPS_AT_ONCE, flips - first)
        swaps = (sign_patterns(n)[first : first + number] < 0) if exact else rng.integers(0, 2, size=(number, n), dtype=np.int8)
        for metric, d in _difference(ours, theirs, rule, swaps.astype(np.float64)).items():
            limit = abs(observed[metric][0]) - 1e-12 * max(1.0, abs(observed[metric][0]))
            beyond[metric] += int(np.sum(~(np.abs(d) < limit)))  # a swap without a metric counts against the difference
    return {metric: NAN if np.isnan(observed[metric][0]) else k / flips if exact else (1 + k) / (1 + flips) for metric, k in beyond.items()}


def _difference(ours: Sequence[Statistic], theirs: Sequence[Statistic], rule: Rule, swaps: np.ndarray) -> dict[str, np.ndarray]:
    """By metric (swaps,): the mean over seeds of the difference after each row of swaps (0: stays, 1: swapped), (swaps, items)."""
    found: dict[str, list[np.ndarray]] = {}
    for a, b in zip(ours, theirs, strict=True):
        filled = [{k: np.where(scored(own), v, 0.0) for k, v in own.items()} for own in (a, b)]
        if rule.estimate is None:
            moved = {k: swaps @ (filled[1][k] - filled[0][k]) for k in a}
            with np.errstate(invalid="ignore", divide="ignore"):
                left = rule.metrics({k: filled[0][k].sum() + moved[k] for k in a})
                right = rule.metrics({k: filled[1][k].sum() - moved[k] for k in a})
        else:
            one = np.ones((1, swaps.shape[1]))
            sides = [[rule.of({k: np.where(s == side, a[k], b[k]) for k in a}, one) for s in swaps] for side in (0, 1)]
            left, right = ({m: np.concatenate([own[m] for own in part]) for m in part[0]} for part in sides)
        for metric in left:
            d = np.asarray(left[metric]) - np.asarray(right[metric])
            found.setdefault(metric, []).append(np.broadcast_to(d, len(swaps)))
    return {metric: nanmean(np.stack(parts), 0) for metric, parts in found.items()}


def holm(p: Sequence[float]) -> list[float]:
    """Holm's adjusted p values, in the order given; NaN stays NaN and counts for nothing."""
    known = [k for k, value in enumerate(p) if not np.isnan(value)]
    adjusted, largest = [NAN] * len(p), 0.0
    for rank, k in enumerate(sorted(known, key=lambda k: p[k])):
        largest = max(largest, min(1.0, (len(known) - rank) * p[k]))
        adjusted[k] = largest
    return adjusted


# ---- what is made of estimates ----


def relative(row: Estimate, start: Estimate, resamples: Resamples, near_zero: float = NEAR_ZERO) -> Estimate | None:
    """The gain as a share of the start, (row − start) / start; None where the start is below ``near_zero``, since the share explodes."""
    if not abs(start.value) >= near_zero:
        return None
    with np.errstate(invalid="ignore", divide="ignore"):
        draws = (row.draws - start.draws) / start.draws
        by_seed = (_seeds(row, start) - _seeds(start, row)) / _seeds(start, row)
    draws = np.where(np.isfinite(draws), draws, NAN)  # a resample whose start is 0 has no share
    return made(by_seed, draws, row.there & start.there, _is_still(draws), resamples)


def minus(row: Estimate, other: Estimate, resamples: Resamples) -> Estimate:
    """The difference of two estimates over the same resamples."""
    draws = row.draws - other.draws
    return made(_seeds(row, other) - _seeds(other, row), draws, row.there | other.there, _is_still(draws), resamples)


def _seeds(e: Estimate, other: Estimate) -> np.ndarray:
    """The values by seed; their mean where the other has another number of seeds."""
    return e.by_seed if len(e.by_seed) == len(other.by_seed) else np.array([e.value])


def bootstrap_p(draws: np.ndarray) -> float:
    """Two-sided p by how many resamples lie on the other side of 0: for what is no metric of one scorer. At least 2 / (resamples + 1)."""
    finite = draws[np.isfinite(draws)]
    if not len(finite):
        return NAN
    return float(min(1.0, 2 * (1 + min((finite <= 0).sum(), (finite >= 0).sum())) / (1 + len(finite))))


def rescaled(e: Estimate, chance: float, difference: bool = False) -> Estimate:
    """The share of the way from chance to 1, (x − chance) / (1 − chance), which may be negative; of a difference x / (1 − chance)."""
    from_ = 0.0 if difference else chance
    values = [(x - from_) / (1 - chance) for x in (e.value, e.low, e.high, e.draws, e.by_seed)]
    return Estimate(float(values[0]), float(values[1]), float(values[2]), np.asarray(values[3]), e.there, np.asarray(values[4]))


def mean_of(members: Sequence[Estimate], resamples: Resamples) -> Estimate:
    """The plain mean of estimates over the same resamples, such as that of the benchmarks of a category."""
    draws = np.mean([e.draws for e in members], axis=0)
    by_seed = np.mean([e.by_seed for e in members], axis=0)
    return made(by_seed, draws, np.logical_or.reduce([e.there for e in members]), _is_still(draws), resamples)


def group_means(
    members: Mapping[str, Estimate], groups: Mapping[str, Sequence[str]], resamples: Resamples
) -> tuple[dict[str, Estimate], dict[str, list[str]]]:
    """The mean of every group whose members are all there, and for each of the others the members that are missing.

    A group may have groups before it as members: an average of categories. What lacks a member is left out, and so is what it belongs to.
    """
    found: dict[str, Estimate] = {}
    missing: dict[str, list[str]] = {}
    for group, names in groups.items():
        known = {**members, **found}
        if lacking := [name for name in names if name not in known or np.isnan(known[name].value)]:
            missing[group] = lacking
        else:
            found[group] = mean_of([known[name] for name in names], resamples)
    return found, missing


# ---- correlations ----


def weighted_ranks(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mid-ranks of ``values`` (items,) where the k-th stands ``weights[:, k]`` times, for every row of weights: (draws, items)."""
    groups, of = np.unique(values, return_inverse=True)
    totals = np.zeros((len(weights), len(groups)))
    for k in range(len(groups)):
        totals[:, k] = weights[:, of == k].sum(axis=1)
    before = np.cumsum(totals, axis=1) - totals
    return np.asarray((before + (totals + 1) / 2)[:, of])


def spearman(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Spearman's ρ of x and y (items,) for every row of weights, (draws,). Items with a NaN are left out; NaN where a side is constant."""
    there = ~np.isnan(x) & ~np.isnan(y)
    w = weights[:, there]
    total = w.sum(axis=1)
    a, b = (weighted_ranks(side[there], w) for side in (x, y))
    with np.errstate(invalid="ignore", divide="ignore"):
        a, b = (r - ((w * r).sum(axis=1) / total)[:, None] for r in (a, b))
        variances = (w * a * a).sum(axis=1) * (w * b * b).sum(axis=1)
        rho = (w * a * b).sum(axis=1) / np.sqrt(variances)
    return np.asarray(np.where(variances > 0, rho, NAN))
