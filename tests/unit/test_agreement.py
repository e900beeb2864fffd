"""Agreement: the order that predictors foretell, against scipy and by hand; ceilings; decided pairs; numbers of both kinds of study."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_pairs import COT, pairs_table
from made_scores import RULES, Made, labels
from scipy import stats

from swift_study.config import AgreementStudy, ComparisonStudy, InfluenceStudy, Statistics
from swift_study.errors import UserError
from swift_study.influence.statistics import curves, verdicts
from swift_study.io.tables import BASELINES
from swift_study.studies.agreement import (
    HALVES,
    SEEDS,
    Influence,
    Item,
    Number,
    agreement_schema,
    agreement_table,
    decisions_table,
    items_of,
    rank_agreement,
    summary,
    tau_and_decisions,
)
from swift_study.studies.comparison import Compared, compare
from swift_study.studies.scores import read_scores

QUICK = Statistics(after_step=0, resamples=400)
PLACE = {"study": "cot", "row": "CoT → In-task non-CoT"}


def study(**keys: Any) -> AgreementStudy:
    values: dict[str, Any] = {
        "kind": "agreement", "question": "?", "items": {"in-task": {"a": {"swift": PLACE, "training": {"study": "small", "row": "Good"}}}},
        "predictors": {"swift": {"of": "swift"}}, "outcomes": {"accuracy": {"of": "training", "score": "accuracy"}}, "ceiling": False,
    }  # fmt: skip
    return AgreementStudy.model_validate(values | keys)


def certain(value: float, sd: float = 0.0, seed: int = 0, **keys: Any) -> Number:
    draws = np.random.default_rng(seed).normal(value, sd, QUICK.resamples)
    return Number(value, float(np.quantile(draws, 0.025)), float(np.quantile(draws, 0.975)), draws, **keys)


def item(name: str, group: str, swift: float, gain: float, sd: float = 0.0, wanted: bool = True) -> Item:
    numbers = {"swift": certain(swift, sd, 1, study=name, wanted=wanted), "accuracy": certain(gain, sd, 2)}
    return Item(group, name, "helps", numbers)


def rank(items: Sequence[Item], group: str, a: AgreementStudy | None = None, predictor: str = "swift") -> dict[str, Any]:
    table = rank_agreement(items, a or study(), QUICK)
    return table.row(by_predicate=(pl.col("group") == group) & (pl.col("predictor") == predictor), named=True)


# ---- orders ----


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=1, max_size=6))
def test_tau_is_scipys_with_the_control_among_the_strategies(points: list[tuple[int, int]]) -> None:
    row = rank([item(f"s{k}", "in-task", x, y) for k, (x, y) in enumerate(points)], "in-task")
    expected = stats.kendalltau([0, *(x for x, _ in points)], [0, *(y for _, y in points)]).statistic
    assert row["kendall_tau"] is None if math.isnan(expected) else row["kendall_tau"] == pytest.approx(expected)
    assert row["n_items"] == len(points) + 1
    assert row["n_decisions"] == len(points) * (len(points) + 1) // 2


def test_tau_and_decisions_by_hand() -> None:
    # Scores: control 0, a 1, b 2, c 3; gains: 0, 2, 1, −1. Right: a–0, b–0; wrong: c–0, a–b, a–c, b–c.
    items = [item("a", "in-task", 1, 2), item("b", "in-task", 2, 1), item("c", "in-task", 3, -1)]
    row = rank(items, "in-task")
    assert row["kendall_tau"] == pytest.approx((2 - 4) / 6)
    assert row["decision_accuracy"] == pytest.approx(2 / 6)
    # A tie counts half: b's gain is now that of a.
    items[1] = item("b", "in-task", 2, 2)
    row = rank(items, "in-task")
    assert row["decision_accuracy"] == pytest.approx((2 + 0.5) / 6)
    assert row["kendall_tau"] == pytest.approx((2 - 3) / math.sqrt(6 * 5))


def test_all_pools_pairs_within_contexts_and_compares_none_across() -> None:
    # Within each context the order is right; across contexts it would be wrong.
    items = [item("a", "in-task", 1, 20), item("b", "in-task", 2, 30), item("a", "cross-task", 5, 1), item("b", "cross-task", 6, 2)]
    row = rank(items, "all")
    assert (row["kendall_tau"], row["decision_accuracy"], row["n_decisions"], row["n_items"]) == (1.0, 1.0, 6, 6)
    items[3] = item("b", "cross-task", 6, -2)  # wrong: b–control, a–b
    assert rank(items, "all")["decision_accuracy"] == pytest.approx(4 / 6)


def test_the_order_of_the_items_changes_nothing() -> None:
    items = [item("a", "in-task", 1, 2, 0.5), item("b", "in-task", 2, 1, 0.5), item("c", "in-task", 3, -1, 0.5)]
    one, two = (rank_agreement(x, study(), QUICK) for x in (items, items[::-1]))
    for column in ("kendall_tau", "tau_low", "tau_high", "decision_accuracy", "decision_low", "decision_high"):
        assert one[column].to_list() == pytest.approx(two[column].to_list())


def test_intervals_show_that_three_strategies_say_little() -> None:
    sure = rank([item("a", "in-task", 1, 1), item("b", "in-task", 2, 2), item("c", "in-task", 3, 3)], "in-task")
    assert (sure["kendall_tau"], sure["tau_low"], sure["tau_high"]) == (1.0, 1.0, 1.0)
    unsure = rank([item("a", "in-task", 1, 1, 2.0), item("b", "in-task", 2, 2, 2.0), item("c", "in-task", 3, 3, 2.0)], "in-task")
    assert unsure["kendall_tau"] == 1.0
    assert unsure["tau_low"] < 0.5


def test_pushing_towards_an_unwanted_target_counts_the_other_way_round() -> None:
    items = [item("a", "in-task", -1, 1, wanted=False), item("b", "in-task", -2, 2, wanted=False)]
    assert rank(items, "in-task")["kendall_tau"] == 1.0


def test_a_predictor_that_is_missing_has_no_rank() -> None:
    a = study(predictors={"swift": {"of": "swift"}, "proxy": {"of": "swift"}})
    row = rank([item("a", "in-task", 1, 1)], "in-task", a, "proxy")
    assert (row["n_items"], row["n_decisions"], row["kendall_tau"], row["decision_accuracy"], row["tau_low"]) == (0, 0, None, None, None)


def test_draws_of_one_study_stay_together_and_those_of_two_are_independent() -> None:
    """a and b have the same noise: in one study the order is sure, in two it is not."""
    noisy = [certain(v, 5.0, 1) for v in (1.0, 2.0)]
    share = {}
    for studies in (("s", "s"), ("s", "t")):
        items = [
            Item("in-task", n, "helps", {"swift": replace(noise, study=of), "accuracy": certain(g)})
            for n, of, noise, g in zip("ab", studies, noisy, (1.0, 2.0), strict=True)
        ]
        share[studies] = rank(items, "in-task")["decision_low"]
    assert share["s", "s"] == pytest.approx(1 / 3)  # only a's and b's order over the control is unsure
    assert share["s", "t"] == pytest.approx(0)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.sampled_from([-1, 0, 1]), st.sampled_from([-1, 0, 1])), min_size=1, max_size=10))
def test_decisions_are_right_wrong_or_half(signs: list[tuple[int, int]]) -> None:
    x, y = (np.array([[float(v) for v in side]]) for side in zip(*signs, strict=True))
    _, decisions = tau_and_decisions(x, y)
    assert decisions[0] == pytest.approx(np.mean([0.5 if a * b == 0 else float(a == b) for a, b in signs]))


def test_decided_pairs_are_those_whose_difference_excludes_zero() -> None:
    items = [item("a", "in-task", 1, 1.0, 0.1), item("b", "in-task", 0.5, 1.1, 0.1), item("c", "in-task", 3, 9.0, 0.1)]
    items = [replace(i, numbers=i.numbers | {"accuracy": certain(i.numbers["accuracy"].value, 0.2, k)}) for k, i in enumerate(items)]
    row = rank(items, "in-task")
    assert (row["n_decisions"], row["n_decided"]) == (6, 5)  # only a and b are too near one another
    assert (row["decision_accuracy"], row["decided_accuracy"]) == (pytest.approx(5 / 6), 1.0)
    table = decisions_table(items, study(), QUICK)
    assert table.filter(~pl.col("decided")).select("item_a", "item_b", "right").rows() == [("a", "b", 0.0)]
    assert table["item_a"][0] == "control"
    assert table["measured_difference"][0] == pytest.approx(-1.0)


def test_levels_have_no_control_among_them_and_less_may_be_better() -> None:
    a = study(over_control=False, predictors={"swift": {"of": "swift", "more_is_better": False}})
    row = rank([item("a", "in-task", 1, 2), item("b", "in-task", 2, 1)], "in-task", a)
    assert (row["n_items"], row["n_decisions"], row["kendall_tau"]) == (2, 1, 1.0)


def test_the_ceiling_is_how_another_seed_orders_the_items() -> None:
    by_seed = {"a": [1.0, 2.0, 3.0], "b": [2.0, 1.0, 4.0]}
    items = [Item("g", n, None, {"accuracy": certain(float(np.mean(v)), by_seed=np.array(v))}) for n, v in by_seed.items()]
    row = rank(items, "g", study(ceiling=True), SEEDS)
    right = []
    for s in range(3):
        own = {n: v[s] for n, v in by_seed.items()} | {"control": 0.0}
        others = {n: np.mean([x for k, x in enumerate(v) if k != s]) for n, v in by_seed.items()} | {"control": 0.0}
        for x, y in itertools.combinations(own, 2):
            right.append((1 + np.sign(own[x] - own[y]) * np.sign(others[x] - others[y])) / 2)
    assert row["decision_accuracy"] == pytest.approx(np.mean(right))
    assert row["tau_low"] is None


# ---- numbers ----


def baselines_of(pairs: pl.DataFrame) -> pl.DataFrame:
    scores = {"bm25": pl.col("rel_inf") * 2, "similarity": pl.col("rel_inf") * 3, "loss_change": pl.col("rel_inf") * -1}
    return pairs.select(*BASELINES.names[:-3], **scores)


def influence() -> Influence:
    sets = {"probes": {"CoT": "c", "non-CoT": "p"}, "targets": {"non-CoT": "t"}}
    values = {"kind": "influence", "question": "?", "control": "non-CoT"} | sets
    pairs = pairs_table(COT)
    study_ = InfluenceStudy.model_validate(values | {"figures": {}})
    return Influence(study_, pairs, verdicts(pairs, curves(pairs, QUICK), "non-CoT", QUICK), baselines_of(pairs))


def comparison(folder: Path, **keys: Any) -> Compared:
    made = Made(folder, 4, 4)
    for row, values in {"Base": [0, 1, 0, 1], "Good": [1, 1, 1, 0], "Bad": [0, 0, 1, 0]}.items():
        made.add(row, row, labels(values))
    values = {"kind": "comparison", "question": "?", "evaluations": ["questions"], "metrics": ["accuracy", "nats_token"],
              "rows": {"Base": "b", "Good": "g", "Bad": "x", "Gone": None}, "against": "Base", "control": "Bad"}  # fmt: skip
    s = ComparisonStudy.model_validate(values | keys)
    return compare(s, read_scores(made.manifest, RULES, QUICK, s.unit, s.within))


ROWS = (("proxy", "Base"), ("training", "Good"))
SCORES = ("rel_inf", "rel_inf_mean_loss", "cosine", "similarity", "loss_change")


def test_numbers_are_over_plain_data_on_both_sides(tmp_path: Path) -> None:
    a = study(
        predictors={s: {"of": "swift", "score": s} for s in SCORES} | {"proxy": {"of": "proxy", "score": "nats_token"}},
        items={"in-task": {"CoT": {"swift": PLACE} | {k: {"study": "small", "row": r} for k, r in ROWS},
                           "left out": {"swift": PLACE, "training": {"study": "small", "row": "Gone"}}}},
    )  # fmt: skip
    found = influence()
    items = items_of(a, {"cot": found, "small": comparison(tmp_path)}, QUICK)
    (row,) = agreement_table(items, a).to_dicts()
    told = found.verdicts.row(by_predicate=pl.col("context") == "in-task", named=True)
    assert (row["item"], row["group"], row["verdict"]) == ("CoT", "in-task", "hurts")
    assert (row["rel_inf"], row["rel_inf_low"], row["rel_inf_high"]) == (told["effect"], told["ci_low"], told["ci_high"])
    assert (row["rel_inf_mean_loss"], row["cosine"]) == (told["effect_mean_loss"], told["effect_cosine"])
    assert (row["similarity"], row["loss_change"]) == (pytest.approx(3 * row["rel_inf"]), pytest.approx(-row["rel_inf"]))
    assert (row["accuracy"], row["proxy"]) == (0.5, 0.125)
    assert list(row) == agreement_schema(a).names


def test_levels_are_the_rows_own_numbers(tmp_path: Path) -> None:
    a = study(over_control=False, items={"g": {n: {"swift": PLACE, "training": {"study": "small", "row": n}} for n in ("Base", "Good")}})
    items = items_of(a, {"cot": influence(), "small": comparison(tmp_path)}, QUICK)
    assert [i.numbers["accuracy"].value for i in items] == [0.5, 0.75]
    assert items[0].numbers["swift"].value == pytest.approx(float(np.mean(COT["CoT", "in-task", "non-CoT"])))


def test_a_place_says_which_block_of_a_comparison_is_meant(tmp_path: Path) -> None:
    made = Made(tmp_path, 4, 4)
    for domain, values in {"d1": [0, 1, 0, 1], "d2": [1, 1, 1, 0]}.items():
        made.add("Good", f"good/domain={domain}", labels(values), factors={"domain": domain})
        made.add("Base", f"base/domain={domain}", labels([0, 0, 0, 0]), factors={"domain": domain})
    values = {"kind": "comparison", "question": "?", "evaluations": ["questions"], "metrics": ["accuracy"],
              "rows": {"Base": "b", "Good": "g"}, "against": "Base"}  # fmt: skip
    s = ComparisonStudy.model_validate(values)
    small = compare(s, read_scores(made.manifest, RULES, QUICK, s.unit, s.within))

    def found(block: dict[str, str]) -> float:
        a = study(items={"g": {"Good": {"swift": PLACE, "training": {"study": "small", "row": "Good", "block": block}}}})
        return items_of(a, {"cot": influence(), "small": small}, QUICK)[0].numbers["accuracy"].value

    assert [found({}), found({"domain": "d1"}), found({"domain": "d2"})] == [0.5, 0.5, 0.75]
    with pytest.raises(UserError, match=r"items.g.Good.training.block: none of the row's runs is meant; there are good/domain=d1/"):
        found({"domain": "d3"})


def test_an_item_that_is_not_asked_in_an_evaluation_has_no_number_there(tmp_path: Path) -> None:
    made = Made(tmp_path, 4, 4)
    for row, evaluations in {"Base": ("near", "far"), "Good": ("near",)}.items():
        for evaluation in evaluations:
            made.add(row, row, labels([0, 1, 0, 1]), evaluation=evaluation)
    values = {"kind": "comparison", "question": "?", "evaluations": ["near", "far"], "metrics": ["accuracy"],
              "rows": {"Base": "b", "Good": "g"}, "against": "Base"}  # fmt: skip
    s = ComparisonStudy.model_validate(values)
    small = compare(s, read_scores(made.manifest, RULES, QUICK, s.unit, s.within))
    outcomes = {name: {"of": "training", "score": "accuracy", "evaluation": name} for name in ("near", "far")}
    places = {row: {"swift": PLACE, "training": {"study": "small", "row": row}} for row in ("Base", "Good")}
    found = items_of(study(over_control=False, outcomes=outcomes, items={"g": places}), {"cot": influence(), "small": small}, QUICK)
    assert [sorted(item.numbers) for item in found] == [["far", "near", "swift"], ["near", "swift"]]
    outcomes["far"]["score"] = "recall"
    with pytest.raises(UserError, match=r"the study 'small' has no metric 'recall' on 'far'"):
        items_of(study(over_control=False, outcomes=outcomes, items={"g": places}), {"cot": influence(), "small": small}, QUICK)


def test_a_studys_own_first_step_counts_here_too(tmp_path: Path) -> None:
    a = study(over_control=False, items={"g": {"Base": {"swift": PLACE, "training": {"study": "small", "row": "Base"}}}})
    found = influence()
    late = replace(found, study=found.study.model_copy(update={"after_step": 2}))
    values = [items_of(a, {"cot": s, "small": comparison(tmp_path)}, QUICK)[0].numbers["swift"].value for s in (found, late)]
    assert values == [pytest.approx(float(np.mean(COT["CoT", "in-task", "non-CoT"][k:]))) for k in (0, 2)]
    assert values[0] != values[1]


def test_one_seed_has_the_ceiling_of_half_of_the_queries(tmp_path: Path) -> None:
    made = Made(tmp_path, 40, 8)
    for row, right in (("Plain", 10), ("Good", 30), ("Bad", 2)):
        made.add(row, row, labels(np.random.default_rng(right).permutation(40) < right))
    values = {"kind": "comparison", "question": "?", "evaluations": ["questions"], "metrics": ["accuracy"],
              "rows": {"Plain": "p", "Good": "g", "Bad": "x"}, "against": "Plain"}  # fmt: skip
    s = ComparisonStudy.model_validate(values)
    c = compare(s, read_scores(made.manifest, RULES, QUICK, s.unit, s.within))
    a = study(ceiling=True, items={"g": {n: {"swift": PLACE, "training": {"study": "small", "row": n}} for n in ("Good", "Bad")}})
    row = rank(items_of(a, {"cot": influence(), "small": c}, QUICK), "g", a, HALVES)
    assert 0.9 < row["decision_accuracy"] <= 1
    assert row["n_decisions"] == 3


def test_a_table_of_the_users_predicts_too(tmp_path: Path) -> None:
    file = tmp_path / "sizes.csv"
    file.write_text("group,item,n\nin-task,a,7\n")
    a = study(predictors={"size": {"file": str(file), "score": "n"}})
    (one,) = items_of(a, {"cot": influence(), "small": comparison(tmp_path)}, QUICK)
    assert one.numbers["size"].value == 7.0
    with pytest.raises(UserError, match="the column 'm' is missing; it has group, item, n"):
        items_of(study(predictors={"size": {"file": str(file), "score": "m"}}), {"small": comparison(tmp_path)}, QUICK)


@pytest.mark.parametrize(
    ("place", "sentence"),
    [
        ({"swift": {"study": "cot", "row": "CoT → non-CoT"}}, "the study 'cot' has no curve 'CoT → non-CoT'"),
        ({"training": {"study": "small", "row": "Godo"}}, "the study 'small' has no row 'Godo'; it has Base, Good, Bad"),
    ],
)
def test_a_place_that_is_not_there_is_a_sentence(tmp_path: Path, place: dict[str, Any], sentence: str) -> None:
    places = {"swift": PLACE, "training": {"study": "small", "row": "Good"}} | place
    with pytest.raises(UserError, match=sentence):
        items_of(study(items={"in-task": {"a": places}}), {"cot": influence(), "small": comparison(tmp_path)}, QUICK)


def test_summary_counts_what_agrees_contradicts_and_cannot_be_told() -> None:
    rows = [
        {"verdict": "helps", "likelihood_low": 0.1, "likelihood_high": 0.2, "accuracy_low": -0.1},
        {"verdict": "hurts", "likelihood_low": 0.1, "likelihood_high": 0.2, "accuracy_low": 0.01},
        {"verdict": "helps", "likelihood_low": None, "likelihood_high": None, "accuracy_low": None},
        {"verdict": "no evidence", "likelihood_low": 0.1, "likelihood_high": 0.2, "accuracy_low": 0.01},
    ]
    table = pl.DataFrame(rows, schema={k: pl.String if k == "verdict" else pl.Float64 for k in rows[0]})
    table = table.with_columns(pl.lit(0.5).alias("accuracy_high"))
    a = study(outcomes={"likelihood": {"of": "training"}, "accuracy": {"of": "training", "score": "accuracy"}})
    first, likelihood, accuracy = summary(table, a)
    assert first.startswith("The influence studies say of 3 of 4 items that the data help or hurt")
    assert "1 of these 3 agree" in likelihood
    assert "1 contradict it, and 1 cannot be told" in likelihood
    assert "0 of these 3 agree" in accuracy
    assert "1 contradict it, and 2 cannot be told" in accuracy
