"""Descriptions: a record with ``aspects`` gets ``reasons``, a short description for each aspect, for designs that reason (CoT, R-CoT).

Without a teacher a description is extracted by a rule: the first clause of the text that holds the aspect's name or one of its
``options.cues`` (aspect -> words), else the whole text; for an unmentioned aspect it is one fixed sentence.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from swift_study.data.strategies import json_reply, user
from swift_study.errors import Rejected
from swift_study.examples import Example, Message

UNMENTIONED = "It is not mentioned."
CLAUSES = re.compile(r"[,;:.!?)]+\s+|\s+\(|[.!?)]+$|\s+-+\s+|\s+(?=(?:but|although|though|while|yet|however|because)\b)", re.IGNORECASE)

PROMPT = """Below is a text with the sentiment that it has towards each aspect. Describe for each aspect, in one short sentence, what the \
text says about it that leads to this sentiment; of an unmentioned aspect say that it is not mentioned. Use what the text says and nothing \
else. Reply with one JSON object and nothing else: {"<aspect>": {"description": "<your sentence>", "sentiment": "<as given>"}, …}.

<text>
%s
</text>
<sentiments>
%s
</sentiments>"""


def from_fields(example: Example, analogue: Example | None, options: Mapping[str, Any]) -> Example:
    text, aspects = _content(example)
    cues = options.get("cues", {})
    reasons = {a: UNMENTIONED if label == "unmentioned" else _clause(text, [a, *cues.get(a, [])]) for a, label in aspects.items()}
    return _make(example, reasons)


def prompt(example: Example) -> list[Message]:
    text, aspects = _content(example)
    return user(PROMPT % (text, json.dumps(aspects, ensure_ascii=False)))


def from_reply(example: Example, reply: str) -> Example:
    _, aspects = _content(example)
    stated = json_reply(reply)
    if stated.keys() != aspects.keys():
        raise Rejected("the reply does not describe each aspect of the record and no other one")
    reasons = {}
    for aspect, label in aspects.items():
        answer = stated[aspect]
        if not isinstance(answer, dict) or answer.get("sentiment") != label:
            raise Rejected(f"the reply's sentiment towards {aspect!r} is not the record's")
        description = answer.get("description")
        if not isinstance(description, str) or not description.strip():
            raise Rejected(f"the reply has no description of {aspect!r}")
        reasons[aspect] = " ".join(description.split())
    return _make(example, reasons)


def _content(example: Example) -> tuple[str, dict[str, str]]:
    record = json.loads(example.record) if example.record else {}
    text, aspects = record.get("text"), record.get("aspects")
    if not isinstance(text, str) or not isinstance(aspects, dict) or not aspects:
        raise Rejected("the example has no record with a text and its aspects")
    return text, aspects


def _clause(text: str, cues: Sequence[str]) -> str:
    cue = re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, cues))})s?(?!\w)", re.IGNORECASE)
    clauses = [clause.strip() for clause in CLAUSES.split(text)]
    return next((clause for clause in clauses if cue.search(clause)), text)


def _make(example: Example, reasons: Mapping[str, str]) -> Example:
    record = json.dumps(json.loads(example.record or "{}") | {"reasons": reasons}, ensure_ascii=False)
    # The completion of an example that no design has rendered is its record.
    completion, golden = (record if text == example.record else text for text in (example.completion, example.golden))
    spans = example.value_spans if completion == example.completion else []
    return example.derive("describe", example.query, completion or "", record=record, golden=golden, value_spans=spans)
