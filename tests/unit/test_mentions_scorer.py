"""The scorer of mentions: hard and soft matches, multisets and sets, errors of format, and odd designs."""

import json
from collections import Counter
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_examples import example
from tiny import ROOT

from swift_study.errors import UserError
from swift_study.evaluation.scorers import Item, Score, load_scorer, score_items, totals

SCORER = load_scorer(ROOT / "scorers/mentions.py")
PUBLISHED = json.loads((Path(__file__).parent / "oracles/sde.json").read_text())["maven"]


def item(gold: Any, stated: Any = None, unreadable: str | None = None, field: str = "entities", **options: Any) -> Item:
    """A response that states mentions, or that cannot be read."""
    parsed = None if stated is None else {field: stated}
    given = options | ({} if field == "entities" else {"field": field})
    return Item(example(record=json.dumps({field: gold})), "a response", parsed=parsed, unreadable=unreadable, options=given)


def scored(one: Item) -> Score:
    return score_items(SCORER, [one])[0].score


def metrics(*items: Item) -> dict[str, float]:
    return SCORER.metrics(totals(SCORER, score_items(SCORER, items)))


def counts(one: Item, suffix: str = "") -> tuple[float, ...]:
    """TP, FP, FN."""
    statistics = scored(one).statistics
    assert statistics is not None
    return tuple(statistics[name + suffix] for name in ("tp", "fp", "fn"))


GOLD = [["PER", "her mother"], ["LOC", "Paris"], ["PER", "Jane"]]


# ---- hard ----


def test_a_toy_with_known_answers() -> None:
    found = metrics(
        item(GOLD, [["PER", "her mother"], ["PER", "Paris"]]),  # the second one has another type
        item([["LOC", "Rome"]], [["LOC", "Rome"]]),
        item([], [["LOC", "here"]]),
        item([], []),
    )
    assert found["precision"] == 2 / 4
    assert found["recall"] == 2 / 4
    assert found["f1"] == 2 * 2 / (2 * 2 + 2 + 2)
    assert found["accuracy"] == 2 / 4
    assert found["wrong_format"] == 0


def test_gold_and_stated_change_places_with_precision_and_recall() -> None:
    one, other = [["A", "x"], ["A", "y"], ["B", "z"]], [["A", "x"], ["B", "w"]]
    forth, back = metrics(item(one, other)), metrics(item(other, one))
    assert (forth["precision"], forth["recall"], forth["f1"]) == (1 / 2, 1 / 3, 2 / 5)
    assert (back["precision"], back["recall"], back["f1"]) == (1 / 3, 1 / 2, 2 / 5)


def test_published_counts_have_the_published_metrics() -> None:
    sums = dict.fromkeys(SCORER.declared.statistics, 0.0) | {"n": 100, "tp_soft": 67, "fp_soft": 35, "fn_soft": 80}
    found = SCORER.metrics(sums)
    assert [found[f"{name}_soft"] for name in ("precision", "recall", "f1")] == pytest.approx(
        [PUBLISHED["precision"], PUBLISHED["recall"], PUBLISHED["f1"]], rel=1e-12
    )
    assert np.isnan(found["f1"])
    draws = SCORER.metrics({name: np.full(3, value) for name, value in sums.items()})
    assert draws["f1_soft"].tolist() == [found["f1_soft"]] * 3


def test_case_and_space_around_make_no_difference() -> None:
    assert counts(item(GOLD, [["per ", "Her Mother"], ["LOC", " paris\n"], ["Per", "jane"]], types=["PER", "LOC"])) == (3, 0, 0)


def test_a_multiset_counts_repeats_and_a_set_does_not() -> None:
    gold, stated = [["A", "x"], ["A", "x"], ["A", "y"]], [["A", "x"]] * 3
    assert counts(item(gold, stated)) == counts(item(gold, stated, repeats="multiset")) == (2, 1, 1)
    assert counts(item(gold, stated, repeats="set")) == (1, 0, 1)
    assert counts(item(gold, [["A", "x"], ["A", "y"]])) == (2, 0, 1)
    assert counts(item(gold, [["A", "x"], ["A", "y"]], repeats="set")) == (2, 0, 0)


