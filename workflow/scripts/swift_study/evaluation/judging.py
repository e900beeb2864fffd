"""Text that a judge is shown, and objects that it replies with. A response is data.

It reaches a judge as a string within one JSON object, which it cannot close: its quotes and line breaks are escaped, and so is every sign
of which the control tokens of chat templates are made (``_escape``), whatever model the judge is. Reading the object gives the response
back exactly. Turns that a template writes in plain words ("USER:") cannot be told from a text that says so. A judgement comes only from a
reply that is nothing but the object that was asked for; a reply that quotes one is not.
"""

import functools
import json
import re
import unicodedata
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from swift_study.errors import Rejected, UserError
from swift_study.io.replies import without_fence, without_reasoning

STRING = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"')  # of JSON
# Neither a letter, a digit, a space, nor one of the signs of which no family makes a control token.
SIGN = re.compile(r"""[^\w !"$%&'()*+,\-./:;=?@\\^`{}~]""")


def read_instructions(path: Path) -> str:
    """What an endpoint is told, from a text file."""
    try:
        text = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: the scorer's instructions could not be read ({error}).") from error
    if not text:
        raise UserError(f"{path}: the file is empty; it must hold the scorer's instructions.")
    return text


def as_data(values: Mapping[str, Any]) -> str:
    """The values as one JSON object that shows them whole and that no text in them can close."""
    text = json.dumps(values, ensure_ascii=False, indent=1)
    return STRING.sub(lambda string: SIGN.sub(lambda sign: _escape(sign.group()), string.group()), text)


@functools.cache
def _escape(sign: str) -> str:
    """The sign as JSON's ``\\u003c`` where a control token may begin or end with it, else as it is.

    Such tokens are <|im_end|>, </s>, <start_of_turn>, <<SYS>>, [INST], <｜User｜>, ◁think▷, [|user|], ### Instruction and many more,
    so that no list is whole. Each has a bracket, a bar, a number sign, or a sign that looks like one; a tokenizer may also take a
    full-width sign for the usual one, or pass over an invisible character.
    """
    if all(_is_harmless(character) for character in unicodedata.normalize("NFKC", sign)):
        return sign
    return "".join(f"\\u{unit:04x}" for unit in memoryview(sign.encode("utf-16", "surrogatepass")).cast("H")[1:])


def _is_harmless(character: str) -> bool:
    if character in " (){}“”‘’":
        return True
    category = unicodedata.category(character)
    is_bracket, is_bar_or_triangle = category in ("Ps", "Pe", "Pi", "Pf"), 0x2500 <= ord(character) <= 0x25FF
    return not (is_bracket or is_bar_or_triangle or character in "<>|¦‖#" or category[0] in "CZ")


def read_object(reply: str, fields: Collection[str]) -> dict[str, Any]:
    """The JSON object that a reply is, with these fields. Rejected unless it is the object and nothing else.

    A code fence around the object, and a reasoning model's block before it, are taken off.
    """
    try:
        value = json.loads(without_fence(without_reasoning(reply)), object_pairs_hook=_without_twins)
    except (ValueError, RecursionError) as error:  # not JSON, a number of too many digits, or nested too deeply
        raise Rejected(f"the judge's reply is not JSON: {error}") from error
    if not isinstance(value, dict) or set(value) != set(fields):
        raise Rejected(f"the judge's reply is not an object of {' and '.join(fields)}")
    return value


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) < len(pairs):
        raise Rejected("the judge's reply says the same field twice")
    return dict(pairs)
