"""The leak check: an item is found in whatever form it was trained on, and no strategy's name tells whether it keeps its query."""

import json
from pathlib import Path

import pytest
from scripts import run_script
from tiny import ROOT

from swift_study.config import Strategy
from swift_study.data.leakage import find_leaks, forms
from swift_study.data.strategies import apply_strategy, load_strategy
from swift_study.examples import Example, Message
from swift_study.io.tables import write_examples


def example(query: str, completion: str = "an answer", **fields: object) -> Example:
    messages = [Message(role="user", content=query), Message(role="assistant", content=completion)]
    return Example(task="task", messages=messages, **fields)  # type: ignore[arg-type]


POOL = [example(f"Question {i}: what is {i * 7919 % 999} plus {i * 8933 % 999}{' then' * (i % 3)}?") for i in range(40)]
ASKED = [example(f"How far is it from town {i * 613 % 997} to the village {i * 271 % 991} by the road along the river?") for i in range(6)]


def made_by(folder: Path, body: str, parents: list[Example], analogues: list[Example], name: str = "mine") -> list[Example]:
    """What a user's strategy file makes of the parents, by the function that the rule calls."""
    file = folder / f"{name}.py"
    file.write_text(
        "from swift_study.data.strategies import user\n"
        f"def from_fields(example, analogue):\n    {body}\n"
        "def prompt(example):\n    return user(example.query)\n"
        "def from_reply(example, reply):\n    return example\n"
    )
    return apply_strategy(load_strategy(file), Strategy(), parents, analogues, f"questions.{name}")[0]


def test_a_leak_names_the_unseen_and_the_trained_example() -> None:
    probes = [POOL[3], example(POOL[5].query, "another"), example(POOL[8].query.replace("Question", "question") + "!"), ASKED[0]]
    leaks = find_leaks(probes, POOL, [], 0.8)
    assert len(leaks) == 3
    for leak, probe, trained in zip(leaks, probes, (POOL[3], POOL[5], POOL[8]), strict=False):
        assert probe.example_id in leak
        assert trained.example_id in leak
    assert "is another form of" in leaks[0]
    assert "(similarity 1.00)" in leaks[1]
    assert len(find_leaks(probes, POOL, [], 1.0)) == 2
    assert find_leaks(probes, [], [], 0.8) == []  # a run without training


def test_a_users_strategy_that_rewrites_the_query_leaks(tmp_path: Path) -> None:
    body = 'return example.derive("mine", " ".join(w[::-1].upper() for w in example.query.split()), "gnirts")'
    trained = made_by(tmp_path, body, ASKED, [])
    assert not {q for t in trained for q in t.query.split() if q.isalpha()} & {q for a in ASKED for q in a.query.split()}
    leaks = find_leaks(ASKED, trained, ASKED, 0.8)
    assert len(leaks) == len(ASKED)
    assert all("is another form of" in leak and "(mine, " in leak for leak in leaks)


def test_it_leaks_where_the_query_before_the_rewriting_came_from_another_file(tmp_path: Path) -> None:
    copies = [example(a.query + " ", source=f"copy.jsonl, row {k}") for k, a in enumerate(ASKED, 1)]
    trained = made_by(tmp_path, 'return example.derive("mine", example.query[::-1], "x")', copies, [])
    assert len(find_leaks(ASKED, trained, copies, 0.8)) == len(ASKED)
    again = made_by(tmp_path, 'return example.derive("again", example.query.upper()[::-1] + "?", "y")', trained, [])
    leaks = find_leaks(ASKED, again, [*trained, *copies], 0.8)
    assert len(leaks) == len(ASKED)
    assert "copy.jsonl, row 1" in leaks[0]


