"""Python files of the user (strategies, designs, scorers): imported with care, their faults told in sentences.

A file may do anything when it is imported or called, also call ``sys.exit``; whatever goes wrong names the file and its line.
"""

import ast
import importlib.util
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from pydantic import ValidationError

from swift_study.errors import Rejected, Stopped, UserError

REPOSITORY = Path(__file__).resolve().parents[4]


@dataclass(frozen=True)
class UserFile:
    """A file's functions. Whatever goes wrong in one of them is a UserError that names file, line and what it was called with."""

    path: Path
    functions: Mapping[str, Callable[..., Any]]

    def call(self, name: str, about: str, remedy: str, *arguments: object, **named: object) -> Any:
        """Call a function; ``about`` says with what. Raises Rejected as well where what it makes breaks the rules of an example."""
        try:
            return self.functions[name](*arguments, **named)
        except (Rejected, Stopped):
            raise
        except ValidationError as error:
            raise Rejected(broken_rules(error)) from error
        except BaseException as error:  # it may also call sys.exit, which would end the job without a word
            raise self.wrong(name, about, f"raised {told(error)}", remedy, line_of(self.path, error)) from error

    def wrong(self, name: str, about: str, what: str, remedy: str, line: int | None = None) -> UserError:
        line = line or getattr(getattr(self.functions[name], "__code__", None), "co_firstlineno", None)
        return UserError(f"{self.path}{f', line {line}' if line else ''}: {name} {what} for {about}. {remedy}")


def load_functions(path: Path, kind: str, section: str, page: str, names: Sequence[str]) -> dict[str, Callable[..., Any]]:
    """Import a file named in the configuration's ``section``, and take its functions. UserError if it is missing, does not run, or lacks
    one of them; ``page`` tells how to write one."""
    if not path.is_file():
        raise UserError(f"{path}: there is no such {kind} file. Write it ({page} shows how) or remove its name from `{section}`.")
    module = load_module(path, kind)
    functions = {name: getattr(module, name, None) for name in names}
    for name, function in functions.items():
        if not callable(function):
            raise UserError(f"{path}: the function `{name}` is missing; a {kind} file has {', '.join(names[:-1])} and {names[-1]}.")
    return cast(dict[str, Callable[..., Any]], functions)


def find_file(folder: str, name: str) -> Path:
    """``folder/name.py`` beside the user's configuration where there is one, else the repository's own."""
    own = Path(folder) / f"{name}.py"
    return own if own.is_file() or not (REPOSITORY / own).is_file() else REPOSITORY / own


def load_module(path: Path, kind: str) -> ModuleType:
    """Import a file; ``kind`` says in sentences what it is. UserError if it does not run."""
    spec = importlib.util.spec_from_file_location(f"{kind}_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Stopped:
        raise
    except BaseException as error:  # it may call sys.exit
        line = error.lineno if isinstance(error, SyntaxError) else line_of(path, error)
        raise UserError(
            f"{path}: the {kind} file does not run: {told(error)}{f' (line {line})' if line else ''}. Mend the file."
        ) from error
    return module


def constants(path: Path, kind: str) -> dict[str, Any]:
    """The values in capital letters that a file assigns as plain literals, read without running the file. UserError if it is not Python."""
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: the {kind} file could not be read ({error}).") from error
    except (SyntaxError, ValueError) as error:  # ValueError: a zero byte
        line = f" (line {error.lineno})" if isinstance(error, SyntaxError) and error.lineno else ""
        raise UserError(f"{path}: the {kind} file does not run: {told(error)}{line}. Mend the file.") from error
    found: dict[str, Any] = {}
    for statement in tree.body:
        if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
            name, value = statement.targets[0].id, statement.value
        elif isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name) and statement.value is not None:
            name, value = statement.target.id, statement.value
        else:
            continue
        if name.isupper():
            try:
                found[name] = ast.literal_eval(value)
            except (ValueError, TypeError, SyntaxError, RecursionError):
                continue  # made by an expression
    return found


def line_of(path: Path, error: BaseException) -> int | None:
    """The line of the file at which the error came, where one of the file's own lines was at work."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename) == path.absolute()]
    return lines[-1] if lines else None


def told(error: BaseException) -> str:
    """An error as a part of a sentence: its type and its message on one line."""
    message = error.msg if isinstance(error, SyntaxError) else str(error)
    return " ".join([type(error).__name__ + ":" * bool(message), *message.split()])


def short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:79]}…"


def described(value: object) -> str:
    """What a function returned, where it is not what it should be."""
    if value is None:
        return "nothing (None)"
    return f"{short(value)}, which is of the type {type(value).__module__}.{type(value).__qualname__}"


def broken_rules(error: ValidationError) -> str:
    """What an example lacks or has too much, as a part of a sentence."""
    return "; ".join(e["msg"].removeprefix("Value error, ") for e in error.errors(include_url=False))
