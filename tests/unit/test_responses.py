"""The choice of negatives and positives among the base model's judged responses, on chains made by hand."""

from pathlib import Path

import pytest

from swift_study.data.strategies import load_strategy
from swift_study.errors import UserError
from swift_study.evaluation.responses import Chain, Judged, revise, select
from swift_study.examples import Example, Message

CLARIFY = load_strategy(Path(__file__).resolve().parents[2] / "strategies" / "clarify.py")
DATASETS = ("negative", "negative.similar", "positive", "positive.similar", "negative.clarify")


def example(task: str, name: str, golden: str | None) -> Example:
    answer = f"right answer to {name}"
    messages = [Message(role="user", content=name), Message(role="assistant", content=answer)]
    return Example(task=task, messages=messages, golden=golden and answer, requirements=["Be right."])


def chain(task: str, name: str, labels: str, golden: str | None = "known", response: str | None = None) -> Chain:
    """Labels of the responses to the query, its analogue, and the revised forms of the two: 0, 1 or ? for undecided."""
    label = {"0": 0, "1": 1, "?": None}
    query, analogue = example(task, name, golden), example(task, f"{name}'", golden)
    clarifications = [CLARIFY.from_fields(e, None) for e in (query, analogue)]
    revised = revise(clarifications, {e.example_id: e for e in (query, analogue)})
    answered = [
        Judged(e, f"response to {e.query}" if response is None else response, label[character])
        for e, character in zip([query, analogue, *revised], labels, strict=True)
    ]
    return Chain(answered[0], answered[2], clarifications[0], answered[1], answered[3])


def queries(examples: list[Example]) -> list[str]:
    return [e.query.split("\n")[0] for e in examples]


@pytest.mark.parametrize("mode", ["model", "golden"])
def test_first_fitting_chain_of_each_task_is_taken(mode: str) -> None:
    chains = [
        chain("a", "a1", "1011"),  # the query is answered satisfactorily
        chain("b", "b1", "0011"),
        chain("a", "a2", "0111"),  # its analogue is
        chain("a", "a3", "0011"),
        chain("a", "a4", "0011"),  # fits as well, but a3 is first
        chain("c", "c1", "?011"),  # cannot be judged
        chain("c", "c2", "0011"),
    ]
    chosen = select(chains, 3, mode)
    assert tuple(chosen) == DATASETS
    assert queries(chosen["negative"]) == ["a3", "b1", "c2"]
    assert queries(chosen["negative.similar"]) == ["a3'", "b1'", "c2'"]
    assert queries(chosen["positive"]) == ["a3", "b1", "c2"]
    assert queries(chosen["positive.similar"]) == ["a3'", "b1'", "c2'"]
    assert chosen["negative.clarify"] == [c.clarification for c in (chains[3], chains[1], chains[6])]
    assert queries(select(chains, 2, mode)["negative"]) == ["a3", "b1"]


def test_negatives_keep_the_models_response_and_the_golden_answer_beside_it() -> None:
    only = chain("a", "a1", "0011")
    for name, source in (("negative", only.original), ("negative.similar", only.similar_original)):
        (negative,) = select([only], 1, "golden")[name]
        assert negative.query == source.example.query
        assert negative.completion == source.response
        assert negative.golden == f"right answer to {source.example.query}"
        assert (negative.strategy, negative.parent_id) == ("negative", source.example.example_id)


@pytest.mark.parametrize("name", ["positive", "positive.similar"])
@pytest.mark.parametrize("golden", ["known", None])
def test_positives_answer_the_revised_query_by_the_model_or_with_the_golden_answer(
    name: str,
    golden: str | None,
) -> None:
    only = chain("a", "a1", "0011", golden=golden)
    source = only.revised if name == "positive" else only.similar_revised
    answers = {}
    for mode in ("model", "golden"):
        (positive,) = select([only], 1, mode)[name]
        assert positive.query == source.example.query
        assert "Be right." in positive.query
        assert (positive.strategy, positive.parent_id) == ("positive", source.example.example_id)
        answers[mode] = positive.completion
    # The completion is the golden answer where a source does not name one.
    original = "a1" if name == "positive" else "a1'"
    assert answers == {"model": source.response, "golden": f"right answer to {original}"}


@pytest.mark.parametrize("labels", ["0001", "0010", "0000", "00?1", "001?"])
def test_golden_mode_does_not_ask_how_the_revised_queries_were_answered(labels: str) -> None:
    chains = [chain("a", "a1", labels), chain("a", "a2", "0011")]
    assert queries(select(chains, 1, "golden")["positive"]) == ["a1"]
    assert queries(select(chains, 1, "model")["positive"]) == ["a2"]


@pytest.mark.parametrize("mode", ["model", "golden"])
def test_empty_response_is_neither_negative_nor_positive(mode: str) -> None:
    """There is nothing to train on; key points such as "at most ten words" may all be met by it."""
    silent = chain("a", "a1", "0011", response="")
    with pytest.raises(UserError, match="Too few negatives or positives"):
        select([silent], 1, mode)
    spoken = chain("a", "a1", "0011")
    half = Chain(spoken.original, silent.revised, spoken.clarification, spoken.similar_original, spoken.similar_revised)
    assert half.is_negative()
    assert half.is_positive(mode) is (mode == "golden")


def test_too_few_are_told_with_the_counts_found() -> None:
    chains = [
        chain("a", "a1", "0011"),  # negative and positive
        chain("b", "b1", "0010"),  # negative
        chain("b", "b2", "1111"),  # positive
        chain("c", "c1", "1011"),  # positive
        chain("d", "d1", "1100"),  # neither
    ]
    with pytest.raises(UserError) as caught:
        select(chains, 2, "model")
    assert str(caught.value).startswith(
        "Too few negatives or positives: 2 tasks are asked for (selection.tasks), but of the 4 candidate tasks "
        "2 have a query and an analogue that the base model answers unsatisfactorily, 3 have revised queries "
        "with satisfactory responses (selection.positive_response: model), and 1 have both."
    )
    with pytest.raises(UserError, match=r"3 tasks are asked for .* 2 have .* 4 have .*golden\), and 2 have both"):
        select(chains, 3, "golden")


def test_no_candidates_at_all_are_told() -> None:
    with pytest.raises(UserError, match="of the 0 candidate tasks 0 have a query"):
        select([], 2, "golden")


def test_revised_query_is_what_the_clarification_answers() -> None:
    query = example("a", "How many?", "known")
    clarification = CLARIFY.from_fields(query, None)
    (revised,) = revise([clarification], {query.example_id: query})
    assert revised.query == clarification.completion == "How many?\nBe right."
    assert revised.completion == query.golden
    assert (revised.parent_id, revised.strategy) == (query.example_id, "revised")
