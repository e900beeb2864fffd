"""The scorer of aspects: published predictions, what counts as wrong, which errors of format there are, and odd designs."""

import json
from collections.abc import Mapping
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

SCORER = load_scorer(ROOT / "scorers/aspects.py")
PUBLISHED = json.loads((Path(__file__).parent / "oracles/sde.json").read_text())["masa"]
LABELS = PUBLISHED["labels"]
ASKED = ("food", "service", "ambience", "price")


def item(gold: Mapping[str, str], stated: Any = None, unreadable: str | None = None, **options: Any) -> Item:
    """A response that states something about a review, or that cannot be read."""
    record = json.dumps({"text": "It was good.", "aspects": gold})
    parsed = None if stated is None else {"aspects": stated}
    return Item(example(record=record), "a response", parsed=parsed, unreadable=unreadable, options=options)


def labels(*of_aspects: str) -> dict[str, str]:
    return dict(zip(ASKED, of_aspects, strict=True))


def scores(*items: Item) -> list[Score]:
    return [scored.score for scored in score_items(SCORER, items)]


def metrics(*items: Item) -> dict[str, float]:
    return SCORER.metrics(totals(SCORER, score_items(SCORER, items)))


def counts(score: Score) -> dict[str, float]:
    """The statistics that are not 0, without n."""
    assert score.statistics is not None
    return {name: value for name, value in score.statistics.items() if value and name != "n"}


GOLD = labels("positive", "neutral", "negative", "unmentioned")


# ---- published predictions ----


def published(gold: str = "gold", predicted: str = "predicted") -> list[Item]:
    found = []
    for review in PUBLISHED["reviews"]:
        first, second = ({f"a{k}": LABELS[i] for k, i in enumerate(review[side])} for side in (gold, predicted))
        found.append(item(first, second))
    return found


def test_published_predictions_have_the_published_metrics() -> None:
    sums = totals(SCORER, score_items(SCORER, published()))
    assert [[sums[f"{g}_{p}"] for p in LABELS] for g in LABELS] == PUBLISHED["confusion"]
    found = SCORER.metrics(sums)
    assert found["kappa"] == pytest.approx(PUBLISHED["kappa"], abs=5e-5)
    assert found["unweighted_kappa"] == pytest.approx(PUBLISHED["plain_kappa"], abs=5e-5)
    assert found["accuracy"] == pytest.approx(PUBLISHED["aspect_accuracy"], abs=5e-5)
    assert found["review_accuracy"] == PUBLISHED["review_accuracy"]
    assert found["wrong_format"] == found["wrong_format_soft"] == found["absent"] == PUBLISHED["wrong_format"]
    matrix = np.array(PUBLISHED["confusion"])
    assert found["precision_positive"] == matrix[0, 0] / matrix[:, 0].sum()
    assert found["recall_neutral"] == matrix[1, 1] / matrix[1].sum()
    assert found["said_unmentioned"] == matrix[:, 3].sum() / matrix.sum()


def test_rows_of_the_weights_are_gold() -> None:
    swapped = metrics(*published("predicted", "gold"))
    assert swapped["kappa"] == pytest.approx(PUBLISHED["kappa_with_transposed_weights"], abs=5e-5)
    assert swapped["recall_positive"] == metrics(*published())["precision_positive"]


def test_metrics_of_resamples_are_those_of_each_resample() -> None:
    items = [*published(), item(GOLD, unreadable="empty: nothing"), item(GOLD, {"food": "neutral", "noise": "neutral"})]
    scored = score_items(SCORER, items)
    statistics = {
        name: np.array([s.score.statistics[name] for s in scored if s.score.statistics], dtype=float) for name in SCORER.declared.statistics
    }
    draws = np.random.default_rng(0).multinomial(len(items), [1 / len(items)] * len(items), size=8).astype(float)
    draws[0] = np.eye(len(items))[-2]  # nothing but the empty response
    found = SCORER.estimate(statistics, draws)
    for k, weights in enumerate(draws):
        one = metrics(*(i for i, times in zip(items, weights, strict=True) for _ in range(int(times))))
        assert {name: values[k] for name, values in found.items()} == pytest.approx(one, nan_ok=True)


def test_kappa_is_one_minus_observed_over_expected_disagreement() -> None:
    """By the other formula, from single cells; an absent aspect disagrees with every label."""
    rng = np.random.default_rng(3)
    gold, told = rng.integers(0, 4, (60, 4)), rng.integers(0, 5, (60, 4))
    reviews = [
        (labels(*(LABELS[i] for i in g)), {a: LABELS[i] for a, i in zip(ASKED, t, strict=True) if i < 4})
        for g, t in zip(gold, told, strict=True)
    ]
    found = metrics(*(item(*review) for review in reviews))
    for name, weights in (("kappa", np.array(PUBLISHED["weights"])), ("unweighted_kappa", np.eye(4))):
        disagreement = 1 - np.hstack([weights, np.zeros((4, 1))])
        observed, expected = disagreement[gold, told].mean(), disagreement[gold.ravel()[:, None], told.ravel()[None]].mean()
        assert found[name] == pytest.approx(1 - observed / expected)


