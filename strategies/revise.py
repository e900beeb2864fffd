"""Revised query: what a clarification answers becomes the query, with the right answer to the original one.

It is made of the examples of `clarify`: `candidates.clarify.revise` are the revised forms of `candidates`.
"""

from swift_study.data.strategies import user
from swift_study.errors import Rejected
from swift_study.examples import Example, Message


def from_fields(example: Example, analogue: Example | None, parent: Example | None) -> Example:
    if parent is None:
        raise Rejected("the example is not made from another one, whose answer the revised query would have")
    return parent.derive("revise", example.completion, parent.golden or parent.completion)


def prompt(example: Example) -> list[Message]:
    return user(example.completion)


def from_reply(example: Example, reply: str, parent: Example | None) -> Example:
    """With a teacher's answer to the revised query in place of the known one."""
    if parent is None:
        raise Rejected("the example is not made from another one")
    return parent.derive("revise", example.completion, reply.strip())
