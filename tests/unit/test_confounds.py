"""The confound panel: each check is the verdict's own rule on other numbers, and where nothing can be told it says so."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from swift_study.config import CEILING, FLOOR, Statistics
from swift_study.influence.confounds import (
    CANNOT_TELL,
    confound_table,
    disagreements,
    fewest_tasks,
    layer_table,
    matched_tasks,
    overview,
    panel,
    power_panel,
    power_table,
    verdicts_of,
)
from swift_study.influence.statistics import curves, verdicts
from swift_study.io.tables import CONFOUNDS, write_table
from swift_study.report.figures import draw_layers

QUICK = Statistics(after_step=0, resamples=400)
TASKS = 8


def pairs_table(
    ours: np.ndarray, theirs: np.ndarray, our_tokens: Sequence[int] = (10,) * TASKS, adam: np.ndarray | None = None, target_set: str = "T"
) -> pl.DataFrame:
    """One probe a task and set, one target a task; RelInf of shape (tasks, tasks) at two steps, the control's completions of 10 tokens.

    The norms of probes and targets are 1, so that the cosine is RelInf. ``adam``: the preconditioned RelInf of the strategy's probes.
    """
    rows = []
    for step in (1, 2):
        for name, values, tokens in (("new", ours, our_tokens), ("plain", theirs, (10,) * TASKS)):
            for i in range(TASKS):
                for j in range(TASKS):
                    score = float(values[i, j])
                    preconditioned = None if adam is None else float(adam[i, j]) if name == "new" else 0.0
                    rows.append(
                        {
                            "study": "s", "run": "base", "step": step, "probe_set": name, "target_set": target_set,
                            "probe_id": f"{name}{i}", "target_id": f"t{j}", "probe_task": f"task{i}", "target_task": f"task{j}",
                            "context": "in-task" if i == j else "cross-task", "dot": score, "probe_norm_sq": 1.0, "target_norm_sq": 1.0,
                            "rel_inf": score, "cosine": score, "rel_inf_adam": preconditioned,
                            "probe_tokens": tokens[i], "target_tokens": 10,
                        }
                    )  # fmt: skip
    return pl.DataFrame(rows, schema_overrides={"rel_inf_adam": pl.Float64})


def around(mean: float, seed: int = 0) -> np.ndarray:
    values: np.ndarray = mean + 0.05 * np.random.default_rng(seed).standard_normal((TASKS, TASKS))
    return values


def row(table: pl.DataFrame, check: str, context: str = "in-task") -> dict[str, object]:
    found = table.filter((pl.col("check") == check) & (pl.col("context") == context))
    assert len(found) == 1
    return found.row(0, named=True)


def test_score_checks_are_the_verdicts_table_in_rows() -> None:
    pairs = pairs_table(around(0.3, 1), around(0.1, 2), our_tokens=[10, 20, 40, 15, 30, 25, 60, 10])
    table = confound_table(pairs, "plain", QUICK, 1.5)
    judged = verdicts(pairs, curves(pairs, QUICK), "plain", QUICK)
    for context in ("in-task", "cross-task"):
        told = judged.filter(pl.col("context") == context).row(0, named=True)
        main = row(table, "sum-loss", context)
        for column in ("effect", "ci_low", "ci_high", "p_value", "n_probes", "n_tasks", "verdict"):
            assert main[column] == told[column]
        assert main["agrees"]
        for check, column in (("mean-loss", "mean_loss"), ("cosine", "cosine")):
            assert row(table, check, context)["effect"] == told[f"effect_{column}"]
            assert row(table, check, context)["verdict"] == told[f"verdict_{column}"]
    assert table["check"].n_unique() == 4 + TASKS  # without Adam's second moments there is no such check


def test_a_length_effect_is_seen_as_one() -> None:
    """RelInf in proportion to the tokens, three times as many: by mean loss nothing is left, and no task is alike in length."""
    base = around(0.2, 3)
    table = confound_table(pairs_table(3 * base, base, our_tokens=[30] * TASKS), "plain", QUICK, 1.5)
    assert row(table, "sum-loss")["verdict"] == "helps"
    assert row(table, "mean-loss")["verdict"] == "no evidence"
    assert row(table, "mean-loss")["effect"] == pytest.approx(0, abs=1e-12)
    matched = row(table, "length-matched")
    assert (matched["verdict"], matched["n_tasks"], matched["agrees"], matched["effect"]) == (CANNOT_TELL, 0, None, None)
    assert disagreements(table)[0] == (
        "new → in-task T: helps by sum loss, but no evidence by mean loss, cannot tell at like lengths (0 tasks)."
    )


def test_lengths_match_up_to_the_factor_both_ways() -> None:
    tokens = [10, 15, 16, 7, 6, 30, 12, 10]
    pairs = pairs_table(around(0.3), around(0.1), our_tokens=tokens)
    assert matched_tasks(pairs, "new", "plain", 1.5) == ["task0", "task1", "task3", "task6", "task7"]
    assert row(confound_table(pairs, "plain", QUICK, 1.5), "length-matched")["verdict"] == CANNOT_TELL  # 5 tasks
    wider = row(confound_table(pairs, "plain", QUICK, 1.7), "length-matched")
    kept = [0, 1, 2, 3, 4, 6, 7]
    assert (wider["verdict"], wider["n_tasks"], wider["n_probes"]) == ("helps", 7, 7)
    by_hand = np.diagonal(around(0.3))[kept].mean() - np.diagonal(around(0.1))[kept].mean()
    assert wider["effect"] == pytest.approx(by_hand, rel=1e-12)


def test_leaving_out_the_one_task_that_carries_it_flips_the_verdict() -> None:
    noise = around(0.0, 5)
    ours = noise + np.diag([0.2] * 7 + [-0.9])
    table = confound_table(pairs_table(ours, noise), "plain", QUICK, 1.5)
    assert row(table, "sum-loss")["verdict"] == "no evidence"
    without = row(table, "without: task7")
    assert (without["verdict"], without["agrees"], without["n_tasks"]) == ("helps", False, 7)
    assert without["effect"] == pytest.approx(0.2, rel=1e-9)
    assert row(table, "without: task0")["agrees"]
    assert disagreements(table)[0] == "new → in-task T: no evidence by sum loss; flips when task7 is left out."
    assert panel(table)["flips when left out"].to_list() == ["task7", "none"]


def test_a_task_is_left_out_as_a_target_too() -> None:
    """One target at which all of the strategy's probes point: without it nothing is left, so it counts under its task."""
    ours = np.zeros((TASKS, TASKS))
    ours[:, 2] = 1.0
    table = confound_table(pairs_table(ours, np.zeros((TASKS, TASKS))), "plain", QUICK, 1.5)
    assert row(table, "without: task2", "cross-task")["effect"] == 0.0
    assert row(table, "without: task1", "cross-task")["effect"] > 0  # type: ignore[operator]


