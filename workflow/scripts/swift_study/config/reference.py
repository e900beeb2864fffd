"""The files that follow from the sections: the reference of all keys, and the JSON schema."""

import json
import re
from typing import Any

from pydantic import BaseModel
from pydantic_core import to_jsonable_python

from swift_study.config.base import Section
from swift_study.config.root import ENDPOINTS, Config
from swift_study.config.runs import Part, Run


def default_yaml() -> str:
    """The text of config.yaml: every key with its default, its meaning as a comment above it."""
    lines = [
        "# swift-study: the one file to edit. Every key stands here with its default and what it means.",
        "# Lay a scale or a study over it:  snakemake --configfile scales/7b.yaml studies/future.yaml",
        "# Written from workflow/scripts/swift_study/config.py; a test keeps them equal.",
    ]
    _write_section(Config(), 0, lines)
    return "\n".join(lines) + "\n"


def _write_section(section: BaseModel, indent: int, lines: list[str], explained: frozenset[type] = frozenset()) -> None:
    """Append the section's keys; comments are left out for a class in ``explained``, which stood above with its comments."""
    pad = "  " * indent
    for name, field in type(section).model_fields.items():
        if isinstance(section, Run) and section.like and name not in section.model_fields_set:
            continue  # it is as in the run that this one is like
        value = getattr(section, name)
        if indent == 0:
            lines.append("")
        comment = " ".join((field.description or "").split())
        if comment and type(section) not in explained:
            lines.append(f"{pad}# {comment}")
        if isinstance(value, Section):
            lines.append(f"{pad}{name}:")
            _write_section(value, indent + 1, lines, explained)
        elif isinstance(value, dict) and value and all(isinstance(v, Section) for v in value.values()):
            lines.append(f"{pad}{name}:")
            seen = explained
            for key, entry in value.items():
                lines.append(f"{pad}  {key}:")
                _write_section(entry, indent + 2, lines, seen)
                seen = seen | {type(entry)}
        elif isinstance(value, list) and value and all(isinstance(v, Section) for v in value):
            lines.append(f"{pad}{name}:")
            for entry in value:
                lines.append(f"{pad}  -")
                _write_section(entry, indent + 2, lines, explained)
        elif isinstance(section, Run) and name == "schedule":
            brief = section.like is not None
            phases = [{d: part.model_dump(exclude_defaults=brief) for d, part in phase.items()} for phase in value]
            if not brief:
                lines += [f"{pad}#   {key}: {field.description}" for key, field in Part.model_fields.items()]
            lines.append(f"{pad}{name}: {_yaml_value(phases)}")
        else:
            lines.append(f"{pad}{name}: {_yaml_value(value)}")
        if name in ENDPOINTS and indent == 0:
            _write_endpoint(name, lines)


def _yaml_value(value: Any) -> str:
    """One line of JSON; numbers such as 1e-06 as 1.0e-06, which YAML 1.1 would take for text otherwise."""
    text = json.dumps(to_jsonable_python(value), ensure_ascii=False)
    return re.sub(r"^(-?\d+)e", r"\1.0e", text)


def _write_endpoint(name: str, lines: list[str]) -> None:
    """The keys of an endpoint as a commented-out section, since there is none by default."""
    settings, example = ENDPOINTS[name]
    lines.append(f"# {name}:")
    for key, field in settings.model_fields.items():
        if field.description:
            lines.append(f"#   # {' '.join(field.description.split())}")
        default = example[key] if field.is_required() else field.default
        lines.append(f"#   {key}: {_yaml_value(default)}")


def schema_json() -> str:
    """The text of config.schema.json."""
    return json.dumps(Config.model_json_schema(), indent=2, ensure_ascii=False) + "\n"
