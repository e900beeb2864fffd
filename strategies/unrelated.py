"""Unrelated text: plain prose that has nothing to do with any task, as long as the example's own query and completion.

The floor of a swift study's scale: what a step does for the targets that teaches nothing about them. Without a teacher it is cut from the
text below, which was written for this; where the cut begins hangs on the example alone.
"""

import re
from collections.abc import Iterator
from itertools import cycle, islice

from swift_study.data.strategies import user
from swift_study.errors import Rejected
from swift_study.examples import Example, Message

TEXT = """The barge slipped its ropes before first light, and nobody stood at the quay to see it go. Moss had grown over the steps of \
the old customs house, soft and dark after a week of rain. A grey cat slept in the window where clerks once stamped papers for \
the herring boats. Along the shore the wind pushed strands of weed into long brown lines. The pilot's eldest niece kept bees \
behind the wall, out of the salt. In a good summer the heather gave a honey so thick that it would not leave the spoon. Her \
neighbour mended nets with a wooden needle that his grandfather had carved from pear wood. He hummed while he worked, always \
the same slow tune, and never to its end. Past the chapel the road turned inland between hedges of hawthorn and wild rose. \
Sheep rested in the lee of the stones and looked up when the post van came. The van was red once; by now it had the colour of \
a dry brick. On market days it carried eggs, gossip and a crate of lemons for the inn. The innkeeper polished her brass taps \
every morning and hung wet cloths over the rail to dry. Above the bar there was a painting of a storm that no guest had ever \
liked. Somebody's uncle had painted it one winter, when the pass was closed and there was little else to do. Snow lay late \
that year, blue in the furrows and yellow under the lamps. When it melted, the stream took a plank of the footbridge and left \
it in the reeds. Two herons used it as a perch until the miller fetched it back. The mill no longer ground anything, but its \
wheel still turned for the pleasure of turning. Swallows built under the eaves and scolded whoever sat on the bench below. In \
the orchard the ladders stood ready against the oldest trees. Apples dropped into the grass with a dull sound, one now and \
then, all through the afternoon. Wasps crept into the soft ones and came out slow and golden. Towards evening the fog rolled \
up from the bay and took the fields away. A bell rang somewhere on the water, and a dog on the far farm answered it. Then it \
was quiet again, except for the drip from the gutters. The kitchen smelled of smoke, thyme and bread that had been in the oven \
a little too long. An aunt spread her maps across the table and weighed their corners down with cups. She had walked all these \
valleys in her youth and trusted none of the dotted lines. Larks rose from the meadow as soon as the sun touched it. The \
carpenter opened his shutters, sneezed twice and swept yesterday's shavings into a sack. Oak, he used to say, remembers every \
dry spring that it has lived through. His apprentice carried planks across the yard and counted nothing but the clouds. Far \
out a white sail leaned over, righted itself and went on. Nets hung from the poles like curtains in an empty theatre. By noon \
the tide had uncovered the black ribs of a wreck, and gulls stood on them in a row, all facing the same way."""
WORDS = TEXT.split()

PROMPT = """Write %d words of plain, quiet prose about landscape or weather. It must not ask, explain, calculate, quote or list \
anything, and must have nothing to do with the text below. Reply with the prose and nothing else.

<text>
%s
</text>"""


def from_fields(example: Example, analogue: Example | None) -> Example:
    words = _from(example)
    query = _as_long_as(example.query, words)
    return _make(example, query, _as_long_as(example.completion, words))


def prompt(example: Example) -> list[Message]:
    return user(PROMPT % (len(example.completion.split()), f"{example.query}\n{example.completion}"))


def from_reply(example: Example, reply: str) -> Example:
    if not 0.5 <= _pieces(reply) / _pieces(example.completion) <= 2:
        raise Rejected("the reply is not about as long as the completion")
    return _make(example, _as_long_as(example.query, _from(example)), reply.strip())


def _from(example: Example) -> Iterator[str]:
    """The words of the text from a place on that hangs on the example; it goes round."""
    start = int(example.example_id, 16) % len(WORDS)
    return islice(cycle(WORDS), start, None)


def _as_long_as(text: str, words: Iterator[str]) -> str:
    """Words until they have as many pieces as the text; at least one."""
    taken = [next(words)]
    missing = _pieces(text) - _pieces(taken[0])
    while missing > 0:
        taken.append(next(words))
        missing -= _pieces(taken[-1])
    return " ".join(taken)


def _pieces(text: str) -> int:
    """Runs of letters, digits and signs: about as many as a tokenizer makes, whichever it is. Each Chinese character is one."""
    return len(re.findall(r"[^\W\d_\u3040-\u9fff]+|[^\s]", text))


def _make(example: Example, query: str, completion: str) -> Example:
    # What is known of the example's answer does not hold for this one.
    return example.derive("unrelated", query, completion, golden=None, rationale=None, requirements=[], key_points=[], unsatisfactory=None)
