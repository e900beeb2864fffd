"""Selections: by scores of an example and its relatives, on chains made by hand, and by the user's own tables of scores."""

import json
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pytest
from scripts import run_script
from tiny import ROOT

from swift_study.config import Scores, Selection
from swift_study.data.selection import Row, choose, put_out, rows_of, scores_of_file
from swift_study.data.strategies import load_strategy
from swift_study.errors import UserError
from swift_study.examples import Example, Message
from swift_study.io.settings import settings as as_settings
from swift_study.io.tables import RESPONSES, SCORES, read_examples, write_examples, write_table

CLARIFY = load_strategy(ROOT / "strategies" / "clarify.py")
RELATIVES = {
    "analogue": "candidates.similar",
    "clarification": "candidates.clarify",
    "revised": "candidates.clarify.revise",
    "revised_analogue": "candidates.similar.clarify.revise",
}


def selection(mode: str = "golden", tasks: int | None = None, **keys: object) -> Selection:
    """The one of the Swift Study: negatives and positives."""
    positive = {"completion": "golden" if mode == "golden" else "response"}
    where = {"example": 0, "analogue": 0} | ({"revised": 1, "revised_analogue": 1} if mode == "model" else {})
    values = {
        "examples": "candidates",
        "relatives": RELATIVES,
        "scores": {"run": "base", "evaluation": "tried"},
        "where": where,
        "take": {"per_task": 1, "tasks": tasks},
        "outputs": {
            "negative": {"completion": "response"},
            "negative_analogue": {"of": "analogue", "completion": "response"},
            "positive": {"of": "revised", **positive},
            "positive_analogue": {"of": "revised_analogue", **positive},
            "clarified": {"of": "clarification"},
        },
    }
    return Selection.model_validate(values | keys)


@dataclass
class Chains:
    """Candidates with what strategies made of them, scores and responses; labels are those of the responses to the query, its analogue, and
    the revised forms of the two: 0, 1 or ? for undecided."""

    datasets: dict[str, list[Example]]
    scores: dict[str, float | None]
    responses: dict[str, str | None]


def example(task: str, name: str, golden: str | None) -> Example:
    answer = f"right answer to {name}"
    messages = [Message(role="user", content=name), Message(role="assistant", content=answer)]
    return Example(task=task, messages=messages, golden=golden and answer, requirements=["Be right."])


def chains(*given: tuple[str, str, str], golden: str | None = "known", response: str | None = None) -> Chains:
    found = Chains({name: [] for name in ("candidates", "candidates.similar.clarify", *RELATIVES.values())}, {}, {})
    for task, name, labels in given:
        query = example(task, name, golden)
        analogue = example(task, f"{name}'", golden).model_copy(update={"strategy": "similar", "parent_id": query.example_id})
        clarified = [CLARIFY.from_fields(e, None) for e in (query, analogue)]
        revise = load_strategy(ROOT / "strategies" / "revise.py", parents=[query, analogue])
        revised = [revise.from_fields(c, None) for c in clarified]  # type: ignore[arg-type]
        for dataset, member in zip(
            ("candidates", "candidates.similar", "candidates.clarify", "candidates.similar.clarify", *list(RELATIVES.values())[2:]),
            (query, analogue, *clarified, *revised),
            strict=True,
        ):
            found.datasets[dataset].append(member)  # type: ignore[arg-type]
        for e, label in zip((query, analogue, *revised), labels, strict=True):
            found.scores[e.example_id] = None if label == "?" else float(label)  # type: ignore[union-attr]
            found.responses[e.example_id] = f"response to {e.query}" if response is None else response  # type: ignore[union-attr]
    return found


def chosen(chosen_from: Chains, of: Selection) -> list[Row]:
    return choose(of, rows_of(of, chosen_from.datasets), chosen_from.scores, chosen_from.responses, 17, "tried")


def output(chosen_from: Chains, of: Selection, name: str) -> list[Example]:
    return put_out(of, name, chosen(chosen_from, of), chosen_from.responses)


def queries(examples: list[Example]) -> list[str]:
    return [e.query.split("\n")[0] for e in examples]


# ---- negatives and positives ----


