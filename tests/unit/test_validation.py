"""The proof: numbers by hand, intervals that cover, claims in all their forms, and the order that scores predict."""

import itertools
import json
import math
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from configuration import configured
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from tiny import ROOT

from swift_study.config import Prediction, Statistics, Validation, ValidationTable
from swift_study.errors import UserError
from swift_study.evaluation import scorers
from swift_study.examples import Example, Message
from swift_study.influence.statistics import curves, verdicts
from swift_study.io.tables import (
    ACCOUNTS,
    AGREEMENT,
    COSTS,
    HISTORY,
    PAIRS,
    RANK_AGREEMENT,
    RIVALS,
    VERDICTS,
    read_table,
    write_examples,
    write_table,
)
from swift_study.studies.validation import (
    Claim,
    Estimate,
    Files,
    Item,
    Measured,
    Queries,
    SwiftStudy,
    agreement_items,
    agreement_table,
    by_query,
    claims_schema,
    claims_table,
    cost_sentences,
    costs,
    curve_estimate,
    curve_names,
    curves_of,
    differences,
    draw_queries,
    estimate,
    load_claims,
    measured,
    outcome,
    paired_p,
    paper_outcome,
    query_values,
    rank_agreement,
    read_benchmark,
    summary,
    tau_and_decisions,
    untimed,
    usable_claims,
    validation_schema,
    validation_table,
)

QUICK = Statistics(after_step=0, resamples=400)
NAN = float("nan")
VALIDATION, STUDIES = configured().validation, {name: configured().studies[name] for name in ("cot", "clarify", "evaluate")}
PAPER = VALIDATION.tables


def small(baseline: str = "Base", control: str = "Base", **paper: dict[str, float]) -> Validation:
    """A validation with one table, of the rows Base, Good and Bad."""
    table = ValidationTable(
        question="?", context="in-task", baseline=baseline, control=control, runs={"Base": "b", "Good": "g", "Bad": "x"}, paper=paper
    )
    return Validation(tables={"small": table}, predictions={})


def asked(tasks: Sequence[int], statistics: Statistics = QUICK) -> Queries:
    return draw_queries([f"q{i}" for i in range(len(tasks))], [f"task{t:02}" for t in tasks], statistics)


def runs_of(rows: Mapping[str, np.ndarray], model: str = "main", table: str = "small") -> Measured:
    """Labels by row, of shape (seeds, queries); log-likelihoods are labels − 1, over two tokens."""
    given = {}
    for row, labels in rows.items():
        for seed, own in enumerate(np.atleast_2d(np.asarray(labels, dtype=float))):
            ll = np.nan_to_num(own) - 1
            given[row, seed] = np.stack([own, ll / 2, ll])
    seeds = range(len(np.atleast_2d(next(iter(rows.values())))))
    return measured(table, model, rows, list(seeds), given)


# ---- reading ----


def test_values_are_in_the_order_of_the_queries_and_null_is_nan() -> None:
    queries = asked([0, 1, 2])
    labels = pl.DataFrame({"query_id": ["q2", "q0", "q1"], "right": [1.0, None, 0.0]})
    likelihoods = pl.DataFrame({"query_id": ["q1", "q2", "q0"], "nats": [-4.0, -9.0, -1.0], "nats_token": [-2.0, -3.0, -0.25]})
    values = query_values(labels, likelihoods, queries, ("j", "l"))
    assert values == pytest.approx(np.array([[NAN, 0, 1], [-0.25, -2, -3], [-1, -4, -9]]), nan_ok=True)


@pytest.mark.parametrize("ids", [["q0", "q1"], ["q0", "q1", "q1"], ["q0", "q1", "q2", "q3"], ["q0", "q1", "other"]])
def test_another_evaluation_set_is_a_sentence(ids: list[str]) -> None:
    frame = pl.DataFrame({"query_id": ids, "label": [1] * len(ids)})
    with pytest.raises(UserError, match=r"some/file\.parquet: it does not hold each query of the evaluation set once"):
        by_query(frame, pl.col("label"), asked([0, 1, 2]), "some/file.parquet")


def test_a_run_that_is_missing_is_a_sentence() -> None:
    values = np.zeros((3, 2))
    with pytest.raises(UserError, match="The row 'Good' of small has no run on the model 'main' with seed 17"):
        measured("small", "main", ["Base", "Good"], [17], {("Base", 17): values})


# ---- tables ----


def test_unparsed_labels_are_counted_and_never_wrong() -> None:
    m = runs_of({"Base": [1, 0, NAN, NAN], "Good": [1, 1, 0, NAN], "Bad": [NAN] * 4})
    base, good, bad = validation_table("small", [m], asked([0, 1, 2, 3]), small(), QUICK).to_dicts()
    assert (base["accuracy"], base["n"], base["unparsed"]) == (0.5, 4, 2)
    assert (good["accuracy"], good["unparsed"]) == (pytest.approx(2 / 3), 1)
    assert good["accuracy_gain"] == 0.5  # over the two queries that both have a label for
    assert (bad["accuracy"], bad["unparsed"], bad["accuracy_gain"], bad["accuracy_gain_p"]) == (None, 4, None, None)
    assert (base["accuracy_gain"], base["accuracy_gain_p"], base["ll_token_gain"]) == (None, None, None)


