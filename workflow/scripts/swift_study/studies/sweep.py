"""Sweeps: a metric over a number, such as how many examples there are; when it reaches a bar, and what one line saves against another.

Both come from a fit that never falls (isotonic, each x with the same weight), in every resample. A bar may lie beyond the grid: then
there is no x, and the share of resamples that reach it says how sure that is.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from swift_study.config import SweepStudy
from swift_study.errors import UserError
from swift_study.io.tables import PHASES, SAVINGS, SWEEP, as_frame
from swift_study.studies.estimates import NAN, Estimate, gains, levels, scored
from swift_study.studies.scores import Scores, metric_of

Factors = tuple[tuple[str, Any], ...]
TIE = 1e-9  # a fitted value this far below a bar reaches it


@dataclass(frozen=True)
class Spot:
    """One x of one line: the metric, and its difference from the line's smallest x."""

    x: float
    run: str
    n_seeds: int
    n: int
    unscored: int
    level: Estimate
    over_start: Estimate | None  # None at the start itself


@dataclass(frozen=True)
class Line:
    """A metric over x, in the order of x."""

    line: Factors
    panel: Factors
    evaluation: str
    metric: str
    spots: list[Spot]

    @property
    def x(self) -> np.ndarray:
        return np.array([spot.x for spot in self.spots])

    def draws(self, over_start: bool) -> np.ndarray:
        """(1 + resamples, x): the values themselves first."""
        found = [_whole(spot.over_start, spot.level) if over_start else spot.level for spot in self.spots]
        return np.concatenate([[[e.value for e in found]], np.stack([e.draws for e in found], axis=1)])


def _whole(e: Estimate | None, level: Estimate) -> Estimate:
    """The difference from the start; that of the start itself is 0."""
    if e is not None:
        return e
    zero = np.zeros_like(level.draws)
    return Estimate(0.0, 0.0, 0.0, zero, level.there, np.zeros_like(level.by_seed))


def named(factors: Factors) -> str | None:
    return ", ".join(f"{name}={level}" for name, level in factors) or None


def lines_of(study: SweepStudy, scores: Scores) -> list[Line]:
    """Every line of a sweep. UserError where x is no number, where two runs stand at one x, and where no scorer gives a metric.

    A run that has no level of a line's or a panel's factor (it stands for several points) is on every line.
    """
    manifest = scores.manifest
    for name in (study.x, *study.lines, *study.panels):
        if name not in manifest.columns:
            raise UserError(f"The runs of the sweep have no factor {name!r}; change x, lines or panels.")
    if not manifest[study.x].dtype.is_numeric():
        raise UserError(f"x: the factor {study.x!r} is no number ({', '.join(map(str, manifest[study.x].unique()[:5]))}).")
    found: list[Line] = []
    entries = manifest.filter(pl.col(study.x).is_not_null()).to_dicts()
    groups = [tuple(e[f] for f in (*study.lines, *study.panels)) for e in entries]
    distinct = [g for g in dict.fromkeys(groups) if None not in g] or list(dict.fromkeys(groups))
    for group in distinct:
        line = tuple(zip(study.lines, group[: len(study.lines)], strict=True))
        panel = tuple(zip(study.panels, group[len(study.lines) :], strict=True))
        own = [e for e, g in zip(entries, groups, strict=True) if all(a is None or a == b for a, b in zip(g, group, strict=True))]
        for evaluation in dict.fromkeys(e["evaluation"] for e in own):
            here = [e for e in own if e["evaluation"] == evaluation]
            for metric in study.metrics:
                spots = _spots(study, here, evaluation, metric, scores)
                if spots:
                    found.append(Line(line, panel, evaluation, metric, spots))
    return found


