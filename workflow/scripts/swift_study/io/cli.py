"""What every script does the same: parse, call, and end in a sentence when something is wrong.

Standard output is for people: progress lines and the sentence. Standard error is for the log: warnings of libraries, tracebacks.
"""

import argparse
import base64
import io
import json
import os
import shlex
import signal
import sys
import time
import traceback
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel

from swift_study.errors import Stopped, UserError
from swift_study.io.processes import end_with_parent
from swift_study.io.work import full_disk, says_no_space

Settings = TypeVar("Settings", bound=BaseModel)
# Bytes of one value on a command line: from when on it is packed, and the most, so that the other words fit as well.
LONG, LONGEST = 20_000, 100_000
STOPPED = 75  # sysexits.h, EX_TEMPFAIL: not an error, try again

_people = sys.stdout


def say(text: str) -> None:
    """For people. Where it cannot be written (a full disk, a closed pipe), the work goes on without."""
    with suppress(OSError):
        print(text, file=_people, flush=True)


class _Log(io.TextIOWrapper):
    """Standard error without a buffer. What no longer fits on the disk of the log is dropped; the work goes on."""

    def __init__(self) -> None:
        super().__init__(io.FileIO(2, "w", closefd=False), write_through=True, errors="backslashreplace")

    def write(self, text: str, /) -> int:
        with suppress(OSError):
            super().write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            super().flush()


class Progress:
    """Prints ``label: text`` at most every few seconds, and always the last line."""

    def __init__(self, label: str, seconds: float = 5.0) -> None:
        self.label, self.seconds, self.last = label, seconds, 0.0

    def __call__(self, text: str, force: bool = False) -> None:
        if force or time.monotonic() - self.last >= self.seconds:
            say(f"{self.label}: {text}")
            self.last = time.monotonic()


def _stop(number: int, frame: object) -> None:
    raise Stopped("SIGTERM came (a time limit, preemption, or somebody ended it). Run the same command again: it keeps what is finished.")


def pack(text: str) -> str:
    """A long JSON text for a command line, where Linux allows 131,071 bytes: zlib's bytes as base 64 behind an equals sign."""
    return "=" + base64.b64encode(zlib.compress(text.encode(), 9)).decode()


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


def unpack(text: str) -> Any:
    """The value of a JSON text, packed or not."""
    return json.loads(zlib.decompress(base64.b64decode(text[1:])) if text.startswith("=") else text)


def settings(kind: type[Settings], text: str, limits: str = "{}") -> Settings:
    """A script's settings from two JSON objects that are laid over each other: the keys that affect results, and the others."""
    return kind.model_validate(_laid_over(json.loads(text), json.loads(limits)))


def _laid_over(below: Any, above: Any) -> Any:
    if isinstance(below, dict) and isinstance(above, dict):
        return below | {key: _laid_over(below.get(key), value) for key, value in above.items()}
    return above


def parser(description: str | None, **arguments: str) -> argparse.ArgumentParser:
    """A parser with one required option for every keyword; the value is its help. ``_`` in the name is ``-`` in the option."""
    p = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    for name, text in arguments.items():
        p.add_argument(f"--{name.replace('_', '-')}", required=True, help=text)
    return p


def run(main: Callable[[argparse.Namespace], Any], p: argparse.ArgumentParser) -> None:
    """Call ``main`` with the parsed arguments. An error prints one sentence, its traceback goes to standard error, exit code 1.

    The process ends when the one that started it ends (on Linux).
    """
    global _people  # noqa: PLW0603 - one process has one standard output
    end_with_parent()
    arguments = p.parse_args()
    # What libraries print to standard output belongs to the log as well.
    _people = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    sys.stdout = sys.stderr = _Log()
    script = Path(sys.argv[0]).stem
    if signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:  # a launcher that catches it has its children ignore it
        signal.signal(signal.SIGTERM, _stop)
    code = 0
    try:
        main(arguments)
    except Stopped as stopped:
        say(f"STOPPED {script}: {stopped}")
        code = STOPPED
    except UserError as error:
        code = _fail(f"ERROR in {script}: {error}")
    except KeyboardInterrupt:
        code = 130
    except Exception as error:
        if says_no_space(error):
            code = _fail(f"ERROR in {script}: {full_disk(getattr(error, 'filename', None) or 'A file')}")
        else:
            code = _fail(f"ERROR in {script}: {type(error).__name__}: {error} (this is unexpected; the traceback is in the rule's log)")
    sys.exit(code)


def _fail(sentence: str) -> int:
    """The sentence first: the log may lie on the full disk that it tells of."""
    say(sentence)
    traceback.print_exc()
    return 1