def test_means_and_deviations_are_over_seeds_and_gains_are_paired_by_seed() -> None:
    m = runs_of({"Base": [[0, 0, 1, 1], [0, 1, 1, 1]], "Good": [[1, 0, 1, 1], [1, 1, 1, 1]], "Bad": [[0, 0, 0, 0], [0, 0, 0, 0]]})
    base, good, bad = validation_table("small", [m], asked([0, 1, 2, 3]), small(), QUICK).to_dicts()
    assert (base["accuracy"], base["accuracy_sd"]) == (0.625, pytest.approx(math.sqrt(2) * 0.125))
    assert (good["accuracy"], good["accuracy_gain"], bad["accuracy_gain"]) == (0.875, 0.25, -0.625)
    assert good["ll_answer"] == pytest.approx(-0.125)
    assert (good["ll_token"], good["ll_token_gain"], good["n_seeds"]) == (pytest.approx(-0.0625), pytest.approx(0.125), 2)
    # Differences by query are 1, 0, 0, 0: a sign-flip test over four queries of which one differs.
    assert good["accuracy_gain_p"] == 1.0
    assert (bad["training_data"], bad["run"], bad["scorer"]) == ("Bad", "x", "key_points")


def test_one_seed_has_no_deviation() -> None:
    table = validation_table("small", [runs_of({"Base": [0, 1], "Good": [1, 1], "Bad": [0, 0]})], asked([0, 1]), small(), QUICK)
    assert table["accuracy_sd"].null_count() == 3


def test_p_of_labels_of_one_seed_is_mcnemars() -> None:
    labels = {"Base": [1] * 3 + [0] * 9 + [1] * 20 + [NAN], "Good": [0] * 3 + [1] * 9 + [1] * 20 + [1], "Bad": [0] * 33}
    m = runs_of(labels)
    assert paired_p(m, "accuracy", "Good", "Base", QUICK) == stats.binomtest(9, 12).pvalue
    assert paired_p(m, "accuracy", "Good", "Good", QUICK) == 1.0
    # With two equal seeds it is the sign-flip test, which for labels is the same up to its random draws.
    twice = runs_of({row: [own, own] for row, own in labels.items()})
    assert paired_p(twice, "accuracy", "Good", "Base", QUICK) == pytest.approx(stats.binomtest(9, 12).pvalue, abs=0.01)