def _spots(study: SweepStudy, entries: Sequence[Mapping[str, Any]], evaluation: str, metric: str, scores: Scores) -> list[Spot]:
    at: dict[float, dict[int, str]] = {}
    for e in entries:
        by_seed = at.setdefault(float(e[study.x]), {})
        if by_seed.setdefault(e["seed"], e["run"]) != e["run"]:
            raise UserError(
                f"At {study.x}={e[study.x]} stand both {by_seed[e['seed']]} and {e['run']} on one line. Name the factor in which they "
                "differ in `lines` or `panels`, or one of its levels in `runs`."
            )
    rows = {}
    for x in sorted(at):
        by_scorer = [scores.statistics[run, evaluation] for run in at[x].values()]
        place = metric_of(metric, scores.rules, by_scorer[0])
        if place is None:
            if study.if_missing is not None:
                return []
            raise UserError(f'No scorer of {evaluation} gives the metric {metric!r}. Add one that does, or set if_missing to "null".')
        rows[x] = place, [own[place[0]] for own in by_scorer]
    spots = []
    start = min(rows)
    for x, ((scorer, name), statistics) in rows.items():
        level = levels(statistics, scores.rules[scorer], scores.resamples)[name]
        over_start = None
        if x != start:
            seeds = [s for s in at[x] if s in at[start]]
            pairs = [(list(at[x]).index(s), list(at[start]).index(s)) for s in seeds]
            if not pairs and len(at[start]) == 1:
                pairs = [(k, 0) for k in range(len(statistics))]  # one run at the start, whatever the seed
            if pairs:
                ours, theirs = [statistics[i] for i, _ in pairs], [rows[start][1][j] for _, j in pairs]
                over_start = gains(ours, theirs, scores.rules[scorer], scores.resamples, with_p=False)[name].estimate
        asked = scores.asked[evaluation]
        unscored = sum(int((asked & ~scored(s)).sum()) for s in statistics)
        spots.append(Spot(x, next(iter(at[x].values())), len(at[x]), int(asked.sum()), unscored, level, over_start))
    return spots


def sweep_table(lines: Sequence[Line]) -> pl.DataFrame:
    """One row for each line, evaluation, metric and x; ``over_start`` is the difference from the line's smallest x, null there."""
    rows = []
    for line in lines:
        for spot in line.spots:
            row: dict[str, object] = {
                "line": named(line.line),
                "panel": named(line.panel),
                "evaluation": line.evaluation,
                "metric": line.metric,
                "x": spot.x,
                "run": spot.run,
                "n_seeds": spot.n_seeds,
                "n": spot.n,
                "unscored": spot.unscored,
                "value": spot.level.value,
                "low": spot.level.low,
                "high": spot.level.high,
                "sd": spot.level.sd,
            }
            if (e := spot.over_start) is not None:
                row |= {"over_start": e.value, "over_start_low": e.low, "over_start_high": e.high}
            rows.append(row)
    return as_frame(rows, SWEEP)


# ---- phases and savings ----


def isotonic(values: np.ndarray) -> np.ndarray:
    """The nearest values, by squares, that never fall along the last axis: (draws, x) to (draws, x). NaN where a draw has one.

    The fit at k is the largest, over starts up to k, of the smallest mean, over ends from k on, of what lies between.
    """
    n = values.shape[-1]
    sums = np.concatenate([np.zeros((*values.shape[:-1], 1)), np.cumsum(values, axis=-1)], axis=-1)
    fitted = np.full(values.shape, -np.inf)
    for start in range(n):
        means = (sums[..., start + 1 :] - sums[..., start : start + 1]) / np.arange(1, n - start + 1)
        smallest = np.minimum.accumulate(means[..., ::-1], axis=-1)[..., ::-1]
        fitted[..., start:] = np.maximum(fitted[..., start:], smallest)
    return fitted


def first_x(fitted: np.ndarray, x: np.ndarray, bar: float, above: bool = False) -> np.ndarray:
    """The first x at which each row of (draws, x) reaches the bar (or lies ``above`` it); infinity where none does."""
    reached = fitted > bar if above else fitted >= bar - TIE
    return np.where(reached.any(axis=1), x[reached.argmax(axis=1)], np.inf)


