"""One bootstrap for every metric: means as before bit for bit, others against oracles, scipy and plain loops."""

import itertools
import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from swift_study.config import Statistics
from swift_study.errors import UserError
from swift_study.influence.statistics import interval, member_draws, sign_flip_p, task_draws
from swift_study.studies.estimates import (
    Estimate,
    Resamples,
    Rule,
    Statistic,
    Sums,
    gains,
    group_means,
    holm,
    levels,
    mean_estimate,
    mean_of,
    relative,
    resample,
    rescaled,
    spearman,
    swap_p,
    weighted_ranks,
)

QUICK = Statistics(after_step=0, resamples=300)
NAN = float("nan")
SDE = Path(__file__).resolve().parents[3] / "shared/data/oracles/sde.json"


def accuracy(sums: Sums) -> Sums:
    return {"accuracy": sums["right"] / sums["n"]}


def f1(sums: Sums) -> Sums:
    return {"f1": 2 * sums["tp"] / (2 * sums["tp"] + sums["fp"] + sums["fn"]), "items": sums["n"] * 1.0}


WEIGHTS = np.array([[1, 0.5, 0, 0.5], [0.67, 1, 0.67, 0.67], [0, 0.5, 1, 0.5], [0.5, 0.67, 0.5, 1]])


def kappa(sums: Sums) -> Sums:
    """Weighted κ of a 4 × 4 confusion matrix whose cells are the statistics `c00` … `c33`, rows gold."""
    cells = np.stack([np.stack([sums[f"c{i}{j}"] for j in range(4)]) for i in range(4)])
    n = cells.sum(axis=(0, 1))
    observed = np.einsum("ij...,ij->...", cells, WEIGHTS) / n
    expected = np.einsum("i...,j...,ij->...", cells.sum(axis=1), cells.sum(axis=0), WEIGHTS) / n**2
    return {"kappa": (observed - expected) / (1 - expected), "aspect_accuracy": np.einsum("ii...->...", cells) / n}


def items(tasks: Sequence[object], **columns: Sequence[object]) -> pl.DataFrame:
    return pl.DataFrame({"query_id": [f"q{k}" for k in range(len(tasks))], "task": list(tasks), **columns})


def labels(values: Sequence[float]) -> Statistic:
    right = np.asarray(values, dtype=float)
    return {"right": right, "n": np.where(np.isnan(right), NAN, 1.0)}


def counts(rng: np.random.Generator, n: int) -> Statistic:
    return {k: rng.integers(0, 4, n).astype(float) for k in ("tp", "fp", "fn")} | {"n": np.ones(n)}


# ---- draws ----


def test_draws_of_tasks_and_items_are_those_of_before() -> None:
    tasks = [f"task {k * 7 % 13}" for k in range(40)]
    found = resample(items(tasks), QUICK)
    task_of = np.array([sorted(set(tasks)).index(t) for t in tasks])
    rng = np.random.default_rng(QUICK.seed)
    before = task_draws(13, QUICK.resamples, rng)[:, task_of] * member_draws(task_of, QUICK.resamples, rng)
    assert np.array_equal(found.weights, before)


def test_draws_of_items_draw_as_many_items_as_there_are_in_every_stratum() -> None:
    frame = items([0] * 7, benchmark=["x"] * 3 + ["y"] * 4)
    plain = resample(frame, QUICK, ["item"])
    assert (plain.weights.sum(axis=1) == 7).all()
    assert plain.weights.max() > 1
    inside = resample(frame, QUICK, ["item"], "benchmark")
    assert (inside.weights[:, :3].sum(axis=1) == 3).all()
    assert (inside.weights[:, 3:].sum(axis=1) == 4).all()


def test_draws_of_tasks_keep_their_items_together() -> None:
    found = resample(items(["a", "a", "b", "b", "c"]), QUICK, ["task"])
    assert np.array_equal(found.weights[:, 0], found.weights[:, 1])
    assert (found.weights[:, [0, 2, 4]].sum(axis=1) == 3).all()