@settings(deadline=None, max_examples=40)
@given(st.integers(2, 12), st.integers(1, 3), st.integers(0, 2**32 - 1))
def test_without_gaps_the_gain_is_the_difference_of_the_means(n: int, seeds: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    m = runs_of({row: rng.integers(0, 2, (seeds, n)) for row in ("Base", "Good", "Bad")})
    table = validation_table("small", [m], asked(rng.integers(0, 4, n).tolist()), small(), QUICK)
    base, good, _ = table.to_dicts()
    for measure in ("accuracy", "ll_token", "ll_answer"):
        assert good[f"{measure}_gain"] == pytest.approx(good[measure] - base[measure])


def test_models_follow_one_another_and_the_papers_numbers_stand_beside() -> None:
    labels = {"Base": [0, 1], "Good": [1, 1], "Bad": [0, 0]}
    both = [runs_of(labels), runs_of(labels, "large")]
    v = small(**{"7B": {"Base": 52.74, "Good": 60.0}})
    table = validation_table("small", both, asked([0, 1]), v, QUICK)
    assert table["model"].to_list() == ["main"] * 3 + ["large"] * 3
    assert table["paper_7B"].to_list()[:3] == [0.5274, 0.6, None]
    assert set(table.columns) == set(validation_schema(v).names)
    assert validation_schema(VALIDATION).names[-2:] == ["paper_7B", "paper_13B"]


def test_interval_of_a_gain_covers_as_often_as_it_says() -> None:
    """Queries of a task are alike: an interval over queries alone would be far too narrow."""
    rng = np.random.default_rng(5)
    tasks = np.repeat(np.arange(15), 6)
    queries = asked(tasks.tolist(), Statistics(resamples=1000))
    covered = 0
    for _ in range(300):
        d = 0.3 + rng.normal(0, 1, 15)[tasks] + rng.normal(0, 1, len(tasks))
        found = estimate(d, queries, QUICK)
        covered += found.low <= 0.3 <= found.high
    assert 0.90 <= covered / 300 <= 0.99


def test_resamples_are_means_of_the_drawn_queries() -> None:
    queries = asked([0, 0, 1, 2], Statistics(resamples=200))
    values = np.array([1.0, 2.0, NAN, 5.0])
    found = estimate(values, queries, QUICK)
    for weights, draw in zip(queries.weights, found.draws, strict=True):
        drawn = [v for v, w in zip(values, weights, strict=True) for _ in range(int(w)) if not math.isnan(v)]
        assert draw == pytest.approx(np.mean(drawn)) if drawn else math.isnan(draw)
    assert found.value == pytest.approx(8 / 3)
    assert estimate(values, queries, QUICK).draws.tolist() == pytest.approx(found.draws.tolist(), nan_ok=True)


def test_differences_average_over_the_seeds_that_both_have() -> None:
    m = runs_of({"Base": [[0, NAN], [1, 1]], "Good": [[1, 1], [1, NAN]], "Bad": [[0, 0], [0, 0]]})
    assert differences(m, "accuracy", "Good", "Base") == pytest.approx(np.array([0.5, NAN]), nan_ok=True)


# ---- claims ----


@pytest.mark.parametrize(
    ("says", "low", "high", "expected"),
    [
        ("above", 0.1, 0.2, "holds"), ("above", -0.2, -0.1, "fails"), ("above", -0.1, 0.1, "cannot tell"),
        ("above", 0.0, 0.1, "cannot tell"),
        ("below", -0.2, -0.1, "holds"), ("below", 0.1, 0.2, "fails"), ("below", -0.1, 0.1, "cannot tell"),
        ("near", -0.02, 0.02, "holds"), ("near", 0.03, 0.2, "fails"), ("near", -0.2, -0.03, "fails"), ("near", -0.01, 0.03, "cannot tell"),
        ("near", -1.0, 1.0, "cannot tell"),
        ("above", NAN, NAN, "cannot tell"), ("near", NAN, NAN, "cannot tell"),
    ],
)  # fmt: skip
def test_outcomes(says: str, low: float, high: float, expected: str) -> None:
    assert outcome(says, low, high, near=0.02) == expected
    assert outcome(says, low + 5, high + 5, near=0.021, value=5) == expected


@pytest.mark.parametrize(("n", "expected"), [(60, "cannot tell"), (400, "holds")])
def test_no_difference_on_few_queries_is_not_certainty(n: int, expected: str) -> None:
    """Resampling equal values shows no spread; of n queries without a change 1 − 0.025^(1/n) may still change (rule of three)."""
    found = estimate(np.zeros(n), asked([i % 20 for i in range(n)]), QUICK)
    assert (found.value, -found.low) == (0, found.high)
    assert found.high == pytest.approx(1 - 0.025 ** (1 / n))
    assert outcome("near", found.low, found.high, near=0.02) == expected


def claim(**keys: object) -> Claim:
    return Claim.model_validate({"source": "s", "claim": "c", "where": "small", "says": "above", "this": "Good"} | keys)


def test_claims_about_tables_are_held_against_both_measures_on_every_model() -> None:
    rng = np.random.default_rng(0)
    base = rng.integers(0, 2, 60)
    clear = runs_of({"Base": base, "Good": np.ones(60), "Bad": np.zeros(60)})
    same = runs_of({"Base": base, "Good": base, "Bad": base}, "large")
    listed = [claim(), claim(says="below", this="Bad", that="Good"), claim(says="near"), claim(this="Bad")]
    queries = asked(np.repeat(np.arange(12), 5).tolist())
    table = claims_table(listed, {"small": [clear, same]}, {}, queries, small(), QUICK)
    assert table["measure"].to_list() == ["accuracy", "log_likelihood"] * 8
    assert table["model"].to_list() == ["main", "main", "large", "large"] * 4
    assert table.filter(model="main")["outcome"].to_list() == ["holds"] * 4 + ["fails"] * 4
    assert table.filter(model="large")["outcome"].to_list() == ["cannot tell"] * 8  # 60 queries cannot show "near"
    assert table["that"].to_list()[:8] == ["Base"] * 4 + ["Good"] * 4
    assert table["estimate"][0] == pytest.approx(1 - base.mean())
    assert set(table.columns) == set(claims_schema(small()).names)


def pairs_table(curve_values: Mapping[tuple[str, str, str], Sequence[float]], spread: float = 0.01, study: str = "cot") -> pl.DataFrame:
    """Pairs whose curves (probe set, context, target set) have these values at steps 1, 2, …; eight tasks, some noise between tasks."""
    rng = np.random.default_rng(3)
    rows = []
    for (probe_set, context, target_set), values in curve_values.items():
        noise = rng.normal(0, spread, (8, 8))
        counts = np.eye(8, dtype=bool) if context == "in-task" else ~np.eye(8, dtype=bool)
        noise -= noise[counts].mean()
        for step, value in enumerate(values, 1):
            rows += [
                {
                    "study": study, "run": "base", "step": step, "probe_set": probe_set, "target_set": target_set,
                    "probe_id": f"{probe_set}{i}", "target_id": f"{target_set}{j}", "probe_task": f"t{i}", "target_task": f"t{j}",
                    "context": context, "dot": value, "probe_norm_sq": 1.0, "target_norm_sq": 1.0, "rel_inf": value + noise[i, j],
                    "cosine": (value + noise[i, j]) / 2, "probe_tokens": 10, "target_tokens": 20,
                }
                for i in range(8) for j in range(8) if counts[i, j]
            ]  # fmt: skip
    return pl.DataFrame(rows, schema=dict(zip(PAIRS.names, pl.DataFrame(PAIRS.empty_table()).dtypes, strict=True)))


COT = {
    ("CoT", "in-task", "non-CoT"): [0.9, 0.6, 0.5, 0.4],
    ("non-CoT", "in-task", "non-CoT"): [1.0, 0.9, 0.8, 0.7],
    ("CoT", "cross-task", "non-CoT"): [-0.2, 0.04, 0.05, 0.06],
    ("non-CoT", "cross-task", "non-CoT"): [0.1, 0.02, 0.02, 0.02],
}


@pytest.mark.parametrize(
    ("this", "that", "of", "expected"),
    [
        ("CoT → In-task non-CoT", None, "mean", 0.5),
        ("CoT → In-task non-CoT", "non-CoT → In-task non-CoT", "mean", -0.3),
        ("CoT → Cross-task non-CoT", "non-CoT → Cross-task non-CoT", "first", -0.3),
        ("CoT → Cross-task non-CoT", "non-CoT → Cross-task non-CoT", "last", 0.04),
        ("CoT → In-task non-CoT", None, "trend", -0.2),
        ("CoT → Cross-task non-CoT", "non-CoT → Cross-task non-CoT", "trend", 0.02),
        ("CoT → In-task non-CoT", "CoT → Cross-task non-CoT", "mean", 0.45),
    ],
)
def test_curves_are_compared_at_the_right_checkpoints(this: str, that: str | None, of: str, expected: float) -> None:
    found = curve_estimate(pairs_table(COT), this, that, of, Statistics(after_step=1, resamples=400))
    assert found.value == pytest.approx(expected)
    assert found.low - 1e-9 <= expected <= found.high + 1e-9
    assert found.high - found.low < 0.1


def test_the_mean_is_that_of_the_curves_table_over_the_counted_checkpoints() -> None:
    pairs = pairs_table(COT, spread=1.0)
    statistics = Statistics(after_step=2, resamples=200)
    table = curves(pairs, statistics).filter(pl.col("step") > 2)
    for curve in curves_of(pairs):
        expected = table.filter(pl.col("curve") == curve)["rel_inf"].mean()
        assert curve_estimate(pairs, curve, None, "mean", statistics).value == pytest.approx(expected)


def test_one_counted_checkpoint_has_no_trend_and_step_0_is_not_the_first() -> None:
    pairs = pairs_table(COT)
    assert math.isnan(curve_estimate(pairs, "CoT → In-task non-CoT", None, "trend", Statistics(after_step=3, resamples=200)).value)
    shifted = pairs.with_columns(pl.col("step") - 1)
    assert curve_estimate(shifted, "CoT → In-task non-CoT", None, "first", QUICK).value == pytest.approx(0.6)


def test_claims_about_curves() -> None:
    listed = [
        claim(where="cot", this="CoT → Cross-task non-CoT", that="non-CoT → Cross-task non-CoT"),
        claim(where="cot", this="CoT → Cross-task non-CoT", says="near", value=0.05),
        claim(where="cot", this="CoT → In-task non-CoT", says="near", value=0.05),
        claim(where="cot", this="CoT → Cross-task non-CoT", says="below", of="first"),
        claim(where="cot", this="CoT → In-task non-CoT", says="above", of="trend"),
    ]
    statistics = Statistics(after_step=1, resamples=400)
    table = claims_table(listed, {}, {"cot": pairs_table(COT)}, asked([0, 1]), VALIDATION, statistics)
    assert table["outcome"].to_list() == ["holds", "holds", "fails", "holds", "fails"]
    assert set(table["measure"]) == {"rel_inf"}
    assert table["paper_7B"].null_count() == 5
    again = claims_table(listed, {}, {"cot": pairs_table(COT)}, asked([0, 1]), VALIDATION, statistics)
    assert table.equals(again)


def paper_says(size: str) -> dict[tuple[str, str], str | None]:
    listed = [c for c in load_claims(ROOT / "data/claims.yaml") if c.where in PAPER]
    return {(c.this, c.that or PAPER[c.where].baseline): paper_outcome(c, PAPER[c.where], size) for c in listed}


def test_the_papers_own_numbers_contradict_these_claims_and_no_others() -> None:
    """SPEC §4, ambiguities 11 and 12."""
    for size, contradicted in (
        ("7B", {("Base+CoT+Clarify+Eval", "Base+Clarify")}),
        ("13B", {("Base+Clarify+Eval", "Base+Eval"), ("Base+CoT+Eval", "Base+CoT")}),
    ):
        found = paper_says(size)
        assert {pair for pair, what in found.items() if what == "fails"} == contradicted
        assert found["Base+CoT+Clarify+Eval", "Base+CoT+Clarify"] == "holds"
        assert None not in found.values()
    assert paper_outcome(claim(this="Base", that="Base+CoT"), PAPER["table2"], "70B") is None


def test_claims_file_names_only_what_the_default_configuration_has() -> None:
    listed = load_claims(ROOT / "data/claims.yaml")
    rows = {name: table.runs for name, table in VALIDATION.tables.items()}
    names = {name: curve_names(s.probes, s.targets) for name, s in STUDIES.items()}
    assert usable_claims(listed, rows, names, "data/claims.yaml") == listed
    assert len({(c.where, c.of, c.says, c.this, c.that, c.value) for c in listed}) == len(listed)
    assert {c.source.split(",")[0] for c in listed} == {
        "Figure 1", "Figure 2a", "Figure 2b", "Figure 3a", "Figure 3b", "Table 1", "Table 2",
    }  # fmt: skip


def test_claims_about_what_is_not_configured_are_left_out() -> None:
    listed = load_claims(ROOT / "data/claims.yaml")
    some = {"table2": ["Base", "Base+CoT", "Base+Clarify"]}
    left = usable_claims(listed, some, {"cot": ["CoT → In-task non-CoT"]}, "f")
    assert {c.where for c in left} == {"table2", "cot"}
    assert all({c.this, c.that} <= {None, "Base", "Base+CoT", "Base+Clarify", "CoT → In-task non-CoT"} for c in left)
    assert len([c for c in left if c.where == "table2"]) == 3


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({"where": "tabel1"}, r"f, claim 2 \(s\): there is no table or study 'tabel1' \(did you mean 'table1'\?\)"),
        ({"this": "Godo"}, r"f, claim 2 \(s\): small has no row 'Godo' \(did you mean 'Good'\?\); it has Base, Good"),
        ({"that": "nothing"}, r"small has no row 'nothing'; it has"),
        ({"where": "cot", "this": "CoT → non-CoT"}, r"cot has no curve 'CoT → non-CoT' \(did you mean"),
        ({"of": "trend"}, r"`of` and `value` are about curves"),
    ],
)
def test_unknown_names_in_claims_are_sentences(keys: dict[str, object], sentence: str) -> None:
    known = {"cot": curve_names(["CoT", "non-CoT"], ["non-CoT"])}
    with pytest.raises(UserError, match=sentence):
        usable_claims([claim(), claim(**keys)], {"small": ["Base", "Good"]}, known, "f")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a: b", r"expected a list of claims"),
        ("[", r"this is not YAML"),
        ("- {source: s, claim: c, where: t, says: above, this: a, thta: b}", r"claim 1: unknown key `thta` \(did you mean 'that'\?\)"),
        ("- {source: s, claim: c, where: t, this: a}", r"claim 1: `says` is missing"),
        ("- {source: s, claim: c, where: t, says: higher, this: a}", r"claim 1: `says`: Input should be 'above', 'below' or 'near'"),
        ("- {source: s, claim: c, where: t, says: above, this: a, that: a}", r"claim 1: this and that are both 'a'"),
        ("- 3", r"claim 1: "),
        ("", r"expected a list of claims"),
        ("~", r"expected a list of claims"),
        ("- {source: s, claim: c, where: t, says: above, this: a}\n- {source: s, cl", r"this is not YAML"),
        ("- {source: s, claim: c, where: t, says: above, this: a}\n-", r"claim 2: "),
        ("- {source: s, claim: c, where: t, says: above, this: a, value: .nan}", r"claim 1: `value`: Input should be a finite number"),
        ("- {source: s, claim: c, where: t, says: above, this: a, value: .inf}", r"claim 1: `value`: Input should be a finite number"),
        ("- {source: s, claim: no, where: t, says: above, this: a}", r"claim 1: `claim`: Input should be a valid string"),
        ("- {source: s, claim: c, where: 2024-13-45, says: above, this: a}", r"this is not YAML: month must be in 1..12"),
        ("- &a [*a]", r"claim 1: "),
        ("[" * 3000, r"this is not YAML"),
    ],
)
def test_a_claims_file_that_is_wrong_is_a_sentence(text: str, sentence: str, tmp_path: Path) -> None:
    file = tmp_path / "claims.yaml"
    file.write_text(text)
    with pytest.raises(UserError, match=sentence) as error:
        load_claims(file)
    assert str(file) in str(error.value)


