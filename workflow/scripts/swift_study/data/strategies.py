"""A strategy makes one example into another. It is one file, ``strategies/<name>.py``, with three functions:

- ``from_fields(example, analogue)``: the new example, or a list of several, from the example's own fields, without any model.
  ``analogue`` is another example of the same task where there is one, else None.
- ``prompt(example)``: the messages for a teacher.
- ``from_reply(example, reply)``: the new example, or a list, from the teacher's reply, without its reasoning block. The reply is
  data: text to check and to put in place.

A function that has the parameter ``options`` gets the strategy's options by it, and one that has ``parent`` the example that the example
was made from (None where there is none).

They raise ``Rejected`` with the reason where the result would not be acceptable, or the example lacks what it takes. Any other
exception, and any other result, is the file's fault and stops the job with a sentence.
"""

import inspect
import json
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from swift_study.config import FileSource, Strategy
from swift_study.data.rows import file_rows
from swift_study.errors import Rejected, UserError
from swift_study.examples import Example, KeyPoint, Message, as_number, fold, occurs
from swift_study.io.endpoint import Account, EndpointSettings, Failure, ask
from swift_study.io.replies import whole_text, without_reasoning
from swift_study.io.user_files import UserFile, broken_rules, described, load_functions, short
from swift_study.numerals import Number, tokens

FUNCTIONS = ("from_fields", "prompt", "from_reply")


@dataclass(frozen=True)
class StrategyFile(UserFile):
    """A strategy file's three functions."""

    options: Mapping[str, Any] = field(default_factory=dict)
    parents: Mapping[str, Example] = field(default_factory=dict)
    """By id the examples that the strategy's own parents were made from."""

    def from_fields(self, example: Example, analogue: Example | None) -> Example | list[Example]:
        """Raises Rejected where the example cannot be made, also where the result breaks the rules of an example."""
        return self._checked("from_fields", example, self._call("from_fields", example, analogue))

    def prompt(self, example: Example) -> list[Message]:
        """Raises Rejected where the example has not what the teacher must be told."""
        messages = self._call("prompt", example)
        if isinstance(messages, list | tuple) and messages and all(type(m) is Message for m in messages):
            return list(messages)
        remedy = "Return a list of Message, as `user(text)` makes it."
        raise self.wrong("prompt", _about(example), f"returned {_described(messages)}", remedy)

    def from_reply(self, example: Example, reply: str) -> Example | list[Example]:
        """Raises Rejected where the reply breaks the acceptance rule, also where the result breaks the rules of an example."""
        return self._checked("from_reply", example, self._call("from_reply", example, reply))

    def _call(self, name: str, example: Example, *arguments: object) -> Any:
        function = self.functions[name]
        offered = {"options": dict(self.options), "parent": self.parents.get(example.parent_id or "")}
        extra = {key: value for key, value in offered.items() if key in _parameters(function)}
        remedy = "Mend the function, or raise Rejected with the reason where the example cannot be made."
        return self.call(name, _about(example), remedy, example, *arguments, **extra)

    def _checked(self, name: str, example: Example, made: object) -> Example | list[Example]:
        several: list[Any] = made if isinstance(made, list) and made else [made]
        for one in several:
            if type(one) is not Example:
                remedy = "Return an Example, as `example.derive(…)` makes it, or a list of them."
                raise self.wrong(name, _about(example), f"returned {_described(one)}", remedy)
        try:  # `model_copy` and `model_construct` check nothing
            checked = [Example.model_validate(one.model_dump(warnings=False)) for one in several]
        except ValidationError as error:
            raise Rejected(broken_rules(error)) from error
        return checked if isinstance(made, list) else checked[0]


def _about(example: Example) -> str:
    return f"the example {example.example_id} (task {example.task!r}, query {short(example.query)})"


@dataclass(frozen=True)
class Reject:
    """A row of the rejects table."""

    dataset: str
    task: str
    example_id: str
    reason: str
    attempts: int
    reply: str | None


