"""The SDE paper's designs: what they write, that they read back what they write, and that a response is never more than text."""

import contextlib
import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest
from configuration import configured
from hypothesis import given
from hypothesis import strategies as st
from tiny import ROOT

from swift_study.data.designs import Rendered, apply_design, load_design
from swift_study.data.leakage import find_leaks
from swift_study.data.sources import read_sources
from swift_study.data.strategies import apply_strategy, load_strategy
from swift_study.errors import Rejected, UserError
from swift_study.examples import Example

CONFIG = configured()
DESIGNS = {name: load_design(ROOT / "designs" / f"{name}.py") for name in ("aspects", "mentions")}
USES = {name.removeprefix("sde_"): use for name, use in CONFIG.designs.items() if use.like in DESIGNS}
OF_ASPECTS, OF_MENTIONS = ([name for name, use in USES.items() if use.like == like] for like in DESIGNS)
REASONING = ["json_cot", "json_r_cot"]
CODES = {"positive": "1", "neutral": "0", "negative": "-1", "unmentioned": "-2"}
DESCRIBE, HOW = load_strategy(ROOT / "strategies/describe.py", CONFIG.strategies["describe"].options), CONFIG.strategies["describe"]


def shipped(name: str) -> list[Example]:
    sources = [s.model_copy(update={"path": str(ROOT / s.path)}) for s in CONFIG.datasets[name].sources if s.kind == "file"]
    return read_sources(sources, CONFIG.datasets[name].where)


EXAMPLES = {name.removeprefix("sde_"): shipped(name) for name, settings in CONFIG.datasets.items() if "data/sde/" in str(settings.sources)}
DESCRIBED = {name: apply_strategy(DESCRIBE, HOW, EXAMPLES[name], [], f"{name}.describe")[0] for name in EXAMPLES if name.startswith("masa")}


def render(use: str, record: dict[str, Any]) -> Rendered:
    return DESIGNS[USES[use].like or ""].render(record, USES[use].options)


def parse(use: str, response: str, record: dict[str, Any]) -> dict[str, Any]:
    return DESIGNS[USES[use].like or ""].parse(response, record, USES[use].options)


def expected(use: str, record: dict[str, Any]) -> dict[str, Any]:
    """What the design states of a record; mentions as a multiset."""
    if use in OF_MENTIONS:
        field = USES[use].options["field"]
        return {field: sorted(record[field])}
    return {key: record[key] for key in ("aspects", *(["reasons"] if use in REASONING else []))}


def read_back(use: str, record: dict[str, Any]) -> dict[str, Any]:
    found = parse(use, render(use, record).completion, record)
    return {key: sorted(value) if use in OF_MENTIONS else value for key, value in found.items()}


def values(use: str, record: dict[str, Any]) -> list[str]:
    """The parts of a completion that carry the answer, in their order."""
    options = USES[use].options
    form = options.get("form", "natural" if use in OF_ASPECTS else "lists")
    nothing = "[]" if form == "lists" else "none"
    if use in OF_ASPECTS:
        omitted = options.get("unmentioned") == "omitted"
        label = CODES.get if options.get("labels") == "numbers" else str
        pairs = [
            (json.dumps(a, ensure_ascii=False)[1:-1] if form == "lists" else a, label(s))
            for a, s in record["aspects"].items()
            if not omitted or s != "unmentioned"
        ]
        return [str(text) for pair in pairs for text in (pair if omitted else pair[1:])] or [nothing]
    mentions = [[json.dumps(text, ensure_ascii=False)[1:-1] for text in pair] for pair in record[options["field"]]]
    if form == "lists":
        return [text for pair in mentions for text in pair] or [nothing]
    named = {kind: [name for k, name in mentions if k == kind] for kind in options["types"]}
    if form == "lines":
        return [name for names in named.values() for name in names or ["none"]]
    return [text for kind, names in named.items() if names for text in (kind, *names)] or [nothing]


def datasets_of(use: str) -> list[str]:
    task = use.partition("_")[0]
    return [task, f"{task}_test"] if task in ("ner", "events", "masa") else ["masa_d1", "masa_d1_test", "masa_d2", "masa_d2_test"]


# ---- what is shipped ----