def test_a_claims_file_of_another_encoding_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "claims.yaml").write_bytes("- {source: Grün, claim: c}".encode("latin1"))
    with pytest.raises(UserError, match=r"claims\.yaml: byte 0xfc at position 13 is not UTF-8"):
        load_claims(tmp_path / "claims.yaml")


def test_no_claims_file_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"validation\.claims"):
        load_claims(tmp_path / "none.yaml")


# ---- rank agreement ----


def certain(value: float, sd: float = 0.0, seed: int = 0, statistics: Statistics = QUICK) -> Estimate:
    draws = np.random.default_rng(seed).normal(value, sd, statistics.resamples)
    return Estimate(value, float(np.quantile(draws, 0.025)), float(np.quantile(draws, 0.975)), draws)


def item(strategy: str, context: str, swift: float, gain: float, sd: float = 0.0, **keys: object) -> Item:
    values = {"swift": certain(swift, sd, 1), "accuracy_gain": certain(gain, sd, 2), "log_likelihood_gain": certain(gain / 10, sd, 3)}
    fields: dict[str, object] = {"study": strategy, "verdict": "helps", "wanted": True} | keys
    return Item(strategy, context, estimates=values, **fields)  # type: ignore[arg-type]


def rank(items: Sequence[Item], context: str, predictor: str = "swift", measure: str = "accuracy") -> dict[str, object]:
    return rank_agreement(items, QUICK).row(
        by_predicate=(pl.col("context") == context) & (pl.col("predictor") == predictor) & (pl.col("measure") == measure), named=True
    )


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
    one, two = (rank_agreement(x, QUICK).sort("context", "predictor", "measure") for x in (items, items[::-1]))
    for column in ("kendall_tau", "tau_low", "tau_high", "decision_accuracy", "decision_low", "decision_high"):
        assert one[column].to_list() == pytest.approx(two[column].to_list())