def load_strategy(path: Path, options: Mapping[str, Any] | None = None, parents: Sequence[Example] = ()) -> StrategyFile:
    """Import a strategy file. UserError if it is missing, does not run, or lacks one of the three functions, and where there are options
    of which no function has the parameter."""
    functions = load_functions(path, "strategy", "strategies", "docs/strategies.md", FUNCTIONS)
    if options and not any("options" in _parameters(function) for function in functions.values()):
        raise UserError(
            f"{path}: the configuration gives the strategy options ({', '.join(options)}), but none of its functions has the parameter "
            "`options`. Add it, or remove the options."
        )
    return StrategyFile(path, functions, options or {}, {e.example_id: e for e in parents})


def _parameters(function: Any) -> Collection[str]:
    try:
        return inspect.signature(function).parameters.keys()
    except (TypeError, ValueError):  # a builtin
        return ()


def _described(value: object) -> str:
    """What a function returned, where it is not what it should be."""
    if isinstance(value, list | tuple):
        other = next((item for item in value if type(item) is not Message), None)
        return f"a {type(value).__name__} that holds {_described(other)}" if value else f"an empty {type(value).__name__}"
    return described(value)


def apply_strategy(
    strategy: StrategyFile,
    settings: Strategy,
    examples: Sequence[Example],
    analogues: Sequence[Example],
    dataset: str,
    teacher: EndpointSettings | None = None,
    cache: Path = Path(".cache/replies"),
    progress: Callable[[str], None] | None = None,
) -> tuple[list[Example], list[Reject], Account | None]:
    """Make ``dataset`` from ``examples``: the examples made, those rejected, and what the teacher cost.

    Their ``strategy`` is the last part of the dataset's name, whatever the code file calls it.
    """
    match settings.by:
        case "fields":
            made, rejects = _by_fields(strategy, examples, analogues, dataset)
            account = None
        case "teacher":
            assert teacher is not None
            name = f"endpoints.{settings.endpoint}"
            made, rejects, account = _by_teacher(strategy, examples, dataset, teacher, cache, progress, name)
        case "file":
            made, rejects = _by_file(strategy, examples, dataset, Path(settings.file or ""))
            account = None
    if not made:
        reasons = "; ".join(sorted({reject.reason for reject in rejects})[:3])
        raise UserError(f"{dataset}: none of the {len(examples)} examples passed the strategy. Reasons: {reasons}.")
    name = dataset.rpartition(".")[2]
    return [e if e.strategy == name else e.model_copy(update={"strategy": name}) for e in made], rejects, account


def _several(made: Example | list[Example]) -> list[Example]:
    return made if isinstance(made, list) else [made]


def pair_analogues(examples: Sequence[Example], analogues: Sequence[Example]) -> list[Example | None]:
    """For each example another one of its task: the first example of a task gets the task's first analogue, and so on."""
    queues: dict[str, list[Example]] = defaultdict(list)
    for analogue in analogues:
        queues[analogue.task].append(analogue)
    return [queues[example.task].pop(0) if queues[example.task] else None for example in examples]


def _by_fields(
    strategy: StrategyFile, examples: Sequence[Example], analogues: Sequence[Example], dataset: str
) -> tuple[list[Example], list[Reject]]:
    made: list[Example] = []
    rejects = []
    for example, analogue in zip(examples, pair_analogues(examples, analogues), strict=True):
        try:
            made += _several(strategy.from_fields(example, analogue))
        except Rejected as error:
            rejects.append(Reject(dataset, example.task, example.example_id, str(error), 1, None))
    return made, rejects


def _by_teacher(
    strategy: StrategyFile,
    examples: Sequence[Example],
    dataset: str,
    teacher: EndpointSettings,
    cache: Path,
    progress: Callable[[str], None] | None,
    name: str,
) -> tuple[list[Example], list[Reject], Account]:
    asked, prompts, rejects = teacher_prompts(strategy, examples, dataset)

    def accept(index: int, reply: str) -> list[Example]:
        return _several(strategy.from_reply(asked[index], without_reasoning(reply)))

    answers, account = ask(teacher, prompts, accept, cache, progress, name)
    made: list[Example] = []
    for example, answer in zip(asked, answers, strict=True):
        if isinstance(answer, Failure):
            reason = whole_text(answer.reason)
            rejects.append(Reject(dataset, example.task, example.example_id, reason, answer.attempts, answer.reply))
        else:
            made += answer.value
    return made, rejects, account


