"""Sources: the user's files, hub data sets and the task generator, all read into examples.

Every format gives the same rows, every form of row the same examples. A bad row stops the run with the file, the row and the
column, since a silently dropped row is a changed experiment; what is read from which column, and what is not read, is in the log.
"""

import json
import math
import re
import sys
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from swift_study.config import Column, Columns, Condition, FileSource, GeneratorSource, HubSource, Range, Records, Source, Text
from swift_study.config import nearest as nearest_name
from swift_study.data import generator
from swift_study.data.rows import Row, Rows, file_rows, hub_rows
from swift_study.errors import UserError
from swift_study.examples import Example, KeyPoint, Message
from swift_study.io import cli
from swift_study.patterns import DOTALL, remove, search

CONVERSATIONS = ("messages", "conversations", "conversation")
OWN_PAIR = ("prompt", "completion")
OTHER_PAIRS = (  # as Alpaca, Dolly, GSM8K, OpenOrca, MetaMathQA and others name them
    ("instruction", "output"),
    ("instruction", "response"),
    ("prompt", "response"),
    ("question", "answer"),
    ("question", "response"),
    ("query", "response"),
)
BESIDE_INSTRUCTION = ("input", "context")  # what an instruction is about: Alpaca's and Dolly's name
OPTIONAL = {
    "system": ("system", "system_prompt"),
    "rationale": ("rationale",),
    "requirements": ("requirements",),
    "task": ("task",),
    "record": ("record",),
}
ALWAYS = ("key_points", "golden", "unsatisfactory")
SHAREGPT_ROLES = {"human": "user", "gpt": "assistant"} | {role: role for role in ("user", "assistant", "system")}
TOOL_KEYS = ("tool_calls", "function_call")


def read_source(source: Source) -> list[Example]:
    """The examples of one source, in its order. UserError names the place of what cannot be read."""
    return [example for _, example in _placed(source, {})]


def read_sources(sources: Sequence[Source], where: Mapping[str, Condition] | None = None) -> list[Example]:
    """The examples of all sources in order, each with its place in ``source``: "my.jsonl, row 7".

    ``where``: only of rows whose columns have these values. UserError if one example stands in two places.
    """
    found: dict[str, Example] = {}
    for source in sources:
        for place, example in _placed(source, where or {}):
            if (other := found.get(example.example_id)) is not None:
                raise UserError(
                    f"{other.source} and {place} are the same example (task {example.task!r}, "
                    f"query {example.query[:80]!r}). Remove one of them, or give generator sources different seeds."
                )
            found[example.example_id] = example.model_copy(update={"source": place})
    return list(found.values())


def _placed(source: Source, where: Mapping[str, Condition]) -> list[tuple[str, Example]]:
    match source:
        case GeneratorSource():
            families = source.families if source.families is not None else list(generator.FAMILIES)
            try:
                made = [e for f in families for e in generator.generate(f, source.per_family, source.seed)]
            except ValueError as error:
                raise UserError(f"The task generator cannot do what its source asks for: {error}") from error
            rows: Rows = [(number, {"task": e.task, "query": e.query, "completion": e.completion}) for number, e in enumerate(made, 1)]
            kept = {number for number, _ in matching(rows, where, "the task generator")}
            return [(f"generator (seed {source.seed}), row {number}", e) for number, e in enumerate(made, 1) if number in kept]
        case FileSource():
            return _examples(file_rows(source), source, source.path, where)
        case HubSource():
            return _examples(hub_rows(source), source, f"hub data set {source.id}", where)


# ---- examples from rows ----


def _examples(rows: Rows, source: Records, where: str, conditions: Mapping[str, Condition]) -> list[tuple[str, Example]]:
    if not rows:
        raise UserError(f"{where}: there are no rows; a source must hold at least one example.")
    columns = _columns(source, rows, where)
    rows = matching(rows[: source.limit], conditions, where)
    _tell(columns, rows, where, conditions)
    placed = [(f"{where}, row {number}", row) for number, row in rows]
    return [(place, _example(row, columns, source, place)) for place, row in placed]


