"""Prompt template: the same example under an Alpaca-style instruction template (the paper's future work 4; SW-F4)."""

from swift_study.data.strategies import says, user
from swift_study.errors import Rejected
from swift_study.examples import Example, Message

TEMPLATE = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n%s\n\n### Response:"
)

PROMPT = """Below is a user's query and a right answer to it. Write a prompt for the same query under a template that suits its task: say \
what kind of task it is and in which form to answer, and repeat the query word for word. Reply with the prompt and nothing else.

<query>
%s
</query>
<answer>
%s
</answer>"""


def from_fields(example: Example, analogue: Example | None) -> Example:
    return _make(example, TEMPLATE % example.query)


def prompt(example: Example) -> list[Message]:
    return user(PROMPT % (example.query, example.completion))


def from_reply(example: Example, reply: str) -> Example:
    if not says(reply, example.query):
        raise Rejected("the reply does not repeat the query")
    return _make(example, reply.strip())


def _make(example: Example, templated: str) -> Example:
    return example.derive("prompt_template", templated, example.completion)