def test_similar_leaks_where_it_copies_its_query_and_not_where_it_makes_another(tmp_path: Path) -> None:
    similar = load_strategy(ROOT / "strategies" / "similar.py")
    others, _, _ = apply_strategy(similar, Strategy(), ASKED[:3], POOL[:3], "questions.similar")
    assert find_leaks(ASKED[:3], others, ASKED, 0.8) == []
    copies, _, _ = apply_strategy(
        similar, Strategy(), ASKED[:3], [example(a.query, "another answer") for a in ASKED[:3]], "questions.similar"
    )
    assert [c.strategy for c in copies] == ["similar"] * 3
    assert len(find_leaks(ASKED[:3], copies, ASKED, 0.8)) == 3
    reply = json.dumps({"query": ASKED[0].query + " Please.", "answer": "near"})
    assert len(find_leaks(ASKED[:3], [similar.from_reply(ASKED[0], reply)], ASKED, 0.8)) == 1
    # By any other name as well: a strategy that returns its analogue makes another item.
    renamed = made_by(tmp_path, 'return analogue.model_copy(update={"strategy": "mine", "parent_id": example.example_id})', ASKED, POOL)
    assert find_leaks(ASKED, renamed, ASKED, 0.8) == []


def test_a_frame_around_short_queries_is_no_leak_and_hides_none() -> None:
    short = [example(f"What is {a}?") for a in ("rain", "snow", "fog", "hail")]
    clarify = load_strategy(ROOT / "strategies" / "evaluate.py")
    frame = clarify.functions["prompt"].__globals__["WRAPPED"]
    wrapped = [e.derive("evaluate", frame % (e.query, e.completion), "It does.") for e in short]
    assert find_leaks(wrapped[:2], wrapped[2:], short, 0.8) == []
    assert find_leaks(short[:2], wrapped[2:], short, 0.8) == []
    assert len(find_leaks(short[:2], wrapped[1:], short, 0.8)) == 1
    assert len(find_leaks(wrapped[:2], short[1:], short, 0.8)) == 1
    assert forms(wrapped[0], {e.example_id: e for e in short}) == ["What is rain?"]


INSTRUCTION = "Below is a review. Say for each of the aspects food, service, ambience and price what the review thinks of it. " * 2


def rendered(text: str, aspects: dict[str, str], instruction: str = INSTRUCTION) -> Example:
    record = json.dumps({"text": text, "aspects": aspects})
    return example(f"{instruction}\n{text}", json.dumps(aspects), record=record)


def test_records_are_compared_by_their_text_and_not_by_an_instruction_that_they_share() -> None:
    one, two = rendered("The soup was cold.", {"food": "negative"}), rendered("Lovely waiters.", {"service": "positive"})
    assert find_leaks([one], [two], [], 0.8) == []
    in_another_design = rendered("The soup was cold!", {"food": "negative"}, "Aspects?")
    assert len(find_leaks([one], [two, in_another_design], [], 0.8)) == 1
    assert len(find_leaks([example("The soup was cold.")], [one], [], 0.8)) == 1  # against plain data as well
    without_text = [example("q", record=json.dumps({"premise": f"{a} slept", "hypothesis": "He woke."})) for a in ("A dog", "Nobody here")]
    assert [e.text for e in without_text] == ["A dog slept\nHe woke.", "Nobody here slept\nHe woke."]


@pytest.mark.parametrize("leaks", [False, True])
def test_the_rule_ends_in_a_sentence_with_the_dataset(leaks: bool, tmp_path: Path) -> None:
    derived = [e.derive("mine", e.query[::-1], "x") for e in (ASKED if leaks else POOL)]
    for name, examples in {"questions": ASKED, "base": POOL, "mine": derived}.items():
        write_examples(tmp_path / f"{name}.parquet", examples)
    given = ["--datasets", "questions.parquet", "--trained", "mine.parquet", "--ancestors", "questions.parquet", "base.parquet"]
    given += ["--study", "proof", "--near-duplicate", "0.8", "--output", "leakage.parquet"]
    done = run_script("check_leakage.py", *given, cwd=tmp_path, code=int(leaks))
    if leaks:
        assert done.stdout.startswith("ERROR in check_leakage: questions.parquet: 6 of 6 examples are in the training data")
    assert (tmp_path / "leakage.parquet").exists() != leaks