# ---- what is wrong ----


def test_a_perfect_review_and_one_that_only_says_one_label() -> None:
    perfect = metrics(item(GOLD, GOLD))
    assert {perfect[name] for name in ("kappa", "unweighted_kappa", "accuracy", "review_accuracy", "recall_negative")} == {1}
    constant = metrics(item(GOLD, dict.fromkeys(ASKED, "unmentioned")))
    assert constant["kappa"] == pytest.approx(0, abs=1e-12)
    assert (constant["said_unmentioned"], constant["accuracy"]) == (1, 0.25)
    assert np.isnan(constant["precision_positive"])


def test_kappa_is_not_a_number_where_chance_agrees_in_everything() -> None:
    same = dict.fromkeys(ASKED, "unmentioned")
    found = metrics(item(same, same), item(same, same))
    assert np.isnan(found["kappa"])
    assert np.isnan(found["unweighted_kappa"])
    assert found["accuracy"] == 1


@pytest.mark.parametrize(("reason", "kind"), [("empty: no text", "empty"), ("unparsable: no colon", "unparsable"), ("other", "unparsable")])
def test_a_response_that_cannot_be_read_is_wrong_in_every_aspect(reason: str, kind: str) -> None:
    for soft in (False, True):
        (found,) = scores(item(GOLD, unreadable=reason, soft=soft))
        assert counts(found) == dict.fromkeys([f"{label}_absent" for label in LABELS] + ["wf", "wf_soft", f"wf_{kind}"], 1)
        assert found.reason == reason
    told = metrics(item(GOLD, GOLD), item(GOLD, unreadable=reason))
    assert (told["accuracy"], told["review_accuracy"], told["absent"], told["wrong_format"]) == (0.5, 0.5, 0.5, 0.5)
    assert told["recall_unmentioned"] == 0.5  # and not right by chance
    assert 0 < told["kappa"] < 1


def test_an_absent_aspect_is_wrong_even_where_it_is_unmentioned() -> None:
    stated = {aspect: GOLD[aspect] for aspect in ("food", "service", "ambience")}
    (found,) = scores(item(GOLD, stated))
    assert counts(found) == {
        "positive_positive": 1, "neutral_neutral": 1, "negative_negative": 1, "unmentioned_absent": 1, "wf": 1, "wf_missing": 1,
    }  # fmt: skip
    assert found.reason == "price: absent for unmentioned"


def test_an_aspect_that_is_not_asked_is_an_error_of_format_and_no_wrong_aspect() -> None:
    (found,) = scores(item(GOLD, GOLD | {"noise": "negative"}))
    assert {name: counts(found).get(name, 0) for name in ("right", "wf", "wf_unknown", "wf_soft")} == {
        "right": 1, "wf": 1, "wf_unknown": 1, "wf_soft": 0,
    }  # fmt: skip


def test_kinds_of_one_response_are_counted_each_and_the_response_once() -> None:
    found = metrics(item(GOLD, {"noise": "negative"}), item(GOLD, GOLD))
    shares = {name: found[f"wrong_format_{name}"] for name in ("empty", "unparsable", "missing", "unknown", "soft")}
    assert shares == {"empty": 0, "unparsable": 0, "missing": 0.5, "unknown": 0.5, "soft": 0}
    assert found["wrong_format"] == 0.5


@pytest.mark.parametrize("label", ["great", "Positive", "", None, 1, ["positive"], {"positive": 1}])
def test_another_label_makes_the_response_unparsable(label: Any) -> None:
    (found,) = scores(item(GOLD, GOLD | {"food": label}))
    assert counts(found).keys() == {*(f"{gold}_absent" for gold in LABELS), "wf", "wf_soft", "wf_unparsable"}


def test_nothing_to_compare_is_not_scored() -> None:
    without_design = Item(example(record=json.dumps({"aspects": GOLD})), "food: positive")
    other_task = Item(example(record=json.dumps({"aspects": GOLD})), "x", parsed={"entities": []})
    for one, said in (
        (without_design, "no design whose `parse` gives `aspects`"),
        (other_task, "no design whose `parse` gives `aspects`"),
        (Item(example(), "x", parsed={"aspects": {}}), "the record's `aspects`"),
        (item({"food": "great"}, {}), "which are positive, neutral, negative, unmentioned"),
    ):
        (found,) = scores(one)
        assert found.statistics is None
        assert said in str(found.reason)


# ---- options ----


