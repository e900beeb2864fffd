"""Settings on their way from a rule to its script: a JSON object of what decides the results, and one of what changes none.

A field that changes no result (how fast, at what price, in how much memory) is marked where it is declared. Rules send those as a resource
and the others as a parameter, since Snakemake makes results again when a parameter changes.
"""

import base64
import json
import shlex
import zlib
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel

from swift_study.errors import UserError

CHANGES_NOTHING: dict[str, Any] = {"changes_results": False}  # json_schema_extra of such a field
# Bytes of one value on a command line: from when on it is packed, and the most, so that the other words fit as well.
LONG, LONGEST = 20_000, 100_000

Settings = TypeVar("Settings", bound=BaseModel)


def settings(**parts: Any) -> str:
    """Sections and values as JSON, without the fields that change no result."""
    return argument({name: deciding(part) for name, part in parts.items()})


def limits(**parts: Any) -> str:
    """The fields of sections that change no result, and plain values that change none, as JSON."""
    return argument({name: changing_nothing(part) if isinstance(part, BaseModel) else part for name, part in parts.items()})


def deciding(value: Any) -> Any:
    """A section as plain values without the fields that change no result, those of the sections in it included; another value as it is."""
    if not isinstance(value, BaseModel):
        return value
    whole, marked = value.model_dump(mode="json"), _marked(value)
    sections = {name: deciding(own) for name, own in value if isinstance(own, BaseModel)}
    return {name: sections.get(name, plain) for name, plain in whole.items() if name not in marked}


def changing_nothing(value: BaseModel) -> dict[str, Any]:
    """The fields of a section that change no result, with those of the sections in it."""
    found = value.model_dump(mode="json", include=_marked(value))
    sections = {name: changing_nothing(own) for name, own in value if isinstance(own, BaseModel) and name not in found}
    return found | {name: own for name, own in sections.items() if own}


def _marked(value: BaseModel) -> set[str]:
    extras = {name: field.json_schema_extra for name, field in type(value).model_fields.items()}
    return {name for name, extra in extras.items() if isinstance(extra, Mapping) and extra.get("changes_results") is False}


def read_settings(kind: type[Settings], told: str, limits: str = "{}") -> Settings:
    """A script's settings from the two texts, laid over each other."""
    return kind.model_validate(_laid_over(unpack(told), unpack(limits)))


def _laid_over(below: Any, above: Any) -> Any:
    if isinstance(below, dict) and isinstance(above, dict):
        return below | {key: _laid_over(below.get(key), value) for key, value in above.items()}
    return above


def argument(value: Any) -> str:
    """A value as JSON for a command line, packed where it is long. UserError, before anything runs, where it is too long even then."""
    text = json.dumps(value, ensure_ascii=False)
    if len(shlex.quote(text).encode()) > LONG:
        text = pack(text)
    if len(text) > LONGEST:
        raise UserError(
            f"A job would need a command line of more than {len(text)} bytes, and Linux allows 131,071: the configuration names too many "
            "runs, models and seeds, or holds too much text. Make them fewer."
        )
    return text


def pack(text: str) -> str:
    """A long JSON text for a command line: zlib's bytes as base 64 behind an equals sign."""
    return "=" + base64.b64encode(zlib.compress(text.encode(), 9)).decode()


def unpack(text: str) -> Any:
    """The value of a JSON text, packed or not."""
    return json.loads(zlib.decompress(base64.b64decode(text[1:])) if text.startswith("=") else text)
