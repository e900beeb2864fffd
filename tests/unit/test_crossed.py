"""The test for probes and targets that are different things: a crossed design, and when it applies."""

import math
from collections.abc import Sequence

import numpy as np
import polars as pl
import pytest
from scipy import stats
from test_statistics import QUICK, pairs_table

from swift_study.influence.statistics import Unit, crossed_mean, curves, verdicts


def test_variance_of_a_crossed_mean_is_that_of_its_mean_squares() -> None:
    """By loops, as in STATISTICS: μ + a_i + b_j + e_ij."""
    d = np.random.default_rng(0).standard_normal((4, 6)) + np.arange(4)[:, None]
    m, n = d.shape
    mean_ = sum(d[i, j] for i in range(m) for j in range(n)) / (m * n)
    a = [sum(d[i]) / n - mean_ for i in range(m)]
    b = [sum(d[:, j]) / m - mean_ for j in range(n)]
    of_a = n * sum(x * x for x in a) / (m - 1)
    of_b = m * sum(x * x for x in b) / (n - 1)
    of_e = sum((d[i, j] - mean_ - a[i] - b[j]) ** 2 for i in range(m) for j in range(n)) / ((m - 1) * (n - 1))
    v = of_a + of_b - of_e
    found = crossed_mean(d)
    assert (found.mean, found.variance) == pytest.approx((mean_, v / (m * n)))
    assert found.df == pytest.approx(v**2 / (of_a**2 / (m - 1) + of_b**2 / (n - 1) + of_e**2 / ((m - 1) * (n - 1))))
    chequered = np.array([[1, -1] * 3, [-1, 1] * 3] * 2)  # no row and no column differs from others: the floor, MS_e = 24 / 15
    assert (crossed_mean(chequered).variance, crossed_mean(chequered).df) == pytest.approx((24 / 15 / 24, 15))
    assert math.isnan(crossed_mean(d[:1]).variance)


def two_sided(values: np.ndarray, probe_set: str, probes: Sequence[int], targets: Sequence[int]) -> pl.DataFrame:
    return pairs_table(values[None], probe_set, probes, targets)


@pytest.mark.parametrize("unit", ["task", "item"])
def test_which_test_applies_follows_from_the_panel(unit: Unit) -> None:
    rng = np.random.default_rng(1)
    new, old = rng.standard_normal((5, 7)), rng.standard_normal((5, 7))
    expected = crossed_mean(new - old)
    half = stats.t.ppf(0.975, expected.df) * math.sqrt(expected.variance)
    p = 2 * stats.t.sf(abs(expected.mean) / math.sqrt(expected.variance), expected.df)
    # By task: five tasks of probes, seven others of targets. By item: one task on either side, another or the same one.
    sides = [(range(5), range(10, 17))] if unit == "task" else [([0] * 5, [1] * 7), ([0] * 5, [0] * 7)]
    for probes, targets in sides:
        pairs = pl.concat([two_sided(v, name, list(probes), list(targets)) for v, name in ((new, "new"), (old, "old"))])
        row = verdicts(pairs, curves(pairs, QUICK), "old", QUICK, unit=unit).row(0, named=True)
        assert (row["ci_low"], row["ci_high"]) == pytest.approx((expected.mean - half, expected.mean + half))
        assert (row["effect"], row["p_value"], row["n_tasks"]) == (pytest.approx(expected.mean), pytest.approx(p), 5)


def test_tasks_on_both_sides_keep_the_test_of_before() -> None:
    rng = np.random.default_rng(2)
    pairs = pl.concat([pairs_table(rng.standard_normal((1, 6, 6)), name) for name in ("new", "old")])
    by_task, by_item = (verdicts(pairs, curves(pairs, QUICK), "old", QUICK, unit=unit) for unit in ("task", "item"))
    assert by_task.equals(by_item)  # items of six tasks share tasks across them: tasks stay the unit


def test_a_block_of_two_domains_weighs_by_its_pairs() -> None:
    rng = np.random.default_rng(3)
    new, old = rng.standard_normal((7, 9)), rng.standard_normal((7, 9))
    probes, targets = [0] * 3 + [1] * 4, [0] * 4 + [1] * 5
    pairs = pl.concat([two_sided(v, name, probes, targets) for v, name in ((new, "new"), (old, "old"))])
    table = verdicts(pairs, curves(pairs, QUICK), "old", QUICK, unit="item")
    d = new - old
    for context, blocks in (("in-task", [d[:3, :4], d[3:, 4:]]), ("cross-task", [d[:3, 4:], d[3:, :4]])):
        row = table.row(by_predicate=pl.col("context") == context, named=True)
        total = sum(b.size for b in blocks)
        assert row["effect"] == pytest.approx(sum(b.sum() for b in blocks) / total)
        parts = [(b.size / total) ** 2 * crossed_mean(b).variance for b in blocks]
        df = sum(parts) ** 2 / sum(v**2 / crossed_mean(b).df for v, b in zip(parts, blocks, strict=True))
        assert (row["ci_high"] - row["ci_low"]) / 2 == pytest.approx(stats.t.ppf(0.975, df) * math.sqrt(sum(parts)))


def test_a_floored_pair_leaves_out_its_probe_or_target() -> None:
    rng = np.random.default_rng(4)
    new, old = rng.standard_normal((5, 6)), rng.standard_normal((5, 6))
    new[2, 3] = np.nan
    pairs = pl.concat([two_sided(v, name, range(5), range(10, 16)) for v, name in ((new, "new"), (old, "old"))])
    row = verdicts(pairs, curves(pairs, QUICK), "old", QUICK).row(0, named=True)
    left = np.delete(new - old, 3, axis=1)  # costs 5 pairs, the probe's row would cost 6
    assert (row["ci_high"] - row["ci_low"]) / 2 == pytest.approx(
        stats.t.ppf(0.975, crossed_mean(left).df) * math.sqrt(crossed_mean(left).variance)
    )


@pytest.mark.parametrize(("m", "n", "most"), [(8, 8, 0.085), (12, 36, 0.075)])
def test_level_of_the_crossed_test_is_the_nominal_one(m: int, n: int, most: float) -> None:
    """STATISTICS: 2.6 to 5.8% for 8 × 8, 3.0 to 5.3% for 12 × 36, at a nominal 5%; 800 studies each."""
    rng = np.random.default_rng(5)
    for of_a, of_b in ((0.0, 0.0), (0.5, 0.5), (1.0, 0.2)):
        wrong = 0
        for _ in range(800):
            d = of_a * rng.standard_normal((m, 1)) + of_b * rng.standard_normal((1, n)) + rng.standard_normal((m, n))
            found = crossed_mean(d)
            wrong += 2 * stats.t.sf(abs(found.mean) / math.sqrt(found.variance), found.df) <= 0.05
        assert 0.01 <= wrong / 800 <= most


def test_one_probe_tells_nothing() -> None:
    pairs = pl.concat([two_sided(np.ones((1, 4)) * k, name, [0], range(10, 14)) for k, name in ((2, "new"), (1, "old"))])
    row = verdicts(pairs, curves(pairs, QUICK), "old", QUICK).row(0, named=True)
    assert (row["verdict"], row["p_value"], row["effect"]) == ("no evidence", 1.0, 1.0)
