"""Curves and verdicts: means are those of the paper's equations, intervals cover, and no effect gives no verdict."""

import itertools
import math
from collections.abc import Sequence

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swift_study.config import Statistics
from swift_study.errors import UserError
from swift_study.influence.statistics import (
    Grid,
    curves,
    effect,
    grid,
    interval,
    member_draws,
    power,
    resampled_means,
    sign_flip_p,
    task_draws,
    verdict,
    verdicts,
    with_scores,
)
from swift_study.io.tables import CURVES, PAIRS, VERDICTS

QUICK = Statistics(after_step=0, resamples=200)


def pairs_table(
    values: np.ndarray,
    probe_set: str = "new",
    probe_tasks: Sequence[int] | None = None,
    target_tasks: Sequence[int] | None = None,
    target_set: str = "targets",
    probe_tokens: int = 10,
    target_tokens: int = 10,
    only_in_task: bool = False,
) -> pl.DataFrame:
    """The pairs table of RelInf values of shape (steps, probes, targets); NaN stands for a pair that was floored.

    Steps count from 1. Without tasks, each probe and each target has a task of its own, the same for the same number.
    """
    steps, n_probes, n_targets = values.shape
    of_probe = list(probe_tasks) if probe_tasks is not None else list(range(n_probes))
    of_target = list(target_tasks) if target_tasks is not None else list(range(n_targets))
    rows = [
        {
            "study": "test",
            "run": "base",
            "step": step + 1,
            "probe_set": probe_set,
            "target_set": target_set,
            "probe_id": f"{probe_set}{i}",
            "target_id": f"{target_set}{j}",
            "probe_task": f"task{of_probe[i]:02}",
            "target_task": f"task{of_target[j]:02}",
            "context": "in-task" if of_probe[i] == of_target[j] else "cross-task",
            "dot": float(values[step, i, j]),
            "probe_norm_sq": 1.0,
            "target_norm_sq": 1.0,
            "rel_inf": None if np.isnan(values[step, i, j]) else float(values[step, i, j]),
            "cosine": None if np.isnan(values[step, i, j]) else float(values[step, i, j]) / 2,
            "probe_tokens": probe_tokens,
            "target_tokens": target_tokens,
        }
        for step in range(steps)
        for i in range(n_probes)
        for j in range(n_targets)
        if not only_in_task or of_probe[i] == of_target[j]
    ]
    return pl.DataFrame(rows, schema=dict(zip(PAIRS.names, pl.DataFrame(PAIRS.empty_table()).dtypes, strict=True)))


def in_task(values: np.ndarray, probe_set: str) -> pl.DataFrame:
    """One probe and one target a task: ``values`` (steps, tasks) of the in-task pairs, and no others."""
    return pairs_table(values[:, :, None] * np.eye(values.shape[1]), probe_set, only_in_task=True)


def judged(new: pl.DataFrame, old: pl.DataFrame, statistics: Statistics = QUICK) -> pl.DataFrame:
    pairs = pl.concat([new, old])
    return verdicts(pairs, curves(pairs, statistics), "old", statistics)


# ---- means: equations 4 and 5 ----


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 6), st.integers(1, 3), st.integers(0, 2**32 - 1))
def test_curves_are_s_in_and_s_cross(tasks: int, steps: int, seed: int) -> None:
    """s_in: mean over i of RelInf(z'_i, z_i); s_cross: mean over i ≠ j of RelInf(z'_i, z_j)."""
    values = np.random.default_rng(seed).standard_normal((steps, tasks, tasks))
    table = curves(pairs_table(values), QUICK)
    assert table.height == steps * (1 if tasks == 1 else 2)
    for step in range(steps):
        s_in = sum(values[step][i][i] for i in range(tasks)) / tasks
        row = table.row(by_predicate=(pl.col("step") == step + 1) & (pl.col("context") == "in-task"), named=True)
        assert row["rel_inf"] == pytest.approx(s_in)
        assert (row["n_pairs"], row["n_skipped"], row["curve"]) == (tasks, 0, "new → In-task targets")
        if tasks == 1:
            continue
        s_cross = sum(values[step][i][j] for i in range(tasks) for j in range(tasks) if i != j) / (tasks * (tasks - 1))
        row = table.row(by_predicate=(pl.col("step") == step + 1) & (pl.col("context") == "cross-task"), named=True)
        assert row["rel_inf"] == pytest.approx(s_cross)
        assert (row["n_pairs"], row["curve"]) == (tasks * (tasks - 1), "new → Cross-task targets")