def _columns(source: Records, rows: Rows, where: str) -> Columns:
    """Which column holds what: as the source says, and for what it does not name by the columns' own names, over all rows."""
    present = list(dict.fromkeys(column for _, row in rows for column in row))
    first = ", ".join(repr(column[:60]) for column in rows[0][1])
    advice = "Name the right ones under `columns` of this source"
    if isinstance(source, FileSource) and source.names is None and re.search(r"\.[ct]sv(\.gz)?$", source.path):
        advice += ", or all of them under `names` if the file has no header line"
    found: dict[str, Any] = {name: value for name, value in source.columns or Columns() if value is not None}
    if "record" not in found and "record" in present:
        found["record"] = "record"
    named = _names(found)
    for column in named:
        if column not in present:
            raise UserError(f"{where}: there is no column '{column}'; the first row has {first}. {advice}.")
    if not found.keys() & {"messages", "prompt", "completion"}:
        filled = [c for c in present if any(row.get(c) not in (None, "", []) for _, row in rows)]
        fitting = _forms(filled, named) or _forms(present, named)
        if not fitting and "record" in found:
            return Columns.model_validate(found)
        if len(fitting) != 1:
            known = ", ".join("/".join(pair) for pair in OTHER_PAIRS)
            wrong = (
                f"the columns fit {' as well as '.join(' and '.join(map(repr, form.values())) for form in fitting)}"
                if fitting
                else f"there is neither a column 'messages' nor 'prompt' and 'completion'; the first row has {first}. "
                f"Also known are conversations, {known}"
            )
            raise UserError(f"{where}: {wrong}. {advice}.")
        found |= fitting[0]
    elif ("messages" in found) == ("prompt" in found or "completion" in found) or ("prompt" in found) != ("completion" in found):
        raise UserError(f"{where}: `columns` of this source needs `messages`, or `prompt` and `completion`.")

    def free(*names: str) -> list[str]:
        return [name for name in names if name in present and name not in _names(found)]

    if found.get("prompt") == "instruction":
        # An instruction is not whole without what it is about. A list takes just the columns that it names.
        found["prompt"] = ["instruction", *free(*BESIDE_INSTRUCTION)]
        if "history" not in found and found["completion"] == "output" and free("history"):
            found["history"] = "history"
    for name, names in OPTIONAL.items():
        if name not in found and free(*names):
            found[name] = free(*names)[0]
    return Columns.model_validate(found)


def _forms(present: Sequence[str], named: Sequence[str]) -> list[dict[str, str]]:
    """The forms that columns have by their names: the first of those that come before all others, else each that fits."""
    free = [column for column in present if column not in named]
    for column in CONVERSATIONS:
        if column in free:
            return [{"messages": column}]
    for pairs in ((OWN_PAIR,), OTHER_PAIRS):
        if fitting := [{"prompt": p, "completion": c} for p, c in pairs if p in free and c in free]:
            return fitting
    return []


def _parts(text: Text | None) -> list[str | Column]:
    return [] if text is None else text if isinstance(text, list) else [text]


def _names(columns: dict[str, Any]) -> list[str]:
    """The file's columns, each once."""
    return list(dict.fromkeys(_name(part) for text in columns.values() for part in _parts(text)))


def _name(part: str | Column) -> str:
    return part.column if isinstance(part, Column) else part


def _tell(columns: Columns, rows: Rows, where: str, conditions: Collection[str]) -> None:
    """Say in the log which columns are read as what and which are not; to people also if these hold text in most rows."""
    taken = {name: value for name, value in columns if value is not None}
    present = dict.fromkeys(column for _, row in rows for column in row)
    taken |= {name: name for name in ALWAYS if name in present}
    unread = [column for column in present if column not in _names(taken) and column not in conditions]
    # Keys of messages that are not read, such as a turn's language.
    inner = dict.fromkeys(
        f"{column}.{key}"
        for column in _names({name: taken[name] for name in ("messages", "prompt", "completion") if name in taken})
        for _, row in rows
        if isinstance(row.get(column), list)
        for item in row[column]
        if isinstance(item, dict)
        for key, value in item.items()
        if key not in ("role", "content", "from", "value") and value not in (None, "", [], {})
    )
    read = ", ".join(f"{name} from {' + '.join(repr(_name(part)) for part in _parts(value))}" for name, value in taken.items())
    left = ", ".join(map(repr, [*unread, *inner])) or "none"
    print(f"{where}: {read}; columns that are not read: {left}.", file=sys.stderr)
    texts = [c for c in unread if sum(isinstance(row.get(c), str) and bool(row[c].strip()) for _, row in rows) * 2 > len(rows)]
    if texts:
        cli.say(
            f"{where}: not read, though they hold text in most rows: {', '.join(map(repr, texts))}. "
            "Name under `columns` of this source what belongs to an example."
        )