def test_crossed_columns_are_drawn_by_themselves_and_multiplied() -> None:
    rows = list(itertools.product("abc", "xy"))
    frame = items([0] * 6, document=[d for d, _ in rows], system=[s for _, s in rows])
    found = resample(frame, QUICK, ["document", "system"]).weights.reshape(-1, 3, 2)
    for w in found:
        assert np.linalg.matrix_rank(w) <= 1
        assert w.sum() == 6


def test_an_unknown_column_is_a_sentence() -> None:
    with pytest.raises(UserError, match="no column 'author' to be drawn by; they have query_id, task"):
        resample(items(["a"]), QUICK, ["author"])


# ---- means: as before ----


@settings(deadline=None, max_examples=30)
@given(st.integers(2, 30), st.integers(0, 2**32 - 1), st.booleans())
def test_means_are_bit_for_bit_weighted_means_of_the_items(n: int, seed: int, gaps: bool) -> None:
    """Level, gain and p of one seed are those of the plain formulas that Tables 1 and 2 had."""
    rng = np.random.default_rng(seed)
    resamples = resample(items(rng.integers(0, 5, n).tolist()), QUICK)
    a, b = (rng.standard_normal(n) for _ in "ab")
    if gaps:
        a[rng.random(n) < 0.2] = NAN
        b[rng.random(n) < 0.2] = NAN
    rule = Rule(lambda sums: {"nats": sums["nats"] / sums["n"]})
    rows = [{"nats": v, "n": np.where(np.isnan(v), NAN, 1.0)} for v in (a, b)]
    level = levels([rows[0]], rule, resamples)["nats"]
    gain = gains([rows[0]], [rows[1]], rule, resamples)["nats"]
    task_of = resamples.units["task"]
    for found, values in ((level, a), (gain.estimate, a - b)):
        there = ~np.isnan(values)
        if not there.any() or np.ptp(values[there]) == 0:
            continue
        draws = (resamples.weights @ np.where(there, values, 0.0)) / np.where(d := resamples.weights @ there, d, NAN)
        assert np.array_equal(found.draws, draws, equal_nan=True)
        assert found.value == np.where(there, values, 0.0).sum() / there.sum()
        low, high = interval(draws, len(set(task_of[there])), QUICK.confidence)
        assert (found.low, found.high) == pytest.approx((low, high), abs=0, nan_ok=True)
    d = a - b
    if (~np.isnan(d)).sum() > 1:
        assert gain.p == sign_flip_p(d, np.random.default_rng(QUICK.seed))


def test_p_of_labels_of_one_seed_is_mcnemars() -> None:
    one, two = labels([1] * 3 + [0] * 9 + [1] * 20 + [NAN]), labels([0] * 3 + [1] * 9 + [1] * 20 + [1])
    resamples = resample(items(range(33)), QUICK)
    rule = Rule(accuracy)
    assert gains([two], [one], rule, resamples)["accuracy"].p == stats.binomtest(9, 12).pvalue
    assert gains([one], [one], rule, resamples)["accuracy"].p == 1.0
    # Of two equal seeds it is the sign-flip test, which for labels is the same up to its random draws.
    assert gains([two, two], [one, one], rule, resamples)["accuracy"].p == pytest.approx(stats.binomtest(9, 12).pvalue, abs=0.01)


def test_what_is_not_scored_is_no_zero_and_gains_are_over_what_both_have() -> None:
    resamples = resample(items(range(4)), QUICK)
    good, base = labels([1, 1, 0, NAN]), labels([1, 0, NAN, NAN])
    assert levels([good], Rule(accuracy), resamples)["accuracy"].value == pytest.approx(2 / 3)
    assert gains([good], [base], Rule(accuracy), resamples)["accuracy"].estimate.value == 0.5
    nothing = gains([labels([NAN] * 4)], [base], Rule(accuracy), resamples)["accuracy"]
    assert math.isnan(nothing.estimate.value)
    assert math.isnan(nothing.p)


