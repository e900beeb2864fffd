"""What all rules that make a dataset do: hold it against the model's context, and keep a table of what was left out."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import polars as pl

from swift_study.config import Model
from swift_study.data.strategies import Reject
from swift_study.errors import UserError
from swift_study.examples import Example
from swift_study.io.tables import REJECTS, read_examples, write_table
from swift_study.models.rendering import Overlong, load_renderer


def fit(
    examples: Sequence[Example], model: Path, settings: Model, dataset: str, places: Mapping[str, str] | None = None
) -> tuple[list[Example], list[Reject]]:
    """The examples that the model's context holds, by the policy ``model.overlong``; with `skip` the others as rejects.

    With `error`, UserError for the first that is too long; with `truncate` its prompt is cut when it becomes tokens. UserError as well for
    one that the chat template refuses. ``places`` says for an example's id where it comes from (file and row), for the sentence.
    """
    renderer = load_renderer(model_folder(model), settings)
    kept, rejects = [], []
    for example in examples:
        try:
            renderer.tokens(example)
            kept.append(example)
        except UserError as error:
            if settings.overlong == "skip" and isinstance(error, Overlong):
                reason = f"longer than model.max_length = {settings.max_length} tokens"
                rejects.append(Reject(dataset, example.task, example.example_id, reason, 1, None))
                continue
            place = (places or {}).get(example.example_id)
            raise UserError(f"{place}: {error}" if place else str(error)) from error
    return kept, rejects


def model_folder(model: Path) -> Path:
    """The model's folder from its model.json."""
    return Path(json.loads(model.read_text())["folder"])


def write_rejects(path: Path, rejects: Sequence[Reject]) -> None:
    write_table(path, pl.DataFrame([vars(r) for r in rejects], schema=dict.fromkeys(REJECTS.names) | {"attempts": pl.Int64}), REJECTS)


def describe(path: Path, rejects: pl.DataFrame) -> dict[str, object]:
    """A row of the table of datasets; ``rejects`` are those of all datasets."""
    examples = read_examples(path)
    words = [len(e.completion.split()) for e in examples]
    return {
        "dataset": path.stem,
        "n_examples": len(examples),
        "n_tasks": len({e.task for e in examples}),
        "mean_completion_words": sum(words) / len(words),
        "n_rejected": len(rejects.filter(pl.col("dataset") == path.stem)),
    }