# ---- soft ----


def test_soft_replaces_a_name_by_one_that_is_similar_enough() -> None:
    gold = [["Attack", "attacked"], ["Motion", "abcd"]]
    for stated, expected in (
        ("attack", (1, 0, 1)),
        ("attacks", (1, 0, 1)),  # 12 / 15, though none contains the other
        ("tacit", (0, 1, 2)),  # 6 / 13
        ("fled", (0, 1, 2)),
    ):
        one = item(gold, [["Attack", stated]], field="events", repeats="set")
        assert (counts(one), counts(one, "_soft")) == ((0, 1, 2), expected)
    assert counts(item(gold, [["Motion", "ab"]], field="events"), "_soft") == (1, 0, 1)  # 4 / 6
    assert SequenceMatcher(a="abef", b="abcd").ratio() == 0.5  # not above it
    assert counts(item(gold, [["Motion", "abef"]], field="events"), "_soft") == (0, 1, 2)
    assert counts(item([["A", "baaa"]], [["A", "aaba"]]), "_soft") == (1, 0, 0)  # 0.75, and 0.5 the other way round
    assert counts(item([["A", "aaba"]], [["A", "baaa"]]), "_soft") == (0, 1, 1)


def test_soft_with_containment_wants_one_name_within_the_other() -> None:
    gold = [["PER", "her mother"]]
    for stated, expected in (("mother", (1, 0, 0)), ("her mother in law", (1, 0, 0)), ("his mother", (0, 1, 1))):
        assert counts(item(gold, [["PER", stated]]), "_soft") == (1, 0, 0)
        assert counts(item(gold, [["PER", stated]], containment=True), "_soft") == expected


def test_soft_takes_the_most_similar_name_of_any_type_and_of_several_the_first() -> None:
    assert counts(item([["A", "abcx"], ["B", "abcy"]], [["A", "abcz"]]), "_soft") == (1, 0, 1)
    assert counts(item([["B", "abcy"], ["A", "abcx"]], [["A", "abcz"]]), "_soft") == (0, 1, 2)  # the first one is a B
    gold = [["A", "abcdefg"], ["A", "abc"]]  # the most similar name decides, then containment
    assert counts(item(gold, [["A", "abcdezg"]], containment=True), "_soft") == (0, 1, 2)


def test_names_that_become_one_are_one_in_a_set_only() -> None:
    gold, stated = [["A", "attacked"]], [["A", "attack"], ["A", "attacks"]]
    assert counts(item(gold, stated, repeats="set"), "_soft") == (1, 0, 0)
    assert counts(item(gold, stated), "_soft") == (1, 1, 0)


TYPE, NAME = st.sampled_from(["A", "b"]), st.text("abc ", max_size=5)
PAIRS = st.lists(st.tuples(TYPE, NAME).map(list), max_size=5)
OPTIONS = st.fixed_dictionaries({"repeats": st.sampled_from(["multiset", "set"]), "containment": st.booleans()})


@given(PAIRS, PAIRS, OPTIONS)
def test_counts_are_those_of_multisets_and_a_soft_match_is_never_worse(gold: Any, stated: Any, options: dict[str, Any]) -> None:
    one = item(gold, stated, **options)
    (tp, fp, fn), soft = counts(one), counts(one, "_soft")
    told, there = ([(t.lower(), n.strip()) for t, n in side] for side in (stated, gold))
    if options["repeats"] == "set":
        told, there = list(set(told)), list(set(there))
    assert tp == sum(min(Counter(told)[mention], Counter(there)[mention]) for mention in set(told))
    assert (tp + fp, tp + fn) == (len(told), len(there))
    assert soft[0] + soft[2] == len(there)
    assert min(soft) >= 0
    found = metrics(one)
    if told or there:
        assert found["f1_soft"] >= found["f1"]
    assert found["accuracy"] == (sorted(told) == sorted(there))
    assert counts(item(stated, gold, **options)) == (tp, fn, fp)


