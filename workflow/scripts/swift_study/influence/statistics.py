"""Curves with intervals, and the verdict.

Tasks are the sampling unit, since pairs share examples. An interval comes from a bootstrap that draws tasks with replacement, and
within a drawn task its probes; both sides of a cross-task pair follow the same draw of tasks. With a dozen tasks a percentile interval is
too narrow, so its levels are widened by the t distribution (the expanded percentile interval; Hesterberg, What Teachers Should
Know About the Bootstrap, 2015, §3.2). The verdict's p value is that of a paired sign-flip test over probe tasks: if strategy and
control were interchangeable, swapping the two within a task would change nothing.

Where probes and targets are different things, no unit stands on both sides: their tasks differ, or the unit is `item`. Interval and p are
then those of a crossed design (``crossed_mean``). Which of the two applies follows from the panel.
"""

import functools
import itertools
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import polars as pl
from scipy import stats

from swift_study.config import CEILING, FLOOR, Statistics, curve_name
from swift_study.errors import UserError

EXACT_FLIPS = 14  # up to so many tasks all sign patterns are tried, beyond that RANDOM_FLIPS random ones
RANDOM_FLIPS = 20_000
MOST_TASKS_OF_ITEMS = 2  # of more tasks, cross-task pairs of items share tasks: tasks are the unit then
NAN = float("nan")
Unit = Literal["task", "item"]


@dataclass(frozen=True)
class Grid:
    """One curve at one step, or averaged over steps: ``values`` (probes, targets), NaN where a pair does not count.

    ``probe_task`` and ``target_task`` are indices into the tasks of the grid.
    """

    values: np.ndarray
    probe_task: np.ndarray
    target_task: np.ndarray
    n_tasks: int
    in_task: bool


@dataclass(frozen=True)
class Effect:
    """A strategy's mean score minus its control's, over the tasks that both have probes for; NaN where there is none."""

    strategy: float
    control: float
    low: float
    high: float
    p_value: float
    n_probes: int
    n_tasks: int
    draws: np.ndarray  # (resamples,) the difference in every bootstrap resample

    @property
    def difference(self) -> float:
        return self.strategy - self.control


def counted(table: pl.DataFrame, settings: Statistics) -> pl.DataFrame:
    """The rows of the checkpoints that count: those after ``settings.after_step``, and never step 0."""
    return table.filter((pl.col("step") > settings.after_step) & (pl.col("step") > 0))


def grid(pairs: pl.DataFrame, score: str, tasks: list[str], in_task: bool) -> Grid:
    """The pairs of one probe set and target set as a matrix, averaged over the steps in ``pairs``."""
    ids = {side: pairs.select(f"{side}_id", f"{side}_task").unique(maintain_order=True) for side in ("probe", "target")}
    row = {i: k for k, i in enumerate(ids["probe"]["probe_id"])}
    column = {i: k for k, i in enumerate(ids["target"]["target_id"])}
    means = pairs.group_by("probe_id", "target_id", maintain_order=True).agg(pl.col(score).mean())
    values = np.full((len(row), len(column)), np.nan)
    for probe, target, value in means.iter_rows():
        if value is not None:
            values[row[probe], column[target]] = value
    index = {task: k for k, task in enumerate(tasks)}
    return Grid(
        values,
        np.array([index[t] for t in ids["probe"]["probe_task"]]),
        np.array([index[t] for t in ids["target"]["target_task"]]),
        len(tasks),
        in_task,
    )