def test_a_mean_is_told_from_other_ratios() -> None:
    both = Rule(lambda s: accuracy(s) | {"share": s["right"] / s["of"], "half": s["right"] / s["n"] / 2})
    one = labels([1, 0, 1]) | {"of": np.ones(3)}
    assert both.means(one) == {"accuracy": "right"}
    assert both.means(one | {"n": np.array([1.0, 2.0, 1.0])}) == {}
    assert Rule(f1).means(counts(np.random.default_rng(0), 5)) == {}


# ---- metrics that are no means ----


def test_every_resample_of_f1_is_that_of_the_drawn_items() -> None:
    rng = np.random.default_rng(1)
    resamples = resample(items([0, 0, 1, 2, 2]), QUICK)
    row = counts(rng, 5)
    row["tp"][1] = NAN  # no score
    found = levels([row], Rule(f1), resamples)["f1"]
    for weights, draw in zip(resamples.weights, found.draws, strict=True):
        drawn = [k for k, w in enumerate(weights) for _ in range(int(w)) if k != 1]
        tp, fp, fn = (sum(row[name][k] for k in drawn) for name in ("tp", "fp", "fn"))
        if 2 * tp + fp + fn:
            assert draw == pytest.approx(2 * tp / (2 * tp + fp + fn))
        else:
            assert math.isnan(draw)


def test_several_seeds_are_the_metric_by_seed_and_then_the_mean() -> None:
    rng = np.random.default_rng(2)
    resamples = resample(items(range(9)), QUICK)
    rows, others = ([counts(rng, 9) for _ in range(3)] for _ in "ab")
    by_seed = [levels([row], Rule(f1), resamples)["f1"] for row in rows]
    found = levels(rows, Rule(f1), resamples)["f1"]
    assert found.value == pytest.approx(np.mean([e.value for e in by_seed]))
    assert found.draws == pytest.approx(np.mean([e.draws for e in by_seed], axis=0))
    assert found.sd == pytest.approx(np.std([e.value for e in by_seed], ddof=1))
    assert math.isnan(by_seed[0].sd)
    gain = gains(rows, others, Rule(f1), resamples)["f1"].estimate
    assert gain.value == pytest.approx(found.value - levels(others, Rule(f1), resamples)["f1"].value)


def test_p_of_swaps_is_the_share_of_all_swaps_that_differ_as_much() -> None:
    rng = np.random.default_rng(3)
    a, b = counts(rng, 8), counts(rng, 8)

    def difference(swapped: Sequence[int]) -> float:
        sides = []
        for x, y in ((a, b), (b, a)):
            tp, fp, fn = (sum(y[k][i] if s else x[k][i] for i, s in enumerate(swapped)) for k in ("tp", "fp", "fn"))
            sides.append(2 * tp / (2 * tp + fp + fn))
        return abs(sides[0] - sides[1])

    observed = difference([0] * 8)
    expected = np.mean([difference(s) >= observed - 1e-12 for s in itertools.product((0, 1), repeat=8)])
    found = swap_p([a], [b], Rule(f1), QUICK)
    assert found["f1"] == pytest.approx(expected)
    assert swap_p([a], [a], Rule(f1), QUICK)["f1"] == 1.0


def test_swaps_of_a_mean_are_its_sign_flips() -> None:
    rng = np.random.default_rng(4)
    for n in (10, 40):
        a, b = (labels(rng.integers(0, 2, n)) for _ in "ab")
        assert swap_p([a], [b], Rule(accuracy), QUICK)["accuracy"] == sign_flip_p(
            a["right"] - b["right"], np.random.default_rng(QUICK.seed)
        )


def test_p_of_f1_is_uniform_where_nothing_differs() -> None:
    rng = np.random.default_rng(5)
    p = [swap_p([counts(rng, 10)], [counts(rng, 10)], Rule(f1), QUICK)["f1"] for _ in range(200)]
    assert stats.kstest(p, "uniform").pvalue > 0.001
    assert np.mean(np.array(p) <= 0.05) < 0.1


