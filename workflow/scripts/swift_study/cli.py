"""What every script does the same: parse, call, and end in a sentence when something is wrong.

Standard output is for people: progress lines and the sentence. Standard error is for the log: warnings of libraries, tracebacks.
"""

import argparse
import base64
import json
import os
import signal
import sys
import time
import traceback
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from swift_study.errors import Stopped, UserError

STOPPED = 75  # sysexits.h, EX_TEMPFAIL: not an error, try again

_people = sys.stdout


def say(text: str) -> None:
    print(text, file=_people, flush=True)


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


def unpack(text: str) -> Any:
    """The value of a JSON text, packed or not."""
    return json.loads(zlib.decompress(base64.b64decode(text[1:])) if text.startswith("=") else text)


def parser(description: str | None, **arguments: str) -> argparse.ArgumentParser:
    """A parser with one required option for every keyword; the value is its help. ``_`` in the name is ``-`` in the option."""
    p = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    for name, text in arguments.items():
        p.add_argument(f"--{name.replace('_', '-')}", required=True, help=text)
    return p


def run(main: Callable[[argparse.Namespace], Any], p: argparse.ArgumentParser) -> None:
    """Call ``main`` with the parsed arguments. An error prints one sentence, its traceback goes to standard error, exit code 1."""
    global _people  # noqa: PLW0603 - one process has one standard output
    arguments = p.parse_args()
    # What libraries print to standard output belongs to the log as well.
    _people = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    script = Path(sys.argv[0]).stem
    if signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:  # a launcher that catches it has its children ignore it
        signal.signal(signal.SIGTERM, _stop)
    try:
        main(arguments)
    except Stopped as stopped:
        say(f"STOPPED {script}: {stopped}")
        sys.exit(STOPPED)
    except UserError as error:
        traceback.print_exc()
        say(f"ERROR in {script}: {error}")
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        traceback.print_exc()
        say(f"ERROR in {script}: {type(error).__name__}: {error} (this is unexpected; the traceback is in the rule's log)")
        sys.exit(1)
