"""Scorer files: the contract, what they declare, the sentences for their faults, and the tables that they end in."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from made_examples import example
from tiny import ROOT

from swift_study.config import declared
from swift_study.errors import Rejected, UserError
from swift_study.evaluation.scorers import (
    Candidate,
    Item,
    Score,
    Scored,
    load_scorer,
    read_statistics,
    score_items,
    summary,
    totals,
    write_scores,
)
from swift_study.examples import KeyPoint
from swift_study.io.tables import ITEMS, SCORES, read_table, write_table

HEAD = "from swift_study.errors import Rejected\nfrom swift_study.evaluation.scorers import Score\n"
PLAIN = """STATISTICS = ("hits", "n")
def score(item):
    if item.response == "?":
        raise Rejected("it is a question")
    return Score({"hits": len(item.response), "n": 1}, "counted")
def metrics(sums):
    return {"mean": sums["hits"] / sums["n"]}
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "mine.py"
    path.write_text(HEAD + text)
    return path


def with_body(body: str) -> str:
    return (
        f'STATISTICS = ("hits", "n")\ndef score(item):\n    {body}\ndef metrics(sums):\n    return {{"mean": sums["hits"] / sums["n"]}}\n'
    )


# ---- what a file declares ----


def test_the_repository_s_scorers_declare_what_they_need() -> None:
    found = {path.stem: declared(path) for path in sorted((ROOT / "scorers").glob("*.py"))}
    assert {name: set(d.needs) for name, d in found.items() if name in ("judge", "key_points", "likelihood")} == {
        "judge": {"response", "endpoint"},
        "key_points": {"response"},
        "likelihood": {"model"},
    }
    for name in found:
        scorer = load_scorer(ROOT / "scorers" / f"{name}.py")
        ones = dict.fromkeys(scorer.declared.statistics, 1.0)
        draws = dict.fromkeys(scorer.declared.statistics, np.ones(5))
        assert {m: np.shape(v) for m, v in scorer.metrics(draws).items()} == dict.fromkeys(scorer.metrics(ones), (5,))


def test_declarations_are_read_without_running_the_file(tmp_path: Path) -> None:
    path = written(tmp_path, PLAIN + "raise SystemExit(1)\n")
    assert (declared(path).statistics, declared(path).needs) == (("hits", "n"), frozenset(["response"]))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = 1\n", r"the constant `STATISTICS` is missing, or no literal"),
        ("STATISTICS = ()\n", r"`STATISTICS` is missing"),
        ('STATISTICS = "right"\n', r"`STATISTICS` is missing"),
        ('STATISTICS = tuple("ab")\n', r"`STATISTICS` is missing, or no literal"),
        ('STATISTICS = ("n",)\nNEEDS = "model"\n', r"NEEDS is 'model'; it is a tuple of some of 'response', 'model', 'endpoint'"),
        ('STATISTICS = ("n",)\nNEEDS = ("gpu",)\n', r"NEEDS is \('gpu',\)"),
        ('STATISTICS = ("n",)\nNEEDS = ("model", "endpoint")\n', r"a model and an endpoint; a scorer has one of them"),
        ('STATISTICS = ("n",)\nNEEDS = ("response", "values")\n', r"prompt and values come from the run's model\. Add 'model'"),
        ("def broken(:\n", r"does not run: SyntaxError: .* \(line 3\)"),
    ],
)
def test_a_file_that_declares_nothing_usable_is_a_sentence(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UserError, match=rf"mine\.py: .*{said}"):
        declared(written(tmp_path, text))


def test_a_missing_file_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.py: there is no such scorer file"):
        declared(tmp_path / "none.py")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('STATISTICS = ("n",)\nraise ValueError("oh")\n', r"the scorer file does not run: ValueError: oh \(line 4\)"),
        ('STATISTICS = ("n",)\nimport sys\nsys.exit(3)\n', r"does not run: SystemExit: 3 \(line 5\)"),
        ('STATISTICS = ("n",)\ndef score(item): pass\n', r"the function `metrics` is missing; this scorer file needs score, metrics"),
        ('STATISTICS = ("n",)\nNEEDS = ("response", "endpoint")\ndef metrics(s): pass\n', r"the function `prompt` is missing"),
    ],
)
def test_a_file_that_cannot_be_used_is_a_sentence(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UserError, match=rf"mine\.py: .*{said}"):
        load_scorer(written(tmp_path, text))


