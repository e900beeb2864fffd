"""Which processes end together, and whether one is still at work in a folder."""

import ctypes
import fcntl
import os
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path
from typing import IO

STARTER = "SWIFT_STUDY_STARTER"  # environment variable: PID namespace and pid of a process without which nothing below it may go on
PR_SET_PDEATHSIG = 1  # of <sys/prctl.h>


def end_with_parent() -> None:
    """Let Linux end this process with SIGKILL when its parent ends, so that nothing outlives a killed Snakemake, launcher or torchrun.

    A process whose starter has ended before this call ends now. Other systems have no such call: there a process may outlive its parent;
    it holds the lock of its work folder, and the next start says so.
    """
    if sys.platform != "linux":
        return
    parent = os.getppid()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    namespace, _, starter = os.environ.get(STARTER, "").partition(" ")
    if os.getppid() != parent or (namespace == _namespace() and not _is_alive(int(starter))):
        os.kill(os.getpid(), signal.SIGKILL)


def become_starter() -> None:
    """Have every process below this one end at once where this one has ended before it could call ``end_with_parent``."""
    if sys.platform == "linux":
        os.environ[STARTER] = f"{_namespace()} {os.getpid()}"


def _namespace() -> str:
    """Pids mean something only within it; containers may have their own."""
    return Path("/proc/self/ns/pid").readlink().name


def _is_alive(pid: int) -> bool:
    """A process that has ended may stay in the table as a zombie (Z)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except (FileNotFoundError, ProcessLookupError):
        return False


def enter(folder: Path, first: bool) -> None:
    """Say until this process ends, whatever ends it, that a Snakemake is at work in ``folder`` (its `.snakemake`).

    Where it is the only one, and the last one was on this machine, the locks that are there are a dead Snakemake's. The ``first`` process
    of a run removes them, as `--unlock` would. In all other cases they stay, and Snakemake itself says what to do.
    """
    folder.mkdir(exist_ok=True)
    file = (folder / "at_work").open("a+")
    _held.append(file)
    with suppress(OSError):  # another is at work, or the file system has no such locks
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if first:
            _remove_dead_locks(folder / "locks", file)
    with suppress(OSError):
        fcntl.flock(file, fcntl.LOCK_SH)


def _remove_dead_locks(folder: Path, at_work: IO[str]) -> None:
    """``at_work`` names the machine of the last run: another machine's is not seen where a file system keeps locks to each machine."""
    here = socket.gethostname()
    at_work.seek(0)
    if at_work.read() == here:
        for lock in folder.glob("*.lock"):
            lock.unlink(missing_ok=True)
    elif not any(folder.glob("*.lock")):
        at_work.truncate(0)
        at_work.write(here)
        at_work.flush()


_held: list[IO[str]] = []  # until the process ends