def test_intervals_show_that_three_strategies_say_little() -> None:
    sure = rank([item("a", "in-task", 1, 1), item("b", "in-task", 2, 2), item("c", "in-task", 3, 3)], "in-task")
    assert (sure["kendall_tau"], sure["tau_low"], sure["tau_high"]) == (1.0, 1.0, 1.0)
    unsure = rank([item("a", "in-task", 1, 1, 2.0), item("b", "in-task", 2, 2, 2.0), item("c", "in-task", 3, 3, 2.0)], "in-task")
    assert unsure["kendall_tau"] == 1.0
    low = unsure["tau_low"]
    assert isinstance(low, float)
    assert low < 0.5


def test_pushing_towards_an_unwanted_target_counts_the_other_way_round() -> None:
    items = [item("a", "in-task", -1, 1, wanted=False), item("b", "in-task", -2, 2, wanted=False)]
    assert rank(items, "in-task")["kendall_tau"] == 1.0


def test_a_predictor_that_is_missing_has_no_rank() -> None:
    row = rank([item("a", "in-task", 1, 1)], "in-task", "proxy")
    assert (row["n_items"], row["n_decisions"], row["kendall_tau"], row["decision_accuracy"], row["tau_low"]) == (0, 0, None, None, None)


def test_draws_of_one_study_stay_together_and_those_of_two_are_independent() -> None:
    """a and b have the same noise: in one study the order is sure, in two it is not."""
    noisy = [certain(v, 5.0, 1) for v in (1.0, 2.0)]
    share = {}
    for studies in (("s", "s"), ("s", "t")):
        items = [
            Item(n, "in-task", study, "helps", True, {"swift": noise, "accuracy_gain": certain(g)})
            for n, study, noise, g in zip("ab", studies, noisy, (1.0, 2.0), strict=True)
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


# ---- agreement ----


def rivals_of(pairs: pl.DataFrame) -> pl.DataFrame:
    scores = {"bm25": pl.col("rel_inf") * 2, "similarity": pl.col("rel_inf") * 3, "loss_change": pl.col("rel_inf") * -1}
    return pairs.select(*RIVALS.names[:-3], **scores)


def swift_study() -> SwiftStudy:
    pairs = pairs_table(COT)
    return SwiftStudy("non-CoT", pairs, verdicts(pairs, curves(pairs, QUICK), "non-CoT", QUICK), rivals_of(pairs))


def test_agreement_is_over_plain_data_on_both_sides() -> None:
    v = small(control="Bad").model_copy(
        update={"predictions": {"CoT": Prediction(study="cot", probes="CoT", targets="non-CoT", measured={"in-task": "Good"})}}
    )
    m = runs_of({"Base": [0, 1, 0, 1], "Good": [1, 1, 1, 0], "Bad": [0, 0, 1, 0]})
    queries = asked([0, 1, 2, 3])
    proxies = {"in-task": {"control": np.full(4, -2.0), "CoT": np.array([-1.0, -1.0, -2.0, -2.0])}}
    study = swift_study()
    items = agreement_items(v.predictions, {"cot": study}, {"small": m}, proxies, queries, v, QUICK)
    (row,) = agreement_table(items).to_dicts()
    told = study.verdicts.row(by_predicate=pl.col("context") == "in-task", named=True)
    assert (row["strategy"], row["context"], row["verdict"]) == ("CoT", "in-task", "hurts")
    assert (row["swift"], row["swift_low"], row["swift_high"]) == (told["effect"], told["ci_low"], told["ci_high"])
    assert (row["swift_mean_loss"], row["swift_cosine"]) == (told["effect_mean_loss"], told["effect_cosine"])
    assert (row["similarity"], row["loss_change"]) == (pytest.approx(3 * row["swift"]), pytest.approx(-row["swift"]))
    assert (row["accuracy_gain"], row["log_likelihood_gain"], row["proxy"]) == (0.5, 0.25, 0.5)
    assert set(row) == set(AGREEMENT.names)
    without = agreement_items(v.predictions, {"cot": study}, {"small": m}, {}, queries, v, QUICK)
    assert agreement_table(without)["proxy"].to_list() == [None]


def test_summary_counts_what_agrees_contradicts_and_cannot_be_told() -> None:
    rows = [
        {"verdict": "helps", "log_likelihood_gain_low": 0.1, "log_likelihood_gain_high": 0.2, "accuracy_gain_low": -0.1},
        {"verdict": "hurts", "log_likelihood_gain_low": 0.1, "log_likelihood_gain_high": 0.2, "accuracy_gain_low": 0.01},
        {"verdict": "helps", "log_likelihood_gain_low": None, "log_likelihood_gain_high": None, "accuracy_gain_low": None},
        {"verdict": "no evidence", "log_likelihood_gain_low": 0.1, "log_likelihood_gain_high": 0.2, "accuracy_gain_low": 0.01},
    ]
    agreement = pl.DataFrame(rows, schema={k: pl.String if k == "verdict" else pl.Float64 for k in rows[0]})
    agreement = agreement.with_columns(pl.lit(0.5).alias("accuracy_gain_high"))
    claims = pl.DataFrame({"outcome": ["holds", "holds", "fails", "cannot tell"]})
    first, likelihood, accuracy, held, left = summary(agreement, claims, 1)
    assert first.startswith("The swift studies say of 3 of 4 strategies and contexts that the data help or hurt")
    assert "1 of these 3 agree" in likelihood
    assert "1 contradict it, and 1 cannot be told" in likelihood
    assert "0 of these 3 agree" in accuracy
    assert "1 contradict it, and 2 cannot be told" in accuracy
    assert "2 hold, 1 fail, 1 cannot be told" in held
    assert left == "1 claim is about tables, studies or rows that are not configured."


# ---- costs ----


def benchmark(path: Path, *rows: str) -> Path:
    path.write_text("s\th:m:s\tmax_rss\tcpu_time\n" + "".join(f"{r}\n" for r in rows))
    return path


def test_costs_add_up(tmp_path: Path) -> None:
    files = [benchmark(tmp_path / "a.tsv", "4.5\t0:00:04\t10\t8.0"), benchmark(tmp_path / "b.tsv", "0.5\t0:00:00\tNA\tNA")]
    history = pl.DataFrame(
        {"step": [1, 2], "loss": [1.0, 1.0], "learning_rate": [0.1, 0.1], "grad_norm": [1.0, 1.0], "tokens": [100, 50]}
    ).with_columns(held_out_loss=None)
    write_table(tmp_path / "history.parquet", history, HISTORY)
    account = pl.DataFrame(
        {
            "dataset": ["d"], "requests_sent": [3], "replies_from_cache": [0], "retries": [0], "rejected": [0], "failures": [0],
            "prompt_tokens": [30], "completion_tokens": [12], "cost_usd": [0.25],
        }
    )  # fmt: skip
    write_table(tmp_path / "account.parquet", account, ACCOUNTS)
    parts = {
        "training": Files(benchmarks=[*files, tmp_path / "lost.tsv", *files], histories=[tmp_path / "history.parquet"] * 2),
        "teacher": Files(accounts=[tmp_path / "account.parquet"]),
    }
    table = costs({"swift study": {"gradients": Files(benchmarks=files[1:])}, "validation": parts})
    assert table.columns == COSTS.names
    assert table.rows() == [
        ("swift study", "gradients", 1, 0.5, 0.5, 0, 0.0),
        ("swift study", "total", 1, 0.5, 0.5, 0, 0.0),
        ("validation", "training", 2, 5.0, 8.5, 150, 0.0),
        ("validation", "teacher", 0, 0.0, 0.0, 42, 0.25),
        ("validation", "total", 2, 5.0, 8.5, 192, 0.25),
    ]
    assert untimed({"validation": parts}) == [tmp_path / "lost.tsv"]
    one, two = cost_sentences(table)
    assert one == "Swift study: 0 CPU seconds, 0 tokens."
    assert two == "Validation: 8 CPU seconds, 17 times the swift study, 192 tokens and $0.25 for teacher and judge."


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"a\tb\n1\t2\n", "have the columns s and cpu_time and a row. Remove it"),
        (b"", "it cannot be read"),
        (b"s\th:m:s\tmax_rss\tcpu_time\n", "have the columns s and cpu_time and a row. Remove it"),
        (b"s\th:m:s\tmax_rss\tcpu_time\n4.5\t0:0", ""),  # cut, but the seconds are there
        (b"s\th:m:s\tmax_rss\tcpu_time\nNA\t0:00:04\t10\t8.0\n", "row 1, column s: expected seconds, found 'NA'"),
        (b"s\tcpu_time\n4.5\t1\n\t1\n", "row 2, column s: expected seconds, found None"),
        (b"s\tcpu_time\nnan\t1\n", "row 1, column s: expected seconds, found 'nan'"),
        (b"s\tcpu_time\ninf\t1\n", "row 1, column s: expected seconds, found 'inf'"),
        (b"\xff\xfe\x00s\tcpu_time\n1\t1\n", ""),
        (b"s\tcpu_time\n1\t1\t1\t1\n", ""),
    ],
)
def test_a_file_that_is_no_benchmark_is_a_sentence(content: bytes, told: str, tmp_path: Path) -> None:
    path = tmp_path / "it's x.tsv"
    path.write_bytes(content)
    if content.startswith(b"s\th:m:s\tmax_rss\tcpu_time\n4.5"):
        assert read_benchmark(path) == (4.5, 4.5)
        return
    with pytest.raises(UserError) as caught:
        read_benchmark(path)
    assert str(caught.value).startswith(f"{path}: this is not one of Snakemake's benchmark files")
    assert told in str(caught.value)


