"""Sweeps and correlations on made-up scores: lines, phases, savings, and ρ by hand, by scipy and by the shared oracle."""

import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_scores import RULES, Made, labels
from scipy import optimize, stats

from swift_study.config import CorrelationStudy, Statistics, SweepStudy
from swift_study.errors import UserError
from swift_study.report.figures import draw_correlation, draw_sweep
from swift_study.report.studies import correlation_page, sweep_page
from swift_study.studies.correlation import correlation_table, responses_of
from swift_study.studies.estimates import Rule
from swift_study.studies.scores import read_scores
from swift_study.studies.sweep import Line, first_x, inverse, isotonic, lines_of, phases_table, savings_table, sweep_table

QUICK = Statistics(after_step=0, resamples=300)
SHARED = Path(__file__).resolve().parents[3] / "shared/data"


@settings(deadline=None, max_examples=50)
@given(st.lists(st.floats(-5, 5), min_size=1, max_size=8))
def test_the_fit_is_the_nearest_that_never_falls(values: list[float]) -> None:
    y = np.array(values)
    found = isotonic(y[None, :])[0]
    assert (np.diff(found) >= -1e-9).all()
    assert found == pytest.approx(optimize.isotonic_regression(y).x)


def test_the_first_x_may_be_none_and_values_between_are_straight() -> None:
    x = np.array([0.0, 10.0, 50.0])
    assert first_x(np.array([[0.1, 0.9, 0.9], [0.1, 0.2, 0.3]]), x, 0.9).tolist() == [10.0, math.inf]
    assert first_x(np.array([[0.0, 0.0, 0.1]]), x, 0.0, above=True).tolist() == [50.0]
    fitted = np.array([0.2, 0.4, 0.8])
    assert [inverse(fitted, x, v) for v in (0.1, 0.2, 0.3, 0.4, 0.6, 0.9)] == pytest.approx([0, 0, 5, 10, 30, math.inf])


def sweep(**keys: Any) -> SweepStudy:
    values: dict[str, Any] = {
        "kind": "sweep", "question": "How many?", "evaluations": ["questions"], "metrics": ["accuracy"], "runs": "ift", "x": "n",
        "lines": ["source"], "unit": ["item"],
    }  # fmt: skip
    return SweepStudy.model_validate(values | keys)


@pytest.fixture
def grown(tmp_path: Path) -> Made:
    """Two sources; the human one is right on more of 60 queries at each n, and n = 0 is one run that stands for both."""
    made = Made(tmp_path, 60, 12)
    rng = np.random.default_rng(0)
    order = rng.permutation(60)
    made.add("ift", "zero", labels(order < 6), factors={"n": 0})
    for source, right in (("human", (30, 57, 58)), ("rule", (12, 30, 45))):
        for n, k in zip((10, 100, 400), right, strict=True):
            made.add("ift", f"{source}{n}", labels(order < k), factors={"source": source, "n": n})
    return made


def lines(made: Made, study: SweepStudy) -> list[Line]:
    return lines_of(study, read_scores(made.manifest, RULES, QUICK, study.unit, study.within))


def test_lines_share_the_run_that_stands_for_both(grown: Made) -> None:
    table = sweep_table(lines(grown, sweep()))
    assert table.select("line", "x", "value").rows() == [
        *(("source=human", x, pytest.approx(v / 60)) for x, v in zip((0, 10, 100, 400), (6, 30, 57, 58), strict=True)),
        *(("source=rule", x, pytest.approx(v / 60)) for x, v in zip((0, 10, 100, 400), (6, 12, 30, 45), strict=True)),
    ]
    assert table["over_start"].to_list()[:3] == [None, pytest.approx(24 / 60), pytest.approx(51 / 60)]


def test_phases_are_where_a_bar_is_reached_or_nowhere(grown: Made, tmp_path: Path) -> None:
    study = sweep(phases={"format": {"metric": "accuracy", "bar": 0.9}, "task": {"metric": "accuracy", "over_start": True}})
    own = lines(grown, study)
    table = phases_table(study, own, 0.95)
    found = {(r["phase"], r["line"]): r for r in table.iter_rows(named=True)}
    assert found["format", "source=human"]["x"] == 100
    assert found["format", "source=human"]["x_low"] <= 100 <= found["format", "source=human"]["x_high"]
    assert (found["format", "source=rule"]["x"], found["format", "source=rule"]["x_sure"]) == (None, None)
    assert found["format", "source=rule"]["reached"] < 0.05
    assert found["task", "source=human"]["x_sure"] == 10
    whole = sweep_table(own)
    draw_sweep(whole, table, "n", study.question, tmp_path / "f")
    assert "source=human" in (tmp_path / "f.svg").read_text()
    assert "none within" not in sweep_page(study, whole, table, savings_table(study, own, 0.95), QUICK)