# ---- scores ----


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("return None", r"line 4: score returned nothing \(None\) for the query .* Return a Score"),
        ("return 1", r"score returned 1, which is of the type builtins\.int"),
        ("return Score({'hits': 1})", r"gave the statistics hits for .* Give those of STATISTICS: hits, n"),
        ("return Score({'hits': 1, 'n': 1, 'm': 1})", r"gave the statistics hits, n, m"),
        ("return Score({'hits': float('nan'), 'n': 1})", r"the statistic 'hits' the value nan .* finite number"),
        ("return Score({'hits': '1', 'n': 1})", r"the statistic 'hits' the value '1'"),
        ("return Score({'hits': 1, 'n': 1}, reason=3)", r"gave the reason 3"),
        ("raise KeyError('x')", r"line 5: score raised KeyError: 'x' for the query"),
        ("import sys; sys.exit()", r"score raised SystemExit"),
    ],
)
def test_a_fault_in_a_scorer_names_file_line_and_query(tmp_path: Path, body: str, said: str) -> None:
    scorer = load_scorer(written(tmp_path, with_body(body)))
    with pytest.raises(UserError, match=rf"mine\.py.*{said}"):
        score_items(scorer, [Item(example("Which?"), "x")])


def test_what_cannot_be_scored_is_null_and_never_0(tmp_path: Path) -> None:
    scorer = load_scorer(written(tmp_path, PLAIN))
    examples = [example(str(k), task=f"task{k % 2}") for k in range(4)]
    items = [Item(e, response) for e, response in zip(examples, ["ab", "?", None, "abcd"], strict=True)]
    scored = score_items(scorer, items)
    assert [s.score.statistics for s in scored] == [{"hits": 2, "n": 1}, None, None, {"hits": 4, "n": 1}]
    assert [s.score.reason for s in scored] == [
        "counted", "it is a question", "there is no response: the server refused the query", "counted",
    ]  # fmt: skip
    assert totals(scorer, scored) == {"hits": 6, "n": 2}
    assert summary(scorer, scored) == "mean 3 over 4 queries; 2 could not be scored"

    write_scores(tmp_path, scorer, scored)
    long = read_table(tmp_path / "scores.parquet", SCORES)
    assert long.rows()[:4] == [
        (examples[0].example_id, "task0", "hits", 2.0),
        (examples[0].example_id, "task0", "n", 1.0),
        (examples[1].example_id, "task1", "hits", None),
        (examples[1].example_id, "task1", "n", None),
    ]
    wide = read_statistics(tmp_path / "scores.parquet")
    assert wide.columns == ["query_id", "task", "hits", "n"]
    assert wide["query_id"].to_list() == [e.example_id for e in examples]
    assert wide["hits"].to_list() == [2.0, None, None, 4.0]
    assert read_table(tmp_path / "items.parquet", ITEMS)["judge"].to_list() == ["mine"] * 4


def test_no_scored_item_at_all_is_no_error(tmp_path: Path) -> None:
    scorer = load_scorer(written(tmp_path, PLAIN))
    scored = score_items(scorer, [Item(example(), "?")])
    assert summary(scorer, scored) == "mean nan over 1 queries; 1 could not be scored"


def test_scores_of_a_family_are_read_with_factors_evaluation_and_scorer_as_columns(tmp_path: Path) -> None:
    scorer = load_scorer(written(tmp_path, PLAIN))
    for n, level in ((0, "a%2Fb"), (1, "c")):
        folder = tmp_path / f"scores/fam/n={n}/mode={level}/evaluation=questions/decoding=2/scorer=mine"
        write_scores(folder, scorer, score_items(scorer, [Item(example(), "x" * n)]))
    frame = pl.scan_parquet(tmp_path / "scores/fam/**/scores.parquet", hive_partitioning=True).collect()
    assert frame.filter(pl.col("statistic") == "hits").sort("n").select(
        "n", "mode", "evaluation", "decoding", "scorer", "value"
    ).rows() == [
        (0, "a/b", "questions", 2, "mine", 0.0),
        (1, "c", "questions", 2, "mine", 1.0),
    ]


def test_a_table_with_a_statistic_twice_is_a_sentence(tmp_path: Path) -> None:
    rows = [("q", "t", "right", 1.0), ("q", "t", "n", 1.0), ("p", "t", "right", 1.0)]
    write_table(tmp_path / "scores.parquet", pl.DataFrame(rows, schema=SCORES.names, orient="row"), SCORES)
    with pytest.raises(UserError, match="each statistic of each query once"):
        read_statistics(tmp_path / "scores.parquet")


# ---- metrics ----