@pytest.mark.skipif(not SDE.is_file(), reason="shared data are not here")
def test_weighted_kappa_is_the_published_one() -> None:
    oracle = json.loads(SDE.read_text())["masa"]
    reviews = oracle["reviews"]
    cells = np.zeros((len(reviews), 4, 4))
    for k, review in enumerate(reviews):
        for gold, said in zip(review["gold"], review["predicted"], strict=True):
            cells[k, gold, said] += 1
    row = {f"c{i}{j}": cells[:, i, j] for i in range(4) for j in range(4)}
    resamples = resample(items(range(len(reviews))), QUICK, ["item"])
    found = levels([row], Rule(kappa), resamples)
    assert cells.sum(axis=0).tolist() == oracle["confusion"]
    assert found["kappa"].value == pytest.approx(oracle["kappa"], abs=5e-5)
    assert found["aspect_accuracy"].value == pytest.approx(oracle["aspect_accuracy"], abs=5e-5)
    assert found["kappa"].low < oracle["kappa"] < found["kappa"].high
    one = resamples.weights[0]
    sums = np.einsum("kij,k->ij", cells, one)
    assert found["kappa"].draws[0] == pytest.approx(kappa({f"c{i}{j}": sums[i, j] for i in range(4) for j in range(4)})["kappa"])


def test_a_metric_of_more_than_sums_gives_its_own_draws() -> None:
    rng = np.random.default_rng(6)
    row = {"x": rng.standard_normal(20), "y": rng.standard_normal(20)}
    rule = Rule(lambda sums: {}, lambda s, w: {"rho": spearman(s["x"], s["y"], w)})
    resamples = resample(items(range(20)), QUICK, ["item"])
    found = levels([row], rule, resamples)["rho"]
    assert found.value == pytest.approx(stats.spearmanr(row["x"], row["y"]).statistic)
    other = {"x": row["x"], "y": row["x"] + 0.1 * row["y"]}
    gain = gains([other], [row], rule, resamples)["rho"]
    assert gain.estimate.value == pytest.approx(stats.spearmanr(other["x"], other["y"]).statistic - found.value)
    assert gain.p < 0.01


def test_interval_of_f1_covers_as_often_as_it_says() -> None:
    rng = np.random.default_rng(7)
    truth = 2 * 0.6 / (2 * 0.6 + 0.3 + 0.5)
    resamples = resample(items(range(40)), Statistics(resamples=400), ["item"])
    covered = 0
    for _ in range(300):
        row = {"tp": rng.poisson(0.6, 40), "fp": rng.poisson(0.3, 40), "fn": rng.poisson(0.5, 40), "n": np.ones(40)}
        found = levels([{k: v.astype(float) for k, v in row.items()}], Rule(f1), resamples)["f1"]
        covered += found.low <= truth <= found.high
    assert 0.91 <= covered / 300 <= 0.99


@pytest.mark.parametrize("rule", [Rule(accuracy), Rule(lambda s: {"accuracy": s["right"] / (s["n"] + 0 * s["right"]) * 1.0})])
def test_where_nothing_changes_the_interval_is_the_rule_of_threes(rule: Rule) -> None:
    row = labels([1] * 50)
    resamples = resample(items([k % 10 for k in range(50)]), QUICK)
    most = 1 - 0.025 ** (1 / 50)
    for e in (levels([row], rule, resamples)["accuracy"], gains([row], [row], rule, resamples)["accuracy"].estimate):
        assert (e.low, e.high) == pytest.approx((e.value - most, e.value + most))


# ---- what is made of estimates ----


def two(resamples: Resamples) -> tuple[Estimate, Estimate]:
    rng = np.random.default_rng(8)
    return tuple(mean_estimate(rng.uniform(p, 1, len(resamples.ids)), resamples) for p in (0.2, 0.6))  # type: ignore[return-value]