@pytest.mark.parametrize(
    ("name", "n"),
    [
        ("masa_d1", 840), ("masa_d1_test", 95), ("masa_d2", 832), ("masa_d2_test", 111), ("masa", 3149), ("masa_test", 400),
        ("ner", 1000), ("ner_test", 300), ("events", 395), ("events_test", 213),
    ],
)  # fmt: skip
def test_the_shipped_records_are_there_and_no_text_is_in_both_parts(name: str, n: int) -> None:
    assert len(EXAMPLES[name]) == n == len({e.text for e in EXAMPLES[name]})
    other = EXAMPLES[name.removesuffix("_test") if name.endswith("_test") else f"{name}_test"]
    assert not {e.text for e in EXAMPLES[name]} & {e.text for e in other}


def test_a_review_has_every_aspect_of_its_domain_in_their_order_and_mentions_two() -> None:
    d1, d2 = ["food", "service", "ambience", "price"], ["staff", "miscellaneous", "place", "menu"]
    for name, aspects in (("masa_d1", d1), ("masa_d2_test", d2), ("masa", d1 + d2)):
        for example in EXAMPLES[name]:
            labels = json.loads(example.record or "")["aspects"]
            assert list(labels) == aspects
            assert sum(label != "unmentioned" for label in labels.values()) >= 2
            assert set(labels.values()) <= CODES.keys()
    files = list((ROOT / "data/sde").glob("*.gz"))
    assert sum(file.stat().st_size for file in files) < 800_000
    assert all(file.read_bytes()[4:8] == bytes(4) for file in files)  # no time of writing


@pytest.mark.parametrize("use", USES)
def test_every_shipped_record_is_rendered_and_read_back(use: str) -> None:
    for name in datasets_of(use):
        for example in DESCRIBED.get(name, EXAMPLES[name]):
            record = json.loads(example.record or "")
            rendered = render(use, record)
            assert read_back(use, record) == expected(use, record)
            assert [rendered.completion[a:b] for a, b in rendered.value_spans] == values(use, record)
            assert record["text"] in rendered.query
            assert "{" not in rendered.query.partition("Write")[0].replace(record["text"], "")


@pytest.mark.parametrize(("use", "n"), [("ner_heuristic", 200), ("ner_ew", 200), ("events_ew", 87)])
def test_an_example_without_a_completion_is_left_out_and_counted(use: str, n: int) -> None:
    examples = EXAMPLES[use.partition("_")[0]]
    made, rejects = apply_design(DESIGNS["mentions"], USES[use].options | {"nothing": "empty"}, examples, "published")
    assert (len(made), len(rejects)) == (len(examples) - n, n)
    assert {r.reason[:29] for r in rejects} == {"the example has no completion"}
    assert apply_design(DESIGNS["mentions"], USES[use].options, examples, "explicit")[1] == []


# ---- the forms ----

REVIEW = {
    "text": "Good soup, slow waiter.",
    "aspects": {"food": "positive", "service": "negative", "price": "unmentioned"},
    "reasons": {"food": "Good soup", "service": "slow waiter", "price": "It is not mentioned."},
}
BOOK = {
    "text": 'The captain of the "Rover" was in London.',
    "entities": [["PER", 'The captain of the "Rover"'], ["VEH", "Rover"], ["GPE", "London"]],
}


@pytest.mark.parametrize(
    ("use", "completion"),
    [
        ("inst_last", "food: positive, service: negative, price: unmentioned."),
        ("lines", "food: positive\nservice: negative\nprice: unmentioned"),
        ("omitted", "food: positive, service: negative."),
        ("numbers", "food: 1, service: -1, price: -2."),
        ("masa_heuristic", '["food","positive"]\n["service","negative"]'),
        (
            "json",
            '{"aspect": "food", "sentiment": "positive"}\n{"aspect": "service", "sentiment": "negative"}\n'
            '{"aspect": "price", "sentiment": "unmentioned"}',
        ),
        (
            "json_cot",
            '{"aspect": "food", "description": "Good soup", "sentiment": "positive"}\n'
            '{"aspect": "service", "description": "slow waiter", "sentiment": "negative"}\n'
            '{"aspect": "price", "description": "It is not mentioned.", "sentiment": "unmentioned"}',
        ),
        (
            "json_r_cot",
            '{"aspect": "food", "sentiment": "positive", "description": "Good soup"}\n'
            '{"aspect": "service", "sentiment": "negative", "description": "slow waiter"}\n'
            '{"aspect": "price", "sentiment": "unmentioned", "description": "It is not mentioned."}',
        ),
        ("ner_heuristic", '["PER","The captain of the \\"Rover\\""]\n["VEH","Rover"]\n["GPE","London"]'),
        ("ner_ew", 'PER: "The captain of the \\"Rover\\""; GPE: "London"; VEH: "Rover"'),
        ("ner_es", 'PER: "The captain of the \\"Rover\\""\nFAC: none\nGPE: "London"\nLOC: none\nVEH: "Rover"\nORG: none'),
    ],
)  # fmt: skip
def test_the_forms(use: str, completion: str) -> None:
    record = REVIEW if use in OF_ASPECTS else BOOK
    assert render(use, record).completion == completion
    assert read_back(use, record) == expected(use, record)


