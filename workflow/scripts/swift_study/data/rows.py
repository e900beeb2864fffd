"""Rows: what stands in the user's files and in hub data sets, by the columns' names, the same whatever the format.

Nothing is lost without a word: a file that is cut, a row of another length, a column or a key that stands there twice is a sentence
with the file and the row.
"""

import csv
import gzip
import io
import json
import re
import sys
import zlib
from collections.abc import Iterable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from swift_study.config import FileSource, HubSource
from swift_study.errors import UserError

Row = dict[str, Any]
Rows = list[tuple[int, Row]]  # each row with its number: the line of a JSONL file, else its place below the header, from 1


def file_rows(source: FileSource) -> Rows:
    """The rows of a file by its columns' names, each with its number.

    Values mean the same in every format: NaN is None, bytes in UTF-8 are text, and floats of a column in which every float is
    whole are integers. UserError, with the row where there is one, if the file cannot be read.
    """
    path = Path(source.path)
    if not path.is_file():
        raise UserError(f"{path}: there is no such file; it is named as a source in the configuration.")
    name = path.name.removesuffix(".gz")
    raw = path.read_bytes()
    if path.suffix == ".gz" or raw.startswith(b"\x1f\x8b"):
        try:
            raw = gzip.decompress(raw)
        except (EOFError, OSError, zlib.error) as error:
            raise UserError(f"{path}: this is not a whole gzip file ({error}).") from error
    if name.endswith(".parquet"):
        return _parquet_rows(path, raw)
    text = _decoded(path, raw)
    if name.endswith((".jsonl", ".json")):
        return _plain(_array_rows(path, text) if text.lstrip().startswith("[") else _line_rows(path, text))
    if name.endswith((".tsv", ".csv")):
        return _delimited_rows(path, text, source)
    raise UserError(f"{path}: what format is this? Known are .jsonl, .parquet, .csv and .tsv, also with .gz, and .json.")


def _decoded(path: Path, raw: bytes) -> str:
    """The text of a file in UTF-8, or in UTF-16 or UTF-32 as its byte-order mark or the zero bytes of its first characters tell."""
    encoding = json.detect_encoding(raw)
    convert = "gzip -dc {1} | iconv -f {0} -t utf-8" if path.suffix == ".gz" else "iconv -f {0} -t utf-8 {1}"
    if encoding.startswith("utf-8") and b"\0" in raw:
        row = raw.count(b"\n", 0, raw.index(b"\0")) + 1
        guess = "utf-16le" if raw[1::2].count(0) >= raw[::2].count(0) else "utf-16be"
        raise UserError(
            f"{path}, row {row}: a zero byte is no text in UTF-8; the file seems to be UTF-16 without a byte-order mark. "
            f"Convert it, for example with {convert.format(guess, path)}."
        )
    try:
        return raw.decode(encoding)
    except UnicodeDecodeError as error:
        row = error.object[: error.start].decode(encoding, "ignore").count("\n") + 1
        if not encoding.startswith("utf-8"):
            raise UserError(
                f"{path}, row {row}: by its first bytes the file is {encoding.upper()}, but here it is not ({error.reason}). "
                "It is cut or damaged; write it again, best in UTF-8."
            ) from error
        raise UserError(
            f"{path}, row {row}: byte {error.object[error.start]:#04x} is not UTF-8. Convert the file, for example with "
            f"{convert.format('latin1', path)} where latin1 is its encoding."
        ) from error


def _parquet_rows(path: Path, raw: bytes) -> Rows:
    try:
        frame = pl.read_parquet(io.BytesIO(raw))
    except pl.exceptions.DuplicateError as error:
        raise UserError(f"{path}: two columns have the same name ({str(error).splitlines()[0]}). Rename one of them.") from error
    except (pl.exceptions.PolarsError, OSError) as error:
        raise UserError(f"{path}: this is not a whole Parquet file ({str(error).splitlines()[0]}).") from error
    single = {column for column, dtype in frame.schema.items() if dtype in (pl.Float32, pl.Float16)}
    return _plain(enumerate(frame.iter_rows(named=True), 1), single)


def _line_rows(path: Path, text: str) -> Iterator[tuple[int, Row]]:
    """The objects of a JSONL file, one a line; blank lines count."""
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        row, end = _object(line, _next(line, 0), f"{path}, row {number}: this line")
        if line[end:].strip():
            raise UserError(f"{path}, row {number}: this line is not JSON (more follows after column {end}). JSONL has one object a line.")
        yield number, row


def _array_rows(path: Path, text: str) -> Iterator[tuple[int, Row]]:
    """The objects of a JSON array."""
    number, at = 0, _next(text, text.index("[") + 1)
    closed = text.startswith("]", at)
    while not closed:
        number += 1
        row, end = _object(text, at, f"{path}, row {number}: this element of the array")
        yield number, row
        at = _next(text, end)
        closed = text.startswith("]", at)
        if not closed and not text.startswith(",", at):
            raise UserError(f"{path}, row {number}: a comma or the end of the array is missing behind it. The file is cut or damaged.")
        at = at if closed else _next(text, at + 1)
    if text[at + 1 :].strip():
        raise UserError(f"{path}: more follows after the JSON array's end. A file is one array of objects, or has one object a line.")


def _next(text: str, at: int) -> int:
    """The position of the next character that is not white space."""
    space = _SPACE.match(text, at)
    return space.end() if space else at