def _example(row: Row, columns: Columns, source: Records, place: str) -> Example:
    record = _record(row, columns.record, place)
    if record is not None and columns.messages is None and columns.prompt is None:
        # What a design has not rendered yet: the record's text, and all of the record as JSON.
        query = _draft(record).text
        messages = [{"role": "user", "content": query}, {"role": "assistant", "content": record}]
    else:
        messages = _messages(row, columns, place)
    fields: Row = {"messages": messages, "record": record}
    for name in ("golden", "unsatisfactory"):
        fields[name] = text if (text := _as_text(row.get(name), place, name)).strip() else None
    fields["rationale"] = _text(row, columns.rationale, place) or None
    for name, column in (("requirements", columns.requirements), ("key_points", "key_points")):
        if column is not None and row.get(column) not in (None, ""):
            fields[name] = row[column]
    task = _text(row, columns.task, place) or source.task
    if not task:
        raise UserError(f"{place}: the example has no task. Set `task` or `columns.task` of this source.")
    try:
        example = Example(task=task, **fields)
        changes: Row = {}
        if example.golden is None:
            changes["golden"] = example.completion
        if source.check and not example.key_points:
            point = KeyPoint(text=f"The answer is {example.completion}.", check=source.check, value=example.completion)
            changes["key_points"] = [point]
        return example.model_copy(update=changes) if changes else example
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        column = ".".join(map(str, problem["loc"]))
        if columns.messages is not None and problem["loc"][:1] == ("messages",):
            column = columns.messages + column.removeprefix("messages")
        raise UserError(f"{place}{f', column {column}' if column else ''}: {problem['msg'].removeprefix('Value error, ')}.") from error


def _messages(row: Row, columns: Columns, place: str) -> Any:
    """The conversation of a row as role and content, for the example to check."""
    if columns.messages is not None:
        value = row.get(columns.messages)
        if not isinstance(value, list):
            return value
        messages = _turns(value, place, columns.messages)
    else:
        messages = []
        for text, role, what in ((columns.prompt, "user", "query"), (columns.completion, "assistant", "completion")):
            if isinstance(text, str) and _is_conversation(row.get(text)):
                messages += _turns(row[text], place, text)
            elif content := _text(row, text, place):
                messages.append({"role": role, "content": content})
            else:
                names = " + ".join(map(_name, _parts(text)))
                raise UserError(f"{place}, column {names}: the example has no {what}; the field is empty.")
    if columns.history is not None:
        messages = _history(row.get(columns.history), place, columns.history) + messages
    system = _text(row, columns.system, place)
    if system and messages and isinstance(messages[0], dict) and messages[0].get("role") == "system":
        if messages[0].get("content") != system:
            raise UserError(f"{place}, column {columns.system}: the conversation has a system message of its own. Remove one of them.")
    elif system:
        messages = [{"role": "system", "content": system}, *messages]
    return messages


def _record(row: Row, columns: str | list[str] | None, place: str) -> str | None:
    """The record of a row as JSON text."""
    if columns is None:
        return None
    value = {c: row.get(c) for c in columns} if isinstance(columns, list) else row.get(columns)
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise UserError(f"{place}, column {columns}: the record is not JSON ({error}).") from error
    if not isinstance(value, dict):
        raise UserError(f"{place}, column {columns}: expected an object as the record, found {str(value)[:80]!r}.")
    return json.dumps(value, ensure_ascii=False, default=str)


def _draft(record: str) -> Example:
    return Example(task="-", messages=[Message(role="user", content="-"), Message(role="assistant", content="-")], record=record)


def _is_conversation(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, dict) for item in value)


