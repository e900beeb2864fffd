"""Kill a script from inside when it is about to change a file for the n-th time. Python imports this file from PYTHONPATH at its start.

KILL_SCRIPTS is a part of the path of the scripts (`workflow/scripts/`; empty: any Python), KILL_UNDER the folder whose files count, KILL_AT
the change (0: none), each script counting its own, and KILL_GROUP a process group that is killed with it. Every change is noted in the
file KILL_NOTE: its number, event, path, script. Where that file says that a kill has been done, none follows.
"""

import os
import signal
import sys
from pathlib import Path

EVENTS = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.truncate", "shutil.rmtree", "open"}
SCRIPTS, UNDER, NOTE = (os.environ.get(f"KILL_{name}", "") for name in ("SCRIPTS", "UNDER", "NOTE"))
AT, GROUP = (int(os.environ.get(f"KILL_{name}") or 0) for name in ("AT", "GROUP"))
SCRIPT = next((os.path.basename(word) for word in sys.orig_argv if SCRIPTS in word), "")
seen = 0


def changes(event: str, arguments: tuple[object, ...]) -> bool:
    """Whether the event is about to change a file; an `open` is one if it may write."""
    if event == "open":
        flags = arguments[2]
        return isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR))
    return event in EVENTS


def where(event: str, arguments: tuple[object, ...]) -> str:
    """The path, also where it is relative to a folder that is open."""
    path = arguments[0]
    if isinstance(path, int):
        return os.readlink(f"/proc/self/fd/{path}") if path > 2 else ""
    path = os.fsdecode(path) if isinstance(path, str | bytes | os.PathLike) else ""
    folder = arguments[1] if event in ("os.remove", "os.rmdir") else -1
    if isinstance(folder, int) and folder >= 0:
        path = os.path.join(os.readlink(f"/proc/self/fd/{folder}"), path)
    return os.path.abspath(path)


def hook(event: str, arguments: tuple[object, ...]) -> None:
    global seen  # noqa: PLW0603 - an audit hook has no other place
    if event not in EVENTS or not changes(event, arguments):
        return
    try:
        path = where(event, arguments)
    except OSError:
        return
    if not path.startswith(UNDER) or path == NOTE:
        return
    seen += 1
    due = seen == AT
    note = os.open(NOTE, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(note, f"{'KILLED' if due else 'seen'}\t{seen}\t{event}\t{path}\t{SCRIPT}\n".encode())
    os.close(note)
    if due:
        if GROUP:
            os.killpg(GROUP, signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)


if NOTE and SCRIPT:
    if AT and Path(NOTE).is_file() and "KILLED" in Path(NOTE).read_text():
        AT = 0
    sys.addaudithook(hook)
