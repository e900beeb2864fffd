"""Sources: the user's files, hub data sets and the task generator, all read into examples.

A bad row stops the run with the file, the row and the column, since a silently dropped row is a changed experiment.
"""

import codecs
import gzip
import io
import json
import random
import zlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import polars as pl
from pydantic import ValidationError

from swift_study import generator
from swift_study.config import BaseData, Column, Columns, FileSource, GeneratorSource, HubSource, Panel, Records, Source
from swift_study.duplicates import nearest
from swift_study.errors import UserError
from swift_study.examples import Example, KeyPoint, Message
from swift_study.patterns import DOTALL, remove, search


def read_source(source: Source) -> list[Example]:
    match source:
        case GeneratorSource():
            families = source.families if source.families is not None else list(generator.FAMILIES)
            try:
                return [e for f in families for e in generator.generate(f, source.per_family, source.seed)]
            except ValueError as error:
                raise UserError(f"The task generator cannot do what its source asks for: {error}") from error
        case FileSource():
            return _examples(file_rows(source), source, _where(source))
        case HubSource():
            return _examples(_hub_rows(source), source, _where(source))


def _where(source: Source) -> str:
    match source:
        case GeneratorSource():
            return f"generator (seed {source.seed})"
        case FileSource():
            return source.path
        case HubSource():
            return f"hub data set {source.id}"


def read_sources(sources: Sequence[Source]) -> list[Example]:
    examples = []
    first: dict[str, str] = {}
    for source in sources:
        for number, example in enumerate(read_source(source), 1):
            place = f"{_where(source)}, row {number}"
            if example.example_id in first:
                raise UserError(
                    f"{first[example.example_id]} and {place} are the same example (task {example.task!r}, "
                    f"query {example.query[:80]!r}). Remove one of them, or give generator sources different seeds."
                )
            first[example.example_id] = place
            examples.append(example)
    return examples