# ---- the scripts ----


def run_script(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "workflow/scripts" / name), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def default_results(folder: Path, models: Sequence[str] = ("main",), seeds: Sequence[int] = (17,)) -> list[object]:
    """Made-up results of everything that the default configuration validates, as the arguments of validate.py."""
    rng = np.random.default_rng(0)
    examples = [
        Example(task=f"task{k % 12}", messages=[Message(role="user", content=f"q{k}"), Message(role="assistant", content="a")])
        for k in range(72)
    ]
    write_examples(folder / "questions.parquet", examples)
    hardness = rng.normal(0, 1, 72)

    def write(path: Path, statistics: Sequence[dict[str, float] | None], scorer: str) -> Path:
        file = scorers.load_scorer(ROOT / "scorers" / f"{scorer}.py")
        scored = [scorers.Scored(scorers.Item(e), scorers.Score(s), scorer) for e, s in zip(examples, statistics, strict=True)]
        scorers.write_scores(path, file, scored)
        return path / "scores.parquet"

    def labels(path: Path, gain: float) -> Path:
        found = [None if rng.random() < 0.02 else int(v > 0) for v in hardness + gain + rng.normal(0, 0.5, 72)]
        return write(path, [None if label is None else {"right": label, "n": 1} for label in found], "key_points")

    def likelihoods(path: Path, gain: float) -> Path:
        values = (-4 + hardness + gain / 2 + rng.normal(0, 0.1, 72)).tolist()
        return write(path, [{"nats": v, "tokens": 4, "nats_token": v / 4, "n": 1} for v in values], "likelihood")

    runs = []
    for model, seed in itertools.product(models, seeds):
        for table, t in VALIDATION.tables.items():
            for k, row in enumerate(t.runs):
                stem = folder / f"{table}-{k}-{model}-{seed}"
                gain = 0.0 if k == 0 else (t.paper["7B"][row] - t.paper["7B"]["Base"]) / 10
                runs.append(
                    {
                        "table": table, "row": row, "model": model, "seed": seed,
                        "run": stem.name, "labels": str(labels(stem.with_suffix(".j"), gain)),
                        "likelihoods": str(likelihoods(stem.with_suffix(".l"), gain)),
                    }
                )  # fmt: skip
    studies = {}
    for name, study in STUDIES.items():
        values = {
            (probe, context, target): (rng.normal(0.1, 0.1) + rng.normal(0.02, 0.02) * np.arange(4)).tolist()
            for probe in study.probes for context in ("in-task", "cross-task") for target in study.targets
        }  # fmt: skip
        pairs = pairs_table(values, 0.1, name)
        found = verdicts(pairs, curves(pairs, QUICK), study.baseline, QUICK, study.unwanted)
        write_table(folder / f"{name}.pairs", pairs, PAIRS)
        write_table(folder / f"{name}.verdicts", found, VERDICTS)
        write_table(folder / f"{name}.rivals", rivals_of(pairs), RIVALS)
        studies[name] = {"baseline": study.baseline} | {k: str(folder / f"{name}.{k}") for k in ("pairs", "verdicts", "rivals")}
    proxies = {
        context: {name: str(likelihoods(folder / f"proxy-{context}-{name}", gain)) for name, gain in (("control", 0.0), *gains)}
        for context, gains in (("in-task", [("CoT", 0.2), ("Clarify", 0.1)]), ("cross-task", [("CoT", 0.3), ("Eval", 0.1)]))
    }
    changes = {"models": list(models), "seeds": list(seeds)}
    arguments = {
        "settings": VALIDATION.model_copy(update=changes).model_dump_json(), "statistics": QUICK.model_dump_json(),
        "evaluation": folder / "questions.parquet", "runs": json.dumps(runs), "proxies": json.dumps(proxies),
        "studies": json.dumps(studies), "claims": ROOT / "data/claims.yaml",
    }  # fmt: skip
    return [part for name, value in arguments.items() for part in (f"--{name}", value)]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[object]]:
    folder = tmp_path_factory.mktemp("validate")
    arguments = default_results(folder)
    outputs = ("--tables", folder / "tables", "--figures", folder / "figures", "--page", folder / "page.html")
    done = run_script("validate.py", *arguments, *outputs)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "The swift studies say of" in done.stdout
    return folder, arguments