def phases_table(study: SweepStudy, lines: Sequence[Line], confidence: float) -> pl.DataFrame:
    """For each phase and line the first x at which the fit reaches the bar, with its interval; null: not within the grid.

    ``x_sure`` is the first x at which the fit's lower bound reaches the bar (a bar of 0 over the start: lies above it); ``reached`` the
    share of resamples that reach the bar anywhere.
    """
    rows = []
    for name, phase in study.phases.items():
        for line in (line for line in lines if line.metric == phase.metric):
            fitted = isotonic(line.draws(phase.over_start))
            strictly = phase.over_start and phase.bar == 0
            found = first_x(fitted, line.x, phase.bar, strictly)
            tails = [(1 - confidence) / 2, (1 + confidence) / 2]
            low, high = np.quantile(found[1:], tails, method="inverted_cdf")
            lower = np.nanquantile(fitted[1:], tails[0], axis=0)
            rows.append(
                {
                    "phase": name,
                    "line": named(line.line),
                    "panel": named(line.panel),
                    "evaluation": line.evaluation,
                    "metric": line.metric,
                    "bar": phase.bar,
                    "x": _finite(found[0]),
                    "x_low": _finite(low),
                    "x_high": _finite(high),
                    "x_sure": _finite(first_x(lower[None, :], line.x, phase.bar, strictly)[0]),
                    "reached": float(np.isfinite(found[1:]).mean()),
                    "last_x": float(line.x[-1]),
                }
            )
    return as_frame(rows, PHASES)


def savings_table(study: SweepStudy, lines: Sequence[Line], confidence: float) -> pl.DataFrame:
    """For each saving and each x of its line: how much more x the other line needs for the same fitted value, with its interval.

    Between two x of the grid the fit is a straight line. Null where the other line does not get there within its grid; ``beyond`` is
    the share of resamples in which it does not.
    """
    rows = []
    for name, saving in study.savings.items():
        for line in (line for line in lines if line.metric == saving.metric and _is(line, saving.line)):
            others = [o for o in lines if (o.metric, o.evaluation) == (line.metric, line.evaluation) and _is(o, saving.against)]
            others = [o for o in others if o.panel == line.panel] or others
            if len(others) != 1:
                raise UserError(
                    f"savings.{name}.against: {saving.against} is {len(others)} lines beside {named(line.line)!r} on {line.evaluation!r}; "
                    "name the factors of one."
                )
            ours, theirs = isotonic(line.draws(False)), isotonic(others[0].draws(False))
            for k, x in enumerate(line.x):
                needed = np.array([inverse(row, others[0].x, value) for row, value in zip(theirs, ours[:, k], strict=True)])
                saved = needed - x
                low, high = np.quantile(saved[1:], [(1 - confidence) / 2, (1 + confidence) / 2], method="inverted_cdf")
                rows.append(
                    {
                        "saving": name,
                        "line": named(line.line),
                        "against": named(others[0].line),
                        "panel": named(line.panel),
                        "evaluation": line.evaluation,
                        "metric": line.metric,
                        "x": float(x),
                        "value": float(ours[0, k]),
                        "saved": _finite(saved[0]),
                        "saved_low": _finite(low),
                        "saved_high": _finite(high),
                        "beyond": float(np.isinf(needed[1:]).mean()),
                    }
                )
    return as_frame(rows, SAVINGS)


def _is(line: Line, factors: Mapping[str, Any]) -> bool:
    own = dict((*line.line, *line.panel))
    return all(str(own.get(name)) == str(level) for name, level in factors.items())


def inverse(fitted: np.ndarray, x: np.ndarray, value: float) -> float:
    """The smallest x at which a fit that never falls reaches a value, straight between two x; infinity where it does not."""
    if fitted[0] >= value - TIE:
        return float(x[0])
    reached = fitted >= value - TIE
    if not reached.any():
        return float("inf")
    k = int(reached.argmax())
    share = (value - fitted[k - 1]) / (fitted[k] - fitted[k - 1])
    return float(x[k - 1] + min(1.0, share) * (x[k] - x[k - 1]))


def _finite(value: float) -> float:
    return float(value) if np.isfinite(value) else NAN