def test_adams_score_is_a_check_where_there_is_one() -> None:
    table = confound_table(pairs_table(around(0.3, 1), around(0.1, 2), adam=around(-0.2, 3)), "plain", QUICK, 1.5)
    adam = row(table, "adam")
    assert (adam["verdict"], adam["agrees"]) == ("hurts", False)
    assert adam["effect"] == pytest.approx(np.diagonal(around(-0.2, 3)).mean(), rel=1e-9)
    assert "hurts by Adam's scale" in disagreements(table)[0]


def test_unwanted_targets_are_judged_the_other_way_round() -> None:
    table = confound_table(pairs_table(around(0.3, 1), around(0.1, 2), target_set="Neg"), "plain", QUICK, 1.5, unwanted=["Neg"])
    assert set(table["verdict"]) == {"hurts"}
    assert set(table["agrees"]) == {True}
    assert disagreements(table) == []
    assert overview(table).startswith("All 2 verdicts stand under every score")


@pytest.mark.parametrize(("confidence", "tasks"), [(0.95, 6), (0.9, 5), (0.99, 8), (0.75, 3), (1 - 2**-6, 7)])
def test_fewest_tasks_are_those_whose_smallest_p_can_be_significant(confidence: float, tasks: int) -> None:
    assert fewest_tasks(confidence) == tasks
    assert 2.0 ** (1 - tasks) <= 1 - confidence + 1e-12 < 2.0 ** (2 - tasks)


