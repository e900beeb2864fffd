"""The examples of a study's panel, as the scripts that compare them need them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from swift_study.config import LossOn
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


def read_panel(datasets: Sequence[str], renderer: Renderer, loss_on: Mapping[str, LossOn] | None = None) -> list[Member]:
    """All examples of the datasets, given as Parquet files, in their order. ``loss_on``: by dataset, where that is not the completion.

    One that is too long is left out with `model.overlong: skip`, which the files of lengths count, and else a UserError.
    """
    sets = [(Path(path).stem, read_examples(Path(path))) for path in datasets]
    found = [(name, e, renderer.tokens_or_none(e, (loss_on or {}).get(name, "completion"))) for name, examples in sets for e in examples]
    return [Member(dataset, example, tokens) for dataset, example, tokens in found if tokens is not None]
