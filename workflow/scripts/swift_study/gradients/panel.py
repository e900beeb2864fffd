"""The examples of a study's panel, as the scripts that compare them need them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from swift_study.examples import Example
from swift_study.io.tables import read_examples
from swift_study.models.rendering import Renderer
from swift_study.models.tokens import Tokens


@dataclass(frozen=True)
class Member:
    """An example of a panel, by its dataset."""

    dataset: str
    example: Example
    tokens: Tokens


def read_panel(datasets: Sequence[str], renderer: Renderer) -> list[Member]:
    """All examples of the datasets, given as Parquet files, in their order. UserError for one that is too long."""
    return [Member(Path(path).stem, e, renderer.tokens(e)) for path in datasets for e in read_examples(Path(path))]