@pytest.mark.parametrize("mode", ["model", "golden"])
def test_first_fitting_chain_of_each_task_is_taken(mode: str) -> None:
    given = chains(
        ("a", "a1", "1011"),  # the query is answered satisfactorily
        ("b", "b1", "0011"),
        ("a", "a2", "0111"),  # its analogue is
        ("a", "a3", "0011"),
        ("a", "a4", "0011"),  # fits as well, but a3 is first
        ("c", "c1", "?011"),  # cannot be judged
        ("c", "c2", "0011"),
    )
    of = selection(mode, 3)
    assert queries(output(given, of, "negative")) == ["a3", "b1", "c2"]
    assert queries(output(given, of, "negative_analogue")) == ["a3'", "b1'", "c2'"]
    assert queries(output(given, of, "positive")) == ["a3", "b1", "c2"]
    assert queries(output(given, of, "positive_analogue")) == ["a3'", "b1'", "c2'"]
    taken = [given.datasets["candidates.clarify"][k] for k in (3, 1, 6)]
    assert [e.example_id for e in output(given, of, "clarified")] == [e.example_id for e in taken]
    assert queries(output(given, selection(mode, 2), "negative")) == ["a3", "b1"]


def test_negatives_keep_the_models_response_and_the_golden_answer_beside_it() -> None:
    only = chains(("a", "a1", "0011"))
    for name, source in (("negative", "candidates"), ("negative_analogue", "candidates.similar")):
        (negative,), (asked,) = output(only, selection(tasks=1), name), only.datasets[source]
        assert negative.query == asked.query
        assert negative.completion == only.responses[asked.example_id]
        assert negative.golden == f"right answer to {asked.query}"
        assert (negative.strategy, negative.parent_id, negative.root) == (name, asked.example_id, asked.root)


@pytest.mark.parametrize("name", ["positive", "positive_analogue"])
@pytest.mark.parametrize("golden", ["known", None])
def test_positives_answer_the_revised_query_by_the_model_or_with_the_golden_answer(name: str, golden: str | None) -> None:
    only = chains(("a", "a1", "0011"), golden=golden)
    (revised,) = only.datasets[RELATIVES["revised" if name == "positive" else "revised_analogue"]]
    answers = {}
    for mode in ("model", "golden"):
        (positive,) = output(only, selection(mode, 1), name)
        assert positive.query == revised.query
        assert "Be right." in positive.query
        assert positive.strategy == name
        assert positive.parent_id == (revised.example_id if mode == "model" else revised.parent_id)  # the same example has the same parent
        answers[mode] = positive.completion
    # The completion is the golden answer where a source does not name one.
    original = "a1" if name == "positive" else "a1'"
    assert answers == {"model": only.responses[revised.example_id], "golden": f"right answer to {original}"}


@pytest.mark.parametrize("labels", ["0001", "0010", "0000", "00?1", "001?"])
def test_golden_answers_do_not_ask_how_the_revised_queries_were_answered(labels: str) -> None:
    given = chains(("a", "a1", labels), ("a", "a2", "0011"))
    assert queries(output(given, selection("golden", 1), "positive")) == ["a1"]
    assert queries(output(given, selection("model", 1), "positive")) == ["a2"]
    assert selection("golden").scored() == ["candidates", "candidates.similar"]
    assert selection("model").scored() == ["candidates", "candidates.similar", RELATIVES["revised"], RELATIVES["revised_analogue"]]


@pytest.mark.parametrize("mode", ["model", "golden"])
def test_an_empty_response_is_chosen_for_no_output_that_keeps_it(mode: str) -> None:
    """There is nothing to train on; key points such as "at most ten words" may all be met by it."""
    silent = chains(("a", "a1", "0011"), response="")
    with pytest.raises(UserError, match=r"selections.tried: 1 tasks are asked for"):
        chosen(silent, selection(mode, 1))
    (revised,) = silent.datasets[RELATIVES["revised"]]
    half = chains(("a", "a1", "0011"))
    half.responses[revised.example_id] = " "
    if mode == "golden":
        assert len(chosen(half, selection(mode, 1))) == 1
    else:
        with pytest.raises(UserError, match="0 fit everything"):
            chosen(half, selection(mode, 1))


