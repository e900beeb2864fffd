"""Designs of aspects and of mentions: what is rendered is read back, every shipped record included, and any text is read or refused."""

import contextlib
import gzip
import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from made_examples import example
from tiny import ROOT

from swift_study.data.designs import DesignFile, load_design
from swift_study.data.strategies import load_strategy
from swift_study.errors import Rejected

SDE = yaml.safe_load((ROOT / "studies/sde.yaml").read_text(encoding="utf-8"))
FILES = {name: load_design(ROOT / f"designs/{name}.py") for name in ("aspects", "mentions")}
LABELS = ("positive", "neutral", "negative", "unmentioned")
USES = {name: use for name, use in SDE["designs"].items() if use["like"] in FILES}


def file_of(use: dict[str, Any]) -> DesignFile:
    return FILES[use["like"]]


def shipped(file: str) -> list[dict[str, Any]]:
    with gzip.open(ROOT / "data/sde" / file, "rt", encoding="utf-8") as stream:
        return [json.loads(line)["record"] for line in stream]


RECORDS = {
    "aspects": shipped("masa.jsonl.gz") + shipped("masa_all.jsonl.gz"),
    "entities": shipped("ner.jsonl.gz"),
    "events": shipped("events.jsonl.gz"),
}


def described(record: dict[str, Any]) -> dict[str, Any]:
    strategy = load_strategy(ROOT / "strategies/describe.py", SDE["strategies"]["describe"]["options"])
    made = strategy.functions["from_fields"](example("x", "y", record=json.dumps(record)), None, strategy.options)
    found: dict[str, Any] = json.loads(made.record)
    return found


def state(record: dict[str, Any], field: str) -> Any:
    """What is compared: labels, or mentions in any order."""
    return record[field] if field == "aspects" else Counter(map(tuple, record[field]))


def check(use: dict[str, Any], record: dict[str, Any]) -> bool:
    """Whether the record can be rendered; it is then read back, and its values are its labels or names."""
    options, field = use["options"], use["options"].get("field", "aspects")
    if field == "aspects":
        record = described(record)
    try:
        rendered = file_of(use).render(record, options)
    except Rejected:
        return False
    read = file_of(use).parse(rendered.completion, record, options)
    assert state(read, field) == state(record, field)
    if options.get("reasoning"):
        assert read["reasons"] == record["reasons"]
    values = [rendered.completion[a:b] for a, b in rendered.value_spans]
    if field == "aspects" and options.get("unmentioned") != "omitted" and options.get("labels") != "numbers":
        assert values == list(record["aspects"].values())
    return True


# One sentence names an entity with a quotation mark in it; all other records of these files can be rendered.
REFUSED = {"ew_ner": 1, "es_ner": 1, "es_ner_second": 1, "es_ner_third": 1}


@pytest.mark.parametrize("name", USES)
def test_every_shipped_record_is_read_back_or_refused(name: str) -> None:
    field = USES[name]["options"].get("field", "aspects")
    assert sum(not check(USES[name], record) for record in RECORDS[field]) == REFUSED.get(name, 0)


TEXT = st.text(min_size=1, max_size=12)
REVIEWS = st.fixed_dictionaries({"text": TEXT, "aspects": st.dictionaries(TEXT, st.sampled_from(LABELS), min_size=1, max_size=4)})


@pytest.mark.parametrize("name", USES)
@given(data=st.data())
def test_any_record_is_read_back_or_refused(name: str, data: st.DataObject) -> None:
    options = USES[name]["options"]
    field = options.get("field", "aspects")
    if field == "aspects":
        record = data.draw(REVIEWS)
    else:
        mentions = st.lists(st.tuples(st.sampled_from(options["types"]), TEXT), max_size=4)
        record = {"text": data.draw(TEXT), field: [list(m) for m in data.draw(mentions)]}
    check(USES[name], record)


def words(name: str) -> Iterator[str]:
    """Pieces that make texts nearly right."""
    options = USES[name]["options"]
    yield from (
        '{"aspect": "food", "sentiment": ',
        '["',
        '"',
        "'",
        ":",
        ", ",
        "; ",
        "\n",
        "}",
        "]",
        "food",
        "none",
        "NONE",
        "NaN",
        "-2",
        "1e999",
    )
    yield from LABELS
    yield from options.get("types", [])


@pytest.mark.parametrize("name", USES)
@given(data=st.data())
def test_any_text_is_read_or_refused(name: str, data: st.DataObject) -> None:
    options = USES[name]["options"]
    field = options.get("field", "aspects")
    record = described(RECORDS[field][0]) if field == "aspects" else RECORDS[field][0]
    pieces = st.lists(st.sampled_from(list(words(name))), max_size=8).map("".join)
    rendered = file_of(USES[name]).render(record, options).completion
    cut = st.integers(0, len(rendered)).map(lambda k: rendered[:k])
    response = data.draw(st.one_of(st.text(max_size=40), pieces, cut, st.tuples(cut, pieces).map("".join)))
    with contextlib.suppress(Rejected):
        assert field in file_of(USES[name]).parse(response, record, options)


def parsed(name: str, response: str, record: dict[str, Any] | None = None) -> dict[str, Any]:
    record = record or RECORDS[USES[name]["options"].get("field", "aspects")][0]
    return file_of(USES[name]).parse(response, record, USES[name]["options"])


