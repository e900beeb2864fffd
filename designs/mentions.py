"""Mentions: the names in a text with their types, {"text", FIELD: [[type, name], …]}, such as entities, or events with their triggers.

Options, the first of each list being the default:

- ``field``: the record's field, such as entities; ``types``: those that are asked.
- ``instruction``: a text, or a list of texts, in which ``{types}`` stands for the types.
- ``instruction_at``: last (behind a line ``---``), first, none.
- ``form``: lists (a line ``["type","name"]`` for each mention), natural (``type: "name", "name"; type: "name"``: the mentioned types on one
  line), lines (a line for each type that is asked, with ``none`` where it has no name).
- ``nothing``: without a mention, lists writes ``[]`` and natural ``none``; with ``empty`` they write nothing, as published. Such an example
  has no completion and is left out.

The paper's Heuristic is lists with the instruction first, EW-SDE natural with the instruction last, ES-SDE lines with the instruction
first. Its files quote names by ' or not at all, and have a placeholder for each task; here all tasks have the same form, and a name stands
between quotes as in JSON.

Names are values, and where only mentioned types are written, types as well; in lines ``none`` is a value.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from swift_study.data.designs import Record, Rendered, Value
from swift_study.errors import Rejected

CHOICES = {"instruction_at": ("last", "first", "none"), "form": ("lists", "natural", "lines"), "nothing": ("none", "empty")}
QUOTED = re.compile(r'("(?:[^"\\]|\\.)*"?)', re.DOTALL)  # one that is not closed goes to the end, so that each character is read once
Mention = list[str]  # type and name


def render(record: Record, options: Mapping[str, Any]) -> Rendered:
    chosen, types = _choices(options)
    mentions = _mentions(record.get(options["field"]), options["field"])
    if not isinstance(record.get("text"), str):
        raise Rejected("the record has no text")
    if unknown := [kind for kind, _ in mentions if kind not in types]:
        raise Rejected(f"the type {unknown[0]!r} is none of those that are asked: {', '.join(types)}")
    if chosen["form"] == "lists":
        parts = _lists(mentions)
    else:
        parts = _groups({kind: [name for k, name in mentions if k == kind] for kind in types}, chosen["form"])
    nothing = [] if chosen["nothing"] == "empty" else [Value(_nothing(chosen))]
    rendered = Rendered(_query(record["text"], ", ".join(types), options), parts or nothing)
    if not _is_read_back(rendered.completion, mentions, chosen, types):
        raise Rejected(f"the form {chosen['form']} cannot hold a name or a type of the record")
    return rendered


def parse(response: str, record: Record, options: Mapping[str, Any]) -> Record:
    """The mentions that the response states, in its order; duplicates and types that were not asked stay in."""
    chosen, types = _choices(options)
    return {options["field"]: _read(response, chosen, types)}


def _is_read_back(completion: str, mentions: Sequence[Mention], chosen: Mapping[str, str], types: Sequence[str]) -> bool:
    try:
        return sorted(_read(completion, chosen, types)) == sorted(mentions)
    except Rejected:
        return False


def _choices(options: Mapping[str, Any]) -> tuple[dict[str, str], list[str]]:
    for key, value in options.items():
        if key not in ("field", "types", "instruction") and value not in CHOICES.get(key, ()):
            raise Rejected(f"the option {key}: {value} is not known; known are field, types, instruction, {CHOICES}")
    if not isinstance(options.get("field"), str) or not isinstance(options.get("types"), list) or not options["types"]:
        raise Rejected("the options field (a field of the record) and types (a list) are needed")
    return {key: str(options.get(key, known[0])) for key, known in CHOICES.items()}, [str(kind) for kind in options["types"]]


def _mentions(value: object, field: str) -> list[Mention]:
    pairs: list[Any] = value if isinstance(value, list) else [None]
    if not all(isinstance(pair, list) and len(pair) == 2 and all(isinstance(text, str) for text in pair) for pair in pairs):
        raise Rejected(f"the record's field {field!r} is no list of [type, name]")
    return pairs


def _query(text: str, types: str, options: Mapping[str, Any]) -> str:
    instruction = options.get("instruction", "")
    instruction = (" ".join(instruction) if isinstance(instruction, list) else instruction).replace("{types}", types)
    match options.get("instruction_at", "last"):
        case "none":
            return text
        case "first":
            return f"{instruction}\n{text}\nOutput:"
        case _:
            return f"{text}\n---\n{instruction}\nOutput:"


def _nothing(chosen: Mapping[str, str]) -> str:
    return "[]" if chosen["form"] == "lists" else "none"


def _lists(mentions: Sequence[Mention]) -> list[str]:
    parts: list[str] = []
    for pair in mentions:
        kind, name = map(_inside, pair)
        parts += ["\n"] if parts else []
        parts += ['["', kind, '","', name, '"]']
    return parts


def _inside(text: str) -> Value:
    """The text as it stands between quotes in JSON."""
    return Value(json.dumps(text, ensure_ascii=False)[1:-1])


def _groups(names: Mapping[str, Sequence[str]], form: str) -> list[str]:
    parts: list[str] = []
    for kind, found in names.items():
        if found or form == "lines":
            parts += ["\n" if form == "lines" else "; "] if parts else []
            parts += [kind if form == "lines" else Value(kind), ": "]
            quoted = [part for name in found for part in (', "', _inside(name), '"')]
            parts += ['"', *quoted[1:]] if found else [Value("none")]
    return parts


def _read(response: str, chosen: Mapping[str, str], types: Sequence[str]) -> list[Mention]:
    bare = response.strip().rstrip(".").casefold()
    if chosen["form"] != "lines" and (bare == _nothing(chosen) or (not bare and chosen["nothing"] == "empty")):
        return []
    if not response.strip():
        raise Rejected("empty: the response has no text")
    known = {kind.casefold(): kind for kind in types}
    if chosen["form"] == "natural":
        mentions = _quoted(response)
    else:
        lines = [line for line in response.split("\n") if line.strip()]
        mentions = [m for line in lines for m in (_placeholder_or_quoted(line) if chosen["form"] == "lines" else [_pair(line)])]
    if not all(kind and name for kind, name in mentions):
        raise Rejected("unparsable: a type or a name is empty")
    return [[known.get(kind.casefold(), kind), name] for kind, name in mentions]


def _pair(line: str) -> Mention:
    value = _loaded(line)
    if not isinstance(value, list) or len(value) != 2 or not all(isinstance(text, str) for text in value):
        raise Rejected("unparsable: a line is not a list of a type and a name")
    return [text.strip() for text in value]


def _placeholder_or_quoted(line: str) -> list[Mention]:
    kind, colon, rest = line.partition(":")
    if colon and kind.strip() and '"' not in kind and rest.strip().casefold() == "none":
        return []
    return _quoted(line)


def _quoted(text: str) -> list[Mention]:
    """The mentions in ``type: "name", "name"; type: "name"``."""
    pieces = QUOTED.split(text)  # names are the pieces at odd places
    if len(pieces) == 1 or pieces[-1].strip() not in ("", ".", ";"):
        raise Rejected("unparsable: names are not in pairs of quotes")
    mentions: list[Mention] = []
    for place, (before, name) in enumerate(zip(pieces[:-1:2], pieces[1::2], strict=True)):
        head = before.strip()
        if place == 0 or head.startswith(";"):
            kind, colon, rest = head.removeprefix(";" if place else "").strip().rpartition(":")
            if not colon or rest or ";" in kind or "\n" in kind:
                raise Rejected(f"unparsable: {head[:40]!r} is not a type and a colon")
            mentions.append([kind.strip(), str(_loaded(name)).strip()])
        elif head == ",":
            mentions.append([mentions[-1][0], str(_loaded(name)).strip()])
        else:
            raise Rejected(f"unparsable: {head[:40]!r} stands between two names")
    return mentions


def _loaded(text: str) -> object:
    try:
        value = json.loads(text, strict=False)
        json.dumps(value, ensure_ascii=False).encode()  # half of a surrogate pair is no text
    except (ValueError, RecursionError) as error:
        raise Rejected(f"unparsable: {text[:40]!r} is not JSON ({type(error).__name__})") from error
    return value
