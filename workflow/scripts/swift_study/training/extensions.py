"""C++ extensions that PyTorch compiles when they are first used, such as DeepSpeed's: one process at a time, and a kill leaves no lock."""

from typing import Any

import torch.utils.cpp_extension
from filelock import FileLock


class Turn:
    """In place of PyTorch's baton. That is a file whose existence is the lock: a killed process leaves it behind, and all later ones
    wait for ever. This lock ends with its process. Each process has its turn; the second one finds the extension compiled."""

    def __init__(self, path: str, *_: Any, **__: Any) -> None:
        self._lock = FileLock(f"{path}.turn")

    def try_acquire(self) -> bool:
        self._lock.acquire()
        return True

    def release(self) -> None:
        self._lock.release()

    def wait(self) -> None:
        raise AssertionError("nobody waits: each process has its turn")


def compile_in_turns() -> None:
    torch.utils.cpp_extension.FileBaton = Turn  # type: ignore[assignment, attr-defined]
