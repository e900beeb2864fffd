"""Query clarification: a possibly unclear query, wrapped, is answered by its clearer form (SPEC §4, Table 3).

Without a teacher the clearer form is the query with its requirements appended, as in the paper's validation study (§5.1).
"""

from swift_study.data.strategies import needs, user
from swift_study.errors import Rejected
from swift_study.examples import Example, Message

WRAPPED = (
    "[Input]: '%s' It is known that the [input] is a user's question, which may not be clearly expressed. "
    "Please help me rephrase this question to make its meaning clearer."
)

PROMPT = """Below is a user's query, which may not be clearly expressed, and a right answer to it. Rewrite the query so that what it asks \
for, and in which form, becomes clear, for someone who does not see the answer. Do not answer it and do not give the answer away. \
Reply with the rewritten query and nothing else.

<query>
%s
</query>
<answer>
%s
</answer>"""


def from_fields(example: Example, analogue: Example | None) -> Example:
    needs(example, "requirements")
    return _make(example, f"{example.query}\n{' '.join(example.requirements)}")


def prompt(example: Example) -> list[Message]:
    return user(PROMPT % (example.query, example.golden or example.completion))


def from_reply(example: Example, reply: str) -> Example:
    if reply.strip() == example.query:
        raise Rejected("the reply is the query as it was")
    if len(reply.split()) > 4 * len(example.query.split()) + 60:
        raise Rejected("the reply is far longer than a rewritten query")
    return _make(example, reply.strip())


def _make(example: Example, clearer: str) -> Example:
    # The right answer is now the clearer query; what was known of the original's answer does not hold for it.
    return example.derive(
        "clarify",
        WRAPPED % example.query,
        clearer,
        golden=clearer,
        rationale=None,
        requirements=[],
        key_points=[],
        unsatisfactory=None,
    )
