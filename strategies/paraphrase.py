"""Paraphrase: the same query in other words, with the same answer.

The ceiling of a swift study's scale: a step on a paraphrase of a target is about as much as any probe could do for it. Without a
teacher words are exchanged for others of the same meaning, and the query is put into another frame; what is in it stays.
"""

import hashlib
import re

from swift_study.data.strategies import user
from swift_study.errors import Rejected
from swift_study.examples import Example, Message, fold

# Only words that mean the same in most sentences, so that the answer stays right.
WORDS = {
    "calculate": "compute", "compute": "calculate", "determine": "find out", "answer": "reply", "give": "provide", "write": "put down",
    "following": "next", "below": "underneath", "how many": "what number of", "also": "too", "please": "kindly", "only": "merely",
    "just": "simply", "large": "big", "big": "large", "begin": "start", "start": "begin", "whether": "if", "contains": "holds",
}  # fmt: skip
FRAMES = (
    "I would like you to help me with this: %s",
    "Here is what I need from you. %s",
    "Could you take care of this for me? %s",
    "There is something that I want to have done: %s",
)

PROMPT = """Below is a query to an assistant. Say the same in other words: the right answer must stay the same, and all names, numbers, \
quotations and conditions must stay. Reply with the reworded query and nothing else.

<query>
%s
</query>
<answer>
%s
</answer>"""


def from_fields(example: Example, analogue: Example | None) -> Example:
    # What stands in quotation marks, or after a colon or a line break, is what the query is about: it stays.
    asked, mark, material = re.split(r"([:\n]|$)", example.query, maxsplit=1)
    pattern = rf"\b({'|'.join(sorted(WORDS, key=len, reverse=True))})\b"
    parts = re.split(r"(\"[^\"]*\"|“[^“”]*”|(?<!\w)'[^']*'(?!\w)|`[^`]*`)", asked)
    reworded = "".join(part if k % 2 else re.sub(pattern, _other, part, flags=re.IGNORECASE) for k, part in enumerate(parts))
    number = int(hashlib.blake2b(example.query.encode(), digest_size=4).hexdigest(), 16)
    return _make(example, FRAMES[number % len(FRAMES)] % f"{reworded}{mark}{material}")


def prompt(example: Example) -> list[Message]:
    return user(PROMPT % (example.query, example.golden or example.completion))


def from_reply(example: Example, reply: str) -> Example:
    if fold(reply) == fold(example.query):
        raise Rejected("the reply is the query as it was")
    if len(reply) > 2 * len(example.query) + 60:
        raise Rejected("the reply is far longer than the query")
    return _make(example, reply.strip())


def _other(match: re.Match[str]) -> str:
    word = WORDS[match[0].lower()]
    return word.capitalize() if match[0][0].isupper() else word


def _make(example: Example, query: str) -> Example:
    return example.derive("paraphrase", query, example.completion)
