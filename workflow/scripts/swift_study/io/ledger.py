"""What was sent to a server and may have been charged for, although no reply to it is in the cache.

A line is written before a request is sent, with the most tokens that the request can cost, and another one once it is known that
the request cost nothing or that its reply is in the cache. A request without the second line was lost: its process was killed, or the
reply did not arrive. Each call of ``ask`` writes a file of its own, so that several may run at once, and removes it where nothing was lost.
"""

import contextlib
import json
import os
import uuid
from collections.abc import Container, Iterator
from pathlib import Path


class Ledger:
    """The file of one call. Raises OSError where it cannot be written."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / f"{uuid.uuid4().hex}.jsonl"
        self.file: int | None = None
        self.number = 0
        self.open: set[int] = set()

    def reserve(self, request: str, prompt_tokens: int, completion_tokens: int) -> int:
        """Note a request before it is sent; the number is for ``settle``."""
        self.number += 1
        number = self.number
        self._write({"number": number, "request": request, "prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens})
        self.open.add(number)
        return number

    def settle(self, number: int) -> None:
        """The request was not charged for, or its reply is in the cache."""
        self._write({"settled": number})
        self.open.remove(number)

    def close(self) -> None:
        if self.file is not None:
            os.close(self.file)
            self.file = None
            if not self.open:
                self.path.unlink(missing_ok=True)

    def _write(self, row: dict[str, int | str]) -> None:
        if self.file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        line = (json.dumps(row) + "\n").encode()
        if os.write(self.file, line) < len(line):
            raise OSError("there is no room")


def lost(folder: Path, requests: Container[str]) -> Iterator[tuple[int, int]]:
    """The most prompt and completion tokens of each lost request among ``requests``. A line that was cut short was never sent."""
    for path in sorted(folder.glob("*.jsonl")):
        with contextlib.suppress(FileNotFoundError):  # another call ended well just now
            rows: list[dict[str, int | str]] = []
            for line in path.read_bytes().splitlines():
                with contextlib.suppress(ValueError):
                    rows += [row] if isinstance(row := json.loads(line), dict) else []
            settled = {row["settled"] for row in rows if "settled" in row}
            for row in rows:
                if row.get("request") in requests and row.get("number") not in settled:
                    yield int(row["prompt_tokens"]), int(row["completion_tokens"])