def _turns(items: list[Any], place: str, column: str) -> list[Any]:
    """Messages as {role, content} (OpenAI) or {from, value} (ShareGPT), as role and content; what is no object is left as it is."""
    turns: list[Any] = []
    for number, item in enumerate(items):
        if not isinstance(item, dict):
            turns.append(item)
            continue
        for key in TOOL_KEYS:
            if item.get(key) not in (None, "", [], {}):
                raise UserError(f"{place}, column {column}.{number}.{key}: calls of tools cannot be read. Leave this row out.")
        if item.get("role") is None and item.get("from") is not None:
            role = SHAREGPT_ROLES.get(str(item["from"]))
            if role is None:
                raise UserError(
                    f"{place}, column {column}.{number}.from: the role {item['from']!r} cannot be read; known are "
                    f"{', '.join(SHAREGPT_ROLES)}. Leave this row out, or rename the role."
                )
            turns.append({"role": role, "content": _content(item.get("value"))})
        else:
            turns.append({key: _content(item[key]) for key in ("role", "content") if key in item})
    return turns


def _content(value: Any) -> Any:
    """A message's text, also where it stands in parts of the type `text` (OpenAI). Anything else is left for the example to refuse."""
    parts = value if isinstance(value, list) else []
    texts = [part["text"] for part in parts if isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)]
    return "".join(texts) if parts and len(texts) == len(parts) else value


def _history(value: Any, place: str, column: str) -> list[Any]:
    """Earlier turns as Alpaca has them: a list of [query, response]."""
    turns: list[Any] = []
    for pair in value or []:
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(text, str) for text in pair):
            raise UserError(f"{place}, column {column}: expected a list of [query, response] pairs, found {str(pair)[:80]!r} in it.")
        turns += [{"role": role, "content": text} for role, text in zip(("user", "assistant"), pair, strict=True)]
    return turns


def _text(row: Row, text: Text | None, place: str) -> str:
    """The text of a column, or of several, joined by a blank line; empty ones are left out."""
    return "\n\n".join(found for part in _parts(text) if (found := _part(row, part, place)))


def _part(row: Row, part: str | Column, place: str) -> str:
    name = _name(part)
    text = _as_text(row.get(name), place, name)
    if isinstance(part, Column) and text.strip():
        if part.pattern:
            match = search(part.pattern, text, DOTALL, f"{place}, column {name}")
            if match is None or match.group(1) is None:
                raise UserError(f"{place}, column {name}: the pattern {part.pattern!r} does not match {text[:80]!r}.")
            text = match.group(1)
        if part.remove:
            text = remove(part.remove, text, DOTALL, f"{place}, column {name}")
    return text.strip()


def _as_text(value: Any, place: str, column: str) -> str:
    """The text of a value; empty where it is missing."""
    match value:
        case None | []:
            return ""
        case str():
            return value
        case list() | dict():
            raise UserError(f"{place}, column {column}: expected text, found a {type(value).__name__}.")
        case bytes():
            raise UserError(
                f"{place}, column {column}: expected text, found bytes that are not UTF-8 ({value[:16]!r}). Convert the column."
            )
        case float() if math.isinf(value):
            raise UserError(f"{place}, column {column}: expected text or a number, found {value}.")
    return str(value)


# ---- conditions ----


def matching(rows: Rows, where: Mapping[str, Condition], place: str) -> Rows:
    """The rows whose columns have the values. UserError for a column that no row has, where no row is left, and where no number can be
    compared."""
    for column in where:
        known = dict.fromkeys(c for _, row in rows for c in row)
        if rows and column not in known:
            raise UserError(f"{place}: `where` names the column {column!r}{nearest_name(column, known)}; there are {', '.join(known)}.")
    found = [
        (n, row) for n, row in rows if all(holds(row.get(c), condition, f"{place}, row {n}, column {c}") for c, condition in where.items())
    ]
    if rows and not found:
        told = ", ".join(f"{c}: {condition}" for c, condition in where.items())
        raise UserError(f"{place}: none of the {len(rows)} rows fits `where` ({told}).")
    return found


def holds(value: Any, condition: Condition, place: str) -> bool:
    """Whether a value is the condition's, one of its values, or a number in its range. A cell of a CSV file has no type: 2 is "2" there."""
    if isinstance(condition, Range):
        if value is None or value == "":
            return False
        try:
            number = float(value)
        except (TypeError, ValueError) as error:
            raise UserError(f"{place}: `where` compares a number, found {str(value)[:80]!r}.") from error
        return (condition.min is None or number >= condition.min) and (condition.max is None or number <= condition.max)
    wanted = condition if isinstance(condition, list) else [condition]
    return any(_told(value) == _told(w) for w in wanted)


def _told(value: Any) -> str | None:
    if value is None or value == "":
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).lower() if isinstance(value, bool) else str(value)