def test_validate_writes_every_table_figure_and_the_page(made: tuple[Path, list[object]]) -> None:
    folder, _ = made
    schemas = {
        "table1": validation_schema(VALIDATION), "table2": validation_schema(VALIDATION), "claims": claims_schema(VALIDATION),
        "agreement": AGREEMENT, "rank_agreement": RANK_AGREEMENT,
    }  # fmt: skip
    assert {p.name for p in (folder / "tables").iterdir()} == {f"{t}.{kind}" for t in schemas for kind in ("parquet", "csv", "md")}
    found = {name: read_table(folder / "tables" / f"{name}.parquet", schema) for name, schema in schemas.items()}
    assert found["table2"].height == 9
    assert found["table1"]["training_data"].to_list() == list(VALIDATION.tables["table1"].runs)
    assert found["agreement"].select("strategy", "context").rows() == [
        (s, c) for s in ("CoT", "Clarify", "Eval") for c in ("in-task", "cross-task")
    ]
    assert found["rank_agreement"].height == 3 * 6 * 2
    claims = load_claims(ROOT / "data/claims.yaml")
    about_tables = sum(c.where in PAPER for c in claims)
    assert found["claims"].height == 2 * about_tables + (len(claims) - about_tables)
    assert {p.name for p in (folder / "figures").iterdir()} == {
        f"{f}.{k}" for f in ("table1", "table2", "agreement") for k in ("svg", "png")
    }
    page = (folder / "page.html").read_text()
    assert "The swift studies say of" in page
    assert '<td class="helps">holds</td>' in page
    assert '<td class="none">cannot tell</td>' in page