def test_too_few_are_told_with_the_counts_found() -> None:
    given = chains(
        ("a", "a1", "0011"),  # negative and positive
        ("b", "b1", "0010"),  # negative
        ("b", "b2", "1111"),  # positive
        ("c", "c1", "1011"),  # positive
        ("d", "d1", "1100"),  # neither
    )
    with pytest.raises(UserError) as caught:
        chosen(given, selection("model", 2))
    assert str(caught.value) == (
        "selections.tried: 2 tasks are asked for (take), but 1 are there: of the 5 examples of 'candidates' 2 have example with the score "
        "0; 3 have analogue with the score 0; 4 have revised with the score 1; 3 have revised_analogue with the score 1; 1 fit everything. "
        "Add examples to 'candidates', loosen selections.tried.where, or lower selections.tried.take."
    )
    with pytest.raises(UserError, match=r"3 tasks are asked for .*, but 2 are there"):
        chosen(given, selection("golden", 3))


def test_an_example_without_a_relative_is_not_taken() -> None:
    given = chains(("a", "a1", "0011"), ("b", "b1", "0011"))
    del given.datasets["candidates.clarify"][0]  # rejected by the strategy
    assert queries(output(given, selection(tasks=1), "negative")) == ["b1"]


def test_revised_query_is_what_the_clarification_answers() -> None:
    query = example("a", "How many?", "known")
    clarification = CLARIFY.from_fields(query, None)
    assert isinstance(clarification, Example)
    revised = load_strategy(ROOT / "strategies" / "revise.py", parents=[query]).from_fields(clarification, None)
    assert isinstance(revised, Example)
    assert revised.query == clarification.completion == "How many?\nBe right."
    assert revised.completion == query.golden
    assert (revised.parent_id, revised.strategy) == (query.example_id, "revise")


# ---- k by a score ----

POOL = [example("a" if k < 4 else "b", f"query {k}", "known") for k in range(8)]
BY_SCORE = dict(zip((e.example_id for e in POOL), [0.3, 0.9, None, 0.1, 0.5, 0.9, 0.2, 0.4], strict=True))


def by(take: dict[str, object], where: dict[str, object] | None = None) -> list[str]:
    of = Selection.model_validate(
        {"examples": "pool", "scores": {"file": "s.csv", "column": "s"}, "where": where or {}, "take": take, "outputs": {"best": {}}}
    )
    rows = choose(of, rows_of(of, {"pool": POOL}), BY_SCORE, {}, 17, "mine")
    return [row["example"].query[-1] for row in rows]


def test_top_bottom_first_and_random_within_tasks_or_not() -> None:
    assert by({"order": "top", "examples": 3}) == ["1", "5", "4"]  # ties as in the dataset
    assert by({"order": "bottom", "examples": 3}) == ["3", "6", "0"]
    assert by({"order": "top", "per_task": 1}) == ["1", "5"]
    assert by({"order": "bottom", "per_task": 2}) == ["3", "0", "6", "7"]
    assert by({"order": "first", "examples": 2}) == ["0", "1"]
    assert by({}) == list("01234567")  # no score is needed where none is asked for
    assert by({"order": "random", "examples": 8}) != list("01234567")
    for k in range(1, 8):  # a smaller choice is the beginning of a larger one
        assert by({"order": "random", "examples": 8})[:k] == by({"order": "random", "examples": k})
    assert by({}, {"example": {"min": 0.35}}) == ["1", "4", "5", "7"]
    assert by({}, {"example": {"min": 0.2, "max": 0.4}}) == ["0", "6", "7"]
    assert by({}, {"example": [0.1, 0.2]}) == ["3", "6"]
    with pytest.raises(UserError, match=r"selections.mine: 9 examples are asked for \(take\), but 8 are there"):
        by({"order": "random", "examples": 9})