def test_the_instruction_stands_behind_the_text_before_it_or_nowhere() -> None:
    asks = " ".join(USES["inst_last"].options["instruction"]).replace("{aspects}", "food, service, price")
    assert render("inst_last", REVIEW).query == f"Good soup, slow waiter.\n---\n{asks}\nOutput:"
    assert render("inst_first", REVIEW).query == f"{asks}\nGood soup, slow waiter.\nOutput:"
    assert render("no_inst", REVIEW).query == "Good soup, slow waiter."
    assert "types PER, FAC, GPE, LOC, VEH, ORG and" in render("ner_es_3", BOOK).query


@pytest.mark.parametrize(
    ("use", "nothing"), [("omitted", "none"), ("masa_heuristic", "[]"), ("masa_ew", "none"), ("ner_heuristic", "[]"), ("ner_ew", "none")]
)
def test_nothing_is_said_in_words_or_as_published_by_nothing(use: str, nothing: str) -> None:
    record = {"text": "We went.", "aspects": dict.fromkeys(REVIEW["aspects"], "unmentioned"), "entities": []}
    assert render(use, record).completion == nothing == render(use, record).parts[0]
    assert read_back(use, record) == expected(use, record)
    with pytest.raises(Rejected, match=r"^empty: "):
        parse(use, " \n", record)
    design, published = DESIGNS[USES[use].like or ""], USES[use].options | {"nothing": "empty"}
    assert design.render(record, published).completion == ""
    assert design.parse("", record, published) == expected(use, record) == design.parse(nothing, record, published)


# ---- responses ----

ASKED = {"text": "t", "aspects": dict.fromkeys(["food", "price"], "unmentioned"), "entities": []}


@pytest.mark.parametrize(
    ("use", "response", "stated"),
    [
        ("inst_last", "Food:Positive ,price : NEUTRAL. ", {"food": "positive", "price": "neutral"}),
        ("inst_last", "food: positive.", {"food": "positive"}),  # what is missing stays out
        ("inst_last", "food: positive, parking: negative, food: positive", {"food": "positive", "parking": "negative"}),
        ("lines", "\nfood: positive\n\nprice: neutral\n", {"food": "positive", "price": "neutral"}),
        ("numbers", "food: -1, price: 0.", {"food": "negative", "price": "neutral"}),
        ("omitted", "price: negative", {"price": "negative", "food": "unmentioned"}),
        ("omitted", "None.", {"food": "unmentioned", "price": "unmentioned"}),
        ("masa_heuristic", '["food", "positive"]\n["x","neutral"]', {"food": "positive", "price": "unmentioned", "x": "neutral"}),
        ("json", '{"sentiment": "Neutral", "aspect": "Price", "more": 1}', {"price": "neutral"}),
    ],
)  # fmt: skip
def test_what_a_response_states(use: str, response: str, stated: dict[str, str]) -> None:
    assert parse(use, response, ASKED)["aspects"] == stated


def test_a_label_in_json_may_be_a_number() -> None:
    options = {"form": "json", "labels": "numbers"}
    for label in ("-2", '"-2"'):
        found = DESIGNS["aspects"].parse(f'{{"aspect": "food", "sentiment": {label}}}', ASKED, options)
        assert found == {"aspects": {"food": "unmentioned"}}
    rendered = DESIGNS["aspects"].render(REVIEW, options)
    assert rendered.completion.startswith('{"aspect": "food", "sentiment": 1}\n')
    assert DESIGNS["aspects"].parse(rendered.completion, REVIEW, options) == {"aspects": REVIEW["aspects"]}


