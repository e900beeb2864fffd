"""Types of keys that several sections have."""

import difflib
import re
import typing
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

Context = Literal["in-task", "cross-task"]
NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
LAPTOP = "laptop"  # the scale whose values a collection gives outside of `at`
LossOn = Literal["completion", "all", "values"]
MAIN = "main"  # the name of the model under study where several are named
LARGEST = 2**53  # the largest integer of a value: tables, JSON and floats hold it exactly
DEEPEST = 30  # levels of nested values; the configuration itself has eight
MOST_STEPS = 10**8
CONTROL_CHARACTERS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def _label(name: str) -> str:
    """A name that tables, figures and command lines show as it is."""
    if not name or name != name.strip() or CONTROL_CHARACTERS.search(name) or len(name) > 100 or name[0] in "-_":
        raise ValueError("a name has 1 to 100 characters, no line break, no space at its ends, and does not begin with - or _")
    return name


def _file_name(name: str) -> str:
    """The name of a file in the results, without its ending; Snakemake takes braces for wildcards."""
    if not name or re.search(r"[/\\{}]", name) or CONTROL_CHARACTERS.search(name) or len(name.encode()) > 200 or name[0] in "-.":
        raise ValueError("a file's name has 1 to 200 bytes, no slash, brace or line break, and does not begin with - or a dot")
    if name != name.strip():
        raise ValueError("a file's name has no space at its ends")
    return name


def _path(path: str) -> str:
    """A file or folder that rules name; Snakemake takes braces for wildcards, and a command a leading - for an option."""
    too_long = len(path.encode()) > 1000 or any(len(part.encode()) > 255 for part in path.split("/"))
    if not path.strip() or re.search(r"[{}]", path) or CONTROL_CHARACTERS.search(path) or path[0] == "-" or too_long:
        raise ValueError(f"the path {short(path)} is empty, begins with -, has a brace or a line break, or a name of more than 255 bytes")
    return path


def _folder(path: str) -> str:
    _path(path)
    if re.search(r"[*?\[\]]", path):
        raise ValueError(f"the folder {short(path)} has one of * ? [ ], which DeepSpeed and Polars take for a pattern of names")
    try:
        return str(Path(path).expanduser())
    except RuntimeError as error:
        raise ValueError(f"{error}: write the folder without ~") from error


def _sentence_of_the_user(text: str) -> str:
    """Text for people as one line."""
    line = " ".join(text.split())
    if CONTROL_CHARACTERS.search(line) or len(line) > 2000:
        raise ValueError("a text has at most 2000 characters and no control characters")
    return line


Label = Annotated[str, AfterValidator(_label)]
FileName = Annotated[str, AfterValidator(_file_name)]
Folder = Annotated[str, AfterValidator(_folder)]
Prose = Annotated[str, AfterValidator(_sentence_of_the_user)]
FilePath = Annotated[str, AfterValidator(_path)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)


def nearest(name: str, known: typing.Iterable[str]) -> str:
    """The known name that is most like this one, as the end of a sentence; nothing where none is like it."""
    match = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" (did you mean {match[0]!r}?)" if match else ""


def short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:199]}…"