def test_effects_are_told_as_shares_of_the_way_from_floor_to_ceiling() -> None:
    references = pairs_table(around(0.9, 7), around(0.1, 8)).with_columns(
        pl.col("probe_set").replace({"new": CEILING, "plain": FLOOR}), pl.format("reference {}", "probe_id").alias("probe_id")
    )
    pairs = pairs_table(around(0.3, 1), around(0.2, 2), our_tokens=[20] * TASKS)
    table = confound_table(pl.concat([pairs, references]), "plain", QUICK, 1.5)
    assert set(table["strategy"]) == {"new"}  # references get no verdict
    plain = confound_table(pairs, "plain", QUICK, 1.5)
    assert plain["of_scale"].null_count() == len(plain)
    assert table.drop("of_scale").equals(plain.drop("of_scale"))
    way = np.diagonal(around(0.9, 7)).mean() - around(0.1, 8).mean()  # the floor is any text's, on any target
    for context in ("in-task", "cross-task"):
        main = row(table, "sum-loss", context)
        assert main["of_scale"] == pytest.approx(main["effect"] / way, rel=1e-9)  # type: ignore[operator]
        assert row(table, "without: task3", context)["of_scale"] is not None
    upside_down = pairs.vstack(references.with_columns(pl.col("probe_set").replace({CEILING: FLOOR, FLOOR: CEILING})))
    assert confound_table(upside_down, "plain", QUICK, 1.5)["of_scale"].null_count() == len(table)


def test_layers_carry_the_effect_between_them(tmp_path: Path) -> None:
    """Two layers and what lies outside them: the figure says who is who, and that there are none where none were kept."""
    pairs = pairs_table(around(0.3, 1), around(0.1, 2))
    shares = {0: 0.7, 1: -0.1, None: 0.4}
    parts = [
        pairs.with_columns(pl.lit(layer, pl.Int32).alias("layer"), carried=share * pl.col("rel_inf")) for layer, share in shares.items()
    ]
    table = layer_table(pl.concat(parts), "plain", QUICK)
    whole = confound_table(pairs, "plain", QUICK, 1.5)
    for context in ("in-task", "cross-task"):
        own, effect = table.filter(pl.col("context") == context), row(whole, "sum-loss", context)["effect"]
        assert dict(own.select("layer", "effect").iter_rows()) == pytest.approx({k: v * effect for k, v in shares.items()}, rel=1e-9)  # type: ignore[operator]
        assert ((own["ci_low"] < own["effect"]) & (own["effect"] < own["ci_high"])).all()
    draw_layers(table, "plain", "Which layers?", tmp_path / "layers")
    drawn = (tmp_path / "layers.svg").read_text()
    assert all(words in drawn for words in ("new", "plain", "Which layers?", "in-task, targets T", "cross-task, targets T", "outside"))
    draw_layers(layer_table(pl.concat(parts).clear(), "plain", QUICK), "plain", "Which layers?", tmp_path / "layers")
    assert "gradients.by_module" in (tmp_path / "layers.svg").read_text()


