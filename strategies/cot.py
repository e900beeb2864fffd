"""Chain of thought: the query asks for the reason first; the response reasons and ends in the answer (SPEC §4, Table 3)."""

from swift_study.data.strategies import concludes, needs, user
from swift_study.errors import Rejected
from swift_study.examples import Example, Message

DIRECTIVE = "Please output the reason first and then the final answer, regardless of the above description."
CONCLUSION = "So the answer is "

PROMPT = """Below is a user's query and a right answer to it. Write the response that first gives the reason and then the final answer, \
consistent with the right answer. Give a detailed reasoning process, and end with \
"So the answer is", followed by the right answer as it stands.

<query>
%s
</query>
<answer>
%s
</answer>"""


def from_fields(example: Example, analogue: Example | None) -> Example:
    needs(example, "rationale")
    return _make(example, f"{(example.rationale or '').strip()} {CONCLUSION}{example.completion}")


def prompt(example: Example) -> list[Message]:
    return user(PROMPT % (f"{example.query} {DIRECTIVE}", example.completion))


def from_reply(example: Example, reply: str) -> Example:
    reason, conclusion, answer = reply.strip().rpartition(CONCLUSION.strip())
    if not conclusion:
        raise Rejected(f"the reply does not end in {CONCLUSION.strip()!r} and the answer")
    if not reason.strip():
        raise Rejected("the reply gives no reason before the answer")
    if not concludes(answer, example.completion):
        raise Rejected("the reply's answer is not the reference answer")
    return _make(example, reply.strip())


def _make(example: Example, response: str) -> Example:
    return example.derive("cot", f"{example.query} {DIRECTIVE}", response)
