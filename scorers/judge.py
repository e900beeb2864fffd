"""The binary judge: golden answer and key points in, label 0 or 1 with a reason out. `prompts/judge.txt` is what it is told."""

from swift_study.errors import Rejected
from swift_study.evaluation.judging import as_data, read_object
from swift_study.evaluation.scorers import Item, Metrics, Score, Sums
from swift_study.examples import Message
from swift_study.io.replies import whole_text

NEEDS = ("response", "endpoint")
STATISTICS = ("right", "n")
REMINDER = 'Label the response in the JSON object above, as the system message says. Reply with {"reason": ..., "label": 0 or 1} only.'
RESPONSE_FORMAT = {
    "type": "json_schema",
    "json_schema": {
        "name": "judgement",
        "strict": True,
        "schema": {
            "type": "object",
            "properties": {"reason": {"type": "string"}, "label": {"type": "integer", "enum": [0, 1]}},
            "required": ["reason", "label"],
            "additionalProperties": False,
        },
    },
}


def prompt(item: Item) -> list[Message]:
    """The instructions, and everything else as one JSON object with a reminder after it."""
    example = item.example
    data: dict[str, object] = {"query": example.query}
    if example.messages[:-2]:
        data["earlier_turns"] = [message.model_dump() for message in example.messages[:-2]]
    data["golden_answer"] = example.golden
    data["key_points"] = {str(i): point.text for i, point in enumerate(example.key_points, 1)}
    data["response"] = item.response
    return [Message(role="system", content=item.instructions), Message(role="user", content=f"{as_data(data)}\n\n{REMINDER}")]


def from_reply(item: Item, reply: str) -> Score:
    value = read_object(reply, ("reason", "label"))
    label, reason = value["label"], value["reason"]
    if type(label) is not int or label not in (0, 1):  # True and 1.0 equal 1, but were not asked for
        raise Rejected("the judge's label is not 0 or 1")
    if not isinstance(reason, str) or not reason.strip():
        raise Rejected("the judge gives no reason")
    return Score({"right": label, "n": 1}, whole_text(reason.strip()))


def metrics(sums: Sums) -> Metrics:
    return {"accuracy": sums["right"] / sums["n"]}
