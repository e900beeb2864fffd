"""The same query with an unsatisfactory answer: what `evaluate` makes of it does not meet the requirements.

The paper's D_eval is made of D_pos, whose answers all do (SPEC §4, ambiguity 16: `positive_only`). A mixture with
`questions.similar.wrong.evaluate` is the `balanced` form; studies/balanced_evaluation.yaml trains on it.
"""

from swift_study.data.strategies import needs, user
from swift_study.errors import Rejected
from swift_study.examples import Example, Message, judge_by_key_points

PROMPT = """Below is a user's query and a right answer to it. Write an answer of the same form that a careless reader could give and that \
is wrong. Reply with the wrong answer and nothing else.

<query>
%s
</query>
<answer>
%s
</answer>"""


def from_fields(example: Example, analogue: Example | None) -> Example:
    needs(example, "unsatisfactory")
    return _make(example, example.unsatisfactory or "")


def prompt(example: Example) -> list[Message]:
    return user(PROMPT % (example.query, example.golden or example.completion))


def from_reply(example: Example, reply: str) -> Example:
    label, _ = judge_by_key_points(reply.strip(), example.key_points)
    if label == 1 or reply.strip() == example.completion:
        raise Rejected("the reply is a right answer")
    return _make(example, reply.strip())


def _make(example: Example, wrong: str) -> Example:
    return example.derive("wrong", example.query, wrong)