def test_metrics_of_all_resamples_are_those_of_each(tmp_path: Path) -> None:
    scorer = load_scorer(written(tmp_path, PLAIN))
    rng = np.random.default_rng(0)
    values = {"hits": np.array([2.0, np.nan, 0.0, 5.0]), "n": np.array([1.0, np.nan, 1.0, 1.0])}
    weights = rng.multinomial(4, [0.25] * 4, size=50).astype(float)
    weights[0] = [0, 4, 0, 0]  # only the query that could not be scored
    draws = scorer.estimate(values, weights)["mean"]
    assert np.isnan(draws[0])
    for w, draw in zip(weights[1:], draws[1:], strict=True):
        there = w[[0, 2, 3]]
        assert draw == pytest.approx(there @ np.array([2.0, 0.0, 5.0]) / there.sum(), nan_ok=True)


def test_a_scorer_may_estimate_what_sums_cannot_give(tmp_path: Path) -> None:
    own = PLAIN + "def estimate(statistics, weights):\n    return {'most': (statistics['hits'] * (weights > 0)).max(axis=1)}\n"
    scorer = load_scorer(written(tmp_path, own))
    found = scorer.estimate({"hits": np.array([1.0, 5.0]), "n": np.ones(2)}, np.array([[1.0, 0.0], [1.0, 1.0]]))
    assert {name: draws.tolist() for name, draws in found.items()} == {"most": [1.0, 5.0]}


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("return 3", "metrics returned 3"),
        ("return {}", r"metrics returned \{\}"),
        ("return {'mean': 1.0}", r"the metric 'mean' of metrics is 1\.0; a number was expected for each of the sums, of the shape \(3,\)"),
        ("return {'mean': sums['other']}", r"line \d+: metrics raised KeyError"),
    ],
)
def test_a_fault_in_metrics_is_a_sentence(tmp_path: Path, body: str, said: str) -> None:
    text = f'STATISTICS = ("n",)\ndef score(item): return Score({{"n": 1}})\ndef metrics(sums):\n    {body}\n'
    scorer = load_scorer(written(tmp_path, text))
    with pytest.raises(UserError, match=rf"mine\.py.*{said}"):
        scorer.metrics({"n": np.ones(3)})


def test_a_fault_in_estimate_is_a_sentence(tmp_path: Path) -> None:
    for body, said in (
        ("return {'x': 1.0}", r"the metric 'x' of estimate is 1\.0; .* shape \(2,\)"),
        ("1 / 0", r"estimate raised ZeroDivision"),
    ):
        scorer = load_scorer(written(tmp_path, PLAIN + f"def estimate(statistics, weights):\n    {body}\n"))
        with pytest.raises(UserError, match=said):
            scorer.estimate({"hits": np.ones(3), "n": np.ones(3)}, np.ones((2, 3)))


# ---- the first scorers ----


def test_key_points_label_what_a_machine_can_check() -> None:
    scorer = load_scorer(ROOT / "scorers/key_points.py")
    point = KeyPoint(text="The sum is 2.", check="number", value="2")
    items = [
        Item(example("1", key_points=[point]), "It is 2."),
        Item(example("2", key_points=[point]), "It is 3."),
        Item(example("3", key_points=[KeyPoint(text="It is polite.")]), "It is 2, Sir."),
    ]
    found = [s.score for s in score_items(scorer, items)]
    assert [s.statistics for s in found] == [{"right": 1, "n": 1}, {"right": 0, "n": 1}, None]
    assert found[2].reason == "no key point can be checked by machine"
    assert scorer.metrics(totals(scorer, [Scored(i, s, "x") for i, s in zip(items, found, strict=True)])) == {"accuracy": 0.5}


def test_likelihood_has_nats_by_answer_and_by_token() -> None:
    scorer = load_scorer(ROOT / "scorers/likelihood.py")
    items = [Item(example(), candidates=(Candidate("a", -3.0, 2),)), Item(example("r"), candidates=(Candidate("b", -1.0, 4),))]
    scored = score_items(scorer, items)
    assert scored[0].score == Score({"nats": -3.0, "tokens": 2, "nats_token": -1.5, "n": 1})
    assert scorer.metrics(totals(scorer, scored)) == {"nats_token": pytest.approx((-1.5 - 0.25) / 2), "nats": -2.0}


def test_a_judge_says_why_a_reply_cannot_be_read() -> None:
    scorer = load_scorer(ROOT / "scorers/judge.py")
    with pytest.raises(Rejected, match="not JSON"):
        scorer.from_reply(Item(example(), "x"), "I cannot say.")
    assert scorer.from_reply(Item(example(), "x"), '{"reason": "so", "label": 1}') == Score({"right": 1, "n": 1}, "so")