DEEP, HUGE = "[" * 100_000 + "]" * 100_000, "9" * 100_000


@pytest.mark.parametrize(
    ("use", "response"),
    [
        ("inst_last", "food is positive"),
        ("inst_last", "food: positive\nprice: neutral"),  # another form
        ("inst_last", "food: good, price: neutral"),
        ("inst_last", "food: 1"),
        ("inst_last", "food: positive, food: neutral"),
        ("inst_last", ": positive"),
        ("inst_last", ",,."),
        ("inst_last", "none"),
        ("lines", "food: positive, price: neutral"),
        ("numbers", "food: positive"),
        ("json", "food: positive"),
        ("json", '{"aspect": "food"}'),
        ("json", '{"aspect": "food", "sentiment": "positive"'),
        ("json", '[{"aspect": "food", "sentiment": "positive"}]'),
        ("json", '{"aspect": 1, "sentiment": "positive"}'),
        ("json", '{"aspect": "food", "sentiment": "positive", "sentiment": "neutral"}'),
        ("json", '{"aspect": "food", "sentiment": "positive"}\n{"aspect": "food", "sentiment": "neutral"}'),
        ("json", '{"aspect": "food", "sentiment": NaN}'),
        ("json", '{"aspect": "food", "sentiment": true}'),
        ("json", f'{{"aspect": "food", "sentiment": {HUGE}}}'),
        ("json", '{"aspect": "\\ud800", "sentiment": "positive"}'),
        ("json", DEEP),
        ("json_cot", '{"aspect": "food", "sentiment": "positive"}'),
        ("masa_heuristic", '["food","positive"],["price","neutral"]'),
        ("masa_heuristic", '{"food": "positive"}'),
        ("ner_heuristic", '["PER"]'),
        ("ner_heuristic", '["PER", 1]'),
        ("ner_heuristic", '["PER", ""]'),
        ("ner_heuristic", "PER: Ann"),
        ("ner_heuristic", HUGE),
        ("ner_heuristic", DEEP),
        ("ner_ew", "PER: Ann"),
        ("ner_ew", 'PER: "Ann", "Bob'),
        ("ner_ew", 'PER "Ann"'),
        ("ner_ew", 'PER: "Ann" "Bob"'),
        ("ner_ew", 'PER: "Ann"\nFAC: "inn"'),
        ("ner_ew", 'PER: "Ann" and more'),
        ("ner_ew", 'PER: "\\x"'),
        ("ner_ew", 'PER: ""'),
        ("ner_ew", 'PER: "\\ud800"'),
        ("ner_ew", 'PER: "' + '\\"' * 100_000),
        ("ner_es", "PER:"),
        ("ner_es", "nobody"),
    ],
)
def test_what_cannot_be_read_is_told_without_delay(use: str, response: str) -> None:
    with pytest.raises(Rejected, match=r"^unparsable: "):
        parse(use, response, ASKED)


def test_what_mentions_a_response_states() -> None:
    assert parse("ner_heuristic", '["per","Ann"]\n["XYZ","a b"]\n["per","Ann"]', ASKED) == {
        "entities": [["PER", "Ann"], ["XYZ", "a b"], ["PER", "Ann"]]
    }
    assert parse("ner_ew", ' per : "Ann","Bob" ;LOC: "a; b, c".', ASKED) == {
        "entities": [["PER", "Ann"], ["PER", "Bob"], ["LOC", "a; b, c"]]
    }
    assert parse("ner_es", 'PER: "none"\n\nLOC: None\nXYZ: "x"', ASKED) == {"entities": [["PER", "none"], ["XYZ", "x"]]}


NAME = st.text(min_size=1, max_size=8) | st.sampled_from(["food", "Food", "none", "a: b", "a, b", 'a "b"', "a;b", "a\nb", " a", "[]", "."])
SIMPLE = st.text("abcxyzé中", min_size=1, max_size=6).filter(lambda name: name != "none")


def labelled(names: st.SearchStrategy[str]) -> st.SearchStrategy[dict[str, Any]]:
    aspects = st.dictionaries(names, st.sampled_from(list(CODES)), min_size=1, max_size=4)
    return aspects.flatmap(
        lambda labels: st.fixed_dictionaries(
            {"text": st.just("t"), "aspects": st.just(labels), "reasons": st.fixed_dictionaries(dict.fromkeys(labels, st.text(max_size=9)))}
        )
    )


