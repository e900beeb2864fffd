"""Response evaluation: list the query's requirements, hold the response against them, conclude (SPEC §4, Table 3).

The example's completion is the response under evaluation; what is true of it is told by the key points.
"""

from swift_study.data.strategies import needs, user
from swift_study.errors import Rejected
from swift_study.examples import Example, Message, judge_by_key_points

WRAPPED = (
    "It is known that the [input] stores the questions posed by the user to the dialogue system, and the [output] stores the "
    "responses of the dialogue system to the [input]. Please help me judge whether the following [output] appropriately responds "
    "to the [input].\n[Input]: %s\n[Output]: %s"
)
MEETS = "Thus, the answer is: the output meets all the requirements of the input."
DOES_NOT = "Thus, the answer is: the output does not meet all the requirements of the input."

PROMPT = """%s

For your information, a right answer to the input is: %s

List the requirements of the input, beginning with "First, let's list the requirements of the input:". Then analyze the output, beginning \
with "Next, we will analyze the output based on these requirements:". End with exactly one of these two sentences:
%s
%s"""


def from_fields(example: Example, analogue: Example | None) -> Example:
    needs(example, "requirements", "key_points")
    label, why = judge_by_key_points(example.completion, example.key_points)
    if label is None:
        raise Rejected(f"no key point can be checked without a judge: {why}")
    requirements = " ".join(f"{i}. {r}" for i, r in enumerate(example.requirements, 1))
    outcomes = [(point, point.is_met(example.completion)) for point in example.key_points]
    analysis = " ".join(f"{point.text} {'Yes.' if met else 'No.'}" for point, met in outcomes if met is not None)
    return _make(
        example,
        f"First, let's list the requirements of the input: {requirements} Next, we will analyze the output based on these "
        f"requirements: {analysis} {MEETS if label else DOES_NOT}",
    )


def prompt(example: Example) -> list[Message]:
    return user(PROMPT % (WRAPPED % (example.query, example.completion), example.golden or "not known", MEETS, DOES_NOT))


def from_reply(example: Example, reply: str) -> Example:
    text = reply.strip()
    if not text.endswith((MEETS, DOES_NOT)):
        raise Rejected("the reply does not end in one of the two conclusions")
    label, _ = judge_by_key_points(example.completion, example.key_points)
    if label is not None and text.endswith(MEETS) != bool(label):
        raise Rejected(f"the reply's conclusion contradicts the key points (label {label})")
    return _make(example, text)


def _make(example: Example, evaluation: str) -> Example:
    query = WRAPPED % (example.query, example.completion)
    return example.derive("evaluate", query, evaluation, golden=evaluation, key_points=[], requirements=[], rationale=None)