def _object(text: str, at: int, what: str) -> tuple[Row, int]:
    """The JSON object at a position of a text, and the position behind it."""
    try:
        value, end = _DECODER.raw_decode(text, at)
    except UserError as error:
        raise UserError(f"{what} {error}") from error
    except (ValueError, RecursionError) as error:  # not JSON, a number of too many digits, or nested too deeply
        raise UserError(f"{what} is not JSON ({error}). JSONL has one object a line; a file may also be one array of objects.") from error
    if not isinstance(value, dict):
        raise UserError(f"{what} is not a JSON object, but {type(value).__name__}.")
    return value, end


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(f"has the key {twice!r} twice in one object. Remove one of them.")
    return found


_SPACE = re.compile(r"\s*")
_DECODER = json.JSONDecoder(object_pairs_hook=_unique)


def _delimited_rows(path: Path, text: str, source: FileSource) -> Rows:
    """The rows of a CSV file (RFC 4180), or of a TSV file, in which quotation marks mean nothing. Blank lines count, below the header."""
    tab = path.name.removesuffix(".gz").endswith(".tsv")
    lines = _tab_cells(text) if tab else _csv_cells(path, text, source.names is None)
    names = source.names if source.names is not None else next(lines, None)
    if not names:
        raise UserError(f"{path}: this is an empty {'TSV' if tab else 'CSV'} file, or its first line is blank; it should name the columns.")
    if twice := [name for name in names if names.count(name) > 1]:
        raise UserError(
            f"{path}: two columns have the name {twice[0]!r}. Rename one of them, or give all names under `names` of this source if "
            "the file has no header line."
        )
    rows = []
    for number, cells in enumerate(lines, 1):
        if cells in ([], [""]):
            continue
        if len(cells) != len(names):
            raise UserError(
                f"{path}, row {number}: this is not a table of equal rows; this row has {len(cells)} cells, but there are {len(names)} "
                f"columns: {', '.join(map(repr, names))}."
            )
        rows.append((number, dict(zip(names, cells, strict=True))))
    for name in names:
        # Other programs write an integer column with gaps as 8.0, 6.0, …; a cell has no type that would tell.
        filled = [row for _, row in rows if row[name].strip()]
        if filled and all(re.fullmatch(r"\s*-?\d+\.0\s*", row[name]) for row in filled):
            for row in filled:
                row[name] = row[name].strip().removesuffix(".0")
    if source.unescape_newlines:
        rows = [(number, {k: v.replace("\\n", "\n") for k, v in row.items()}) for number, row in rows]
    return rows


def _tab_cells(text: str) -> Iterator[list[str]]:
    return (line.removesuffix("\r").split("\t") for line in text.split("\n")) if text else iter(())


def _csv_cells(path: Path, text: str, has_header: bool) -> Iterator[list[str]]:
    csv.field_size_limit(sys.maxsize)
    number = 0 if has_header else 1
    try:
        for cells in csv.reader(io.StringIO(text, newline=""), strict=True):
            yield cells
            number += 1
    except csv.Error as error:
        place = f"row {number}" if number else "header"
        raise UserError(
            f"{path}, {place}: this is not a table of equal rows; a quotation mark is not closed, or text follows a closed one ({error})."
        ) from error


def hub_rows(source: HubSource) -> Rows:
    import datasets

    try:
        rows = datasets.load_dataset(source.id, source.config, split=source.split, revision=source.revision)
        types = {column: str(getattr(feature, "dtype", "")) for column, feature in rows.features.items()}
        # As in a file, a limit changes no value: the column is looked at from end to end.
        whole = {column for column, dtype in types.items() if dtype.startswith(("float", "decimal")) and _is_whole(rows[column])}
        read = rows.select(range(min(source.limit, len(rows)))) if source.limit else rows
        numbered = [(number, dict(row)) for number, row in enumerate(read, 1)]
    except Exception as error:  # the library raises many kinds: network, missing id, missing split
        raise UserError(
            f"The hub data set {source.id!r} (configuration {source.config!r}, split {source.split!r}) could not be loaded: "
            f"{str(error).splitlines()[0]} Check the id, and that this machine reaches the hub; or name a local file instead."
        ) from error
    return _plain(numbered, {column for column, dtype in types.items() if dtype in ("float32", "float16")}, whole)


def _plain(rows: Iterable[tuple[int, Row]], single: Iterable[str] = (), whole: Iterable[str] | None = None) -> Rows:
    """The rows with values that mean the same whatever they were stored as; see ``file_rows``.

    ``single``: columns of 32-bit floats, whose 0.1 is not 0.10000000149011612. ``whole``: columns whose floats are integers, where
    not all of their rows are given.
    """
    found = [(number, {column: _value(value) for column, value in row.items()}) for number, row in rows]
    columns = dict.fromkeys(column for _, row in found for column in row)
    if whole is None:
        whole = [column for column in columns if _is_whole(row.get(column) for _, row in found)]
    for column, convert in [(c, int) for c in whole] + [(c, _shortest) for c in single if c not in whole]:
        for _, row in found:
            if isinstance(row.get(column), float | Decimal):
                row[column] = convert(row[column])
    return found


def _value(value: Any) -> Any:
    match value:
        case float() if value != value:  # noqa: PLR0124 - NaN
            return None
        case bytes():
            try:
                return value.decode()
            except UnicodeDecodeError:
                return value  # a picture, for example; an error only where it is read as text
        case list():
            return [_value(v) for v in value]
        case dict():
            return {k: _value(v) for k, v in value.items()}
    return value


def _is_whole(values: Iterable[Any]) -> bool:
    """Whether there are floats among the values and all of them are integers (below 2^53, where floats hold each of them)."""
    numbers: list[Any] = [v for v in values if isinstance(v, float | Decimal) and v == v]  # noqa: PLR0124 - NaN
    return bool(numbers) and all(abs(v) < 2**53 and v == int(v) for v in numbers)


def _shortest(value: float | Decimal) -> float:
    return float(str(np.float32(value)))
