"""Keys that have another name or place now: who writes an old one is told the new one."""

from collections.abc import Iterator, Mapping
from typing import Any

# By the old path, what to write instead; * stands for any name.
RENAMED: dict[str, str] = {
    "validation": "studies of the kinds comparison, agreement and audit (docs/studies.md)",
    "studies.*.model": "the block of an item's place, items.<group>.<item>.<place>.block, such as { model: main }",
    "studies.*.baseline": "studies.<name>.control",
    "data.near_duplicate": "near_duplicate, without `data`",
    "data": "datasets (docs/data.md)",
    "selection": "selections (docs/data.md)",
    "teacher": "`endpoints.teacher`",
    "judge": "`endpoints.judge`, with `base_url` and `model`",
    "responses": "`generation`",
    "generation.server": "`endpoints.<name>`, and its name in `generation.endpoint`",
    "responses.server": "`endpoints.<name>`, and its name in `generation.endpoint`",
}


def renamed(values: Mapping[str, Any]) -> Iterator[str]:
    """A sentence for every old key in the values."""
    for old, new in RENAMED.items():
        for path in _found(values, old.split("."), []):
            yield f"`{'.'.join(path)}` has another name: write {new}"


def _found(value: Any, parts: list[str], path: list[str]) -> Iterator[list[str]]:
    if not parts:
        yield path
    elif isinstance(value, Mapping):
        for name in value if parts[0] == "*" else [parts[0]]:
            if name in value:
                yield from _found(value[name], parts[1:], [*path, str(name)])