# ---- errors of format ----


@pytest.mark.parametrize(("reason", "kind"), [("empty: no text", "empty"), ("unparsable: no bracket", "unparsable"), ("odd", "unparsable")])
def test_a_response_that_cannot_be_read_misses_everything(reason: str, kind: str) -> None:
    found = scored(item(GOLD, unreadable=reason))
    expected = {"fn": 3, "fn_soft": 3, "n": 1, "wf": 1, "wf_soft": 1, f"wf_{kind}": 1}
    assert found == Score(dict.fromkeys(SCORER.declared.statistics, 0) | expected, reason)
    assert metrics(item([], unreadable=reason))["accuracy"] == 0  # though there was nothing to find


def test_an_unknown_type_is_an_error_of_format_and_a_false_positive() -> None:
    stated = [["PER", "Jane"], ["planet", "Paris"]]
    found = metrics(item(GOLD, stated, types=["PER", "LOC"]), item(GOLD, GOLD, types=["PER", "LOC"]))
    shares = {name: found[f"wrong_format_{name}"] for name in ("empty", "unparsable", "unknown", "soft")}
    assert shares == {"empty": 0, "unparsable": 0, "unknown": 0.5, "soft": 0}
    assert (found["wrong_format"], found["precision"]) == (0.5, 4 / 5)
    assert metrics(item(GOLD, stated))["wrong_format"] == 0


@pytest.mark.parametrize(
    "stated", [{"PER": "Jane"}, "PER", 3, [["PER"]], [["PER", "Jane", 3]], [["PER", None]], [["PER", ["Jane"]]], ["PE"]]
)
def test_what_is_no_list_of_pairs_is_unparsable(stated: Any) -> None:
    found = scored(item(GOLD, stated))
    assert found.statistics is not None
    assert [found.statistics[name] for name in ("fn", "fp", "wf", "wf_soft", "wf_unparsable")] == [3, 0, 1, 1, 1]


def test_nothing_to_compare_is_not_scored() -> None:
    no_design = "no design whose `parse` gives 'entities'"
    for one, said in (
        (Item(example(record=json.dumps({"entities": GOLD})), "PER: Jane"), no_design),
        (Item(example(record=json.dumps({"entities": GOLD})), "x", parsed={"events": []}), no_design),
        (Item(example(), "x", parsed={"entities": []}), "the record's 'entities' are no list"),
        (item([["PER"]], []), "the record's 'entities' are no list"),
    ):
        found = scored(one)
        assert found.statistics is None
        assert said in str(found.reason)


@pytest.mark.parametrize("options", [{"repeats": "bag"}, {"types": "PER"}])
def test_options_that_are_not_there_are_a_sentence(options: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"mentions\.py, line \d+: .*options\.repeats is `multiset` or `set`, and options\.types a list"):
        scored(item(GOLD, GOLD, **options))


ODD = st.recursive(
    st.sampled_from([None, True, 1, float("nan"), "PER", "Jane", ""]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["entities", "PER"]), inner, max_size=2),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["entities", "events"]), ODD, max_size=2), OPTIONS)
def test_whatever_a_design_parses_is_scored_or_has_a_reason(parsed: dict[str, Any], options: dict[str, Any]) -> None:
    found = scored(Item(example(record=json.dumps({"entities": GOLD})), "x", parsed=parsed, options=options | {"types": ["PER"]}))
    if found.statistics is None:
        assert "entities" not in parsed
        assert found.reason
    else:
        assert found.statistics["tp"] + found.statistics["fn"] == len(GOLD)