def mentioned(use: str, names: st.SearchStrategy[str]) -> st.SearchStrategy[dict[str, Any]]:
    pairs = st.lists(st.tuples(st.sampled_from(USES[use].options["types"]), names).map(list), max_size=4)
    return pairs.map(lambda found: {"text": "t", USES[use].options["field"]: found})


def records(use: str, names: st.SearchStrategy[str]) -> st.SearchStrategy[dict[str, Any]]:
    return labelled(names) if use in OF_ASPECTS else mentioned(use, names)


@pytest.mark.parametrize("use", USES)
@given(data=st.data())
def test_what_is_rendered_is_read_back(use: str, data: st.DataObject) -> None:
    record = data.draw(records(use, NAME))
    with contextlib.suppress(Rejected):
        rendered = render(use, record)
        assert read_back(use, record) == expected(use, record)
        assert [rendered.completion[a:b] for a, b in rendered.value_spans] == [value for value in values(use, record) if value]


@pytest.mark.parametrize("use", USES)
@given(data=st.data())
def test_simple_names_are_never_refused(use: str, data: st.DataObject) -> None:
    record = data.draw(records(use, SIMPLE))
    assert read_back(use, record) == expected(use, record)


@pytest.mark.parametrize("use", USES)
@given(data=st.data())
def test_any_text_is_read_or_refused(use: str, data: st.DataObject) -> None:
    record = data.draw(records(use, SIMPLE))
    completion = render(use, record).completion
    start, length, middle = data.draw(
        st.tuples(st.integers(0, len(completion)), st.integers(0, 9), st.text(max_size=6) | st.sampled_from('",:;\n[]{}\\'))
    )
    for response in (data.draw(st.text()), completion[:start] + middle + completion[start + length :]):
        found = None
        with contextlib.suppress(Rejected):
            found = parse(use, response, record)
        if found is None:
            with pytest.raises(Rejected, match=r"^(empty|unparsable): "):
                parse(use, response, record)
            continue
        assert found.keys() == expected(use, record).keys()
        json.dumps(found, ensure_ascii=False).encode()
        if use in OF_ASPECTS:
            assert set(found["aspects"].values()) <= CODES.keys()
        else:
            assert all(kind and name for kind, name in found[USES[use].options["field"]])


# ---- what cannot be rendered ----


@pytest.mark.parametrize(
    ("use", "record", "why"),
    [
        ("inst_last", {"text": "t"}, "no text or no aspects"),
        ("inst_last", {"text": "t", "aspects": {}}, "no text or no aspects"),
        ("inst_last", {"text": "t", "aspects": {"food": "good"}}, "'good' is none of positive"),
        ("inst_last", {"text": "t", "aspects": {"food": ["positive"]}}, "is none of positive"),
        ("inst_last", {"text": "t", "aspects": {"food, drink": "neutral"}}, "the form natural cannot hold"),
        ("lines", {"text": "t", "aspects": {"food\ndrink": "neutral"}}, "the form lines cannot hold"),
        ("json", {"text": "t", "aspects": {"food": "neutral", "Food": "positive"}}, "the form json cannot hold"),
        ("json_cot", {"text": "t", "aspects": {"food": "neutral"}}, "no reasons for its aspects; the strategy describe"),
        ("ner_es", {"text": "t"}, "'entities' is no list"),
        ("ner_es", {"text": "t", "entities": [["PER"]]}, "'entities' is no list"),
        ("ner_es", {"entities": []}, "no text"),
        ("ner_es", {"text": "t", "entities": [["DNA", "x"]]}, "'DNA' is none of those that are asked: PER"),
        ("ner_heuristic", {"text": "t", "entities": [["PER", " "]]}, "the form lists cannot hold"),
    ],
)
def test_what_a_form_cannot_hold_is_refused_with_the_reason(use: str, record: dict[str, Any], why: str) -> None:
    with pytest.raises(Rejected, match=why):
        render(use, record)