def task_draws(n_tasks: int, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """How often each task is drawn, shape (resamples, tasks)."""
    return rng.multinomial(n_tasks, np.full(n_tasks, 1 / n_tasks), size=resamples).astype(np.float64)


def seeded_draws(n_tasks: int, settings: Statistics) -> tuple[np.ndarray, np.random.Generator]:
    """``task_draws`` of a generator that starts from the configured seed, and the generator as it stands after them."""
    draws, state = _seeded_draws(n_tasks, settings.resamples, settings.seed)
    rng = np.random.default_rng()
    rng.bit_generator.state = state
    return draws, rng


@functools.lru_cache(maxsize=16)
def _seeded_draws(n_tasks: int, resamples: int, seed: int) -> tuple[np.ndarray, dict[str, Any]]:
    """Drawn once: the seed makes them the same for every curve and comparison with so many tasks."""
    rng = np.random.default_rng(seed)
    draws = task_draws(n_tasks, resamples, rng)
    draws.flags.writeable = False
    return draws, dict(rng.bit_generator.state)


def member_draws(task_of: np.ndarray, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """How often each member of a task is drawn within it, shape (resamples, members); ones where a task has one member."""
    draws = np.ones((resamples, len(task_of)))
    for task in np.unique(task_of):
        members = np.flatnonzero(task_of == task)
        if len(members) > 1:
            draws[:, members] = rng.multinomial(len(members), np.full(len(members), 1 / len(members)), size=resamples)
    return draws


def resampled_means(g: Grid, tasks: np.ndarray, probes: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Mean over the drawn pairs for every resample, shape (resamples,); NaN where no pair is drawn."""
    same = g.probe_task[:, None] == g.target_task[None, :]
    counts = (~np.isnan(g.values) & (same if g.in_task else ~same)).astype(np.float64)
    values = np.where(counts > 0, g.values, 0.0)
    left = tasks[:, g.probe_task] * probes
    right = targets if g.in_task else tasks[:, g.target_task] * targets
    total = ((left @ values) * right).sum(axis=1)
    weight = ((left @ counts) * right).sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(weight > 0, total / weight, np.nan)


def mean(g: Grid) -> float:
    one = np.ones
    return float(resampled_means(g, one((1, g.n_tasks)), one((1, len(g.probe_task))), one((1, len(g.target_task))))[0])


def interval(means: np.ndarray, n_tasks: int, confidence: float, strata: int = 1) -> tuple[float, float]:
    """Expanded percentile interval of bootstrap means. NaN for fewer than two tasks.

    Where tasks are drawn within ``strata``, the widening is that of n tasks less so many means.
    """
    means = means[~np.isnan(means)]
    if n_tasks <= strata or len(means) == 0:
        return float("nan"), float("nan")
    t = stats.t.ppf((1 + confidence) / 2, n_tasks - strata)
    tail = float(stats.norm.cdf(-t * np.sqrt(n_tasks / (n_tasks - strata))))
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)


def sign_flip_p(differences: np.ndarray, rng: np.random.Generator, flips: int = RANDOM_FLIPS) -> float:
    """Two-sided p of the mean of paired differences, one a task, under random signs: all for up to 14 tasks, else so many ``flips``."""
    d = differences[~np.isnan(differences)]
    if len(d) < 2:
        return 1.0
    observed = abs(d.sum())
    slack = 1e-12 * np.abs(d).sum()
    if len(d) <= EXACT_FLIPS:
        return float(np.mean(np.abs(sign_patterns(len(d)) @ d) >= observed - slack))
    flipped = rng.integers(0, 2, size=(flips, len(d)), dtype=np.int8).astype(np.float64)
    return float((1 + np.sum(np.abs(d.sum() - 2 * (flipped @ d)) >= observed - slack)) / (1 + flips))


@functools.lru_cache(maxsize=EXACT_FLIPS)
def sign_patterns(n: int) -> np.ndarray:
    """All patterns of n signs, shape (2ⁿ, n)."""
    return np.array(list(itertools.product((1.0, -1.0), repeat=n)))


def with_scores(pairs: pl.DataFrame) -> pl.DataFrame:
    """Pairs with the mean-loss RelInf: that of losses averaged over tokens instead of summed (DESIGN, Numerics 1)."""
    ratio = pl.col("target_tokens") / pl.col("probe_tokens")
    return pairs.with_columns((pl.col("rel_inf") * ratio).alias("rel_inf_mean_loss"))


def curves(pairs: pl.DataFrame, settings: Statistics) -> pl.DataFrame:
    """The curves table of one study: one row for each probe set × target set × context × step."""
    pairs = with_scores(pairs)
    tasks = sorted({*pairs["probe_task"], *pairs["target_task"]})
    rows = []
    keys = ["study", "probe_set", "target_set", "context", "step"]
    for key, part in pairs.group_by(keys, maintain_order=True):
        study, probe_set, target_set, context, step = key
        g = grid(part, "rel_inf", tasks, context == "in-task")
        low, high = _bootstrap(g, settings)
        used = part.filter(pl.col("rel_inf").is_not_null())
        rows.append(
            {
                "study": study,
                "curve": curve_name(str(probe_set), str(context), str(target_set)),
                "probe_set": probe_set,
                "target_set": target_set,
                "context": context,
                "step": step,
                "n_pairs": len(used),
                "n_skipped": len(part) - len(used),
                "rel_inf": used["rel_inf"].mean(),
                "ci_low": low,
                "ci_high": high,
                "rel_inf_mean_loss": used["rel_inf_mean_loss"].mean(),
                "cosine": used["cosine"].mean(),
            }
        )
    return pl.DataFrame(rows, infer_schema_length=None)


def _bootstrap(g: Grid, settings: Statistics) -> tuple[float, float]:
    draws, rng = seeded_draws(g.n_tasks, settings)
    probes = member_draws(g.probe_task, settings.resamples, rng)
    targets = member_draws(g.target_task, settings.resamples, rng)
    present = len(set(g.probe_task) | set(g.target_task))
    return interval(resampled_means(g, draws, probes, targets), present, settings.confidence)


def verdicts(
    pairs: pl.DataFrame,
    curve_table: pl.DataFrame,
    control: str,
    settings: Statistics,
    unwanted: Collection[str] = (),
    unit: Unit = "task",
) -> pl.DataFrame:
    """The verdicts table of one study: strategy × context × target set, each against the control's curve.

    Only checkpoints after ``settings.after_step`` count. *helps* (*hurts*) needs the interval of the paired difference above (below) 0
    and p <= 1 - confidence; anything else is *no evidence*. References get no verdict. For ``unwanted`` target sets it is the other way
    round: there a strategy helps that pushes towards them less. The effect keeps its sign.
    """
    pairs = counted(with_scores(pairs), settings)
    if pairs.is_empty():
        raise UserError(f"No checkpoint lies after step {settings.after_step} (statistics.after_step); lower it or train longer.")
    counted_curves = counted(curve_table, settings)
    rows = []
    for (target_set, context), part in pairs.group_by("target_set", "context", maintain_order=True):
        for strategy in part["probe_set"].unique(maintain_order=True):
            if strategy in (control, CEILING, FLOOR):
                continue
            outcome = {
                score: _compare(part, score, str(strategy), control, context == "in-task", settings, target_set not in unwanted, unit)
                for score in ("rel_inf", "rel_inf_mean_loss", "cosine")
            }
            own = counted_curves.filter(
                (pl.col("probe_set") == strategy) & (pl.col("target_set") == target_set) & (pl.col("context") == context)
            )
            share = float(np.mean(own["ci_low"].to_numpy() > 0)) if len(own) else 0.0  # NaN is not above 0
            main = outcome["rel_inf"]
            rows.append(
                {
                    "study": part["study"][0],
                    "strategy": strategy,
                    "context": context,
                    "target_set": target_set,
                    "control": control,
                    **main,
                    "wanted": target_set not in unwanted,
                    "n_checkpoints": part["step"].n_unique(),
                    "effective_share": share,
                    "effective": share >= settings.effective_share,
                    "verdict_mean_loss": outcome["rel_inf_mean_loss"]["verdict"],
                    "effect_mean_loss": outcome["rel_inf_mean_loss"]["effect"],
                    "verdict_cosine": outcome["cosine"]["verdict"],
                    "effect_cosine": outcome["cosine"]["effect"],
                }
            )
    return pl.DataFrame(rows, infer_schema_length=None).sort("context", "target_set", "strategy", descending=[True, True, False])


def _compare(
    pairs: pl.DataFrame, score: str, strategy: str, control: str, in_task: bool, settings: Statistics, wanted: bool, unit: Unit
) -> dict[str, object]:
    """Strategy minus control as columns of the verdicts table, with the verdict."""
    e = effect(pairs, score, strategy, control, in_task, settings, unit)
    return {
        "strategy_rel_inf": e.strategy,
        "control_rel_inf": e.control,
        "effect": e.difference,
        "ci_low": e.low,
        "ci_high": e.high,
        "p_value": e.p_value,
        "n_probes": e.n_probes,
        "n_tasks": e.n_tasks,
        "verdict": verdict(e, settings.confidence, wanted),
    }


def verdict(e: Effect, confidence: float, wanted: bool = True) -> str:
    """*helps*, *hurts* or *no evidence*: it takes the interval and the sign-flip test. Not ``wanted`` targets turn the first two round."""
    if e.p_value > 1 - confidence + 1e-12 or not (e.low > 0 or e.high < 0):
        return "no evidence"
    return "helps" if (e.low > 0) == wanted else "hurts"


def effect(
    pairs: pl.DataFrame, score: str, strategy: str, control: str, in_task: bool, settings: Statistics, unit: Unit = "task"
) -> Effect:
    """Strategy minus control in the column ``score``, over the pairs and steps that are given: of one target set and context.

    Tasks that stand on both sides are drawn on both (``difference``); tasks or, by ``unit``, items that do not are a crossed design.
    """
    a, b = grids(pairs, score, strategy, control, in_task)
    if not len(a.probe_task):
        return Effect(NAN, NAN, NAN, NAN, 1.0, 0, 0, np.full(settings.resamples, NAN))
    if unit == "item" and len(set(a.probe_task) | set(a.target_task)) <= MOST_TASKS_OF_ITEMS:
        return crossed_difference(*_paired_items(a, b), settings, unit)
    if not set(a.probe_task) & set(a.target_task):
        return crossed_difference(a, b, settings, "task")
    return difference(a, b, settings)


def is_crossed(pairs: pl.DataFrame, unit: Unit) -> bool:
    """Whether probes and targets of these pairs are different things, so that the test of a crossed design applies."""
    probes, targets = set(pairs["probe_task"]), set(pairs["target_task"])
    return not probes & targets or (unit == "item" and len(probes | targets) <= MOST_TASKS_OF_ITEMS)


def grids(pairs: pl.DataFrame, score: str, strategy: str, control: str, in_task: bool) -> tuple[Grid, Grid]:
    """Strategy's and control's grid over the tasks that both have probes for, averaged over the steps that are given."""
    ours, theirs = (pairs.filter(pl.col("probe_set") == name) for name in (strategy, control))
    common = set(ours["probe_task"]) & set(theirs["probe_task"])
    ours, theirs = (p.filter(pl.col("probe_task").is_in(list(common))) for p in (ours, theirs))
    tasks = sorted(common | set(ours["target_task"]))
    return grid(ours, score, tasks, in_task), grid(theirs, score, tasks, in_task)


def difference(a: Grid, b: Grid, settings: Statistics) -> Effect:
    """Grid ``a`` minus grid ``b``, of the same tasks and targets."""
    draws, rng = seeded_draws(a.n_tasks, settings)
    n_tasks = len(set(a.probe_task))
    targets = member_draws(a.target_task, settings.resamples, rng)
    probes_a = member_draws(a.probe_task, settings.resamples, rng)
    aligned = np.array_equal(a.probe_task, b.probe_task)  # the k-th probes of a task are made from one example
    probes_b = probes_a if aligned else member_draws(b.probe_task, settings.resamples, rng)
    differences = resampled_means(a, draws, probes_a, targets) - resampled_means(b, draws, probes_b, targets)
    low, high = interval(differences, n_tasks, settings.confidence)
    p = sign_flip_p(_by_probe_task(a) - _by_probe_task(b), rng)
    return Effect(mean(a), mean(b), low, high, p, len(a.probe_task), n_tasks, differences)


def _by_probe_task(g: Grid) -> np.ndarray:
    """Mean over a probe task's counting pairs, shape (tasks,); NaN where there is none."""
    same = g.probe_task[:, None] == g.target_task[None, :]
    values = np.where(same if g.in_task else ~same, g.values, np.nan)
    result = np.full(g.n_tasks, np.nan)
    for task in np.unique(g.probe_task):
        block = values[g.probe_task == task]
        if not np.isnan(block).all():
            result[task] = np.nanmean(block)
    return result


# ---- probes and targets that are different things ----


@dataclass(frozen=True)
class Crossed:
    """The mean of a crossed design, its variance, and the degrees of freedom of that variance; NaN where there are fewer than 2 × 2."""

    mean: float
    variance: float
    df: float


def crossed_mean(d: np.ndarray) -> Crossed:
    """The mean of d (probes, targets), where probes and targets are samples of different things.

    d_ij = μ + a_i + b_j + e_ij; the variance of the mean is (MS_a + MS_b − MS_e) / mn, not below MS_e / mn, with Satterthwaite's degrees
    of freedom over the three mean squares ((m − 1)(n − 1) at the floor).
    """
    m, n = d.shape
    if m < 2 or n < 2:
        return Crossed(float(d.mean()) if d.size else NAN, NAN, NAN)
    mean_ = float(d.mean())
    a, b = d.mean(axis=1) - mean_, d.mean(axis=0) - mean_
    e = d - mean_ - a[:, None] - b[None, :]
    squares = np.array([n * (a @ a) / (m - 1), m * (b @ b) / (n - 1), np.square(e).sum() / ((m - 1) * (n - 1))])
    degrees = np.array([m - 1, n - 1, (m - 1) * (n - 1)])
    sum_ = squares[0] + squares[1] - squares[2]
    if sum_ <= squares[2]:
        return Crossed(mean_, float(squares[2] / (m * n)), float(degrees[2]))
    return Crossed(mean_, float(sum_ / (m * n)), float(sum_**2 / (squares**2 / degrees).sum()))


def crossed_difference(a: Grid, b: Grid, settings: Statistics, unit: Unit) -> Effect:
    """Grid ``a`` minus grid ``b``, of the same units, by a crossed design in every block of pairs that count.

    By tasks there is one block; by items one a pair of tasks. Blocks share nothing: their means are weighted by their pairs. A probe or
    target that lacks a pair in its block is left out of it. Below 2 × 2 units there is no interval, and p is 1.
    """
    if unit == "task":
        blocks = [_without_gaps(_task_means(a) - _task_means(b))]
    else:
        d = a.values - b.values
        blocks = [
            _without_gaps(d[np.ix_(a.probe_task == p, a.target_task == t)])
            for p in np.unique(a.probe_task)
            for t in np.unique(a.target_task)
            if (p == t) == a.in_task
        ]
    blocks = [block for block in blocks if block.size]
    sizes = np.array([block.size for block in blocks], dtype=np.float64)
    shares = sizes / sizes.sum()
    parts = [crossed_mean(block) for block in blocks]
    effect_ = mean(a) - mean(b)
    variances = shares**2 * np.array([part.variance for part in parts])
    variance = float(variances.sum()) if parts else NAN
    n_probes = sum(len(block) for block in blocks)
    if not np.isfinite(variance):
        return Effect(mean(a), mean(b), NAN, NAN, 1.0, len(a.probe_task), n_probes, np.full(settings.resamples, effect_))
    rng = np.random.default_rng(settings.seed)
    draws = np.zeros(settings.resamples)
    for share, block in zip(shares, blocks, strict=True):
        left, right = (task_draws(n, settings.resamples, rng) / n for n in block.shape)
        draws += share * ((left @ block) * right).sum(axis=1)
    if variance == 0:
        return Effect(mean(a), mean(b), effect_, effect_, float(effect_ == 0), len(a.probe_task), n_probes, draws)
    df = variance**2 / float((variances**2 / np.array([part.df for part in parts])).sum())
    half = float(stats.t.ppf((1 + settings.confidence) / 2, df)) * np.sqrt(variance)
    p = 2 * float(stats.t.sf(abs(effect_) / np.sqrt(variance), df))
    return Effect(mean(a), mean(b), effect_ - half, effect_ + half, p, len(a.probe_task), n_probes, draws)


def _task_means(g: Grid) -> np.ndarray:
    """The mean over each block of a probe task and a target task, (probe tasks, target tasks); NaN where none of its pairs counts."""
    probes, targets = np.unique(g.probe_task), np.unique(g.target_task)
    means = np.full((len(probes), len(targets)), np.nan)
    for (i, p), (j, t) in itertools.product(enumerate(probes), enumerate(targets)):
        block = g.values[np.ix_(g.probe_task == p, g.target_task == t)]
        if not np.isnan(block).all():
            means[i, j] = np.nanmean(block)
    return means


def _without_gaps(d: np.ndarray) -> np.ndarray:
    """The matrix without the rows and columns that have NaN, those with most of it first."""
    while np.isnan(d).any():
        by_row, by_column = np.isnan(d).mean(axis=1), np.isnan(d).mean(axis=0)
        axis, worst = (0, by_row) if by_row.max() >= by_column.max() else (1, by_column)
        d = np.delete(d, int(worst.argmax()), axis=axis)
    return d


def _paired_items(a: Grid, b: Grid) -> tuple[Grid, Grid]:
    """The grids of the probes that both have: the k-th probes of a task are made from one example."""
    rows: list[list[int]] = [[], []]
    for task in np.unique(a.probe_task):
        own = [np.flatnonzero(g.probe_task == task) for g in (a, b)]
        for k, found in enumerate(own):
            rows[k] += found[: min(map(len, own))].tolist()
    one, two = (replace(g, values=g.values[k], probe_task=g.probe_task[k]) for g, k in zip((a, b), rows, strict=True))
    return one, two


# ---- power ----

POWER_TASKS = (12, 24, 48, 96)
POWER_RESAMPLES = 500  # of the bootstrap within a draw
POWER_FLIPS = 2000  # where not all sign patterns are tried
POWER_STANDARD = 0.5  # the standardised effect, in between-task standard deviations


def power(
    pairs: pl.DataFrame,
    score: str,
    strategy: str,
    control: str,
    in_task: bool,
    settings: Statistics,
    numbers: Sequence[int] = POWER_TASKS,
    draws: int = 200,
) -> pl.DataFrame:
    """How often a study with other numbers of tasks would tell an effect from zero, if its tasks were like those of this one.

    ``pairs`` are as for ``effect``: of one target set and context, at the steps that count. Each draw takes so many of the study's own
    tasks with replacement, each with all its probes and targets; a pair of two draws of one task is no cross-task pair. Strategy minus
    control is centred, the effect is planted, and the draw gets the verdict's rule: interval and sign-flip test, with at most 500
    bootstrap resamples and 2,000 sign patterns. Two effects are planted: the `observed` one, and half a between-task standard deviation
    of the paired difference (`standardised`). The observed one answers no more than the p value does for this number of tasks (Hoenig
    and Heisey, The Abuse of Power, 2001): read it for other numbers.

    Rows: numbers × effects. ``n_tasks``; ``planted``, `observed` or `standardised`; ``effect`` in units of the score; ``power``, the share
    of draws in which the verdict has the effect's sign, with its exact 95% interval ``ci_low``, ``ci_high`` over draws. It does not
    hold what is unknown about the tasks themselves: a dozen give the standard deviation to about a fifth. Across tasks it is too low
    for more tasks than the study has, since what is noise in a pair passes for an effect of its task there. No rows for fewer than two
    tasks.
    """
    schema = {
        "n_tasks": pl.Int64,
        "planted": pl.String,
        "effect": pl.Float64,
        "power": pl.Float64,
        "ci_low": pl.Float64,
        "ci_high": pl.Float64,
    }
    a, b = grids(pairs, score, strategy, control, in_task)
    own = _by_probe_task(a) - _by_probe_task(b)
    own = own[~np.isnan(own)]
    if len(own) < 2:
        return pl.DataFrame(schema=schema)
    observed = mean(a) - mean(b)
    planted = {"observed": observed, "standardised": POWER_STANDARD * float(own.std(ddof=1))}
    # Tasks drawn with replacement vary less than the tasks they stand for, by (n - 1) / n: made up for by a factor.
    widen = np.sqrt(len(own) / (len(own) - 1))
    a, b = replace(a, values=widen * (a.values - observed)), replace(b, values=widen * b.values)
    quick = settings.model_copy(update={"resamples": min(settings.resamples, POWER_RESAMPLES)})
    rng = np.random.default_rng(settings.seed)
    rows = []
    for n in numbers:
        told = dict.fromkeys(planted, 0)
        for _ in range(draws):
            chosen = rng.choice(np.unique(a.probe_task), n)
            ours, theirs = (_of_tasks(g, chosen) for g in (a, b))
            e = difference(ours, theirs, quick)
            differences = _by_probe_task(ours) - _by_probe_task(theirs)
            for name, shift in planted.items():
                shifted = replace(e, low=e.low + shift, high=e.high + shift, p_value=sign_flip_p(differences + shift, rng, POWER_FLIPS))
                told[name] += verdict(shifted, settings.confidence) == ("helps" if shift > 0 else "hurts")
        for name, shift in planted.items():
            ci = stats.binomtest(told[name], draws).proportion_ci(0.95)
            rows.append((n, name, shift, told[name] / draws, float(ci.low), float(ci.high)))
    return pl.DataFrame(rows, schema=schema, orient="row")


def _of_tasks(g: Grid, chosen: np.ndarray) -> Grid:
    """The grid of the tasks ``chosen`` (tasks,), each a task of its own however often it is drawn, with its probes and targets."""
    probes = [np.flatnonzero(g.probe_task == task) for task in chosen]
    targets = [np.flatnonzero(g.target_task == task) for task in chosen]
    p, t = np.concatenate(probes), np.concatenate(targets)
    values = g.values[np.ix_(p, t)]
    if not g.in_task:
        values[g.probe_task[p][:, None] == g.target_task[t][None, :]] = np.nan
    of_probe, of_target = (np.repeat(np.arange(len(chosen)), [len(part) for part in parts]) for parts in (probes, targets))
    return Grid(values, of_probe, of_target, len(chosen), g.in_task)