def test_savings_are_how_much_more_the_other_line_needs(grown: Made) -> None:
    study = sweep(savings={"human": {"metric": "accuracy", "line": {"source": "human"}, "against": {"source": "rule"}}})
    table = savings_table(study, lines(grown, study), 0.95)
    assert table["x"].to_list() == [0, 10, 100, 400]
    assert table["saved"].to_list() == [0.0, pytest.approx(90.0), None, None]  # 30 right: 10 human ones, 100 by the rule
    assert table["beyond"].to_list()[2] > 0.9


def test_two_runs_at_one_x_are_a_sentence(grown: Made) -> None:
    with pytest.raises(UserError, match=r"At n=10 stand both human10.* and rule10.* on one line. Name the factor in which they differ"):
        lines(grown, sweep(lines=[]))
    with pytest.raises(UserError, match="x: the factor 'source' is no number"):
        lines(grown, sweep(x="source", lines=[]))


# ---- correlations ----


PLAIN = Rule(lambda s: {"human": s["human"] / s["n"], "rouge": s["rouge"] / s["n"]})


def rated(folder: Path, human: np.ndarray, metric: np.ndarray) -> tuple[CorrelationStudy, pl.DataFrame]:
    """Values of shape (systems, documents) as scores of one run a system."""
    made = Made(folder, human.shape[1], human.shape[1])
    for k, (h, m) in enumerate(zip(human, metric, strict=True)):
        made.add("systems", f"system{k}", {"ratings": {"human": h, "rouge": m, "n": np.ones(len(h))}}, factors={"system": k})
    study = CorrelationStudy.model_validate(
        {
            "kind": "correlation",
            "question": "?",
            "evaluations": ["questions"],
            "metrics": ["rouge"],
            "reference": "human",
            "runs": ["systems"],
            "groups": ["query_id", "run"],
        }
    )
    return study, responses_of(study, read_scores(made.manifest, {"ratings": PLAIN}, QUICK, ["item"], None))


def test_correlations_are_scipys_pooled_within_and_between(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    human = rng.standard_normal((5, 8))
    metric = human + rng.standard_normal((5, 8)) + np.arange(5)[:, None]
    study, responses = rated(tmp_path, human, metric)
    table = correlation_table(study, responses, QUICK)
    found = {(r["scope"], r["column"], r["level"]): r["rho"] for r in table.iter_rows(named=True)}
    assert found["pooled", None, None] == pytest.approx(stats.spearmanr(human.ravel(), metric.ravel()).statistic)
    by_document = [stats.spearmanr(human[:, k], metric[:, k]).statistic for k in range(8)]
    assert found["within", "query_id", None] == pytest.approx(np.mean(by_document))
    assert found["between", "run", None] == pytest.approx(stats.spearmanr(human.mean(1), metric.mean(1)).statistic)
    row = table.row(by_predicate=pl.col("scope") == "pooled", named=True)
    assert row["low"] < row["rho"] < row["high"]
    draw_correlation(table, "?", tmp_path / "f")
    assert "within query_id" in (tmp_path / "f.svg").read_text()
    assert "Correlation with human" in correlation_page(study, table, QUICK)


@pytest.mark.skipif(not (SHARED / "oracles").is_dir(), reason="shared data are not here")
def test_realsumm_has_the_correlations_of_the_oracle(tmp_path: Path) -> None:
    """Per document (S2) and between systems."""
    rows = [json.loads(line) for line in (SHARED / "realsumm/abs.jsonl").open()]
    first = rows[0]
    if not {"system", "doc_id"} <= first.keys():
        pytest.skip("the file has other fields")
    systems, documents = (sorted({r[k] for r in rows}) for k in ("system", "doc_id"))
    values = {(r["system"], r["doc_id"]): r for r in rows}

    def matrix(field: str) -> np.ndarray:
        return np.array([[float(values[s, d][field]) for d in documents] for s in systems])

    study, responses = rated(tmp_path, matrix("litepyramid_recall"), matrix("rouge_1_f_score"))
    table = correlation_table(study, responses, QUICK)
    oracle = {r["metric"]: r for r in csv.DictReader((SHARED / "oracles/realsumm_correlations.csv").open())}["rouge_1_f_score"]
    found = {(r["scope"], r["column"]): r["rho"] for r in table.filter(pl.col("scope") != "group").iter_rows(named=True)}
    assert found["within", "query_id"] == pytest.approx(float(oracle["S2_per_document"]), abs=0.001)
    assert found["between", "run"] == pytest.approx(float(oracle["system_level"]), abs=0.001)
