"""The example: one training or evaluation item in chat form, and what a right answer to it must contain.

An example is written once and never changed. A strategy makes another example from it: its ``parent_id`` names the example it was
made from, its ``root_id`` the one at the beginning of that line. Examples of one root are forms of one item: where one of them is a
probe or a query, no run may be trained on another. ``example_id`` is a hash of what the model sees (task and messages), so the same
content has the same id everywhere.
"""

import hashlib
import json
import unicodedata
from collections.abc import Sequence
from fractions import Fraction
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from swift_study.numerals import Number, same_key, sole_number, tokens
from swift_study.patterns import IGNORECASE, MULTILINE, TooSlow, compile_pattern, search

Check = Literal["contains", "excludes", "equals", "number", "regex", "max_words", "min_words"]


class Message(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    role: Literal["system", "user", "assistant"]
    content: str


class KeyPoint(BaseModel):
    """One thing that a right answer must satisfy: in words, and where possible as a check that a machine can do.

    ``value`` is always text; what it means depends on ``check``:

    - ``contains`` / ``excludes``: the value occurs / does not occur (Unicode NFKC, lower case, single spaces). It begins and ends
      at the edges of words and numbers: "cat" is not in "concaténate", 5 is not in "0.5", "-5" or "1,500". Numbers are compared as
      numbers (``numerals.py`` says what is one): "1080 kg" is in "1,080 kg";
    - ``equals``: the whole answer, folded, without quotes, asterisks and full stops around it, is the value, or both are the same number;
    - ``number``: the last number of the answer equals the value, a number;
    - ``regex``: ``re.search`` with MULTILINE and IGNORECASE would find the value in the answer as it is; a search that takes more than
      a second is given up;
    - ``max_words`` / ``min_words``: at most / at least so many words separated by white space.

    ``check`` is None where only a judge can tell.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    text: str
    check: Check | None = None
    value: str | None = None

    @model_validator(mode="after")
    def _check_has_a_value(self) -> Self:
        if (self.check is None) != (self.value is None):
            raise ValueError(f"key point {self.text!r}: 'check' and 'value' go together")
        if self.check == "regex":
            try:
                compile_pattern(self.value or "", MULTILINE | IGNORECASE)
            except ValueError as error:
                raise ValueError(f"key point {self.text!r}: the regex {self.value!r} does not compile: {error}") from error
        if self.check in ("max_words", "min_words", "number") and as_number(self.value or "") is None:
            raise ValueError(f"key point {self.text!r}: {self.check} needs a number, not {self.value!r}")
        return self

    def is_met(self, answer: str) -> bool | None:
        """Whether the answer satisfies this point; None if only a judge can tell, or the search for a regex took too long."""
        try:
            return self._is_met(answer)
        except TooSlow:
            return None

    def _is_met(self, answer: str) -> bool | None:
        if self.check is None or self.value is None:
            return None
        match self.check:
            case "contains":
                return occurs(self.value, answer)
            case "excludes":
                return not occurs(self.value, answer)
            case "equals":
                return _bare(answer) == _bare(self.value) or _is_same_number(answer, self.value)
            case "number":
                numbers = [token.value for token in tokens(answer) if isinstance(token, Number)]
                return bool(numbers) and numbers[-1] == as_number(self.value)
            case "regex":
                return search(self.value, answer, MULTILINE | IGNORECASE) is not None
            case "max_words":
                return len(answer.split()) <= _count(self.value)
            case "min_words":
                return len(answer.split()) >= _count(self.value)


def fold(text: str) -> str:
    """Text for comparison: NFKC, lower case, runs of white space as one space."""
    return " ".join(unicodedata.normalize("NFKC", text).lower().split())


def occurs(value: str, answer: str) -> bool:
    """Whether the words, numbers and signs of the value stand next to each other in the answer."""
    needle, hay = ("\n".join(["", *map(same_key, tokens(text.strip())), ""]) for text in (value, answer))
    return needle in hay or not value.strip()


def as_number(text: str) -> Fraction | None:
    """The number that the text is, whatever unit sign, emphasis, quotes or LaTeX is around it; None if it is none."""
    return sole_number(text, AROUND_NUMBERS)


QUOTES = " *\"'`“”‘’"
AROUND_NUMBERS = frozenset([*QUOTES, *".。,;:=$€£¥₹₩₽¢%‰°\\()[]{}", "boxed"])


def _bare(text: str) -> str:
    without_quotes = fold(text).lstrip(QUOTES)
    begins_in_a_point = without_quotes[:1] == "." and without_quotes[1:2].isdecimal()
    return (without_quotes if begins_in_a_point else without_quotes.lstrip(QUOTES + ".。")).rstrip(QUOTES + ".。")


def _is_same_number(one: str, other: str) -> bool:
    first, second = (sole_number(text, frozenset(QUOTES + ".。")) for text in (one, other))
    return first is not None and first == second


def _count(value: str) -> Fraction:
    return as_number(value) or Fraction(0)


class Example(BaseModel):
    """One item; the last message is the completion.

    ``golden`` is a right answer where one is known: it equals the completion except where the completion is a model's own
    response. ``unsatisfactory`` is a wrong answer kept for evaluation data. ``rationale`` reasons towards ``golden``
    without repeating it as a conclusion. ``record`` is the structured content that a design renders, as
    JSON text; ``value_spans`` are the parts of the completion that carry its answer, as positions of characters, which a design knows.
    ``source`` says where the root was read, such as "my.jsonl, row 7"; ``root_id`` is None for a root.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    task: str = Field(min_length=1)
    messages: list[Message] = Field(min_length=1)
    strategy: str = "source"
    parent_id: str | None = None
    root_id: str | None = None
    source: str | None = None
    record: str | None = None
    value_spans: list[tuple[int, int]] = []
    rationale: str | None = None
    requirements: list[str] = []
    key_points: list[KeyPoint] = []
    golden: str | None = None
    unsatisfactory: str | None = None

    @model_validator(mode="after")
    def _ends_in_a_completion(self) -> Self:
        if len(self.messages) < 2 or self.messages[-1].role != "assistant" or not self.messages[-1].content.strip():
            raise ValueError("the example has no completion: its last message must be a non-empty one of role 'assistant'")
        if self.messages[-2].role != "user":
            raise ValueError("the message before the completion must be of role 'user'")
        return self

    @model_validator(mode="after")
    def _spans_lie_in_the_completion(self) -> Self:
        end = 0
        for start, stop in self.value_spans:
            if not end <= start < stop <= len(self.completion):
                raise ValueError(f"value_spans: {(start, stop)} is empty, lies before the one before it, or not in the completion")
            end = stop
        return self

    @model_validator(mode="after")
    def _is_unicode(self) -> Self:
        try:
            self.model_dump_json()
        except ValueError as error:
            raise ValueError("the text holds half of a surrogate pair (such as \\ud800 in JSON), which is not Unicode") from error
        return self

    @property
    def example_id(self) -> str:
        """16 hexadecimal digits of a BLAKE2b hash over task and messages."""
        content = json.dumps([self.task, [[m.role, m.content] for m in self.messages]], ensure_ascii=False)
        return hashlib.blake2b(content.encode(), digest_size=8).hexdigest()

    @property
    def query(self) -> str:
        """The last user message."""
        return self.messages[-2].content

    @property
    def completion(self) -> str:
        return self.messages[-1].content

    @property
    def text(self) -> str:
        """What tells the item from others: where it has a record this one's `text`, or its texts, else the query.

        Queries that a design makes of records share an instruction, so that all of them look alike.
        """
        record = None if self.record is None else json.loads(self.record)
        if not isinstance(record, dict):
            return self.query if self.record is None else self.record
        texts = [record["text"]] if isinstance(record.get("text"), str) else [v for v in record.values() if isinstance(v, str)]
        return "\n".join(texts) or self.record or self.query

    @property
    def root(self) -> str:
        """The id of the example that this one was first made from; its own where it was made from none."""
        return self.root_id or self.example_id

    def derive(self, strategy: str, query: str, completion: str, **changes: object) -> "Example":
        """A new example made from this one by ``strategy``: another query and completion, the earlier turns kept.

        It is another form of the same item. ``root_id=None`` says that it is another item, as the examples of `similar` are.
        """
        messages = [*self.messages[:-2], Message(role="user", content=query), Message(role="assistant", content=completion)]
        fields = self.model_dump(exclude={"messages", "strategy", "parent_id"}) | {"root_id": self.root, "value_spans": []} | changes
        made = Example(**fields, messages=messages, strategy=strategy, parent_id=self.example_id)
        # The same messages have the same id, and no example is its own parent.
        return made if made.example_id != self.example_id else made.model_copy(update={"parent_id": self.parent_id})


def judge_by_key_points(answer: str, key_points: Sequence[KeyPoint]) -> tuple[int | None, str]:
    """The programmatic judge: 1 if every machine-checkable key point is met, else 0, with the reason.

    None if no point can be checked by machine, or if none is missed and the search for a regex took too long.
    """
    outcomes: list[bool | None] = []
    slow: list[str] = []
    for point in key_points:
        try:
            outcomes.append(point._is_met(answer))
        except TooSlow as error:
            outcomes.append(None)
            slow.append(f"{point.text}: {error}")
    missed = [point.text for point, met in zip(key_points, outcomes, strict=True) if met is False]
    if missed:
        return 0, "not met: " + "; ".join(missed)
    if slow:
        return None, "not checked: " + "; ".join(slow)
    if not any(outcomes):
        return None, "no key point can be checked by machine"
    return 1, "all key points are met"