def refusal(name: str, response: str) -> str:
    with pytest.raises(Rejected) as error:
        parsed(name, response)
    return str(error.value)


def test_a_response_gives_what_it_states() -> None:
    record = {"text": "x", "aspects": {"food": "positive", "price": "unmentioned"}}
    assert parsed("inst_last", "Food: Negative, staff: neutral", record) == {"aspects": {"food": "negative", "staff": "neutral"}}
    assert parsed("omitted", "food: negative.", record) == {"aspects": {"food": "negative", "price": "unmentioned"}}
    assert parsed("omitted", "none", record) == {"aspects": {"food": "unmentioned", "price": "unmentioned"}}
    assert parsed("numbers", "food: -1, price: -2.", record) == {"aspects": {"food": "negative", "price": "unmentioned"}}
    assert parsed("json", '{"aspect": "food", "sentiment": "neutral"}\n\n', record) == {"aspects": {"food": "neutral"}}


def test_what_cannot_be_read_is_told_by_kind() -> None:
    assert refusal("inst_last", "  \n").startswith("empty:")
    assert refusal("inst_last", "positive, neutral").startswith("unparsable:")
    assert refusal("lines", "food: good").startswith("unparsable: 'good' is no label")
    assert refusal("lines", "food: positive\nfood: negative").startswith("unparsable: 'food' has two labels")
    assert refusal("json", '{"aspect": "food"').startswith("unparsable:")
    assert refusal("json", '{"aspect": "food", "sentiment": ["positive"]}').startswith("unparsable:")
    assert refusal("json", "[" * 100_000).startswith("unparsable:")
    assert refusal("numbers", "food: positive").startswith("unparsable:")
    assert refusal("heuristic_ner", '["PER"]').startswith("unparsable:")
    assert refusal("es_ner", '"PER": Mary').startswith("unparsable:")
    assert refusal("es_ner", "").startswith("empty:")


def test_queries_are_those_of_their_option() -> None:
    record = described({"text": "Good soup.", "aspects": {"food": "positive"}})
    last, first, bare = (FILES["aspects"].render(record, USES[u]["options"]).query for u in ("inst_last", "inst_first", "no_inst"))
    asked = USES["inst_last"]["options"]["instruction"].replace("{aspects}", "food")
    assert last == f"Good soup.\n---\n{asked}\nOutput:"
    assert first == f"{asked}\nGood soup.\nOutput:"
    assert bare == "Good soup."


def test_forms_are_those_of_their_option() -> None:
    record = described({"text": "Good soup, dear.", "aspects": {"food": "positive", "price": "negative", "menu": "unmentioned"}})
    made = {name: file_of(use).render(record, use["options"]).completion for name, use in USES.items() if use["like"] == "aspects"}
    assert made["inst_last"] == made["inst_first"] == made["no_inst"] == made["mi"] == "food: positive, price: negative, menu: unmentioned."
    assert made["lines"] == "food: positive\nprice: negative\nmenu: unmentioned"
    assert made["omitted"] == "food: positive, price: negative."
    assert made["numbers"] == "food: 1, price: -1, menu: -2."
    assert made["json"].splitlines()[0] == '{"aspect": "food", "sentiment": "positive"}'
    assert list(json.loads(made["reasons_first"].splitlines()[0])) == ["aspect", "description", "sentiment"]
    assert list(json.loads(made["reasons_last"].splitlines()[0])) == ["aspect", "sentiment", "description"]


def test_strategies_of_entities_are_those_of_the_paper() -> None:
    record = {"text": "Mary left home .", "entities": [["PER", "Mary"], ["FAC", "home"], ["PER", "Mary"]]}
    made = {name: file_of(use).render(record, use["options"]).completion for name, use in USES.items() if name.endswith("_ner")}
    assert made["heuristic_ner"] == '["PER","Mary"]\n["FAC","home"]\n["PER","Mary"]'
    assert made["ew_ner"] == '"PER": "Mary", "Mary"; "FAC": "home"'
    assert made["es_ner"].splitlines()[:2] == ['"PER": "Mary", "Mary"', '"FAC": "home"']
    assert made["es_ner"].splitlines()[2].endswith(': ""')


def test_a_description_is_the_clause_with_a_word_of_the_aspect() -> None:
    record = described(
        {"text": "The soup was cold, but the waiter smiled.", "aspects": {"food": "negative", "staff": "positive", "menu": "unmentioned"}}
    )
    assert record["reasons"] == {
        "food": "The soup was cold,", "staff": "but the waiter smiled.", "menu": "The review does not mention the menu.",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        ('{"food": "cold"}', None),
        ("[]", "no object"),
        ('{"food": ""}', "no text"),
        ('{"menu": "x"}', "each of the aspects"),
        ("x", "not JSON"),
    ],
)
def test_a_teachers_descriptions_are_checked(reply: str, why: str | None) -> None:
    strategy = load_strategy(ROOT / "strategies/describe.py", SDE["strategies"]["describe"]["options"])
    review = example("x", "y", record=json.dumps({"text": "The soup was cold.", "aspects": {"food": "negative"}}))
    if why is None:
        made = strategy.functions["from_reply"](review, reply)
        assert json.loads(made.record)["reasons"] == {"food": "cold"}
        assert (made.query, made.root) == (review.query, review.root)
    else:
        with pytest.raises(Rejected, match=why):
            strategy.functions["from_reply"](review, reply)