@pytest.mark.parametrize(("key", "of"), [("example_id", lambda e: e.example_id), ("query", lambda e: e.query.upper())])
def test_scores_in_a_table_of_the_users(key: str, of: object, tmp_path: Path) -> None:
    rows = [f"{of(e)},{'' if (s := BY_SCORE[e.example_id]) is None else s}" for e in POOL[:5]]  # type: ignore[operator]
    (tmp_path / "scores.csv").write_text("\n".join([f"{key},quality", *rows]))
    settings = Scores(file=str(tmp_path / "scores.csv"), column="quality", key=key)
    found = scores_of_file(settings, POOL)
    assert [found[e.example_id] for e in POOL] == [0.3, 0.9, None, 0.1, 0.5, None, None, None]
    for text, told in ((f"{key},quality\nx,good", "row 1, column quality: expected a number, found 'good'"),
                       (f"{key},score\nx,1", "row 1: there is no column 'quality'"), (f"{key},quality\nx,1", "none of the 8 examples"),
                       (f"{key},quality\nx,1\nx,2", "row 2: the example 'x' has a score above already")):  # fmt: skip
        (tmp_path / "scores.csv").write_text(text)
        with pytest.raises(UserError, match=told):
            scores_of_file(settings, POOL)


# ---- what the configuration refuses ----


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"where": {"analog": 0}}, "`where` names 'analog' \\(did you mean 'analogue'\\?\\)"),
        ({"outputs": {"x": {"of": "clarify"}}}, "`outputs.x.of` names 'clarify'"),
        ({"take": {"order": "top", "of": "nobody"}}, "`take.of` names 'nobody'"),
        ({"relatives": {"example": "panel"}}, "'example' is that of the example itself"),
        ({"scores": None}, "need `scores`"),
        ({"scores": {"file": "x.csv", "column": "y"}}, "needs the responses of a run"),
        ({"scores": {"file": "x.csv"}}, "`file` and `column` go together"),
        ({"scores": {"run": "base", "evaluation": "tried", "file": "x.csv", "column": "y"}}, "name one of the two"),
        ({"where": {"example": {}}}, "a range needs `min`, `max` or both"),
    ],
)
def test_a_selection_that_cannot_be_made_is_refused(keys: dict[str, object], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        selection(**keys)  # type: ignore[arg-type]


# ---- the rule ----


def test_the_script_chooses_by_a_runs_scores(tmp_path: Path) -> None:
    given = chains(("a", "a1", "1011"), ("b", "b1", "0011"), ("c", "c1", "0011"))
    of = selection("model", 2)
    (tmp_path / "data").mkdir()
    for name, members in given.datasets.items():
        write_examples(tmp_path / "data" / f"{name}.parquet", members)
    scores, responses = [], []
    for name in of.scored():
        ids = [e.example_id for e in given.datasets[name]]
        scored = {"query_id": ids, "task": ["t"] * len(ids), "statistic": ["right"] * len(ids), "value": [given.scores[i] for i in ids]}
        answers = {"query_id": ids, "response": [given.responses[i] for i in ids], "finish_reason": "stop", "n_tokens": 3, "seed": None}
        write_table(tmp_path / f"{name}.scores.parquet", pl.DataFrame(scored), SCORES)
        write_table(tmp_path / f"{name}.responses.parquet", pl.DataFrame(answers), RESPONSES)
        scores.append(f"{name}.scores.parquet")
        responses.append(f"{name}.responses.parquet")
    read = ["--datasets", *(f"data/{name}.parquet" for name in given.datasets), "--scores", *scores, "--responses", *responses]

    def run(settings: Selection, name: str, code: int) -> str:
        own = ["--selection", "tried", "--settings", as_settings(selection=settings, seed=17), "--output", f"{name}.parquet"]
        return run_script("select_examples.py", *read, *own, cwd=tmp_path, code=code).stdout

    run(of, "positive_analogue", 0)
    assert read_examples(tmp_path / "positive_analogue.parquet") == output(given, of, "positive_analogue")
    of_other = selection("model", 2, scores={"run": "base", "evaluation": "tried", "statistic": "nats"})
    told = run(of_other, "positive", 1)
    assert "there is no statistic 'nats' (selections.tried.scores.statistic); it has right" in told
    assert json.loads(of.model_dump_json())["take"]["tasks"] == 2
