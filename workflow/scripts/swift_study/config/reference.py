"""The files that follow from the sections: the reference of all keys, and the JSON schema."""

import json
import re
import typing
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined, to_jsonable_python

from swift_study.config.load import types_of
from swift_study.config.root import Config


def default_yaml() -> str:
    """The text of config.default.yaml: every key with its default, its meaning as a comment above it.

    A section that holds things by name shows the keys of one of them, all commented out.
    """
    lines = [
        "# Every key with its default and its meaning. For people to read: write what you change into config.yaml, or a study",
        "# of your own into studies/. Written from workflow/scripts/swift_study/config; a test keeps them equal.",
    ]
    _write_section(Config(), 0, lines, set())
    return "\n".join(lines) + "\n"


def _write_section(section: BaseModel, indent: int, lines: list[str], shown: set[type]) -> None:
    pad = "  " * indent
    for name, field in type(section).model_fields.items():
        if indent == 0:
            lines.append("")
        lines.append(f"{pad}# {_meaning(field)}")
        value = getattr(section, name)
        if isinstance(value, BaseModel):
            lines.append(f"{pad}{name}:")
            _write_section(value, indent + 1, lines, shown)
        else:
            lines.append(f"{pad}{name}: {_yaml_value(value)}")
        if not isinstance(value, BaseModel):
            _write_kinds(name, field, indent, lines, shown)


def _write_kinds(name: str, field: FieldInfo, indent: int, lines: list[str], shown: set[type]) -> None:
    """The keys of what a field holds by name or in a list, where that is a section, as comments; each kind the first time only."""
    for container in types_of(field.annotation):
        for kind in types_of(typing.get_args(container)[-1]) if typing.get_origin(container) in (dict, list) else []:
            section, inner = kind, typing.get_args(kind)
            in_a_list = typing.get_origin(container) is list
            if typing.get_origin(kind) is dict and len(inner) == 2:  # phases of a schedule
                section, in_a_list = types_of(inner[1])[0], False
            if isinstance(section, type) and issubclass(section, BaseModel) and section not in shown:
                shown.add(section)
                lines.append(f"# {'  ' * indent}# The keys of each:")
                lines.append(f"# {'  ' * indent}{name}:")
                lines.append(f"# {'  ' * (indent + 1)}{'-' if in_a_list else 'NAME:'}")
                _write_keys(section, indent + 2, lines, shown)


def _write_keys(kind: type[BaseModel], indent: int, lines: list[str], shown: set[type]) -> None:
    pad = "# " + "  " * indent
    for key, field in kind.model_fields.items():
        lines.append(f"{pad}# {_meaning(field)}")
        default = field.get_default(call_default_factory=True)
        if default is not PydanticUndefined:
            value = default
            if isinstance(value, BaseModel):
                lines.append(f"{pad}{key}:")
                _write_keys(type(value), indent + 1, lines, shown)
                continue
            lines.append(f"{pad}{key}: {_yaml_value(value)}")
        else:
            lines.append(f"{pad}{key}: # to be given")
        _write_kinds(key, field, indent, lines, shown)


def _meaning(field: FieldInfo) -> str:
    return " ".join((field.description or "").split())


def _yaml_value(value: Any) -> str:
    """One line of JSON; numbers such as 1e-06 as 1.0e-06, which YAML 1.1 would take for text otherwise."""
    text = json.dumps(to_jsonable_python(value), ensure_ascii=False)
    return re.sub(r"^(-?\d+)e", r"\1.0e", text)


def schema_json() -> str:
    """The text of config.schema.json."""
    return json.dumps(Config.model_json_schema(), indent=2, ensure_ascii=False) + "\n"
