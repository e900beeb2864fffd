"""JSON lines that grow while work is done, so that a killed job goes on with what is missing."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from swift_study.io.work import publish, writing_to


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects written so far. A line that was cut short is taken off the file, with what follows it."""
    if not path.is_file():
        return []
    found: list[dict[str, Any]] = []
    whole = 0  # bytes of the lines that are whole
    with path.open("rb") as stream:
        for line in stream:
            try:
                found.append(dict(json.loads(line)))
            except (ValueError, TypeError):
                break
            if not line.endswith(b"\n"):
                found.pop()
                break
            whole += len(line)
    if whole < path.stat().st_size:
        with path.open("r+b") as stream:
            stream.truncate(whole)
    return found


def append_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write the objects in one go, one a line; floats keep every bit."""
    with writing_to(path), path.open("ab") as stream:
        stream.write(_encode(rows))


def replace_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a file of just these objects in the place of the one that is there; a kill leaves the one or the other."""
    with publish(path) as part:
        part.write_bytes(_encode(rows))


def _encode(rows: Iterable[Mapping[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()
