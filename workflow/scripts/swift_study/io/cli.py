"""What every script does the same: parse, call, and end in a sentence when something is wrong.

Standard output is for people: progress lines and the sentence. Standard error is for the log: warnings of libraries, tracebacks.
"""

import argparse
import io
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from swift_study.errors import Stopped, UserError
from swift_study.io.processes import end_with_parent
from swift_study.io.settings import Settings, read_settings
from swift_study.io.work import full_disk, says_no_space

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


def settings(kind: type[Settings], a: argparse.Namespace) -> Settings:
    """A script's settings from its arguments `settings` and `limits`."""
    return read_settings(kind, a.settings, a.limits)


def parser(description: str | None, **arguments: str) -> argparse.ArgumentParser:
    """A parser with one required option for every keyword; the value is its help. ``_`` in the name is ``-`` in the option.

    ``settings`` comes with ``limits``: those of its keys that change no result.
    """
    p = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    for name, text in arguments.items():
        p.add_argument(f"--{name.replace('_', '-')}", required=True, help=text)
    if "settings" in arguments:
        p.add_argument("--limits", default="{}", help="those of the settings that change no result, as JSON")
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
