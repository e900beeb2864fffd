"""Description: a record with labelled aspects gets what its text says of each, from which the label can be told.

Without a teacher a description is the clause of the text that holds the aspect's name or one of its words, `options.cues: {food: [dish]}`;
the whole text where none does. An aspect that is labelled unmentioned is said not to be mentioned.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

from swift_study.data.strategies import user
from swift_study.errors import Rejected
from swift_study.examples import Example, Message

CLAUSE = re.compile(r"(?<=[,.;:!?])\s+|\s+(?=(?:but|and|although|though|while|however)\s)", re.IGNORECASE)

PROMPT = """Below are a review and the sentiment of some aspects in it. For each aspect describe in one short clause what the review \
says about it, without naming the sentiment; of an unmentioned one say that it is not mentioned. Reply with one JSON object that has each \
aspect as a key and its description as the value, and nothing else.

<review>
%s
</review>
<sentiments>
%s
</sentiments>"""


def from_fields(example: Example, analogue: Example | None, options: Mapping[str, Any]) -> Example:
    record = _record(example)
    cues = options.get("cues", {})
    return _make(example, {a: _clause(record["text"], a, label, cues.get(a, [])) for a, label in record["aspects"].items()})


def prompt(example: Example) -> list[Message]:
    record = _record(example)
    return user(PROMPT % (record["text"], json.dumps(record["aspects"], ensure_ascii=False)))


def from_reply(example: Example, reply: str) -> Example:
    try:
        reasons = json.loads(reply.strip().removeprefix("```json").removeprefix("```").removesuffix("```"))
    except (ValueError, RecursionError) as error:
        raise Rejected("the reply is not JSON") from error
    aspects = _record(example)["aspects"]
    if not isinstance(reasons, dict) or set(reasons) != set(aspects):
        raise Rejected("the reply is no object with each of the aspects once")
    if not all(isinstance(reason, str) and reason.strip() for reason in reasons.values()):
        raise Rejected("a description in the reply is no text")
    return _make(example, {aspect: " ".join(reasons[aspect].split()) for aspect in aspects})


def _record(example: Example) -> dict[str, Any]:
    record = json.loads(example.record) if example.record else None
    if not isinstance(record, dict) or not isinstance(record.get("text"), str) or not isinstance(record.get("aspects"), dict):
        raise Rejected("the example has no record with a text and its aspects")
    return record


def _clause(text: str, aspect: str, label: str, cues: list[str]) -> str:
    if label == "unmentioned":
        return f"The review does not mention the {aspect}."
    words = re.compile(rf"\b(?:{'|'.join(map(re.escape, [aspect, *cues]))})", re.IGNORECASE)
    clauses = [clause.strip() for clause in CLAUSE.split(text) if clause.strip()]
    return next((clause for clause in clauses if words.search(clause)), text.strip())


def _make(example: Example, reasons: dict[str, str]) -> Example:
    record = json.dumps(_record(example) | {"reasons": reasons}, ensure_ascii=False)
    return example.derive("describe", example.query, example.completion, record=record)
