"""Aspects: which sentiment a text has towards each aspect that is asked, {"text", "aspects": {aspect: label}}.

Options, the first of each list being the default:

- ``instruction``: a text, or a list of texts, in which ``{aspects}`` stands for the aspects.
- ``instruction_at``: last (behind a line ``---``), first, none.
- ``form``: natural (one line), lines (an aspect a line), json (an object a line), lists (a pair a line).
- ``unmentioned``: placeholder, omitted. Where nothing is mentioned, omitted writes ``none`` (``[]`` in lists). ``nothing: empty`` writes
  nothing, as published; such an example has no completion and is left out.
- ``labels``: words, numbers (1, 0, -1, -2).
- ``reasoning``, in JSON: none, before (the label, chain of thought), after. Descriptions come from ``reasons: {aspect: description}``.

Labels are the values. Where unmentioned aspects are omitted, aspects are values as well: to name one is to say that it is mentioned.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from swift_study.data.designs import Record, Rendered, Value
from swift_study.errors import Rejected

LABELS = {"positive": "1", "neutral": "0", "negative": "-1", "unmentioned": "-2"}
CHOICES = {
    "instruction_at": ("last", "first", "none"),
    "form": ("natural", "lines", "json", "lists"),
    "unmentioned": ("placeholder", "omitted"),
    "nothing": ("none", "empty"),
    "labels": ("words", "numbers"),
    "reasoning": ("none", "before", "after"),
}
Triple = tuple[str, str, str]  # aspect, label, description


def render(record: Record, options: Mapping[str, Any]) -> Rendered:
    chosen = _choices(options)
    aspects, reasons = record.get("aspects"), record.get("reasons", {})
    if not isinstance(record.get("text"), str) or not isinstance(aspects, dict) or not aspects or not isinstance(reasons, dict):
        raise Rejected("the record has no text or no aspects")
    if wrong := [label for label in aspects.values() if label not in [*LABELS]]:
        raise Rejected(f"the label {wrong[0]!r} is none of {', '.join(LABELS)}")
    stated = [a for a, label in aspects.items() if chosen["unmentioned"] == "placeholder" or label != "unmentioned"]
    if chosen["reasoning"] != "none" and not all(isinstance(reasons.get(a), str) for a in stated):
        raise Rejected("the record has no reasons for its aspects; the strategy describe makes them")
    name = Value if chosen["unmentioned"] == "omitted" else str
    parts: list[str] = []
    for aspect in stated:
        label = Value(aspects[aspect] if chosen["labels"] == "words" else LABELS[aspects[aspect]])
        parts += [", " if chosen["form"] == "natural" else "\n"] if parts else []
        parts += _piece(name, aspect, label, reasons.get(aspect, ""), chosen)
    if parts and chosen["form"] == "natural":
        parts.append(".")
    nothing = [] if chosen["nothing"] == "empty" else [Value(_nothing(chosen))]
    rendered = Rendered(_query(record["text"], ", ".join(aspects), options), parts or nothing)
    if not _is_read_back(rendered.completion, record, chosen):
        raise Rejected(f"the form {chosen['form']} cannot hold the names of the aspects")
    return rendered


def parse(response: str, record: Record, options: Mapping[str, Any]) -> Record:
    """What the response states, with words as labels. Aspects that it lacks are unmentioned where the form omits these; else they stay out.
    Aspects that were not asked stay in."""
    chosen = _choices(options)
    labels, reasons = _read(response, record, chosen)
    return {"aspects": labels} if chosen["reasoning"] == "none" else {"aspects": labels, "reasons": reasons}


def _is_read_back(completion: str, record: Record, chosen: Mapping[str, str]) -> bool:
    try:
        labels, _ = _read(completion, record, chosen)
    except Rejected:
        return False
    return labels == dict(record["aspects"])


def _choices(options: Mapping[str, Any]) -> dict[str, str]:
    for key, value in options.items():
        if key != "instruction" and value not in CHOICES.get(key, ()):
            raise Rejected(f"the option {key}: {value} is not known; known are instruction, {CHOICES}")
    chosen = {key: str(options.get(key, known[0])) for key, known in CHOICES.items()}
    if chosen["reasoning"] != "none" and chosen["form"] != "json":
        raise Rejected("the option reasoning needs form: json")
    return chosen


def _query(text: str, aspects: str, options: Mapping[str, Any]) -> str:
    instruction = options.get("instruction", "")
    instruction = (" ".join(instruction) if isinstance(instruction, list) else instruction).replace("{aspects}", aspects)
    match options.get("instruction_at", "last"):
        case "none":
            return text
        case "first":
            return f"{instruction}\n{text}\nOutput:"
        case _:
            return f"{text}\n---\n{instruction}\nOutput:"


def _nothing(chosen: Mapping[str, str]) -> str:
    return "[]" if chosen["form"] == "lists" else "none"


def _piece(name: type[str], aspect: str, label: Value, description: str, chosen: Mapping[str, str]) -> list[str]:
    if chosen["form"] in ("natural", "lines"):
        return [name(aspect), ": ", label]
    quote = '"' if chosen["labels"] == "words" else ""
    written = name(_json(aspect)[1:-1])
    if chosen["form"] == "lists":
        return ['["', written, '",', quote, label, quote, "]"]
    sentiment = [f', "sentiment": {quote}', label, quote]
    reason = [f', "description": {_json(description)}']
    between = {"none": sentiment, "before": reason + sentiment, "after": sentiment + reason}[chosen["reasoning"]]
    return ['{"aspect": "', written, '"', *between, "}"]


def _read(response: str, record: Record, chosen: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    asked = {aspect.casefold(): aspect for aspect in record["aspects"]}
    omitted = chosen["unmentioned"] == "omitted"
    labels: dict[str, str] = {}
    reasons: dict[str, str] = {}
    bare = response.strip().rstrip(".").casefold()
    if not (omitted and (bare == _nothing(chosen) or (not bare and chosen["nothing"] == "empty"))):
        if not response.strip():
            raise Rejected("empty: the response has no text")
        for aspect, code, description in _pieces(response, chosen):
            name = asked.get(aspect.casefold(), aspect)
            label = _label(code, chosen)
            if not name or labels.setdefault(name, label) != label:
                raise Rejected(f"unparsable: {name!r} has two labels" if name else "unparsable: an aspect has no name")
            reasons.setdefault(name, description)
        if not labels:
            raise Rejected("unparsable: the response states no aspect")
    if omitted:
        labels = {**labels, **{aspect: "unmentioned" for aspect in asked.values() if aspect not in labels}}
    return labels, reasons


def _label(stated: str, chosen: Mapping[str, str]) -> str:
    known = {label: label for label in LABELS} if chosen["labels"] == "words" else {code: label for label, code in LABELS.items()}
    try:
        return known[stated.strip().rstrip(".").casefold()]
    except KeyError:
        raise Rejected(f"unparsable: the label {stated[:40]!r} is none of {', '.join(known)}") from None


def _pieces(response: str, chosen: Mapping[str, str]) -> Iterator[Triple]:
    for piece in response.split("," if chosen["form"] == "natural" else "\n"):
        if not piece.strip(" \t\n."):
            continue
        if chosen["form"] == "json":
            yield _of_object(_loaded(piece), chosen)
        elif chosen["form"] == "lists":
            yield _of_pair(_loaded(piece))
        else:
            aspect, colon, label = piece.partition(":")
            if not colon:
                raise Rejected(f"unparsable: {piece.strip()[:40]!r} has no colon")
            yield aspect.strip(), label, ""


def _of_object(value: object, chosen: Mapping[str, str]) -> Triple:
    keys = ["aspect", "sentiment", *(["description"] if chosen["reasoning"] != "none" else [])]
    if not isinstance(value, dict) or not all(key in value for key in keys):
        raise Rejected(f"unparsable: a line is not a JSON object with {', '.join(keys)}")
    description = value.get("description", "")
    if not isinstance(value["aspect"], str) or not isinstance(description, str):
        raise Rejected("unparsable: an aspect or a description is not a text")
    return value["aspect"].strip(), _text(value["sentiment"]), description


def _of_pair(value: object) -> Triple:
    if not isinstance(value, list) or len(value) != 2 or not isinstance(value[0], str):
        raise Rejected("unparsable: a line is not a list of an aspect and a label")
    return value[0].strip(), _text(value[1]), ""


def _text(label: object) -> str:
    """A label in JSON: a text or a whole number."""
    return label if isinstance(label, str) else str(label) if type(label) is int and abs(label) < 10 else ""


def _loaded(line: str) -> object:
    try:
        value = json.loads(line, object_pairs_hook=_object)
        _json(value).encode()  # half of a surrogate pair is no text
    except (ValueError, RecursionError) as error:
        raise Rejected(f"unparsable: a line is not JSON ({type(error).__name__})") from error
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) < len(pairs):
        raise ValueError("a key stands twice")
    return dict(pairs)


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