def file_rows(source: FileSource) -> list[dict[str, Any]]:
    """The rows of a file by its columns' names. UserError, with the row where there is one, if it cannot be read."""
    path = Path(source.path)
    if not path.is_file():
        raise UserError(f"{path}: there is no such file; it is named as a source in the configuration.")
    name = path.name.removesuffix(".gz")
    raw = path.read_bytes()
    if path.suffix == ".gz":
        try:
            raw = gzip.decompress(raw)
        except (EOFError, OSError, zlib.error) as error:
            raise UserError(f"{path}: this is not a whole gzip file ({error}).") from error
    raw = raw.removeprefix(codecs.BOM_UTF8)
    if name.endswith(".parquet"):
        try:
            return pl.read_parquet(io.BytesIO(raw)).to_dicts()
        except (pl.exceptions.PolarsError, OSError) as error:
            raise UserError(f"{path}: this is not a whole Parquet file ({str(error).splitlines()[0]}).") from error
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        row = raw.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{path}, row {row}: byte {error.object[error.start]:#04x} is not UTF-8. Convert the file, for example with "
            f"iconv -f latin1 -t utf-8 {path}."
        ) from error
    if name.endswith((".jsonl", ".json")):
        rows = []
        for number, line in enumerate(text.split("\n"), 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:  # not JSON, a number of too many digits, or nested too deeply
                raise UserError(f"{path}, row {number}: this line is not JSON ({error}). JSONL has one object a line.") from error
            if not isinstance(row, dict):
                raise UserError(f"{path}, row {number}: this line is not a JSON object, but {type(row).__name__}.")
            rows.append(row)
        return rows
    if name.endswith((".tsv", ".csv")):
        tab = name.endswith(".tsv")
        try:
            frame = pl.read_csv(
                io.StringIO(text),
                separator="\t" if tab else ",",
                quote_char=None if tab else '"',
                has_header=source.names is None,
                new_columns=source.names,
                infer_schema=False,
            )
        except pl.exceptions.PolarsError as error:
            raise UserError(f"{path}: this is not a table of equal rows ({str(error).splitlines()[0]}).") from error
        rows = frame.to_dicts()
        if source.unescape_newlines:
            rows = [{k: v.replace("\\n", "\n") if v is not None else None for k, v in row.items()} for row in rows]
        return rows
    raise UserError(f"{path}: what format is this? Known are .jsonl, .parquet, .csv and .tsv, also with .gz.")


def _hub_rows(source: HubSource) -> list[dict[str, Any]]:
    import datasets

    try:
        rows = datasets.load_dataset(source.id, source.config, split=source.split, revision=source.revision)
        return [dict(row) for row in (rows.select(range(min(source.limit, len(rows)))) if source.limit else rows)]
    except Exception as error:  # the library raises many kinds: network, missing id, missing split
        raise UserError(
            f"The hub data set {source.id!r} (configuration {source.config!r}, split {source.split!r}) could not be loaded: "
            f"{str(error).splitlines()[0]} Check the id, and that this machine reaches the hub; or name a local file instead."
        ) from error


def _examples(rows: list[dict[str, Any]], source: Records, where: str) -> list[Example]:
    if not rows:
        raise UserError(f"{where}: there are no rows; a source must hold at least one example.")
    columns = source.columns or _columns_by_name(rows[0], where)
    for column in _column_names(columns, where):
        if column not in rows[0]:
            raise UserError(
                f"{where}: there is no column '{column}'; the first row has {', '.join(map(repr, rows[0]))}. "
                "Name the right ones under `columns` of this source."
            )
    return [_example(row, columns, source, f"{where}, row {number}") for number, row in enumerate(rows[: source.limit], 1)]


def _columns_by_name(row: dict[str, Any], where: str) -> Columns:
    """The columns that have the names of what they hold."""
    has = {name: name for name in ("rationale", "requirements", "task") if name in row}
    if "messages" in row:
        return Columns(messages="messages", **has)
    if "prompt" in row and "completion" in row:
        return Columns(prompt="prompt", completion="completion", **has)
    raise UserError(
        f"{where}: there is neither a column 'messages' nor 'prompt' and 'completion'; the first row has "
        f"{', '.join(map(repr, row))}. Name the right ones under `columns` of this source."
    )


def _column_names(columns: Columns, where: str) -> list[str]:
    if columns.messages is None and (columns.prompt is None or columns.completion is None):
        raise UserError(f"{where}: `columns` of this source needs `messages`, or `prompt` and `completion`.")
    named = [columns.messages] if columns.messages else [columns.prompt, columns.completion]
    named += [columns.rationale, columns.requirements, columns.task]
    return [c.column if isinstance(c, Column) else c for c in named if c is not None]


def _example(row: dict[str, Any], columns: Columns, source: Records, where: str) -> Example:
    fields: dict[str, Any] = {name: row[name] for name in ("key_points", "golden", "unsatisfactory") if row.get(name) is not None}
    if columns.messages:
        fields["messages"] = row.get(columns.messages)
    else:
        prompt, completion = _text(row, columns.prompt, where), _text(row, columns.completion, where)
        if not prompt:
            raise UserError(f"{where}, column {_name(columns.prompt)}: the example has no query; the field is empty.")
        if not completion:
            raise UserError(f"{where}, column {_name(columns.completion)}: the example has no completion; the field is empty.")
        fields["messages"] = [Message(role="user", content=prompt), Message(role="assistant", content=completion)]
        fields.setdefault("golden", completion)
    if columns.rationale:
        fields["rationale"] = _text(row, columns.rationale, where) or None
    if columns.requirements and row.get(columns.requirements) is not None:
        fields["requirements"] = row[columns.requirements]
    task = row.get(columns.task) if columns.task else source.task
    if not task:
        raise UserError(f"{where}: the example has no task. Set `task` or `columns.task` of this source.")
    try:
        example = Example(task=str(task), **fields)
        if source.check and not example.key_points:
            point = KeyPoint(text=f"The answer is {example.completion}.", check=source.check, value=example.completion)
            example = example.model_copy(update={"key_points": [point]})
        return example
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        column = ".".join(map(str, problem["loc"]))
        raise UserError(f"{where}{f', column {column}' if column else ''}: {problem['msg'].removeprefix('Value error, ')}.") from error


def _name(column: str | Column | None) -> str:
    return column.column if isinstance(column, Column) else str(column)


def _text(row: dict[str, Any], column: str | Column | None, where: str) -> str:
    value = row.get(_name(column))
    if isinstance(value, list | dict):
        raise UserError(f"{where}, column {_name(column)}: expected text, found a {type(value).__name__}.")
    text = "" if value is None else str(value)
    if isinstance(column, Column):
        if column.pattern:
            match = search(column.pattern, text, DOTALL, f"{where}, column {column.column}")
            if match is None or match.group(1) is None:
                raise UserError(f"{where}, column {column.column}: the pattern {column.pattern!r} does not match {text[:80]!r}.")
            text = match.group(1)
        if column.remove:
            text = remove(column.remove, text, DOTALL, f"{where}, column {column.column}")
    return text.strip()


def split_panel(examples: Iterable[Example], panel: Panel) -> tuple[list[Example], list[Example]]:
    """The examples that are used (the first ``per_task`` of each task) and their analogues (those after them), in order."""
    by_task: dict[str, list[Example]] = defaultdict(list)
    for example in examples:
        by_task[example.task].append(example)
    if panel.tasks is not None:
        missing = [task for task in panel.tasks if task not in by_task]
        if missing:
            raise UserError(f"The sources have no task {missing[0]!r}; they have {', '.join(by_task)}.")
        by_task = {task: by_task[task] for task in panel.tasks}
    used, analogues = [], []
    for task, members in by_task.items():
        n = panel.per_task or max(1, len(members) // 2)
        if len(members) < 2 * n:
            raise UserError(
                f"Task {task!r} has {len(members)} example{'s' * (len(members) != 1)}, but {2 * n} are needed: "
                f"{n} to use and as many analogues. Add examples, lower `per_task`, or leave the task out by `tasks`."
            )
        used += members[:n]
        analogues += members[n:]
    return used, analogues


def without_near_duplicates(
    examples: Sequence[Example], others: Sequence[Example], near_duplicate: float
) -> tuple[list[Example], list[Example]]:
    """The examples whose query is not (nearly) a query of ``others``, and those whose is."""
    similarity, _ = nearest([e.query for e in examples], [e.query for e in others])
    near = [s >= near_duplicate for s in similarity]
    return [e for e, n in zip(examples, near, strict=True) if not n], [e for e, n in zip(examples, near, strict=True) if n]


def draw_base(
    examples: list[Example], probes: Sequence[Example], base: BaseData, near_duplicate: float, seed: int
) -> tuple[list[Example], dict[str, int]]:
    """The base dataset: without probes and their near-duplicates, ``base.examples`` drawn at random.

    Returns the examples and the counts: ``pool``, ``same_as_probe``, ``near_duplicates``, ``drawn``.
    """
    ids = {probe.example_id for probe in probes}
    queries = {probe.query for probe in probes}
    similarity, _ = nearest([e.query for e in examples], sorted(queries))
    same = [e.example_id in ids or e.query in queries for e in examples]
    near = [s >= near_duplicate and not exact for s, exact in zip(similarity, same, strict=True)]
    kept = [e for e, s, n in zip(examples, same, near, strict=True) if not s and not n]
    if len(kept) < base.examples:
        raise UserError(
            f"The base data needs {base.examples} examples (data.base.examples), but the sources give {len(examples)}, of which "
            f"{sum(same)} are probes and {sum(near)} near-duplicates of probes: {len(kept)} are left. Add sources, raise "
            "`per_family`, or lower `data.base.examples`."
        )
    drawn = random.Random(seed).sample(kept, base.examples)
    counts = {"pool": len(examples), "same_as_probe": sum(same), "near_duplicates": sum(near), "drawn": len(drawn)}
    return drawn, counts


def find_leaks(probes: Sequence[Example], base: Sequence[Example], near_duplicate: float) -> list[str]:
    """One sentence for every probe whose query is, or nearly is, a query of the base data."""
    similarity, index = nearest([p.query for p in probes], [b.query for b in base])
    return [
        f"probe {probe.example_id} (task {probe.task!r}, {probe.query[:60]!r}) is in the base data as "
        f"{base[i].example_id} (similarity {s:.2f})"
        for probe, s, i in zip(probes, similarity, index, strict=True)
        if s >= near_duplicate
    ]