def test_effect_is_the_difference_of_the_means_over_the_counted_checkpoints() -> None:
    rng = np.random.default_rng(0)
    new, old = rng.standard_normal((4, 5, 5)), rng.standard_normal((4, 5, 5))
    table = judged(pairs_table(new), pairs_table(old, "old"), Statistics(after_step=1, resamples=200))
    assert table.height == 2
    for row in table.to_dicts():
        counts = np.eye(5, dtype=bool) if row["context"] == "in-task" else ~np.eye(5, dtype=bool)
        assert row["strategy_rel_inf"] == pytest.approx(new[1:, counts].mean())
        assert row["control_rel_inf"] == pytest.approx(old[1:, counts].mean())
        assert row["effect"] == pytest.approx(new[1:, counts].mean() - old[1:, counts].mean())
        assert (row["n_checkpoints"], row["n_probes"], row["n_tasks"]) == (3, 5, 5)


def test_mean_loss_and_cosine_are_scores_of_their_own() -> None:
    """RelInf of mean losses is that of summed losses times target tokens / probe tokens."""
    new, old = np.full((2, 6), 2.0), np.full((2, 6), 1.0)
    new += np.arange(6) / 100
    ours = in_task(new, "new").with_columns(pl.lit(40, pl.Int64).alias("probe_tokens"))
    pairs = pl.concat([ours, in_task(old, "old")])
    assert with_scores(ours)["rel_inf_mean_loss"].to_list() == pytest.approx((new / 4).reshape(-1).tolist())
    curve = curves(pairs, QUICK).filter(pl.col("probe_set") == "new").row(0, named=True)
    assert curve["rel_inf_mean_loss"] == pytest.approx(new.mean() / 4)
    assert curve["cosine"] == pytest.approx(new.mean() / 2)
    (row,) = verdicts(pairs, curves(pairs, QUICK), "old", QUICK).to_dicts()
    assert (row["verdict"], row["verdict_mean_loss"], row["verdict_cosine"]) == ("helps", "hurts", "helps")
    assert row["effect_mean_loss"] == pytest.approx(new.mean() / 4 - 1)
    assert row["effect_cosine"] == pytest.approx(new.mean() / 2 - 0.5)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 4), st.integers(1, 6), st.integers(1, 6), st.booleans(), st.integers(0, 2**32 - 1))
