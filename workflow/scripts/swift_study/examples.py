"""The example: one training or evaluation item in chat form, and what a right answer to it must contain.

An example is written once and never changed. A strategy makes another example from it, whose ``parent_id`` names the one it
was made from. ``example_id`` is a hash of what the model sees (task and messages), so the same content has the same id everywhere.
"""

import hashlib
import json
import re
import unicodedata
from collections.abc import Sequence
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Check = Literal["contains", "excludes", "equals", "number", "regex", "max_words", "min_words"]


class Message(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    role: Literal["system", "user", "assistant"]
    content: str


class KeyPoint(BaseModel):
    """One thing that a right answer must satisfy: in words, and where possible as a check that a machine can do.

    ``value`` is always text; what it means depends on ``check``:

    - ``contains`` / ``excludes``: the folded text occurs / does not occur (Unicode NFKC, lower case, single spaces); where it
      begins or ends with an ASCII letter or digit, only at a word's edge ("cat" is not in "concatenate");
    - ``equals``: the whole answer, folded, without surrounding quotes, asterisks and full stops, is the value;
    - ``number``: the last number of the answer is the value (thousands separators are ignored);
    - ``regex``: ``re.search`` with MULTILINE and IGNORECASE finds the value in the answer as it is;
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
                re.compile(self.value or "")
            except re.error as error:
                raise ValueError(f"key point {self.text!r}: the regex {self.value!r} does not compile: {error}") from error
        if self.check in ("max_words", "min_words", "number"):
            try:
                float(self.value or "")
            except ValueError as error:
                raise ValueError(f"key point {self.text!r}: {self.check} needs a number, not {self.value!r}") from error
        return self

    def is_met(self, answer: str) -> bool | None:
        """Whether the answer satisfies this point; None if only a judge can tell."""
        if self.check is None or self.value is None:
            return None
        match self.check:
            case "contains":
                return occurs(self.value, answer)
            case "excludes":
                return not occurs(self.value, answer)
            case "equals":
                return _bare(answer) == _bare(self.value)
            case "number":
                numbers = re.findall(r"-?\d+(?:\.\d+)?", re.sub(r"(?<=\d),(?=\d{3})", "", answer))
                return bool(numbers) and abs(float(numbers[-1]) - float(self.value)) < 1e-9
            case "regex":
                return re.search(self.value, answer, re.MULTILINE | re.IGNORECASE) is not None
            case "max_words":
                return len(answer.split()) <= float(self.value)
            case "min_words":
                return len(answer.split()) >= float(self.value)


def fold(text: str) -> str:
    """Text for comparison: NFKC, lower case, runs of white space as one space."""
    return " ".join(unicodedata.normalize("NFKC", text).lower().split())


def occurs(value: str, answer: str) -> bool:
    """Whether the folded value occurs in the folded answer, not within a longer word of ASCII letters and digits."""
    needle = fold(value)
    left = r"(?<![a-z0-9])" if re.match(r"[a-z0-9]", needle) else ""
    right = r"(?![a-z0-9])" if re.search(r"[a-z0-9]$", needle) else ""
    return re.search(left + re.escape(needle) + right, fold(answer)) is not None


def _bare(text: str) -> str:
    return fold(text).strip(" .。*\"'`“”‘’")


class Example(BaseModel):
    """One item; the last message is the completion.

    ``golden`` is a right answer where one is known: it equals the completion except where the completion is a model's own
    response. ``unsatisfactory`` is a wrong answer kept for evaluation data. ``rationale`` reasons towards ``golden``
    without repeating it as a conclusion.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    task: str = Field(min_length=1)
    messages: list[Message] = Field(min_length=1)
    strategy: str = "source"
    parent_id: str | None = None
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

    def derive(self, strategy: str, query: str, completion: str, **changes: object) -> "Example":
        """A new example made from this one by ``strategy``: another query and completion, the earlier turns kept."""
        messages = [*self.messages[:-2], Message(role="user", content=query), Message(role="assistant", content=completion)]
        fields = self.model_dump(exclude={"messages", "strategy", "parent_id"}) | changes
        return Example(**fields, messages=messages, strategy=strategy, parent_id=self.example_id)


def judge_by_key_points(answer: str, key_points: Sequence[KeyPoint]) -> tuple[int | None, str]:
    """The programmatic judge: 1 if every machine-checkable key point is met, else 0, with the reason.

    None if no point can be checked by machine.
    """
    outcomes = [(point, point.is_met(answer)) for point in key_points]
    missed = [point.text for point, met in outcomes if met is False]
    if missed:
        return 0, "not met: " + "; ".join(missed)
    if not any(met for _, met in outcomes):
        return None, "no key point can be checked by machine"
    return 1, "all key points are met"
