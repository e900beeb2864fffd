"""Regular expressions that users, data and configurations bring: they mean what Python's ``re`` says, and are matched in bounded time.

``re`` may take years for a pattern such as ``(a|a)*$``. The ``regex`` package reads the same patterns (lookbehinds and back references
too) and stops at a limit of time. Where the two differ on a brace or on a count of a billion, ``compile_pattern`` settles it;
only what ``\\w`` takes among marks and raised digits, and ``\\d`` among the youngest scripts, is as ``regex`` has it.
"""

import re
import warnings
from functools import lru_cache
from math import prod
from typing import Any

import regex

from swift_study.errors import UserError

SECONDS = 1.0
"""Of processor time for one search; a harmless pattern takes microseconds."""

MAX_LENGTH = 10_000
MAX_SIZE = 1_000_000
"""Of the length times the least counts of its repetitions: ``regex`` writes them out, and crashes where they are far more."""

IGNORECASE, MULTILINE, DOTALL = int(regex.IGNORECASE), int(regex.MULTILINE), int(regex.DOTALL)


class TooSlow(UserError):
    """A search was given up at the limit of time."""


@lru_cache(maxsize=1024)
def compile_pattern(expression: str, flags: int = 0) -> Any:
    """The expression, compiled by ``regex``. ValueError, a clause that says why, where it is none, too long or repeats too much."""
    if len(expression) > MAX_LENGTH:
        raise ValueError(f"it has {len(expression):,} characters; at most {MAX_LENGTH:,} are allowed")
    # The counts are multiplied, as if each repetition stood within the one before it.
    if len(expression) * prod(int(count[:10]) for count in re.findall(r"\{0*([1-9][0-9]*)", expression)) > MAX_SIZE:
        raise ValueError(f"its length times its repetitions {{n}} is more than {MAX_SIZE:,}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what `re` may read otherwise one day
            re.compile(expression)
            return regex.compile(_braces_as_in_re(expression), flags | regex.VERSION0, cache_pattern=False)
    except (re.error, regex.error, OverflowError) as error:
        raise ValueError(str(error)) from error
    except RecursionError as error:
        raise ValueError("its parentheses are nested too deeply") from error


def search(expression: str, text: str, flags: int = 0, where: str = "") -> Any:
    """The first match of the expression in the text, or None. TooSlow, with ``where`` in front, if that takes longer than the limit."""
    try:
        return compile_pattern(expression, flags).search(text, timeout=SECONDS)
    except TimeoutError as error:
        raise _too_slow(expression, text, where) from error


def remove(expression: str, text: str, flags: int = 0, where: str = "") -> str:
    """The text without what the expression matches. TooSlow, with ``where`` in front, if that takes longer than the limit."""
    try:
        return str(compile_pattern(expression, flags).sub("", text, timeout=SECONDS))
    except TimeoutError as error:
        raise _too_slow(expression, text, where) from error


def _too_slow(expression: str, text: str, where: str) -> TooSlow:
    return TooSlow(
        f"{where}{': ' if where else ''}the regular expression {expression!r} was stopped after {SECONDS:g} s on a text of {len(text):,} "
        "characters. Simplify it: a repetition within a repetition, such as (a+)+, is what takes so long."
    )


def _braces_as_in_re(expression: str) -> str:
    # To `regex`, x{e} and x{i<=2} mean "about x"; to `re`, a brace that holds no count is a brace.
    brace = r"\\N\{[^}]*\}|\\.|\{(?![0-9]+(?:,[0-9]*)?\}|,[0-9]*\})"
    return re.sub(brace, lambda found: r"\{" if found[0] == "{" else found[0], expression, flags=re.DOTALL)