def test_validate_again_gives_the_same_bytes(made: tuple[Path, list[object]], tmp_path: Path) -> None:
    folder, arguments = made
    outputs = ("--tables", tmp_path / "tables", "--figures", tmp_path / "figures", "--page", tmp_path / "page.html")
    assert run_script("validate.py", *arguments, *outputs).returncode == 0
    for path in (*(folder / "tables").iterdir(), *(folder / "figures").iterdir(), folder / "page.html"):
        assert (tmp_path / path.relative_to(folder)).read_bytes() == path.read_bytes(), path.name


def test_validate_on_several_models_and_seeds(tmp_path: Path) -> None:
    arguments = default_results(tmp_path, ("main", "large"), (17, 18))
    outputs = ("--tables", tmp_path / "tables", "--figures", tmp_path / "figures", "--page", tmp_path / "page.html")
    done = run_script("validate.py", *arguments, *outputs)
    assert done.returncode == 0, done.stdout + done.stderr
    table = read_table(tmp_path / "tables" / "table2.parquet", validation_schema(VALIDATION))
    assert (table.height, set(table["n_seeds"]), table["accuracy_sd"].null_count()) == (18, {2}, 0)
    assert "standard deviation over 2 seeds" in (tmp_path / "page.html").read_text()


def test_validate_without_swift_studies_still_makes_the_tables(made: tuple[Path, list[object]], tmp_path: Path) -> None:
    arguments = list(made[1])
    arguments[arguments.index("--studies") + 1] = arguments[arguments.index("--proxies") + 1] = "{}"
    outputs = ("--tables", tmp_path / "tables", "--figures", tmp_path / "figures", "--page", tmp_path / "page.html")
    done = run_script("validate.py", *arguments, *outputs)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "claims are about tables, studies or rows that are not configured" in done.stdout
    assert read_table(tmp_path / "tables" / "agreement.parquet", AGREEMENT).is_empty()
    assert set(read_table(tmp_path / "tables" / "claims.parquet", claims_schema(VALIDATION))["measure"]) == {"accuracy", "log_likelihood"}


def test_costs_are_written_with_a_page(tmp_path: Path) -> None:
    files = [str(benchmark(tmp_path / f"{k}.tsv", "4.5\t0:00:04\t10\t8.0")) for k in range(3)]
    ways = {
        "swift study": {"gradients": {"benchmarks": files[:1]}},
        "validation": {"training": {"benchmarks": [*files, str(tmp_path / "lost.tsv")]}},
    }
    done = run_script("write_costs.py", "--ways", json.dumps(ways), "--tables", tmp_path / "tables", "--page", tmp_path / "costs.html")
    assert done.returncode == 0, done.stdout + done.stderr
    assert read_table(tmp_path / "tables" / "costs.parquet", COSTS).height == 4
    assert "3 times the swift study" in (tmp_path / "costs.html").read_text()
    assert "The timing of 1 of the jobs was lost" in done.stdout
