"""Comparisons: tables of made-up scores by hand, several models, evaluations and seeds, groups, and manifests of any size."""

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_examples import example
from made_scores import RULES, Made, labels
from scipy import stats
from tiny import ROOT

from swift_study.config import ComparisonStudy, Statistics
from swift_study.data.designs import apply_design, load_design
from swift_study.errors import UserError
from swift_study.io.tables import write_examples
from swift_study.report.figures import cells_of, draw_comparison
from swift_study.report.studies import comparison_page
from swift_study.studies.comparison import Compared, compare, comparison_schema, comparison_table
from swift_study.studies.scores import read_scores

QUICK = Statistics(after_step=0, resamples=300)
NAN = float("nan")


def study(**keys: Any) -> ComparisonStudy:
    rows = {"Base": "b", "Good": "g", "Bad": "x"}
    defaults: dict[str, Any] = {
        "evaluations": ["questions"],
        "metrics": ["accuracy", "nats_token", "nats"],
        "rows": rows,
        "against": "Base",
    }
    return ComparisonStudy.model_validate({"kind": "comparison", "question": "?"} | defaults | keys)


def compared(made: Made, s: ComparisonStudy | None = None) -> Compared:
    s = s or study()
    return compare(s, read_scores(made.manifest, RULES, QUICK, s.unit, s.within))


def by_row(made: Made, s: ComparisonStudy | None = None, **where: Any) -> dict[str, dict[str, Any]]:
    frame = comparison_table(compared(made, s)).filter(**({"metric": "accuracy"} | where))
    return {row["row"]: row for row in frame.iter_rows(named=True)}


@pytest.fixture
def four(tmp_path: Path) -> Made:
    return Made(tmp_path, 4, 4)


def test_unscored_responses_are_counted_and_never_wrong(four: Made) -> None:
    for row, values in {"Base": [1, 0, NAN, NAN], "Good": [1, 1, 0, NAN], "Bad": [NAN] * 4}.items():
        four.add(row, row, labels(values))
    found = by_row(four)
    base, good, bad = (found[r] for r in ("Base", "Good", "Bad"))
    assert (base["value"], base["n"], base["unscored"]) == (0.5, 4, 2)
    assert (good["value"], good["unscored"]) == (pytest.approx(2 / 3), 1)
    assert good["gain"] == 0.5  # over the two queries that both have a label for
    assert (bad["value"], bad["unscored"], bad["gain"], bad["gain_p"]) == (None, 4, None, None)
    assert (base["gain"], base["gain_p"], base["against"]) == (None, None, None)


def test_means_and_deviations_are_over_seeds_and_gains_are_paired_by_seed(four: Made) -> None:
    values = {"Base": [[0, 0, 1, 1], [0, 1, 1, 1]], "Good": [[1, 0, 1, 1], [1, 1, 1, 1]], "Bad": [[0, 0, 0, 0], [0, 0, 0, 0]]}
    for row, of_seeds in values.items():
        for seed, own in enumerate(of_seeds):
            four.add(row, row, labels(own), seed)
    found = by_row(four)
    assert (found["Base"]["value"], found["Base"]["sd"]) == (0.625, pytest.approx(math.sqrt(2) * 0.125))
    assert (found["Good"]["value"], found["Good"]["gain"], found["Bad"]["gain"]) == (0.875, 0.25, -0.625)
    assert found["Good"]["n_seeds"] == 2
    # Differences by query are 1, 0, 0, 0: a sign-flip test over four queries of which one differs.
    assert found["Good"]["gain_p"] == 1.0
    assert by_row(four, metric="nats")["Good"]["value"] == pytest.approx(-0.125)
    assert by_row(four, metric="nats_token")["Good"]["gain"] == pytest.approx(0.125)


def test_rows_that_share_no_seed_are_a_sentence(four: Made) -> None:
    four.add("Base", "b", labels([0, 1, 0, 1]), 1)
    for seed in (2, 3):
        four.add("Good", "g", labels([1, 1, 0, 1]), seed)
    with pytest.raises(UserError, match=r"'Good' \(seeds 2, 3\) and 'Base' \(seeds 1\) share no seed"):
        by_row(four)


