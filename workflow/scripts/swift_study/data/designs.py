"""A design renders records as queries and completions, and reads responses back. It is one file, ``designs/<name>.py``:

- ``render(record, options)``: the query and the completion of a record, as ``Rendered``. Raises ``Rejected`` with the reason where the form
  cannot hold the record: the example is then left out and counted.
- ``parse(response, record, options)``: the fields of the record that a response states. Raises ``Rejected`` with the reason where it cannot
  be read. Of a rendered completion it gives the record's own values: parse(render(x)) = x.

A record is an object of JSON. The record of an example that has none is its own prompt and completion.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from pydantic import ValidationError

from swift_study.data.strategies import Reject
from swift_study.errors import Rejected, UserError
from swift_study.examples import Example, Message
from swift_study.io.user_files import UserFile, broken_rules, load_functions

FUNCTIONS = ("render", "parse")
REMEDY = "Mend the function, or raise Rejected with the reason."
Record = dict[str, Any]


class Value(str):
    """A part of a completion that carries the answer: a label, a name. Other parts are format."""


@dataclass(frozen=True)
class Rendered:
    """A query and its completion, in parts. ``loss_on: values`` puts the loss on the parts that are a ``Value``."""

    query: str
    parts: Sequence[str]
    system: str | None = None

    @property
    def completion(self) -> str:
        return "".join(self.parts)

    @property
    def value_spans(self) -> list[tuple[int, int]]:
        """The positions of the values' characters in the completion."""
        spans, at = [], 0
        for part in self.parts:
            if isinstance(part, Value) and part:
                spans.append((at, at + len(part)))
            at += len(part)
        return spans


@dataclass(frozen=True)
class DesignFile(UserFile):
    """A design file's two functions."""

    def render(self, record: Record, options: Mapping[str, Any]) -> Rendered:
        """Raises Rejected where the record cannot be rendered."""
        made = self.call("render", _about(record), REMEDY, record, options)
        if type(made) is not Rendered or not all(isinstance(part, str) for part in made.parts):
            what = f"returned {type(made).__name__}"
            raise self.wrong("render", _about(record), what, "Return Rendered(query, parts) with parts of text.")
        return made

    def parse(self, response: str, record: Record, options: Mapping[str, Any]) -> Record:
        """Raises Rejected where the response cannot be read."""
        found = self.call("parse", _about(record), REMEDY, response, record, options)
        if not isinstance(found, dict):
            raise self.wrong("parse", _about(record), f"returned {type(found).__name__}", "Return a dict of the record's fields.")
        return found


def _about(record: Record) -> str:
    return f"the record {json.dumps(record, ensure_ascii=False, default=str)[:80]}"


def load_design(path: Path) -> DesignFile:
    """Import a design file. UserError if it is missing, does not run, or lacks one of the two functions."""
    return DesignFile(path, load_functions(path, "design", "designs", "docs/data.md", FUNCTIONS))


def record_of(example: Example) -> Record:
    """The record that a design renders; without one the example's own prompt and completion."""
    if example.record is None:
        return {"prompt": example.query, "completion": example.completion}
    return cast(Record, json.loads(example.record))


def apply_design(
    design: DesignFile, options: Mapping[str, Any], examples: Sequence[Example], dataset: str
) -> tuple[list[Example], list[Reject]]:
    """The examples in this design, in their order, and those that it cannot render. UserError where it can render none."""
    made: list[Example] = []
    rejects: list[Reject] = []
    for example in examples:
        try:
            made.append(_formed(example, design, options, dataset.rpartition(".")[2]))
        except (Rejected, ValidationError) as error:
            why = broken_rules(error) if isinstance(error, ValidationError) else str(error)
            rejects.append(Reject(dataset, example.task, example.example_id, why, 1, None))
    if not made:
        first = f"the example {examples[0].example_id}{f' ({examples[0].source})' if examples[0].source else ''}" if examples else "none"
        reasons = "; ".join(sorted({reject.reason for reject in rejects})[:3])
        raise UserError(
            f"{dataset}: {design.path} can render none of the {len(examples)} examples, the first being {first}. Reasons: {reasons}. "
            "Mend the records, the design, or its options."
        )
    return made, rejects


def _formed(example: Example, design: DesignFile, options: Mapping[str, Any], name: str) -> Example:
    record = record_of(example)
    rendered = design.render(record, options)
    golden = rendered.completion if example.golden in (None, example.completion) else example.golden
    form = example.derive(
        name, rendered.query, rendered.completion, golden=golden, record=json.dumps(record, ensure_ascii=False),
        value_spans=rendered.value_spans,
    )  # fmt: skip
    if rendered.system is None:
        return form
    messages = [m for m in form.messages if m.role != "system"]
    return form.model_copy(update={"messages": [Message(role="system", content=rendered.system), *messages]})
