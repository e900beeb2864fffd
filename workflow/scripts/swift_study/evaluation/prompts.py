"""What an evaluation asks: the query, in the model's chat template or as raw text, behind solved examples ("shots").

The shots of a query are those of the pool whose hash with the query is smallest: they depend on no other query and on no order, and fewer
shots are the first of more.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from swift_study.errors import UserError
from swift_study.examples import Example, Message, fold
from swift_study.models.rendering import Renderer
from swift_study.models.tokens import Tokens

DELIMITER = "\n"  # between solved examples of raw text


@dataclass(frozen=True)
class Prompts:
    """How queries are rendered. ``shots`` are the solved examples of each query, by its id."""

    renderer: Renderer
    template: Literal["chat", "none"] = "chat"
    shots: Mapping[str, Sequence[Example]] = field(default_factory=dict)
    longest: int | None = None
    """A longer prompt is cut from the left, behind its first token if that opens the sequence (BOS)."""

    def ids(self, example: Example) -> list[int]:
        """The tokens that generation sees."""
        asked = with_shots(example, self.shots.get(example.example_id, ()))
        prompt = self.renderer.prompt(asked) if self.template == "chat" else self.renderer.raw(raw_text(asked), None).ids
        return self._cut(prompt)

    def tokens(self, example: Example, completion: str, values: bool = False) -> Tokens:
        """Prompt and completion as tokens: in the chat template with the completion's end token, as raw text without one.

        With ``values`` the loss is on the values of the completion, which is then the example's own.
        """
        spans = example.value_spans if values else []
        asked = example.derive("completed", example.query, completion, value_spans=spans)
        asked = with_shots(asked, self.shots.get(example.example_id, ()))
        if self.template == "chat":
            whole = self.renderer.tokens(asked, "values" if values else "completion")
        else:
            whole = self.renderer.raw(raw_text(asked), completion, spans)
        prompt = self._cut(whole.ids[: whole.prompt_length])
        cut = whole.prompt_length - len(prompt)
        return Tokens([*prompt, *whole.ids[whole.prompt_length :]], len(prompt), tuple((a - cut, b - cut) for a, b in whole.loss_spans))

    def _cut(self, prompt: list[int]) -> list[int]:
        if self.longest is None or len(prompt) <= self.longest:
            return prompt
        kept = int(prompt[:1] == [self.renderer.tokenizer.bos_token_id])
        return prompt[:kept] + prompt[len(prompt) - max(self.longest - kept, 0) :]


def with_shots(example: Example, shots: Sequence[Example]) -> Example:
    """The example with solved ones as turns before its query, behind a system message."""
    if not shots:
        return example
    solved = [m for shot in shots for m in (Message(role="user", content=shot.query), Message(role="assistant", content=solution(shot)))]
    system = [m for m in example.messages[:1] if m.role == "system"]
    return example.model_copy(update={"messages": [*system, *solved, *example.messages[len(system) :]]})


def raw_text(example: Example) -> str:
    """The example's messages before its completion as raw text: a query and its answer on a line, the last query without white space at
    its end."""
    lines: list[str] = []
    for message in example.messages[:-1]:
        if message.role == "assistant":
            lines[-1] += f" {message.content.strip()}"
        else:
            lines.append(message.content.rstrip())
    return DELIMITER.join(lines)


def solution(example: Example) -> str:
    return example.golden or example.completion


def draw_shots(examples: Sequence[Example], pool: Sequence[Example], number: int) -> dict[str, list[Example]]:
    """For each example's id so many solved examples of the pool, none with its own query. UserError where there are too few."""
    if not number:
        return {}
    found = {}
    known = [(shot.example_id, fold(shot.query), shot) for shot in pool]
    for example in examples:
        own = fold(example.query)
        others = sorted(((_hash(example.example_id, i), i, shot) for i, query, shot in known if query != own), key=lambda row: row[:2])
        if len(others) < number:
            raise UserError(
                f"{number} solved examples are to stand before each query (shots), but there are {len(others)} beside the query "
                f"{example.query[:60]!r}. Lower `shots`, or name a larger dataset in `shots_from`."
            )
        found[example.example_id] = [row[-1] for row in others[:number]]
    return found


def _hash(query: str, shot: str) -> bytes:
    return hashlib.blake2b(f"{query} {shot}".encode(), digest_size=8).digest()
