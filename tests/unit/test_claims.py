"""Claims: in all their forms, about rows and about curves, the paper's own numbers, and files that are wrong."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from configuration import configured
from made_pairs import COT, pairs_table
from made_scores import RULES, Made, labels
from tiny import ROOT

from swift_study.config import ComparisonStudy, InfluenceStudy, Statistics, curve_names
from swift_study.errors import UserError
from swift_study.influence.statistics import curves
from swift_study.studies.claims import (
    Claim,
    claims_about_curves,
    claims_about_rows,
    claims_schema,
    claims_sentence,
    curve_estimate,
    curves_of,
    load_claims,
    outcome,
    published_outcome,
    usable_claims,
)
from swift_study.studies.comparison import Compared, compare
from swift_study.studies.estimates import mean_estimate, resample
from swift_study.studies.scores import read_scores

QUICK = Statistics(after_step=0, resamples=400)
NAN = float("nan")
STUDIES = configured().studies
TABLES = {name: study for name, study in STUDIES.items() if isinstance(study, ComparisonStudy) and study.claims}
CURVES = {name: study for name, study in STUDIES.items() if isinstance(study, InfluenceStudy) and study.claims}


def claim(**keys: object) -> Claim:
    return Claim.model_validate({"source": "s", "claim": "c", "says": "above", "this": "Good"} | keys)


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
    items = pl.DataFrame({"query_id": [f"q{i}" for i in range(n)], "task": [i % 20 for i in range(n)]})
    found = mean_estimate(np.zeros(n), resample(items, QUICK))
    assert (found.value, -found.low) == (0, found.high)
    assert found.high == pytest.approx(1 - 0.025 ** (1 / n))
    assert outcome("near", found.low, found.high, near=0.02) == expected


def compared(made: Made, **keys: Any) -> Compared:
    values = {"kind": "comparison", "question": "?", "evaluations": ["questions"], "metrics": ["accuracy", "nats_token"],
              "rows": {"Base": "b", "Good": "g", "Bad": "x"}, "against": "Base",
              "near": {"accuracy": 0.02, "nats_token": 0.02}}  # fmt: skip
    study = ComparisonStudy.model_validate(values | keys)
    return compare(study, read_scores(made.manifest, RULES, QUICK, study.unit, study.within))


def test_claims_about_rows_are_held_against_every_metric_that_has_a_near_on_every_model(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    base = rng.integers(0, 2, 60)
    made = Made(tmp_path, 60, 12)
    for model, rows in (("main", [base, np.ones(60), np.zeros(60)]), ("large", [base] * 3)):
        for row, values in zip(("Base", "Good", "Bad"), rows, strict=True):
            made.add(row, row, labels(values), model=model)
    listed = [claim(), claim(says="below", this="Bad", that="Good"), claim(says="near"), claim(this="Bad")]
    c = compared(made)
    table = claims_about_rows(listed, c, "small")
    assert table["metric"].to_list() == ["accuracy", "nats_token"] * 8
    assert table["model"].to_list() == ["main", "main", "large", "large"] * 4
    assert table.filter(model="main")["outcome"].to_list() == ["holds"] * 4 + ["fails"] * 4
    assert table.filter(model="large")["outcome"].to_list() == ["cannot tell"] * 8  # 60 queries cannot show "near"
    assert table["that"].to_list()[:8] == ["Base"] * 4 + ["Good"] * 4
    assert table["estimate"][0] == pytest.approx(1 - base.mean())
    assert table.columns == claims_schema(c.study).names
    (one,) = claims_about_rows([claim(metric="accuracy")], c, "small").filter(model="main").to_dicts()
    assert (one["metric"], one["outcome"], one["study"]) == ("accuracy", "holds", "small")
    assert claims_sentence(table, 1).endswith("1 claim is about rows or curves that are left out.")


def test_a_claim_about_a_metric_that_a_row_lacks_is_a_sentence(tmp_path: Path) -> None:
    made = Made(tmp_path, 6, 3)
    for row in ("Base", "Good"):
        made.add(row, row, labels([0, 1, 0, 1, 1, 1]))
    with pytest.raises(UserError, match=r"'c' \(s\) is about 'kappa' on 'questions', which the row 'Good' lacks"):
        claims_about_rows([claim(metric="kappa")], compared(made), "small")


def test_a_claim_names_an_evaluation_as_the_configuration_does(tmp_path: Path) -> None:
    made = Made(tmp_path, 6, 3)
    for row, right in (("Base", [0] * 6), ("Good", [1] * 6)):
        for form, values in (("a", right), ("b", [0] * 6)):
            made.add(row, row, labels(values), evaluation=f"asked/form={form}")
    c = compared(made, evaluations=["asked"], metrics=["accuracy"], near={"accuracy": 0.02})
    assert [c.evaluation(name) for name in (None, "asked[form=b]", "asked/form=b", "asked")] == [
        "asked/form=a", "asked/form=b", "asked/form=b", "asked",
    ]  # fmt: skip
    one, other = (claims_about_rows([claim(evaluation=f"asked[form={form}]")], c, "small").to_dicts()[0] for form in ("a", "b"))
    assert (one["estimate"], one["evaluation"], other["estimate"]) == (1, "asked/form=a", 0)
    with pytest.raises(UserError, match="on 'asked', which the row"):  # two points
        claims_about_rows([claim(evaluation="asked")], c, "small")


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
        claim(this="CoT → Cross-task non-CoT", that="non-CoT → Cross-task non-CoT"),
        claim(this="CoT → Cross-task non-CoT", says="near", value=0.05),
        claim(this="CoT → In-task non-CoT", says="near", value=0.05),
        claim(this="CoT → Cross-task non-CoT", says="below", of="first"),
        claim(this="CoT → In-task non-CoT", says="above", of="trend"),
    ]
    statistics = Statistics(after_step=1, resamples=400)
    table = claims_about_curves(listed, pairs_table(COT), "cot", CURVES["cot"], statistics)
    assert table["outcome"].to_list() == ["holds", "holds", "fails", "holds", "fails"]
    assert set(table["metric"]) == {"rel_inf"}
    assert table.equals(claims_about_curves(listed, pairs_table(COT), "cot", CURVES["cot"], statistics))


def paper_says(size: str) -> dict[tuple[str, str], str | None]:
    return {
        (c.this, c.that or str(study.against)): published_outcome(c, study, size)
        for study in (TABLES["table1"], TABLES["table2"]) for c in load_claims(Path(ROOT, str(study.claims)))
    }  # fmt: skip


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
    assert published_outcome(claim(this="Base", that="Base+CoT"), TABLES["table2"], "70B") is None


def test_claims_files_name_only_what_their_studies_have() -> None:
    sources = set()
    for study in (*TABLES.values(), *CURVES.values()):
        listed = load_claims(Path(ROOT, str(study.claims)))
        known = list(study.rows) if isinstance(study, ComparisonStudy) else curve_names(study.probes, study.targets)
        kind = "row" if isinstance(study, ComparisonStudy) else "curve"
        assert usable_claims(listed, known, [], kind, study.claims) == listed
        assert len({(c.of, c.says, c.this, c.that, c.value, c.metric, c.evaluation) for c in listed}) == len(listed)
        sources |= {c.source.split(",")[0] for c in listed}
    assert sources == {"Figure 1", "Figure 2a", "Figure 2b", "Figure 3a", "Figure 3b", "SDE", "Table 1", "Table 2"}


def test_claims_about_rows_that_are_left_out_are_left_out() -> None:
    study = TABLES["table2"]
    listed = load_claims(Path(ROOT, str(study.claims)))
    some = ["Base", "Base+CoT", "Base+Clarify"]
    left = usable_claims(listed, some, [row for row in study.rows if row not in some], "row", "f")
    assert all({c.this, c.that} <= {None, *some} for c in left)
    assert len(left) == 3


@pytest.mark.parametrize(
    ("keys", "kind", "sentence"),
    [
        ({"this": "Godo"}, "row", r"f, claim 2 \(s\): there is no row 'Godo' \(did you mean 'Good'\?\); known are Base, Good"),
        ({"that": "nothing"}, "row", r"there is no row 'nothing'; known are"),
        ({"this": "Bade"}, "curve", r"there is no curve 'Bade' \(did you mean"),
        ({"of": "trend"}, "row", r"`of` is about curves"),
        ({"metric": "accuracy"}, "curve", r"`metric` and `evaluation` are about rows"),
    ],
)
def test_unknown_names_in_claims_are_sentences(keys: dict[str, object], kind: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        usable_claims([claim(), claim(**keys)], ["Base", "Good"], [], kind, "f")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a: b", r"expected a list of claims"),
        ("[", r"this is not YAML"),
        ("- {source: s, claim: c, says: above, this: a, thta: b}", r"claim 1: unknown key `thta` \(did you mean 'that'\?\)"),
        ("- {source: s, claim: c, this: a}", r"claim 1: `says` is missing"),
        ("- {source: s, claim: c, says: higher, this: a}", r"claim 1: `says`: Input should be 'above', 'below' or 'near'"),
        ("- {source: s, claim: c, says: above, this: a, that: a}", r"claim 1: this and that are both 'a'"),
        ("- 3", r"claim 1: "),
        ("- {source: s, claim: c, where: table1, says: above, this: a}", r"unknown key `where`; claims stand in a file for each study now"),
        ("", r"expected a list of claims"),
        ("~", r"expected a list of claims"),
        ("- {source: s, claim: c, says: above, this: a}\n- {source: s, cl", r"this is not YAML"),
        ("- {source: s, claim: c, says: above, this: a}\n-", r"claim 2: "),
        ("- {source: s, claim: c, says: above, this: a, value: .nan}", r"claim 1: `value`: Input should be a finite number"),
        ("- {source: s, claim: c, says: above, this: a, value: .inf}", r"claim 1: `value`: Input should be a finite number"),
        ("- {source: s, claim: no, says: above, this: a}", r"claim 1: `claim`: Input should be a valid string"),
        ("- {source: s, claim: c, of: 2024-13-45, says: above, this: a}", r"this is not YAML: month must be in 1..12"),
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
    with pytest.raises(UserError, match=r"Set the study's `claims` to a file"):
        load_claims(tmp_path / "none.yaml")
