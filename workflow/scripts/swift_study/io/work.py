"""Nothing half-written is ever seen: files and folders are made beside their place and renamed into it."""

import errno
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from swift_study.errors import UserError


@contextmanager
def publish(path: Path) -> Iterator[Path]:
    """Give a temporary path beside ``path``; what was written there (a file or a folder) is renamed to ``path`` at the end.

    After an error nothing is left behind. A full disk is a UserError that names the place and the space.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    remove(part)
    try:
        with writing_to(path):
            yield part
            if path.is_dir():
                path.rename(_aside(path))
            os.replace(part, path)
    finally:
        remove(part)  # after an error; or if both were hard links to one file, which replace leaves as they are
        _aside(path)


@contextmanager
def writing_to(path: Path) -> Iterator[None]:
    """Turns the many errors by which libraries say that the disk is full into one UserError that names ``path``."""
    try:
        yield
    except Exception as error:
        if not _tells_a_full_disk(error, path.parent):
            raise
        free = shutil.disk_usage(path.parent).free / 1e9
        raise UserError(full_disk(f"{path}", f" ({free:.1f} GB free)")) from error


def full_disk(file: str, free: str = "") -> str:
    """The sentence for people."""
    return (
        f"{file} could not be written: no space is left on the disk{free}. Make room and run the same "
        "command again; finished steps are kept in the work folder and are not computed again."
    )


def says_no_space(error: Exception) -> bool:
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def _tells_a_full_disk(error: Exception, folder: Path) -> bool:
    """Not every library keeps the error number: some keep only its text, and torch not even that."""
    if isinstance(error, OSError) and error.errno is not None:
        return says_no_space(error)
    if isinstance(error, UserError):
        return False
    return os.strerror(errno.ENOSPC) in str(error) or shutil.disk_usage(folder).free < 1 << 16


def remove(path: Path) -> None:
    """Remove a file, or a folder in one go: it gets another name first, so that a kill leaves it whole or not at all.

    What a kill left under that name is removed with the next file or folder of the same name.
    """
    aside = _aside(path)
    if path.is_dir() and not path.is_symlink():
        path.rename(aside)
        shutil.rmtree(aside)
    else:
        path.unlink(missing_ok=True)


def _aside(path: Path) -> Path:
    """The name, free now, that a folder has while it is removed."""
    aside = path.with_name(f"{path.name}.gone")
    if aside.exists():
        shutil.rmtree(aside)
    return aside


def copy_tree(source: Path, target: Path) -> None:
    """Publish a folder as hard links to its files where the file system has them, else as copies. The source stays."""
    with publish(target) as part:
        shutil.copytree(source, part, copy_function=_link_or_copy)


def copy_file(source: Path, target: Path) -> None:
    """Publish one file in the same way."""
    with publish(target) as part:
        _link_or_copy(str(source), str(part))


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def fingerprint(*parts: object) -> str:
    """16 hexadecimal digits that tell one piece of work from another: a hash of everything that determines it."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def hash_files(*paths: Path) -> str:
    """One hash of the files' names and bytes; folders count with all files below them."""
    digest = hashlib.blake2b(digest_size=16)
    for path in paths:
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file():
                digest.update(file.name.encode())
                with file.open("rb") as stream:
                    while block := stream.read(1 << 22):
                        digest.update(block)
    return digest.hexdigest()


def work_folder(root: Path, key: str) -> Path:
    """The folder in which unfinished work is kept, for this key only: work on something else is cleared away first.

    UserError if another process is at work there: a worker can outlive the job that started it.
    """
    root.mkdir(parents=True, exist_ok=True)
    if root not in _locks:
        _locks[root] = _lock(root)
    for other in root.iterdir():
        if other.name not in (key, "lock"):
            remove(other)
    folder = root / key
    folder.mkdir(exist_ok=True)
    return folder


def _lock(root: Path) -> IO[str]:
    file = (root / "lock").open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        raise UserError(
            f"{root}: another process (pid {file.read().strip() or 'unknown'}) is still at work there. Wait until it has ended, or "
            "end it; then run the same command again."
        ) from None
    file.truncate(0)
    print(os.getpid(), file=file, flush=True)
    return file


_locks: dict[Path, IO[str]] = {}  # held until the process ends
