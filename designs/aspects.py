"""Aspects: a text with the label of each asked aspect: positive, neutral, negative or unmentioned.

The record is `{"text": …, "aspects": {aspect: label}}`, with `"reasons": {aspect: description}` where a design writes descriptions.

Options:

- `instruction`, in which `{aspects}` stands for the asked aspects; `instruction_at: last` (the default), behind the text and a line `---`;
  `first`, before it; `none`, the text alone.
- `form: natural` (the default), `food: positive, service: neutral.` on one line; `lines`, one pair a line; `json`, one object a line with
  the keys `aspect` and `sentiment`.
- `unmentioned: placeholder` (the default), the label like any other; `omitted`, such aspects are left out. Where nothing is left, the
  completion is `none`, or with `nothing: empty` empty, as published.
- `labels: words` (the default), or `numbers`: 1, 0, -1, -2.
- `reasoning: before` or `after`, with `form: json`: the key `description` before or after `sentiment`.

Values are the labels, and where unmentioned aspects are omitted the aspects too: which of them stand there is then an answer.

A response gives what it states: an aspect that it leaves out is not there, unless the design omits unmentioned ones; one that was not asked
is. Aspects are recognised in upper or lower case.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from swift_study.data.designs import Record, Rendered, Value
from swift_study.errors import Rejected

NUMBERS = {"positive": "1", "neutral": "0", "negative": "-1", "unmentioned": "-2"}
WORDS = {number: word for word, number in NUMBERS.items()}
SEPARATORS = {"natural": ":,\n", "lines": ":\n"}  # what no aspect may hold


def render(record: Record, options: Mapping[str, Any]) -> Rendered:
    aspects, form = _aspects(record), options.get("form", "natural")
    for aspect, label in aspects.items():
        if label not in NUMBERS:
            raise Rejected(f"the label of {aspect!r} is {label!r}, which is none of {', '.join(NUMBERS)}")
        if aspect != aspect.strip() or any(sign in aspect for sign in SEPARATORS.get(form, "")) or not aspect:
            raise Rejected(f"the aspect {aspect!r} holds a sign that separates, or spaces at its ends")
    omitted = options.get("unmentioned") == "omitted"
    stated = {a: label for a, label in aspects.items() if not (omitted and label == "unmentioned")}
    pieces = [_piece(record, a, label, options) for a, label in stated.items()]
    if not pieces:
        nothing = "" if options.get("nothing") == "empty" else "none"
        return Rendered(_query(record, options), [Value(nothing)])
    between = ", " if form == "natural" else "\n"
    parts = [part for k, piece in enumerate(pieces) for part in ([between] if k else []) + piece]
    return Rendered(_query(record, options), [*parts, *(["."] if form == "natural" else [])])


def parse(response: str, record: Record, options: Mapping[str, Any]) -> Record:
    omitted = options.get("unmentioned") == "omitted"
    nothing = omitted and response.strip().lower() in (("",) if options.get("nothing") == "empty" else ("none", "none."))
    if not response.strip() and not nothing:
        raise Rejected("empty: the response has no text")
    asked = {aspect.lower(): aspect for aspect in _aspects(record)}
    found: dict[str, str] = {}
    reasons: dict[str, str] = {}
    for aspect, label, reason in () if nothing else _pairs(response, options):
        name = asked.get(aspect.lower(), aspect)
        if found.setdefault(name, label) != label:
            raise Rejected(f"unparsable: {name!r} has two labels, {found[name]} and {label}")
        if reason is not None:
            reasons.setdefault(name, reason)
    if omitted:
        found |= {aspect: "unmentioned" for aspect in asked.values() if aspect not in found}
    return {"aspects": found} | ({"reasons": reasons} if reasons else {})


# ---- rendering ----


def _query(record: Record, options: Mapping[str, Any]) -> str:
    place = options.get("instruction_at", "last")
    instruction = str(options.get("instruction", "")).replace("{aspects}", ", ".join(_aspects(record)))
    text = _text(record)
    if place == "none":
        return text
    return f"{instruction}\n{text}\nOutput:" if place == "first" else f"{text}\n---\n{instruction}\nOutput:"


def _piece(record: Record, aspect: str, label: str, options: Mapping[str, Any]) -> list[str]:
    numbers = options.get("labels") == "numbers"
    value = Value(NUMBERS[label] if numbers else label)
    named = Value if options.get("unmentioned") == "omitted" else str
    if options.get("form", "natural") != "json":
        return [named(aspect), ": ", value]
    quoted = json.dumps(aspect, ensure_ascii=False)
    parts = ['{"aspect": "', named(quoted[1:-1]), '", ']
    sentiment = ['"sentiment": ', value] if numbers else ['"sentiment": "', value, '"']
    reasoning = options.get("reasoning", "none")
    if reasoning == "none":
        return [*parts, *sentiment, "}"]
    described = ['"description": ', json.dumps(_reason(record, aspect), ensure_ascii=False)]
    first, second = (described, sentiment) if reasoning == "before" else (sentiment, described)
    return [*parts, *first, ", ", *second, "}"]


def _reason(record: Record, aspect: str) -> str:
    reasons = record.get("reasons")
    if not isinstance(reasons, Mapping) or not isinstance(reasons.get(aspect), str):
        raise Rejected(f"the record has no description of {aspect!r} (reasons)")
    return str(reasons[aspect])


def _text(record: Record) -> str:
    if not isinstance(record.get("text"), str) or not record["text"].strip():
        raise Rejected(f"the record has no 'text'; it has {', '.join(record)}")
    return str(record["text"])


def _aspects(record: Record) -> dict[str, str]:
    aspects = record.get("aspects")
    if not isinstance(aspects, Mapping) or not aspects:
        raise Rejected(f"the record has no 'aspects'; it has {', '.join(record)}")
    if len({str(aspect).lower() for aspect in aspects}) < len(aspects):
        raise Rejected("two aspects of the record differ only in upper and lower case")
    return dict(aspects)


# ---- reading ----


def _pairs(response: str, options: Mapping[str, Any]) -> Iterator[tuple[str, str, str | None]]:
    """Aspect, label and description of each piece. Rejected where one cannot be read."""
    form = options.get("form", "natural")
    pieces = response.strip().removesuffix(".").split(",") if form == "natural" else response.split("\n")
    for piece in pieces:
        if not piece.strip():
            continue
        if form == "json":
            yield _from_json(piece, options)
            continue
        aspect, colon, label = piece.partition(":")
        if not colon or not aspect.strip():
            raise Rejected(f"unparsable: {piece.strip()[:60]!r} is no pair with a colon")
        yield aspect.strip(), _label(label, options), None


def _from_json(piece: str, options: Mapping[str, Any]) -> tuple[str, str, str | None]:
    try:
        read = json.loads(piece)
    except (ValueError, RecursionError) as error:
        raise Rejected(f"unparsable: {piece.strip()[:60]!r} is not JSON") from error
    if not isinstance(read, dict) or not isinstance(read.get("aspect"), str) or not isinstance(read.get("sentiment"), str | int):
        raise Rejected(f"unparsable: {piece.strip()[:60]!r} is no object with the keys aspect and sentiment")
    reason = read.get("description")
    with_reason = options.get("reasoning", "none") != "none" and isinstance(reason, str)
    return read["aspect"].strip(), _label(str(read["sentiment"])[:60], options), reason if with_reason else None


def _label(text: str, options: Mapping[str, Any]) -> str:
    word = text.strip().removesuffix(".").strip().lower()
    word = WORDS.get(word, "") if options.get("labels") == "numbers" else word
    if word not in NUMBERS:
        raise Rejected(f"unparsable: {text.strip()[:60]!r} is no label")
    return word