def test_families_tell_their_own_verdict_and_what_they_carry() -> None:
    """Two families whose inner products add up to the whole: one has all of the effect, the other a little against it."""
    ours, theirs = around(0.3, 1), around(0.1, 2)
    pairs = pairs_table(ours, theirs)
    against = pairs_table(around(-0.04, 3), around(0.01, 3)).with_columns(
        pl.lit("norms").alias("family"), pl.col("rel_inf").alias("carried")
    )
    rest = pairs["rel_inf"] - against["rel_inf"]
    bulk = pairs.with_columns(pl.lit("up_proj").alias("family"), carried=rest, rel_inf=rest * 2)  # a target norm half as large
    families = pl.concat([bulk.select(against.columns), against])
    table = confound_table(pairs, "plain", QUICK, 1.5, families=families)
    main, up, norms = (row(table, check) for check in ("sum-loss", "family: up_proj", "family: norms"))
    assert (up["verdict"], up["agrees"], norms["verdict"], norms["agrees"]) == ("helps", True, "hurts", False)
    assert norms["effect"] == pytest.approx(-0.05, rel=1e-9)
    assert norms["carried"] == pytest.approx(-0.05 / main["effect"], rel=1e-9)  # type: ignore[operator]
    assert up["carried"] + norms["carried"] == pytest.approx(1, rel=1e-9)  # type: ignore[operator]
    assert disagreements(table)[0] == "new → in-task T: helps by sum loss, but hurts in norms."
    little = table.with_columns(pl.when(pl.col("check") == "family: norms").then(0.09).otherwise("carried").alias("carried"))
    assert disagreements(little) == []  # a family that carries less than a tenth makes no verdict doubtful
    assert panel(table)["families of modules"][0] == f"1 of 2 agree; up_proj carries {up['carried']:.0%}"


def test_power_is_told_for_every_verdict_at_as_many_tasks_and_more() -> None:
    pairs = pairs_table(around(0.3, 1), around(0.1, 2))
    table = power_table(pairs, "plain", QUICK)
    asked = verdicts_of(pairs, "plain", QUICK, ())
    assert len(table) == 6 * len(asked) > 0
    tasks = pairs.filter(pl.col("probe_set") == "new")["probe_task"].n_unique()
    assert sorted(set(table["n_tasks"])) == [tasks, 2 * tasks, 4 * tasks]
    shown = power_panel(table)
    assert len(shown) == 2 * len(asked)
    first = shown.row(0, named=True)
    observed = table.filter(pl.col("planted") == "observed")["power"]
    assert first["effect"].startswith("the observed effect (+0.2")
    assert [first[name] for name in shown.columns[-3:]] == [f"{share:.0%}" for share in observed[:3]]
    assert shown.columns[-3:] == ["told at as many tasks", "told at 2 times as many tasks", "told at 4 times as many tasks"]


def test_baselines_are_judged_by_the_same_rule_on_their_own_scores() -> None:
    pairs = pairs_table(around(0.3, 1), around(0.1, 2))
    alike = (
        pairs_table(around(1.0, 3), around(1.5, 4))
        .filter(pl.col("step") == 2)
        .select("study", pl.selectors.ends_with("_set", "_id", "_task"), "context", bm25="rel_inf", similarity=-pl.col("rel_inf"))
        .with_columns(loss_change=pl.col("similarity") * 2)
    )
    table = confound_table(pairs, "plain", QUICK, 1.5, baselines=alike)
    found = row(table, "BM25")
    assert (found["verdict"], found["agrees"], found["n_tasks"]) == ("hurts", False, TASKS)
    assert found["effect"] == pytest.approx(np.diagonal(around(1.0, 3) - around(1.5, 4)).mean(), rel=1e-9)
    assert disagreements(table) == []  # a baseline that sees it otherwise makes no verdict doubtful
    assert panel(table)["BM25"].to_list() == ["hurts", "hurts"]
    assert panel(table)["similarity"].to_list() == ["helps", "helps"]
    assert row(table, "loss change")["verdict"] == "helps"


def test_many_flips_are_counted(tmp_path) -> None:  # type: ignore[no-untyped-def]
    noise = around(0.0, 5)
    table = confound_table(pairs_table(noise + 0.3 * np.eye(TASKS), noise), "plain", QUICK, 1.5)
    turned = table.with_columns(
        agrees=pl.when(pl.col("check").str.starts_with("without") & (pl.col("context") == "in-task")).then(False).otherwise("agrees")
    )
    assert disagreements(turned)[0].endswith("flips when task0, task1, task2 or one of 5 more is left out.")
    write_table(tmp_path / "confounds.parquet", table, CONFOUNDS)
