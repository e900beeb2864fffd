"""From plain values to the configuration, or a sentence for every problem."""

import types
import typing
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ValidationError

from swift_study.config.base import CONTROL_CHARACTERS, DEEPEST, LARGEST, nearest, short
from swift_study.config.renamed import renamed
from swift_study.config.root import Config
from swift_study.errors import UserError


def load(values: Mapping[str, Any]) -> Config:
    """The validated configuration.

    Raises UserError with one line for every problem: the key's path, what is wrong, and for an unknown key the nearest known.
    """
    lines = list(_no_plain_data(values, [])) or list(renamed(values))
    if not lines:
        try:
            return Config.model_validate(dict(values))
        except ValidationError as error:
            problems = [e for e in error.errors(include_url=False) if not _is_the_other_type(e["loc"], e["type"], e["input"])]
            lines = [_sentence(e["loc"], e["type"], e["msg"], e["input"]) for e in problems]
    shown = [" ".join(line.splitlines()) for line in lines]
    shown = [line if len(line) <= 1000 else f"{line[:999]}…" for line in shown]
    raise UserError("The configuration is not valid:\n" + "\n".join(f"  - {line}" for line in shown)) from None


def _no_plain_data(value: Any, path: list[str]) -> typing.Iterator[str]:
    """A sentence for everything that YAML can hold and no key can take, so that the sections see plain data only."""
    where = f"`{'.'.join(path) or 'config'}`"
    if len(path) > DEEPEST:
        yield f"`{'.'.join(path[:3])}`: the values below it are nested more than {DEEPEST} levels deep, or hold themselves"
    elif isinstance(value, Mapping):
        for key, below in value.items():
            if not isinstance(key, str):
                yield f"{where}: the name {key!r} is not text: YAML reads yes, no, on, off, null and numbers so. Put the name in quotes"
            elif problem := _no_text(key):
                yield f"{where}: the name {short(key)} {problem}"
            elif len(key) > 200 or CONTROL_CHARACTERS.search(key):
                yield f"{where}: the name {short(key)} has a line break or a control character, or more than 200 characters"
            else:
                yield from _no_plain_data(below, [*path, key])
    elif isinstance(value, list | tuple):
        for number, below in enumerate(value):
            yield from _no_plain_data(below, [*path, str(number)])
    elif isinstance(value, str):
        if problem := _no_text(value):
            yield f"{where}: the text {short(value)} {problem}"
    elif isinstance(value, int) and abs(value) > LARGEST:
        yield f"{where}: the number has {value.bit_length()} bits and is beyond ±{LARGEST}"
    elif value is not None and not isinstance(value, int | float):
        yield f"{where}: {short(value)} is a {type(value).__name__}, which no key takes. Put text in quotes"


def _no_text(text: str) -> str | None:
    if "\0" in text:
        return "holds a zero byte, which no file name and no command can hold"
    try:
        text.encode()
    except UnicodeEncodeError:
        return "holds half of a surrogate pair (such as \\ud800), which is not Unicode"
    return None


def _is_the_other_type(loc: tuple[int | str, ...], kind: str, value: Any) -> bool:
    """Whether this is about a type that a value of type `Text` was not meant to have."""
    meant = "Column" if isinstance(value, dict) else "list" if isinstance(value, list) else "str"
    return kind in ("string_type", "model_type", "list_type") and _is_type(loc[-1]) and not str(loc[-1]).startswith(meant)


def _is_type(part: int | str) -> bool:
    """Whether a part of a problem's path is one of the types of `Text`."""
    return part in ("str", "Column") or str(part).startswith("list[")


def _sentence(loc: tuple[int | str, ...], kind: str, message: str, value: Any) -> str:
    if loc[-1:] == ("[key]",):
        path, _ = _follow(loc[:-2])
        return f"`{'.'.join(path)}`: the name {short(loc[-2])}: {message.removeprefix('Value error, ')}"
    path, found = _follow(loc)
    where = ".".join(path) or "config"
    keys = [name for t in found if _is_section(t) for name in t.model_fields]
    if kind == "extra_forbidden":
        beside = [name for t in _follow(loc[:-1])[1] if _is_section(t) for name in t.model_fields]
        return f"unknown key `{where}`{nearest(path[-1], beside)}"
    if kind == "union_tag_not_found":
        return f"`{where}.kind` is missing; it is one of {', '.join(str(_kind_of(t)) for t in found)}"
    if kind == "union_tag_invalid":
        kinds = [str(_kind_of(t)) for t in found]
        return f"`{where}.kind` is {short(value['kind'])}{nearest(str(value['kind']), kinds)}; it is one of {', '.join(kinds)}"
    if kind == "missing":
        return f"`{where}` is missing"
    if kind == "value_error":
        return f"`{where}`: {message.removeprefix('Value error, ')}"
    hint = ""
    if kind == "model_type":
        hint = f"; write its keys below it, such as {where}.{keys[0]}" if keys else ""
    elif kind == "string_type" and isinstance(value, bool):
        hint = "; YAML reads yes, no, on and off so: put the text in quotes"
    shown = "" if _may_hold_a_key(loc) else f" (it is {short(value)})"
    return f"`{where}`: {message}{shown}{hint}"


def _may_hold_a_key(loc: tuple[int | str, ...]) -> bool:
    """Whether the value is a part of an endpoint's settings or holds them: somebody may have put a key there, which nobody may print."""
    return any(loc[: len(path)] == path[: len(loc)] for path in (("endpoints",),))


def _follow(loc: tuple[int | str, ...]) -> tuple[list[str], list[Any]]:
    """The parts of a place in the configuration that a user wrote, and the types that may stand there.

    Pydantic names the type as well where several are possible, as for a source or a column.
    """
    path: list[str] = []
    found: list[Any] = [Config]
    for part in loc:
        if len(found) > 1:
            named = "list" if str(part).startswith("list[") else str(part)
            found = [t for t in found if named in (getattr(t, "__name__", ""), str(t), _kind_of(t))]
        else:
            path.append(str(part))
            found = [t for before in found for t in _below(before, part)]
    return path, found


def _below(found: Any, part: int | str) -> list[Any]:
    """The types that may stand below a place of this type: the key of a section, a name of a dictionary, a position in a list."""
    if _is_section(found):
        return types_of(found.model_fields[part].annotation) if part in found.model_fields else []
    arguments = typing.get_args(found)
    if isinstance(part, int) and typing.get_origin(found) is tuple:
        return types_of(arguments[part]) if part < len(arguments) else []
    return types_of(arguments[-1]) if arguments and typing.get_origin(found) in (dict, list) else []


def types_of(annotation: Any) -> list[Any]:
    """The types that an annotation allows, without None."""
    if typing.get_origin(annotation) is Annotated:
        return types_of(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return [t for argument in typing.get_args(annotation) for t in types_of(argument)]
    return [] if annotation is type(None) else [annotation]


def _is_section(found: Any) -> bool:
    return isinstance(found, type) and not isinstance(found, types.GenericAlias) and issubclass(found, BaseModel)


def _kind_of(found: Any) -> str | None:
    """By which `kind` a source is told from others."""
    return found.model_fields["kind"].default if _is_section(found) and "kind" in found.model_fields else None
