"""Query parsing: the response takes the query apart into task and requirements (the paper's future work 2; SW-F2)."""

from swift_study.data.strategies import needs, user
from swift_study.errors import Rejected
from swift_study.examples import Example, Message

WRAPPED = "[Input]: '%s' Please parse the [input]: name its task, then list the requirements that an answer must meet. Do not answer it."
TASK = "Task: "
REQUIREMENTS = "Requirements: "

PROMPT = """Below is a user's query and a right answer to it. Parse the query for someone who is to answer it, without giving the answer \
away. Reply with "Task:" and the task in a few words, then on a new line "Requirements:" and what an answer must meet as a numbered list.

<query>
%s
</query>
<answer>
%s
</answer>"""


def from_fields(example: Example, analogue: Example | None) -> Example:
    needs(example, "requirements")
    requirements = " ".join(f"{i}. {r}" for i, r in enumerate(example.requirements, 1))
    return _make(example, f"{TASK}{example.task.replace('-', ' ')}\n{REQUIREMENTS}{requirements}")


def prompt(example: Example) -> list[Message]:
    return user(PROMPT % (example.query, example.golden or example.completion))


def from_reply(example: Example, reply: str) -> Example:
    text = reply.strip()
    if not text.startswith(TASK.strip()) or REQUIREMENTS.strip() not in text:
        raise Rejected("the reply does not name a task and then requirements")
    return _make(example, text)


def _make(example: Example, parsed: str) -> Example:
    return example.derive("query_parsing", WRAPPED % example.query, parsed, golden=parsed, key_points=[], rationale=None)
