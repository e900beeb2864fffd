"""The one draw of examples. It depends on the data seed and on each example's root alone, so that subsets of every size are nested, and
datasets that strategies and designs made of one another give the forms of the same examples."""

import hashlib
from collections.abc import Iterable

from swift_study.examples import Example


def place(example: Example, seed: int) -> bytes:
    """Where the draw puts the example: examples are drawn in the order of their places. The forms of one root have one place."""
    return hashlib.blake2b(f"{seed} {example.root}".encode(), digest_size=16).digest()


def in_order(examples: Iterable[Example], seed: int) -> list[Example]:
    """The examples as they are drawn, those of one root as they stand: a smaller draw is the beginning of a larger one."""
    return sorted(examples, key=lambda e: place(e, seed))
