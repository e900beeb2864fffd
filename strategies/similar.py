"""Similar: another example of the same task, answered in the same way (SPEC §4: Z′ from Z)."""

from swift_study.data.strategies import json_reply, key_points_from, user
from swift_study.errors import Rejected
from swift_study.examples import Example, Message

PROMPT = """Below is a reference query to an assistant and a right answer. Write one new example of exactly the same task: a query of \
the same form, length and wording style but with different content, and its right answer in the same format.
Reply with one JSON object and nothing else, with the keys:
"query": the new query,
"answer": the right answer to it,
"rationale": the reasoning that leads to the answer, in one to three sentences,
"requirements": a list of short sentences, what an answer to the query must satisfy,
"key_points": a list of objects {"text": what a right answer must contain, "check": "contains", "excludes", "equals", "number", \
"max_words" or "min_words", "value": what to look for}.

<query>
%s
</query>
<answer>
%s
</answer>"""


def from_fields(example: Example, analogue: Example | None) -> Example:
    if analogue is None:
        raise Rejected("the source has no further example of this task")
    return analogue.model_copy(update={"strategy": "similar", "parent_id": example.example_id})


def prompt(example: Example) -> list[Message]:
    return user(PROMPT % (example.query, example.golden or example.completion))


def from_reply(example: Example, reply: str) -> Example:
    made = json_reply(reply)
    query, answer = str(made.get("query") or "").strip(), str(made.get("answer") or "").strip()
    if not query or not answer:
        raise Rejected("the reply has no query or no answer")
    if query == example.query:
        raise Rejected("the query is the reference query")
    requirements = made.get("requirements") or []
    if not isinstance(requirements, list):
        raise Rejected("requirements is not a list")
    return example.derive(
        "similar",
        query,
        answer,
        golden=answer,
        rationale=str(made.get("rationale") or "") or None,
        requirements=[str(r) for r in requirements],
        key_points=key_points_from(made.get("key_points") or []),
        unsatisfactory=None,
        root_id=None,  # another item, not another form of this one
    )