@settings(deadline=None, max_examples=15)
@given(st.integers(2, 12), st.integers(1, 3), st.integers(0, 2**32 - 1))
def test_without_gaps_the_gain_is_the_difference_of_the_means(
    tmp_path_factory: pytest.TempPathFactory, n: int, seeds: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    made = Made(tmp_path_factory.mktemp("made"), n, 4)
    for row in ("Base", "Good"):
        for k in range(seeds):
            made.add(row, row, labels(rng.integers(0, 2, n)), k)
    for metric in ("accuracy", "nats_token", "nats"):
        found = by_row(made, metric=metric)
        assert found["Good"]["gain"] == pytest.approx(found["Good"]["value"] - found["Base"]["value"])


def test_models_are_blocks_and_published_values_stand_beside_the_first_metric(four: Made) -> None:
    for model in ("main", "large"):
        for row, values in {"Base": [0, 1, 0, 1], "Good": [1, 1, 0, 1]}.items():
            four.add(row, row, labels(values), model=model)
    s = study(published={"7B": {"Base": 0.5274, "Good": 0.6}})
    table = comparison_table(compared(four, s))
    assert table.columns == comparison_schema(s).names
    accuracy = table.filter(metric="accuracy")
    assert accuracy.select("block", "model", "row").rows() == [
        ("model=main", "main", "Base"), ("model=main", "main", "Good"), ("model=large", "large", "Base"), ("model=large", "large", "Good"),
    ]  # fmt: skip
    assert accuracy["published_7B"].to_list() == [0.5274, 0.6] * 2
    assert table.filter(metric="nats")["published_7B"].null_count() == 4


def test_a_row_without_a_blocks_factor_stands_in_every_block(four: Made) -> None:
    four.add("Base", "untuned", labels([0, 0, 0, 1]))
    for domain, values in {"d1": [1, 1, 0, 1], "d2": [1, 1, 1, 1]}.items():
        four.add("Tuned", f"tuned_{domain}", labels(values), factors={"domain": domain})
    s = study(rows={"Base": "untuned", "Tuned": "tuned"})
    table = comparison_table(compared(four, s)).filter(metric="accuracy")
    assert table.select("block", "row", "gain").rows() == [
        ("domain=d1", "Base", None), ("domain=d1", "Tuned", 0.5), ("domain=d2", "Base", None), ("domain=d2", "Tuned", 0.75),
    ]  # fmt: skip


def test_rows_may_be_against_rows_of_their_own_and_a_control(four: Made) -> None:
    for row, values in {"Base": [0, 0, 0, 1], "Good": [0, 0, 1, 1], "Bad": [0, 1, 1, 1]}.items():
        four.add(row, row, labels(values))
    found = by_row(four, study(control="Good"))
    assert (found["Bad"]["gain"], found["Bad"]["over_control"], found["Good"]["over_control"]) == (0.5, 0.25, None)
    assert (found["Bad"]["against"], found["Bad"]["control"], found["Base"]["over_control"]) == ("Base", "Good", -0.25)
    own = by_row(four, study(against={"Bad": "Good", "Good": "Base"}, control="Base"))
    assert (own["Bad"]["gain"], own["Bad"]["against"], own["Bad"]["over_control"], own["Good"]["gain"]) == (0.25, "Good", 0.5, 0.25)


def test_metrics_that_are_no_means_have_intervals_gains_and_p(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    made = Made(tmp_path, 30, 5)
    for row, found in (("Base", 0.5), ("Good", 0.9)):
        tp = rng.binomial(3, found, 30).astype(float)
        made.add(row, row, {"cells": {"tp": tp, "fp": 3 - tp, "fn": rng.integers(0, 2, 30).astype(float)}})
    table = by_row(made, study(metrics=["f1"], unit=["item"]), metric="f1")
    good = table["Good"]
    assert good["gain"] == pytest.approx(good["value"] - table["Base"]["value"])
    assert good["low"] < good["value"] < good["high"]
    assert good["gain_low"] > 0
    assert good["gain_p"] < 0.01
    assert good["relative_gain"] == pytest.approx(good["gain"] / table["Base"]["value"])


def test_groups_are_means_of_rescaled_evaluations(tmp_path: Path) -> None:
    made = Made(tmp_path, 12, 3)
    rng = np.random.default_rng(1)
    for evaluation in ("copa", "arc"):
        for row, share in (("Base", 0.4), ("Good", 0.8)):
            made.add(row, row, labels(rng.random(12) < share), evaluation=evaluation)
    s = study(
        evaluations=["copa", "arc", "absent"], metrics=["accuracy"], unit=["item"], within="evaluation",
        chance={"copa": 0.5, "arc": 0.25}, groups={"common sense": ["copa", "arc"],
                "world": ["arc", "absent"], "average": ["common sense"]},
    )  # fmt: skip
    c = compared(made, s)
    table = comparison_table(c)
    raw = {
        e: comparison_table(compared(made, study(evaluations=["copa", "arc"], metrics=["accuracy"]))).filter(evaluation=e)
        for e in ("copa", "arc")
    }
    expected = [np.mean([(raw[e]["value"][k] - s.chance[e]) / (1 - s.chance[e]) for e in ("copa", "arc")]) for k in (0, 1)]
    group = table.filter(evaluation="common sense")
    assert group["value"].to_list() == pytest.approx(expected)
    assert group["gain"][1] == pytest.approx(expected[1] - expected[0])
    assert table.filter(evaluation="average")["value"].to_list() == pytest.approx(expected)
    assert "world" not in table["evaluation"].to_list()
    assert c.missing == [f"The mean 'world' of accuracy is left out for {row!r}: it lacks absent." for row in ("Base", "Good")]
    gain = table.filter(evaluation="copa")["gain"][1]
    assert gain == pytest.approx((raw["copa"]["value"][1] - raw["copa"]["value"][0]) / 0.5)


def test_chance_and_groups_name_the_points_of_an_evaluation_with_a_grid(tmp_path: Path) -> None:
    made = Made(tmp_path, 12, 3)
    for evaluation, right in (("arc/k=1", 6), ("arc/k=2", 9), ("copa", 12)):
        for row, more in (("Base", 0), ("Good", -3)):
            made.add(row, row, labels(np.arange(12) < right + more), evaluation=evaluation)
    s = study(
        evaluations=["arc", "copa"],
        metrics=["accuracy"],
        unit=["item"],
        chance={"arc": 0.5},
        groups={"both": ["arc"], "all": ["both", "copa"]},
    )
    table = comparison_table(compared(made, s))
    values = {e: table.filter(evaluation=e)["value"].to_list() for e in table["evaluation"].unique()}
    assert values == {
        "arc/k=1": [0.0, -0.5], "arc/k=2": [0.5, 0.0], "copa": [1.0, 0.75], "both": [0.25, -0.25], "all": [0.625, 0.25],
    }  # fmt: skip
    assert table.filter(evaluation="arc/k=2")["gain"][1] == pytest.approx(-0.5)
    some = study(evaluations=["arc[k=2]", "copa"], metrics=["accuracy"], chance={"arc[k=2]": 0.5}, groups={"mean": ["arc[k=2]", "copa"]})
    made.entries = [e for e in made.entries if e.evaluation != "arc/k=1"]
    assert comparison_table(compared(made, some)).filter(evaluation="mean")["value"].to_list() == [0.75, 0.375]


def test_p_is_adjusted_over_the_gains_of_a_metric(tmp_path: Path) -> None:
    made = Made(tmp_path, 40, 8)
    for row, right in {"Base": 10, "Good": 22, "Bad": 2}.items():
        made.add(row, row, labels(np.arange(40) < right))
    found = by_row(made)
    p = [stats.binomtest(12, 12).pvalue, stats.binomtest(8, 8).pvalue]
    assert (found["Good"]["gain_p"], found["Bad"]["gain_p"]) == tuple(p)
    assert (found["Good"]["gain_p_holm"], found["Bad"]["gain_p_holm"]) == (2 * p[0], p[1])


def test_an_unknown_metric_is_a_sentence_or_a_named_gap(four: Made) -> None:
    four.add("Base", "b", labels([0, 1, 0, 1]))
    with pytest.raises(UserError, match=r"No scorer of questions gives the metric 'kappa'.*if_missing"):
        compared(four, study(metrics=["accuracy", "kappa"]))
    c = compared(four, study(metrics=["accuracy", "kappa"], if_missing="null"))
    assert c.missing == ["No scorer of questions gives the metric 'kappa'."]
    assert {cell.metric for cell in c.cells} == {"accuracy"}


def test_a_metric_of_two_scorers_is_named_with_its_scorer(four: Made) -> None:
    for row, values in {"Base": [0, 1, 0, 1], "Good": [1, 1, 0, 1]}.items():
        own = labels(values)
        four.add(row, row, {"key_points": own["key_points"], "judge": own["key_points"]})
    rules = RULES | {"judge": RULES["key_points"]}
    scores = read_scores(four.manifest, rules, QUICK, ["item"], None)
    with pytest.raises(UserError, match=r"'accuracy' comes from several scorers \(key_points, judge\). Name one, as key_points.accuracy"):
        compare(study(metrics=["accuracy"]), scores)
    c = compare(study(metrics=["judge.accuracy"]), scores)
    assert c.cells[0].scorer == "judge"
    assert comparison_table(c)["gain"].to_list() == [None, 0.25]


def test_scores_of_another_dataset_are_a_sentence(four: Made) -> None:
    four.add("Base", "b", labels([0, 1, 0, 1]))
    four.add("Good", "g", labels([0, 1, 0, 1]), ids=["a", "b", "c", "d"])
    with pytest.raises(UserError, match=r"g/.*scores.parquet: it does not hold the queries of .*b/.*\(4 missing, 4 unknown\)"):
        compared(four)


# ---- figures ----


def drawn(folder: Path, made: Made, s: ComparisonStudy) -> str:
    """The figure as SVG, which is the same bytes when it is drawn again."""
    table, found = comparison_table(compared(made, s)), []
    for name in ("one", "two"):
        draw_comparison(s, table, made.manifest, folder / name)
        found.append((folder / f"{name}.svg").read_text())
    assert found[0] == found[1]
    assert (folder / "one.png").read_bytes() == (folder / "two.png").read_bytes()
    return found[0]


def texts_of(svg: str) -> list[str]:
    return re.findall(r"<text [^>]*>([^<]*)</text>", svg)


@pytest.fixture
def grid(tmp_path: Path) -> Made:
    """Two modes and two sizes, beside a start that has neither: right are 4, and by run 6, 4, 2 and 40, of 40."""
    made = Made(tmp_path, 40, 10)
    made.add("Base", "b", labels(np.arange(40) < 4))
    for (mode, n), right in {("json", 8): 6, ("json", 16): 4, ("text", 8): 2, ("text", 16): 40}.items():
        made.add(f"{mode} {n}", f"g/{mode}/{n}", labels(np.arange(40) < right), factors={"mode": mode, "n": n})
    return made


ROWS = {"Base": "b"} | {f"{mode} {n}": f"g[mode={mode},n={n}]" for mode in ("json", "text") for n in (8, 16)}


def test_a_heat_map_has_a_number_in_every_cell_and_colours_that_are_centred_on_0(tmp_path: Path, grid: Made) -> None:
    s = study(rows=ROWS, unit=["item"], figure={"kind": "heat_map", "rows": "mode", "columns": "n"})
    cells = cells_of(s.figure, "accuracy", comparison_table(compared(grid, s)), grid.manifest)
    assert [(c["row"], c["column"], round(c["value"], 3)) for c in cells.iter_rows(named=True)] == [
        ("json", "8", 0.05), ("json", "16", 0.0), ("text", "8", -0.05), ("text", "16", 0.9),
    ]  # fmt: skip
    svg = drawn(tmp_path, grid, s)
    shown = texts_of(svg)
    assert {"+0.05", "+0.00", "−0.05", "+0.90", "json", "text", "8", "16", "mode", "n"} <= set(shown)
    assert "gain in accuracy over Base; bold: its interval excludes 0" in shown
    assert re.findall(r"<text [^>]*weight: 700[^>]*>([^<]*)<", svg) == ["+0.90"]
    fills = re.findall(r"fill: #(\w{2})\w{2}(\w{2})", svg)  # red and blue: white without a gain, though gains go from -0.05 to 0.9
    assert [c for c in fills if c != ("ff", "ff")] == [("e7", "f3"), ("f6", "f7"), ("f5", "e6"), ("00", "94")]
    values = drawn(tmp_path, grid, study(rows=ROWS, unit=["item"], figure={"kind": "heat_map", "show": "value"}))
    assert {"0.10", "0.15", "0.05", "1.00", "questions", "text 16"} <= set(texts_of(values))


def test_what_is_on_no_axis_makes_panels_and_rows_that_nothing_tells_apart_are_a_sentence(tmp_path: Path, grid: Made) -> None:
    for mode, right in (("json", 3), ("text", 9)):
        grid.add(f"{mode} 8", f"g/{mode}/8", labels(np.arange(40) < right), evaluation="tried/k=1", factors={"mode": mode, "n": 8, "k": 1})
    s = study(rows=ROWS, evaluations=["questions", "tried"], figure={"kind": "heat_map", "rows": "mode", "columns": "n"})
    cells = cells_of(s.figure, "accuracy", comparison_table(compared(grid, s)), grid.manifest)
    assert cells.filter(panel="tried[k=1]").select("row", "column").rows() == [("json", "8"), ("text", "8")]
    assert cells["panel"].unique(maintain_order=True).to_list() == ["questions", "tried[k=1]"]
    with pytest.raises(UserError, match=r"cell 'json' × 'questions' is that of the rows 'json 8' and 'json 16'. Set the figure's `rows`"):
        drawn(tmp_path, grid, study(rows=ROWS, figure={"kind": "heat_map", "rows": "mode"}))


def test_a_scatter_has_a_point_with_its_name_for_every_row(tmp_path: Path, grid: Made) -> None:
    figure = {"kind": "scatter", "x": {}, "y": {"metric": "nats_token", "show": "gain"}}
    shown = texts_of(drawn(tmp_path, grid, study(rows=ROWS, figure=figure)))
    assert {"json 8", "text 16", "accuracy", "gain in nats_token over Base"} <= set(shown)
    assert "Base" not in shown  # it has no gain
    for k in range(12):
        grid.add(f"more {k}", f"m{k}", labels(np.arange(40) < 3 * k))
    many = ROWS | {f"more {k}": f"m{k}" for k in range(12)}
    shown = texts_of(drawn(tmp_path, grid, study(rows=many, figure=figure)))
    assert {"1", "16", "1: json 8", "16: more 11"} <= set(shown)  # numbers at the points, names below
    grid.add("Base", "b", labels(np.arange(40) < 9), evaluation="tried/k=1")
    grid.add("Base", "b", labels(np.arange(40) < 9), evaluation="tried/k=2")
    figure["x"] = {"evaluation": "tried"}
    with pytest.raises(UserError, match=r"of 'tried', which is 2 evaluations of the table \(questions, tried/k=1, tried/k=2\)"):
        drawn(tmp_path, grid, study(rows=ROWS, evaluations=["questions", "tried"], figure=figure))


@pytest.mark.parametrize(
    ("figure", "said"),
    [
        ({"kind": "bars", "levels": "acuracy"}, "figure.levels: 'acuracy' is none of the study's metrics"),
        ({"kind": "heat_map", "metric": "f1"}, "figure.metric: 'f1' is none of the study's metrics"),
        ({"kind": "heat_map", "rows": "n", "columns": "n"}, "figure: rows and columns are both 'n'"),
        ({"kind": "scatter", "x": {}, "y": {"metric": "f1"}}, "figure.y.metric: 'f1' is none of the study's metrics"),
        ({"kind": "scatter", "x": {"evaluation": "x"}, "y": {}}, "figure.x.evaluation: 'x' is no evaluation and no group of the study"),
    ],
)
def test_a_figure_of_what_is_not_there_is_refused(figure: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        study(figure=figure)


# ---- rows in different designs ----


@pytest.fixture
def forms(tmp_path: Path) -> dict[str, tuple[Path, list[str]]]:
    """Two designs of six records, of which the second has the last five and another one, in another order: file and ids of the queries."""
    plain = load_design(ROOT / "designs/plain.py")
    whole = [example(f"Review {k}", str(k % 2), str(k)) for k in range(7)]
    found = {}
    for name, roots in (("reviews.first", whole[:6]), ("reviews.last", [*reversed(whole[1:])])):
        examples, _ = apply_design(plain, {"instruction": "Judge.", "instruction_at": name[8:]}, roots, name)
        write_examples(path := tmp_path / f"{name}.parquet", examples)
        found[name[8:]] = path, [e.example_id for e in examples]
    return found


def test_rows_that_are_asked_in_different_designs_are_paired_by_root(tmp_path: Path, forms: dict[str, tuple[Path, list[str]]]) -> None:
    made = Made(tmp_path, 6, 6)
    right = {"first": [0, 0, 1, 0, 1, 0], "last": [1, 1, 1, 0, 1, 1]}  # by review, 0 to 5; and of the last design 1 to 6
    for row, design in (("Base", "first"), ("Good", "last"), ("Bad", "first")):
        path, ids = forms[design]
        values = right[design] if design == "first" else right[design][::-1]
        made.tasks = [q[0] for q in ids]
        made.add(row, row, labels([0] * 6 if row == "Bad" else values), ids=ids, queries=path)
    c = compared(made, study(unit=["item"]))
    assert c.missing == [
        "questions: queries of reviews.first, reviews.last are paired by the example that they were made from: 5 are in each; left out, "
        "since not all have them: 1 of reviews.first, 1 of reviews.last."
    ]
    found = by_row(made, study(unit=["item"]))
    assert [(found[row]["n"], found[row]["unscored"]) for row in ("Base", "Good", "Bad")] == [(5, 0)] * 3
    # Reviews 1 to 5: Base 0 1 0 1 0, Good 1 1 1 0 1.
    assert (found["Base"]["value"], found["Good"]["value"], found["Bad"]["value"]) == (0.4, 0.8, 0.0)
    assert found["Good"]["gain"] == pytest.approx(0.4)
    assert found["Good"]["gain_p"] == pytest.approx(stats.binomtest(3, 4).pvalue)  # three better, one worse: paired review by review
    assert comparison_page(study(), comparison_table(c), pl.DataFrame(), c.missing, QUICK).count("5 are in each") == 1


def test_forms_of_other_examples_or_twice_of_one_cannot_be_paired(tmp_path: Path, forms: dict[str, tuple[Path, list[str]]]) -> None:
    other, twice = tmp_path / "other.parquet", tmp_path / "twice.parquet"
    write_examples(other, strangers := [example(f"Poem {k}", "0", str(k)) for k in range(6)])
    write_examples(twice, doubles := [strangers[0].derive(f"s{k}", f"Which {k}?", "0") for k in range(6)])
    for name, examples, told in (
        (other, strangers, r"'questions' is asked in the datasets reviews.first, other, which are not made from the same examples"),
        (twice, doubles, r"twice.parquet: the queries \w+, \w+ are made from one example"),
    ):
        made = Made(tmp_path, 6, 6)
        made.add("Base", "b", labels([0] * 6), ids=forms["first"][1], queries=forms["first"][0])
        made.add("Good", "g", labels([1] * 6), ids=[e.example_id for e in examples], queries=name)
        with pytest.raises(UserError, match=told):
            compared(made)


def test_the_order_of_the_queries_in_a_file_changes_nothing(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    values = {row: rng.integers(0, 2, 12).astype(float) for row in ("Base", "Good")}
    tables = []
    for name, order in (("same", np.arange(12)), ("other", rng.permutation(12))):
        made = Made(tmp_path / name, 12, 3)
        made.add("Base", "b", labels(values["Base"]))
        ids, tasks = [f"questions-{q}" for q in made.ids], made.tasks
        made.tasks = [tasks[k] for k in order]
        made.add("Good", "g", labels(values["Good"][order]), ids=[ids[k] for k in order])
        tables.append(comparison_table(compared(made)))
    assert tables[0].equals(tables[1])


def test_a_manifest_of_2400_rows_is_read(tmp_path: Path) -> None:
    """Fault 1: what a study reads grows with its runs, and stands in a table."""
    made = Made(tmp_path, 6, 3)
    rng = np.random.default_rng(3)
    for k in range(2400):
        made.add(f"row {k:04}", f"run{k:04}", {"key_points": labels(rng.integers(0, 2, 6))["key_points"]})
    s = study(rows={f"row {k:04}": f"run{k:04}" for k in range(2400)}, against="row 0000", metrics=["accuracy"])
    table = comparison_table(compared(made, s))
    assert table.height == 2400
    assert table["gain"].null_count() == 1
