"""Conclusion before reason: chain of thought with the answer first (the paper's future work 1; SW-F1)."""

from swift_study.data.strategies import concludes, needs, user
from swift_study.errors import Rejected
from swift_study.examples import Example, Message

DIRECTIVE = "Please output the final answer first and then the reason, regardless of the above description."
OPENING = "The answer is "
REASON = "The reason: "

PROMPT = """Below is a user's query and a right answer to it. Write the response that begins with "The answer is", followed by the right \
answer as it stands, and then, after "The reason:", gives a detailed reasoning process for it.

<query>
%s
</query>
<answer>
%s
</answer>"""


def from_fields(example: Example, analogue: Example | None) -> Example:
    needs(example, "rationale")
    return _make(example, f"{OPENING}{example.completion} {REASON}{(example.rationale or '').strip()}")


def prompt(example: Example) -> list[Message]:
    return user(PROMPT % (f"{example.query} {DIRECTIVE}", example.completion))


def from_reply(example: Example, reply: str) -> Example:
    text = reply.strip()
    answer, separator, reason = text.partition(REASON.strip())
    if not answer.startswith(OPENING.strip()) or not concludes(answer, example.completion):
        raise Rejected("the reply does not begin with the reference answer")
    if not separator or not reason.strip():
        raise Rejected("the reply gives no reason after the answer")
    return _make(example, text)


def _make(example: Example, response: str) -> Example:
    return example.derive("conclusion_first", f"{example.query} {DIRECTIVE}", response)