@pytest.mark.parametrize(
    ("design", "options", "why"),
    [
        ("aspects", {"form": "jason"}, "the option form: jason is not known"),
        ("aspects", {"instrution": "Say."}, "the option instrution: Say. is not known"),
        ("aspects", {"reasoning": "before"}, "reasoning needs form: json"),
        ("mentions", {"field": "entities", "types": ["PER"], "nothing": "nought"}, "nothing: nought is not known"),
        ("mentions", {"types": ["PER"]}, "field .* and types .* are needed"),
    ],
)
def test_options_that_are_not_known_are_told(design: str, options: Mapping[str, Any], why: str) -> None:
    example = EXAMPLES["masa_d1" if design == "aspects" else "ner"][0]
    with pytest.raises(UserError, match=why):
        apply_design(DESIGNS[design], options, [example], "masa.mine")


# ---- descriptions ----


def test_descriptions_are_extracted_and_the_item_stays_the_same() -> None:
    (first, *_), parents = DESCRIBED["masa_d1"], EXAMPLES["masa_d1"]
    record = json.loads(first.record or "")
    assert (first.query, first.root, first.parent_id) == (parents[0].query, parents[0].root, parents[0].example_id)
    assert first.completion == first.golden == first.record
    assert {k: v for k, v in record.items() if k != "reasons"} == json.loads(parents[0].record or "")
    (formed,), _ = apply_design(DESIGNS["aspects"], USES["json_cot"].options, [first], "masa_d1.describe.json_cot")
    assert formed.golden == formed.completion
    assert (formed.root, formed.text) == (parents[0].root, parents[0].text)
    assert "is another form of" in find_leaks([formed], [parents[0]], [first], 0.8)[0]
    assert find_leaks([formed], parents[1:9], [first], 1.0) == []


def test_a_description_is_the_clause_with_the_cue_or_a_fixed_sentence_or_the_whole_text() -> None:
    text = "The waiter was kind, but the soups came cold. No harm done"
    labels = {"food": "negative", "staff": "positive", "price": "unmentioned", "place": "neutral"}
    example = EXAMPLES["masa"][0].derive("x", text, "y", record=json.dumps({"text": text, "aspects": labels}))
    made = DESCRIBE.from_fields(example, None)
    assert isinstance(made, Example)
    assert json.loads(made.record or "")["reasons"] == {
        "food": "but the soups came cold", "staff": "The waiter was kind", "price": "It is not mentioned.", "place": text,
    }  # fmt: skip
    assert (made.completion, made.example_id) == ("y", example.example_id)  # a completion that is not the record stays
    with pytest.raises(Rejected, match="no record with a text and its aspects"):
        DESCRIBE.from_fields(EXAMPLES["ner"][0], None)


def test_most_descriptions_are_shorter_than_the_text() -> None:
    shorter: Counter[bool] = Counter()
    for example in DESCRIBED["masa"]:
        record = json.loads(example.record or "")
        for aspect, reason in record["reasons"].items():
            assert (reason == "It is not mentioned.") == (record["aspects"][aspect] == "unmentioned")
            shorter[len(reason) < len(record["text"])] += 1
    assert shorter[True] > 9 * shorter[False]


def test_a_teachers_descriptions_are_held_against_the_labels() -> None:
    example = EXAMPLES["masa_d1"][0]
    labels = json.loads(example.record or "")["aspects"]
    assert json.dumps(labels) in DESCRIBE.prompt(example)[0].content
    good = {a: {"description": f" About\n{a}. ", "sentiment": label} for a, label in labels.items()}
    made = DESCRIBE.from_reply(example, f"```json\n{json.dumps(good)}\n```")
    assert isinstance(made, Example)
    assert json.loads(made.record or "")["reasons"] == {a: f"About {a}." for a in labels}
    aspect = next(iter(labels))
    other = "negative" if labels[aspect] != "negative" else "positive"
    for bad, why in (
        ({**good, aspect: {"description": "x", "sentiment": other}}, "is not the record's"),
        ({**good, aspect: {"description": " ", "sentiment": labels[aspect]}}, "no description"),
        ({**good, aspect: "x"}, "is not the record's"),
        ({**good, "parking": good[aspect]}, "no other one"),
    ):
        with pytest.raises(Rejected, match=why):
            DESCRIBE.from_reply(example, json.dumps(bad))
    for reply in ("", "no JSON", "[1]", "{" * 9):
        with pytest.raises(Rejected, match="the reply is not"):
            DESCRIBE.from_reply(example, reply)
