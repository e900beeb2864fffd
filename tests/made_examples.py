"""Made-up examples."""

from typing import Any

from swift_study.examples import Example, Message


def example(query: str = "q", completion: str = "a", task: str = "t", **fields: Any) -> Example:
    """One query and its completion."""
    return Example(task=task, messages=[Message(role="user", content=query), Message(role="assistant", content=completion)], **fields)