def teacher_prompts(
    strategy: StrategyFile, examples: Sequence[Example], dataset: str
) -> tuple[list[Example], list[list[Message]], list[Reject]]:
    """The examples that the teacher is asked about, with the prompt of each, and those of which the strategy makes no prompt."""
    asked: list[Example] = []
    prompts: list[list[Message]] = []
    rejects: list[Reject] = []
    for example in examples:
        try:
            prompts.append(strategy.prompt(example))
            asked.append(example)
        except Rejected as error:
            rejects.append(Reject(dataset, example.task, example.example_id, str(error), 0, None))
    return asked, prompts, rejects


def _by_file(strategy: StrategyFile, examples: Sequence[Example], dataset: str, path: Path) -> tuple[list[Example], list[Reject]]:
    if not path.is_file():
        raise UserError(f"{path}: there is no such file of replies; it is named under `strategies`.")
    replies: dict[str, str] = {}
    for number, row in file_rows(FileSource(path=str(path))):
        for column in ("query", "reply"):
            if column not in row:
                raise UserError(f"{path}, row {number}: there is no column '{column}'; the row has {', '.join(row)}.")
            if not isinstance(row[column], str):
                raise UserError(f"{path}, row {number}, column {column}: expected text, found {row[column]!r}.")
        if fold(row["query"]) in replies:
            raise UserError(f"{path}, row {number}: there is a reply to the query {row['query'][:80]!r} above already. Remove one.")
        replies[fold(row["query"])] = row["reply"]
    made: list[Example] = []
    rejects = []
    for example in examples:
        reply = replies.get(fold(example.query))
        try:
            if reply is None:
                raise Rejected(f"{path} has no reply to the query")
            made += _several(strategy.from_reply(example, without_reasoning(reply)))
        except Rejected as error:
            rejects.append(Reject(dataset, example.task, example.example_id, str(error), 1, reply))
    return made, rejects


# ---- what several strategy files need ----


def needs(example: Example, *fields: str) -> None:
    """Reject an example that lacks one of these fields."""
    for name in fields:
        if not getattr(example, name):
            raise Rejected(f"the example has no {name.replace('_', ' ')}")


def user(text: str) -> list[Message]:
    """A prompt of one user message."""
    return [Message(role="user", content=text)]


def says(text: str, answer: str) -> bool:
    """Whether the text contains the answer without its closing full stop, at the edges of words and numbers (4 is not in 14 or 0.4)."""
    return occurs(answer.rstrip().rstrip(".。"), text)


def concludes(text: str, answer: str) -> bool:
    """Whether the text, which is a conclusion, gives the answer.

    Where the answer is a number, the text must name it first, or right after its last "=": "7, not 5" does not conclude 5.
    """
    value = as_number(answer)
    if value is None:
        return says(text, answer)
    firsts = [next((t.value for t in tokens(part) if isinstance(t, Number)), None) for part in (text, text.rpartition("=")[2])]
    return value in firsts


def json_reply(reply: str) -> dict[str, Any]:
    """The JSON object in a reply, with or without a code fence around it. Rejected if there is none."""
    start, end = reply.find("{"), reply.rfind("}")
    try:
        value = json.loads(reply[start : end + 1]) if 0 <= start < end else None
    except (ValueError, RecursionError) as error:  # not JSON, a number of too many digits, or nested too deeply
        raise Rejected(f"the reply is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise Rejected("the reply is not a JSON object")
    return value


def key_points_from(values: object) -> list[KeyPoint]:
    """Key points that a teacher wrote. A regular expression from a teacher is not run: its check is dropped."""
    if not isinstance(values, list):
        raise Rejected("key_points is not a list")
    points = []
    for value in values:
        if not isinstance(value, Mapping) or not isinstance(value.get("text"), str):
            raise Rejected("a key point is not an object with a text")
        check, target = value.get("check"), value.get("value")
        if check == "regex" or check is None or target is None:
            points.append(KeyPoint(text=value["text"]))
        else:
            points.append(KeyPoint(text=value["text"], check=check, value=str(target)))
    return points
