"""Mentions: a text with what it mentions, each with its type: entities, or the words that trigger events.

The record is `{"text": …, FIELD: [[type, name], …]}`. Options:

- `field`: FIELD, `entities` or `events`.
- `types`: all types, in the order in which they are written.
- `instruction`, in which `{types}` stands for the types; `instruction_at: first` (the default) or `last`.
- `form: lists` (the default), a line `["type","name"]` for each mention; `natural`, the mentioned types on one line, joined by `; `;
  `lines`, a line for every type.
- `quoted: true` (the default) puts types and names of the last two forms in quotation marks; false leaves them bare.
- `placeholder`: what `lines` has for a type without mentions; the default is `""`, or `NONE` without quotation marks.
- `nothing`: the completion of a record without mentions, in the first two forms; the default is `none`, published is the empty text.

`render` refuses names that would not be read back, such as one with a quotation mark. Names are values; so is what stands for nothing.
Forms that write names by type do not keep the order of the types.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from swift_study.data.designs import Record, Rendered, Value
from swift_study.errors import Rejected

QUOTED = re.compile(r'\s*"([^"]*)"\s*')
BARE = ":,;\"'[]\n"  # what no bare name may hold


def render(record: Record, options: Mapping[str, Any]) -> Rendered:
    mentions, form, quoted = _mentions(record, options), options.get("form", "lists"), options.get("quoted", True)
    types = [str(t) for t in options["types"]]
    for kind, name in mentions:
        if kind not in types:
            raise Rejected(f"the type {kind!r} is none of the design's types {', '.join(types)}")
        if form != "lists" and not _holds(name, quoted):
            raise Rejected(f"the name {name!r} would not be read back: it holds a sign that separates, or spaces at its ends")
    if form == "lists":
        parts = _lines([['["', kind, '","', Value(json.dumps(name, ensure_ascii=False)[1:-1]), '"]'] for kind, name in mentions])
    else:
        by_type = {kind: [name for of, name in mentions if of == kind] for kind in types}
        mark = '"' if quoted else ""
        if form == "lines":
            nothing = str(options.get("placeholder", '""' if quoted else "NONE"))
            parts = _lines([[f"{mark}{kind}{mark}: ", *(_names(names, mark) or [Value(nothing)])] for kind, names in by_type.items()])
        else:
            some = [[f"{mark}{kind}{mark}: ", *_names(names, mark)] for kind, names in by_type.items() if names]
            parts = [part for k, piece in enumerate(some) for part in (["; "] if k else []) + piece]
    return Rendered(_query(record, types, options), parts or [Value(str(options.get("nothing", "none")))])


def parse(response: str, record: Record, options: Mapping[str, Any]) -> Record:
    form, nothing, text = options.get("form", "lists"), str(options.get("nothing", "none")), response.strip()
    if form != "lines" and text.lower().removesuffix(".") == nothing.lower():
        return {options["field"]: []}
    if not text:
        raise Rejected("empty: the response has no text")
    return {options["field"]: [list(mention) for mention in _stated(text, form, options)]}


# ---- rendering ----


def _query(record: Record, types: Iterable[str], options: Mapping[str, Any]) -> str:
    text = record.get("text")
    if not isinstance(text, str) or not text.strip():
        raise Rejected(f"the record has no 'text'; it has {', '.join(record)}")
    instruction = str(options.get("instruction", "")).replace("{types}", ", ".join(types))
    first = options.get("instruction_at", "first") == "first"
    return f"{instruction}\n{text}\nOutput:" if first else f"{text}\n---\n{instruction}\nOutput:"


def _mentions(record: Record, options: Mapping[str, Any]) -> list[tuple[str, str]]:
    mentions = record.get(options["field"])
    pairs = isinstance(mentions, list) and all(isinstance(m, list | tuple) and [type(part) for part in m] == [str, str] for m in mentions)
    if not pairs or mentions is None:
        raise Rejected(f"the record's {options['field']!r} is no list of [type, name]; it has {', '.join(record)}")
    return [(kind, name) for kind, name in mentions]


def _holds(name: str, quoted: bool) -> bool:
    if quoted:
        return bool(name) and '"' not in name and "\n" not in name
    return bool(name) and name == name.strip() and not any(sign in name for sign in BARE)


def _names(names: list[str], mark: str) -> list[str]:
    return [
        part for k, name in enumerate(names) for part in (([", "] if k else []) + ([mark, Value(name), mark] if mark else [Value(name)]))
    ]


def _lines(pieces: list[list[str]]) -> list[str]:
    return [part for k, piece in enumerate(pieces) for part in (["\n"] if k else []) + piece]


# ---- reading ----


def _stated(text: str, form: str, options: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The mentions of a response. Rejected where a piece cannot be read."""
    quoted = options.get("quoted", True)
    placeholder = str(options.get("placeholder", '""' if quoted else "NONE")).strip('"').lower()
    pieces = _between(text, ";") if form == "natural" and quoted else text.split(";") if form == "natural" else text.split("\n")
    for piece in pieces:
        if not piece.strip():
            continue
        if form == "lists":
            yield _from_list(piece)
            continue
        kind, names = _of_type(piece, quoted)
        if form == "lines" and [name.lower() for name in names] == [placeholder]:
            continue
        if not all(names):
            raise Rejected(f"unparsable: {piece.strip()[:60]!r} has an empty name")
        yield from ((kind, name) for name in names)


def _from_list(piece: str) -> tuple[str, str]:
    try:
        read = json.loads(piece)
    except (ValueError, RecursionError) as error:
        raise Rejected(f"unparsable: {piece.strip()[:60]!r} is not JSON") from error
    if not isinstance(read, list) or len(read) != 2 or not all(isinstance(part, str) for part in read):
        raise Rejected(f"unparsable: {piece.strip()[:60]!r} is no list of a type and a name")
    return read[0], read[1]


def _of_type(piece: str, quoted: bool) -> tuple[str, list[str]]:
    """The type of a piece and its names."""
    if not quoted:
        kind, colon, rest = piece.partition(":")
        names = [name.strip() for name in rest.split(",")]
    else:
        key, *others = _between(piece, ":")
        colon, rest, named = ":" if others else "", ":".join(others), QUOTED.fullmatch(key)
        kind = named[1] if named else ""
        matched = [QUOTED.fullmatch(name) for name in _between(rest, ",")]
        if not all(matched):
            raise Rejected(f"unparsable: {piece.strip()[:60]!r} has a name that is not in quotation marks")
        names = [m[1] for m in matched if m]
    if not colon or not kind.strip():
        raise Rejected(f"unparsable: {piece.strip()[:60]!r} is no type with names behind a colon")
    return kind.strip(), names


def _between(text: str, sign: str) -> list[str]:
    """The text in pieces at a sign that stands outside quotation marks."""
    pieces, inside = [""], False
    for character in text:
        inside ^= character == '"'
        if character == sign and not inside:
            pieces.append("")
        else:
            pieces[-1] += character
    return pieces