def test_soft_reads_names_by_keyword_and_fills_gaps() -> None:
    stated = {"The Dishes": "positive", "waiting staff": "neutral", "atmosphere": "negative"}
    keywords = {"food": ["dish"], "service": ["staff"], "ambience": ["atmosphere", "decor"]}
    strict, soft = scores(item(GOLD, stated, keywords=keywords), item(GOLD, stated, keywords=keywords, soft=True))
    assert counts(strict).keys() == {*(f"{label}_absent" for label in LABELS), "wf", "wf_missing", "wf_unknown"}
    assert counts(soft) == dict.fromkeys([f"{label}_{label}" for label in LABELS] + ["right", "wf", "wf_missing", "wf_unknown"], 1)


def test_soft_prefers_the_exact_name_and_then_the_first_aspect_with_a_hit() -> None:
    gold = labels("positive", "positive", "positive", "positive")
    (found,) = scores(item(gold, {"my food": "negative", "food": "positive", "service and price": "neutral"}, soft=True))
    assert counts(found) == {
        "positive_positive": 1, "positive_neutral": 1, "positive_unmentioned": 2, "wf": 1, "wf_missing": 1, "wf_unknown": 1,
    }  # fmt: skip


def test_some_aspects_are_counted_by_themselves() -> None:
    stated = labels("positive", "negative", "negative", "unmentioned")
    (found,) = scores(item(GOLD, stated, aspects=["food", "price"]))
    assert counts(found) == {"positive_positive": 1, "unmentioned_unmentioned": 1, "right": 1}
    parts = [scores(item(GOLD, stated, aspects=[aspect]))[0].statistics for aspect in ASKED]
    (whole,) = scores(item(GOLD, stated))
    assert whole.statistics is not None
    for name in (f"{gold}_{told}" for gold in LABELS for told in (*LABELS, "absent")):
        assert sum(part[name] for part in parts if part) == whole.statistics[name]
    (none,) = scores(item(GOLD, stated, aspects=["noise"]))
    assert (none.statistics, none.reason) == (None, "the record asks for none of the aspects in `options.aspects`")


@pytest.mark.parametrize("options", [{"aspects": "food"}, {"keywords": {"food": "dish"}}])
def test_options_of_another_type_are_a_sentence(options: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"aspects\.py, line \d+: .* are lists, such as \[food\]"):
        scores(item(GOLD, GOLD, **options))


# ---- hostile designs ----

TEXT = st.text("aé :", max_size=3)
ODD = st.recursive(
    st.sampled_from([None, True, 1, float("nan"), *LABELS, *ASKED]) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT | st.sampled_from(ASKED), inner, max_size=4),
    max_leaves=6,
)
NAMES = st.sampled_from([*ASKED, "Food!", "my dish", None, 1, ("food",)]) | TEXT


@given(
    st.dictionaries(st.sampled_from(["aspects", "x"]), ODD, max_size=2)
    | st.fixed_dictionaries({"aspects": st.dictionaries(NAMES, ODD | st.sampled_from(LABELS), max_size=5)}),
    st.booleans(),
)
def test_whatever_a_design_parses_is_scored_or_has_a_reason(parsed: dict[str, Any], soft: bool) -> None:
    one = Item(example(record=json.dumps({"aspects": GOLD})), "x", parsed=parsed, options={"soft": soft, "keywords": {"food": ["dish"]}})
    (found,) = scores(one)
    if found.statistics is None:
        assert found.reason
        assert not isinstance(parsed.get("aspects"), dict)
        return
    cells = {name: value for name, value in found.statistics.items() if name.partition("_")[0] in LABELS}
    assert sum(cells.values()) == len(GOLD)
    assert found.statistics["wf"] >= found.statistics["wf_soft"]
    assert 0 <= metrics(one)["accuracy"] <= 1


@given(st.lists(st.tuples(*[st.sampled_from(LABELS)] * 4, *[st.sampled_from([*LABELS, None])] * 4), min_size=1, max_size=6), st.data())
def test_leaving_out_a_right_aspect_raises_no_metric_of_agreement(rows: list[tuple[str | None, ...]], data: st.DataObject) -> None:
    reviews = [(labels(*map(str, row[:4])), {a: p for a, p in zip(ASKED, row[4:], strict=True) if p}) for row in rows]
    right = [(k, a) for k, (gold, stated) in enumerate(reviews) for a in stated if gold[a] == stated[a]]
    before = metrics(*(item(*review) for review in reviews))
    if not right or not before["kappa"] >= 0:
        return
    k, aspect = data.draw(st.sampled_from(right))
    less = [(gold, {a: p for a, p in stated.items() if (j, a) != (k, aspect)}) for j, (gold, stated) in enumerate(reviews)]
    after = metrics(*(item(*review) for review in less))
    for name in ("kappa", "accuracy", "review_accuracy"):
        assert after[name] <= before[name] + 1e-12