def test_relative_gains_are_null_where_the_start_is_near_zero() -> None:
    resamples = resample(items(range(20)), QUICK)
    start, row = two(resamples)
    found = relative(row, start, resamples)
    assert found is not None
    assert found.value == pytest.approx(row.value / start.value - 1)
    assert found.low == pytest.approx(resamples.interval(row.draws / start.draws - 1, start.there)[0])
    assert relative(row, mean_estimate(np.full(20, 0.01), resamples), resamples) is None
    assert relative(row, mean_estimate(np.full(20, NAN), resamples), resamples) is None


def test_rescaling_by_chance_may_be_negative() -> None:
    resamples = resample(items(range(20)), QUICK)
    e = mean_estimate(np.array([0.0] * 18 + [1.0] * 2), resamples)
    found = rescaled(e, 0.25)
    assert found.value == pytest.approx((0.1 - 0.25) / 0.75)
    assert (found.low, found.high) == pytest.approx(((e.low - 0.25) / 0.75, (e.high - 0.25) / 0.75))


def test_means_of_groups_leave_out_what_lacks_a_member_and_name_it() -> None:
    resamples = resample(items(range(20)), QUICK)
    a, b = two(resamples)
    groups = {"one": ["a", "b"], "half": ["a", "gone"], "average": ["one", "a"], "all": ["one", "half"]}
    found, missing = group_means({"a": a, "b": b}, groups, resamples)
    assert found["one"].value == pytest.approx((a.value + b.value) / 2)
    assert found["average"].value == pytest.approx((a.value + b.value) / 4 + a.value / 2)
    assert missing == {"half": ["gone"], "all": ["half"]}
    low, high = resamples.interval((a.draws + b.draws) / 2, a.there)
    assert (found["one"].low, found["one"].high) == (low, high)


def test_items_of_two_benchmarks_vary_apart_and_within_strata() -> None:
    """The mean of two benchmarks has half the variance of one, and an item's weight is the same in every row."""
    rng = np.random.default_rng(9)
    frame = items([0] * 80, benchmark=["x"] * 40 + ["y"] * 40)
    resamples = resample(frame, Statistics(resamples=4000), ["item"], "benchmark")
    values = rng.standard_normal(80)
    x, y = (mean_estimate(np.where(np.arange(80) // 40 == k, values, NAN), resamples) for k in (0, 1))
    both = mean_of([x, y], resamples)
    assert both.draws.var() == pytest.approx((x.draws.var() + y.draws.var()) / 4, rel=0.1)


def test_holm() -> None:
    assert holm([0.01, 0.04, 0.03, NAN]) == pytest.approx([0.03, 0.06, 0.06, NAN], nan_ok=True)
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


# ---- correlations ----


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4), st.integers(0, 3)), min_size=2, max_size=12))
def test_weighted_spearman_is_that_of_the_repeated_items(rows: list[tuple[int, int, int]]) -> None:
    x, y, w = (np.array([float(r[k]) for r in rows]) for k in range(3))
    repeated = [k for k, n in enumerate(w) for _ in range(int(n))]
    found = spearman(x, y, w[None, :])[0]
    if len(set(x[repeated])) < 2 or len(set(y[repeated])) < 2:
        assert math.isnan(found)
    else:
        assert found == pytest.approx(stats.spearmanr(x[repeated], y[repeated]).statistic)
        assert weighted_ranks(x, w[None, :])[0][repeated] == pytest.approx(stats.rankdata(x[repeated]))


def test_spearman_leaves_out_what_is_missing() -> None:
    x, y = np.array([1.0, 2.0, NAN, 4.0, 3.0]), np.array([1.0, 3.0, 9.0, 2.0, NAN])
    assert spearman(x, y, np.ones((1, 5)))[0] == pytest.approx(stats.spearmanr([1, 2, 4], [1, 3, 2]).statistic)