def test_resampled_mean_is_that_of_the_drawn_pairs(
    tasks: int,
    probes: int,
    targets: int,
    same_task: bool,
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((probes, targets))
    values[rng.random((probes, targets)) < 0.2] = np.nan
    g = Grid(values, rng.integers(tasks, size=probes), rng.integers(tasks, size=targets), tasks, same_task)
    drawn = task_draws(tasks, 3, rng)
    of_probes, of_targets = member_draws(g.probe_task, 3, rng), member_draws(g.target_task, 3, rng)
    found = resampled_means(g, drawn, of_probes, of_targets)
    for k in range(3):
        total = weight = 0.0
        for i, j in itertools.product(range(probes), range(targets)):
            if math.isnan(values[i, j]) or (g.probe_task[i] == g.target_task[j]) != same_task:
                continue
            # An in-task pair is drawn with its task; a cross-task pair with the task of either side.
            times = drawn[k, g.probe_task[i]] * (1 if same_task else drawn[k, g.target_task[j]])
            times *= of_probes[k, i] * of_targets[k, j]
            total += times * values[i, j]
            weight += times
        assert found[k] == pytest.approx(total / weight) if weight else math.isnan(found[k])


def test_draws_keep_the_number_of_tasks_and_of_members() -> None:
    rng = np.random.default_rng(0)
    assert set(task_draws(7, 50, rng).sum(axis=1)) == {7.0}
    draws = member_draws(np.array([0, 1, 1, 1, 2]), 50, rng)
    assert set(draws[:, 1:4].sum(axis=1)) == {3.0}
    assert set(draws[:, [0, 4]].reshape(-1)) == {1.0}
    assert len(set(draws[:, 1])) > 1


def test_several_probes_a_task_count_as_pairs_and_widen_the_interval() -> None:
    rng = np.random.default_rng(3)
    tasks = [0, 0, 0, 1, 1, 2, 3, 4]
    values = rng.standard_normal((1, 8, 8))
    table = curves(pairs_table(values, probe_tasks=tasks, target_tasks=tasks), QUICK)
    same = np.equal.outer(tasks, tasks)
    for context, counts in (("in-task", same), ("cross-task", ~same)):
        row = table.row(by_predicate=pl.col("context") == context, named=True)
        assert row["n_pairs"] == counts.sum()
        assert row["rel_inf"] == pytest.approx(values[0][counts].mean())
        assert row["ci_low"] < row["rel_inf"] < row["ci_high"]

    # Tasks alike, probes within them far apart: only the draw within a task can show how uncertain the mean is.
    spread = np.zeros((1, 8, 4))
    spread[0, ::2], spread[0, 1::2] = -1.0, 1.0
    table = curves(pairs_table(spread, probe_tasks=[0, 0, 1, 1, 2, 2, 3, 3]), QUICK)
    row = table.row(by_predicate=pl.col("context") == "in-task", named=True)
    assert row["rel_inf"] == pytest.approx(0.0)
    assert row["ci_low"] < -0.4
    assert row["ci_high"] > 0.4


def test_several_probes_a_task_are_compared_with_several() -> None:
    rng = np.random.default_rng(4)
    tasks = np.repeat(np.arange(8), 3)
    base = rng.standard_normal((2, 24, 8))
    new, old = pairs_table(base + 0.5, "new", tasks.tolist()), pairs_table(base, "old", tasks.tolist())
    for row in judged(new, old).to_dicts():
        assert (row["n_probes"], row["n_tasks"], row["verdict"]) == (24, 8, "helps")
        assert row["effect"] == pytest.approx(0.5)
        assert row["ci_low"] == pytest.approx(0.5)  # a constant difference has no width


# ---- intervals ----


def test_interval_of_a_task_mean_covers_as_often_as_it_says() -> None:
    rng = np.random.default_rng(2024)
    covered = 0
    for _ in range(400):
        g = Grid(np.diag(rng.normal(1.0, 2.0, 12)), np.arange(12), np.arange(12), 12, True)
        means = resampled_means(g, task_draws(12, 1000, rng), np.ones((1000, 12)), np.ones((1000, 12)))
        low, high = interval(means, 12, 0.95)
        covered += low <= 1.0 <= high
    assert 0.90 <= covered / 400 <= 0.99


def test_interval_of_a_curve_covers_as_often_as_it_says() -> None:
    """The same through the whole of `curves`: 400 steps of independent values stand for 400 studies."""
    values = np.random.default_rng(7).normal(1.0, 2.0, (400, 12))
    table = curves(in_task(values, "new"), Statistics(resamples=1000))
    covered = ((table["ci_low"] <= 1.0) & (table["ci_high"] >= 1.0)).mean()
    assert isinstance(covered, float)
    assert 0.90 <= covered <= 0.99


def test_interval_is_wider_for_more_confidence_and_for_fewer_tasks() -> None:
    means = np.random.default_rng(0).standard_normal(5000)
    widths = [np.subtract(*interval(means, n, c)[::-1]) for n, c in ((12, 0.8), (12, 0.95), (5, 0.95))]
    assert widths[0] < widths[1] < widths[2]
    # The plain percentile interval of so many tasks that nothing need be widened: ± 1.96.
    assert interval(means, 10**6, 0.95) == pytest.approx(np.quantile(means, [0.025, 0.975]), abs=1e-3)


def test_one_task_has_no_interval_and_no_evidence() -> None:
    table = curves(in_task(np.ones((3, 1)), "new"), QUICK)
    assert table["rel_inf"].to_list() == [1.0, 1.0, 1.0]
    assert np.isnan(table["ci_low"].to_numpy()).all()
    (row,) = judged(in_task(np.ones((3, 1)), "new"), in_task(np.zeros((3, 1)), "old")).to_dicts()
    assert (row["verdict"], row["p_value"], row["effect"]) == ("no evidence", 1.0, 1.0)
    assert (row["effective_share"], row["effective"]) == (0.0, False)


# ---- the paired test ----


@settings(deadline=None)
@given(st.lists(st.integers(-20, 20), min_size=2, max_size=9))
def test_sign_flip_p_is_the_share_of_sign_patterns_at_least_as_extreme(differences: list[int]) -> None:
    patterns = list(itertools.product((1, -1), repeat=len(differences)))
    sums = [sum(s * d for s, d in zip(signs, differences, strict=True)) for signs in patterns]
    extreme = sum(abs(s) >= abs(sum(differences)) for s in sums)
    found = sign_flip_p(np.array(differences) / 7, np.random.default_rng(0))
    assert found == extreme / len(patterns)


def test_sign_flip_p_of_many_tasks_is_close_to_the_exact_one() -> None:
    differences = np.random.default_rng(1).normal(0.1, 1.0, 16)
    signs = np.array(list(itertools.product((1.0, -1.0), repeat=16)))
    exact = np.mean(np.abs(signs @ differences) >= abs(differences.sum()) - 1e-9)
    found = sign_flip_p(differences, np.random.default_rng(0))
    assert 0.02 < exact < 0.9
    assert found == pytest.approx(exact, abs=0.01)


def test_sign_flip_p_leaves_out_tasks_without_a_difference_and_never_says_0() -> None:
    rng = np.random.default_rng(0)
    with_gaps = np.array([1.0, np.nan, 2.0, 3.0, np.nan])
    assert sign_flip_p(with_gaps, rng) == sign_flip_p(np.array([1.0, 2.0, 3.0]), rng) == 0.25
    assert sign_flip_p(np.array([5.0]), rng) == 1.0
    assert sign_flip_p(np.zeros(5), rng) == sign_flip_p(np.zeros(20), rng) == 1.0
    assert 0 < sign_flip_p(np.ones(40), rng) < 1e-4


# ---- power ----


def crossed(rng: np.random.Generator, tasks: int, effect: float) -> pl.DataFrame:
    """One probe of each set and one target a task; the strategy's effect varies with probe task, target task and pair."""
    old = rng.standard_normal((1, tasks, tasks))
    varying = rng.standard_normal((1, tasks, 1)) + 0.7 * rng.standard_normal((1, 1, tasks)) + rng.standard_normal((1, tasks, tasks))
    return pl.concat([pairs_table(old + varying + effect, "new"), pairs_table(old, "old")])


def of_context(pairs: pl.DataFrame, in_task: bool) -> pl.DataFrame:
    return pairs.filter(pl.col("context") == ("in-task" if in_task else "cross-task"))


@pytest.mark.parametrize(("in_task", "lower", "upper"), [(True, 0.1, 0.1), (False, 0.25, 0.05)])
def test_power_is_the_share_of_new_studies_that_tell_the_effect(in_task: bool, lower: float, upper: float) -> None:
    """Predicted from a study of 60 tasks for studies of 16; across tasks it may be too low, as its docstring says, and not too high."""
    rng = np.random.default_rng(4)
    one = of_context(crossed(rng, 60, 1.0), in_task)
    table = power(one, "rel_inf", "new", "old", in_task, QUICK, numbers=[16], draws=300)
    predicted = table.row(by_predicate=pl.col("planted") == "observed", named=True)
    told = 0
    for _ in range(300):
        new = of_context(crossed(rng, 16, predicted["effect"]), in_task)
        told += verdict(effect(new, "rel_inf", "new", "old", in_task, QUICK), QUICK.confidence) == "helps"
    assert 0.2 < told / 300 < 0.98  # or it would say nothing
    assert told / 300 - lower < predicted["power"] < told / 300 + upper
    assert predicted["ci_low"] < predicted["power"] < predicted["ci_high"]


def test_power_grows_with_the_tasks_and_plants_what_it_says() -> None:
    pairs = of_context(crossed(np.random.default_rng(5), 12, -0.4), True)
    table = power(pairs, "rel_inf", "new", "old", True, QUICK, draws=100)
    assert table["n_tasks"].to_list() == [n for n in (12, 24, 48, 96) for _ in range(2)]
    assert table.equals(power(pairs, "rel_inf", "new", "old", True, QUICK, draws=100))
    wide = pairs.pivot("probe_set", index="probe_task", values="rel_inf")
    differences = (wide["new"] - wide["old"]).to_numpy()
    for planted, expected in (("observed", differences.mean()), ("standardised", differences.std(ddof=1) / 2)):
        part = table.filter(pl.col("planted") == planted)
        assert part["effect"].to_list() == pytest.approx([expected] * 4)
        assert part["power"][0] < part["power"][3]
        assert part["power"].is_sorted() or part["power"].diff().drop_nulls().min() > -0.05  # type: ignore[operator]


def test_power_of_a_study_without_two_common_tasks_is_an_empty_table() -> None:
    values = np.ones((1, 1, 4))
    pairs = pl.concat([pairs_table(values, probe_tasks=[0]), pairs_table(values, "old", probe_tasks=[0])])
    assert power(of_context(pairs, True), "rel_inf", "new", "old", True, QUICK).is_empty()


# ---- verdicts ----


def planted(effect: float, seed: int = 0, tasks: int = 12) -> tuple[pl.DataFrame, pl.DataFrame]:
    rng = np.random.default_rng(seed)
    common = rng.standard_normal((1, tasks, tasks))
    old, new = (common + 0.2 * rng.standard_normal((3, tasks, tasks)) for _ in range(2))
    return pairs_table(new + effect), pairs_table(old, "old")


@pytest.mark.parametrize(("effect", "verdict"), [(1.0, "helps"), (-1.0, "hurts"), (0.0, "no evidence")])
def test_planted_effect_is_found(effect: float, verdict: str) -> None:
    table = judged(*planted(effect))
    assert table["context"].to_list() == ["in-task", "cross-task"]
    assert table["verdict"].to_list() == [verdict, verdict]
    assert table["verdict_cosine"].to_list() == [verdict, verdict]
    for row in table.to_dicts():
        assert row["ci_low"] < row["effect"] < row["ci_high"]
        assert row["effect"] == pytest.approx(effect, abs=0.15)
        assert (row["p_value"] <= 0.05) == (verdict != "no evidence")


@pytest.mark.parametrize(("effect", "verdict"), [(1.0, "hurts"), (-1.0, "helps"), (0.0, "no evidence")])
def test_pushing_less_towards_an_unwanted_target_helps(effect: float, verdict: str) -> None:
    pairs = pl.concat(planted(effect))
    target = pairs["target_set"][0]
    table = verdicts(pairs, curves(pairs, QUICK), "old", QUICK, unwanted=[target])
    for column in ("verdict", "verdict_mean_loss", "verdict_cosine"):
        assert table[column].to_list() == [verdict, verdict]
    assert table["wanted"].to_list() == [False, False]
    assert table["effect"].to_list() == judged(*planted(effect))["effect"].to_list()


def test_two_tasks_can_never_give_a_verdict() -> None:
    """With n tasks the smallest p is 2 / 2ⁿ: it takes six for a verdict at 95%."""
    found = {n: judged(*planted(5.0, tasks=n))["verdict"][0] for n in (2, 5, 6)}
    assert found == {2: "no evidence", 5: "no evidence", 6: "helps"}


def test_false_verdicts_are_as_rare_as_promised() -> None:
    """300 studies of 12 tasks in which strategy and control differ by chance alone, with heavy tails."""
    rng = np.random.default_rng(11)
    false = 0
    for _ in range(300):
        common = rng.standard_normal((1, 12))
        scale = rng.lognormal(0.0, 0.5, (1, 12))
        new, old = (common + scale * rng.standard_t(4, (1, 12)) for _ in range(2))
        (row,) = judged(in_task(new, "new"), in_task(old, "old")).to_dicts()
        false += row["verdict"] != "no evidence"
    assert false / 300 <= 0.08
    assert false > 0  # or the rule would be so strict that this says nothing


def test_only_checkpoints_after_the_given_step_count() -> None:
    rng = np.random.default_rng(5)
    old = rng.standard_normal((6, 8))
    new = old + 0.1 * rng.standard_normal((6, 8)) + np.array([-9.0, -9.0, -9.0, 1.0, 1.0, 1.0])[:, None]
    late = Statistics(after_step=3, resamples=200)
    (row,) = judged(in_task(new, "new"), in_task(old, "old"), late).to_dicts()
    assert (row["verdict"], row["n_checkpoints"]) == ("helps", 3)
    (row,) = judged(in_task(new, "new"), in_task(old, "old")).to_dicts()
    assert (row["verdict"], row["n_checkpoints"]) == ("hurts", 6)
    with pytest.raises(UserError, match=r"No checkpoint lies after step 6 \(statistics\.after_step\); lower it"):
        judged(in_task(new, "new"), in_task(old, "old"), Statistics(after_step=6, resamples=200))


def test_step_0_never_counts() -> None:
    values = np.ones((2, 6)) * [[-5.0], [2.0]]
    new, old = in_task(values, "new"), in_task(np.ones((2, 6)), "old")
    (row,) = judged(new.with_columns(pl.col("step") - 1), old.with_columns(pl.col("step") - 1)).to_dicts()
    assert (row["n_checkpoints"], row["effect"], row["effective_share"]) == (1, 1.0, 1.0)


def test_effective_needs_the_share_of_checkpoints_with_an_interval_above_0() -> None:
    rng = np.random.default_rng(6)
    values = 3.0 + 0.1 * rng.standard_normal((5, 8))
    for below, effective in ((1, True), (2, False)):
        some = values.copy()
        some[:below] -= 6.0
        (row,) = judged(in_task(some, "new"), in_task(values, "old")).to_dicts()
        assert row["effective_share"] == pytest.approx(1 - below / 5)
        assert row["effective"] is effective


def test_control_is_never_a_strategy_and_every_other_set_is() -> None:
    rng = np.random.default_rng(8)
    sets = itertools.product(("new", "old", "third"), "AB")
    pairs = pl.concat([pairs_table(rng.standard_normal((2, 4, 4)), p, target_set=t) for p, t in sets])
    table = verdicts(pairs, curves(pairs, QUICK), "old", QUICK)
    keys = list(zip(table["strategy"], table["target_set"], table["context"], strict=True))
    assert sorted(keys) == sorted(itertools.product(("new", "third"), "AB", ("in-task", "cross-task")))
    assert set(table["control"]) == {"old"}


def test_comparison_is_over_the_tasks_that_both_have() -> None:
    rng = np.random.default_rng(9)
    new, old = rng.standard_normal((1, 4, 9)), rng.standard_normal((1, 7, 9))
    pairs_new = pairs_table(new, "new", probe_tasks=[0, 1, 2, 3])
    pairs_old = pairs_table(old, "old", probe_tasks=[2, 3, 4, 5, 6, 7, 8])
    row = judged(pairs_new, pairs_old).row(by_predicate=pl.col("context") == "in-task", named=True)
    assert (row["n_tasks"], row["n_probes"]) == (2, 2)
    assert row["strategy_rel_inf"] == pytest.approx((new[0, 2, 2] + new[0, 3, 3]) / 2)
    assert row["control_rel_inf"] == pytest.approx((old[0, 0, 2] + old[0, 1, 3]) / 2)


def test_no_task_in_common_is_no_evidence() -> None:
    values = np.ones((1, 3, 6))
    table = judged(pairs_table(values, probe_tasks=[0, 1, 2]), pairs_table(values, "old", probe_tasks=[3, 4, 5]))
    for row in table.to_dicts():
        assert (row["verdict"], row["n_tasks"], row["p_value"]) == ("no evidence", 0, 1.0)
        assert math.isnan(row["effect"])


# ---- pairs without RelInf ----


def test_floored_pairs_are_left_out_and_counted() -> None:
    values = np.random.default_rng(10).standard_normal((2, 5, 5))
    values[:, :, 1] = np.nan  # a target without a gradient
    values[0, 3, 3] = np.nan
    table = curves(pairs_table(values), QUICK)
    for step, expected in ((1, (3, 2)), (2, (4, 1))):
        row = table.row(by_predicate=(pl.col("step") == step) & (pl.col("context") == "in-task"), named=True)
        assert (row["n_pairs"], row["n_skipped"]) == expected
        assert row["rel_inf"] == pytest.approx(np.nanmean(np.diagonal(values[step - 1])))
        assert not math.isnan(row["ci_low"])
    row = table.row(by_predicate=(pl.col("step") == 1) & (pl.col("context") == "cross-task"), named=True)
    assert (row["n_pairs"], row["n_skipped"]) == (16, 4)


def test_verdict_goes_on_without_a_floored_target() -> None:
    rng = np.random.default_rng(12)
    old = rng.standard_normal((2, 9, 9))
    new = old + 1.0 + 0.1 * rng.standard_normal((2, 9, 9))
    new[:, :, 0] = old[:, :, 0] = np.nan
    for row in judged(pairs_table(new), pairs_table(old, "old")).to_dicts():
        assert row["verdict"] == "helps"
        assert row["effect"] == pytest.approx(1.0, abs=0.1)


def test_curve_without_any_usable_pair_is_shown_as_such_and_not_effective() -> None:
    nothing = pairs_table(np.full((2, 4, 4), np.nan))
    table = curves(nothing, QUICK)
    assert table["rel_inf"].to_list() == [None] * 4
    assert table["n_pairs"].to_list() == [0] * 4
    assert sorted(table["n_skipped"].to_list()) == [4, 4, 12, 12]
    for row in judged(nothing, pairs_table(np.ones((2, 4, 4)), "old")).to_dicts():
        assert (row["verdict"], row["effective"], row["p_value"]) == ("no evidence", False, 1.0)


# ---- the tables ----


def test_results_depend_on_the_settings_only() -> None:
    new, old = planted(0.1, seed=3)
    pairs = pl.concat([new, old])
    first, again = (curves(pairs, QUICK) for _ in range(2))
    assert first.equals(again)
    assert judged(new, old).equals(judged(new, old))
    other = curves(pairs, Statistics(after_step=0, resamples=200, seed=18))
    assert not other["ci_low"].equals(first["ci_low"])
    assert other["rel_inf"].equals(first["rel_inf"])


def test_order_of_the_rows_changes_nothing() -> None:
    new, old = planted(0.1, seed=4)
    pairs = pl.concat([new, old])
    mixed = pairs.sample(fraction=1.0, shuffle=True, seed=1)
    keys = ["probe_set", "target_set", "context", "step"]
    one, two = (curves(p, QUICK).sort(keys) for p in (pairs, mixed))
    for column in ("n_pairs", "rel_inf", "ci_low", "ci_high", "cosine"):
        assert one[column].to_list() == pytest.approx(two[column].to_list())
    one, two = (verdicts(p, curves(p, QUICK), "old", QUICK) for p in (pairs, mixed))
    assert one["verdict"].to_list() == two["verdict"].to_list()
    assert one["p_value"].to_list() == pytest.approx(two["p_value"].to_list())


def test_columns_are_those_of_the_tables() -> None:
    new, old = planted(0.0)
    pairs = pl.concat([new, old])
    table = curves(pairs, QUICK)
    assert set(table.columns) == set(CURVES.names)
    assert set(verdicts(pairs, table, "old", QUICK).columns) == set(VERDICTS.names)


def test_grid_is_the_mean_over_steps_where_a_pair_counts() -> None:
    values = np.array([[[1.0, np.nan], [2.0, 4.0]], [[3.0, np.nan], [np.nan, 6.0]]])
    g = grid(pairs_table(values), "rel_inf", ["task00", "task01"], True)
    assert g.values == pytest.approx(np.array([[2.0, np.nan], [2.0, 5.0]]), nan_ok=True)
    assert (g.probe_task.tolist(), g.target_task.tolist()) == ([0, 1], [0, 1])
