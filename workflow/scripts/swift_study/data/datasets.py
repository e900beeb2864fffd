"""What rules do with any dataset: keep a table of what was left out, describe what is there, and look for what a loss needs."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import polars as pl

from swift_study.data.strategies import Reject
from swift_study.errors import UserError
from swift_study.examples import Example
from swift_study.io.tables import REJECTS, read_examples, write_table


def model_folder(model: Path) -> Path:
    """The model's folder from its model.json."""
    return Path(json.loads(model.read_text())["folder"])


def write_rejects(path: Path, rejects: Sequence[Reject]) -> None:
    write_table(path, pl.DataFrame([vars(r) for r in rejects], schema=dict.fromkeys(REJECTS.names) | {"attempts": pl.Int64}), REJECTS)


def check_values(examples: Iterable[Example], dataset: str) -> None:
    """UserError, with the dataset and the example's file and row, for one that does not say which part of its completion is the answer."""
    for example in examples:
        if not example.value_spans:
            source = f", {example.source}" if example.source else ""
            raise UserError(
                f"The dataset {dataset!r} has no values for loss_on: values. Its example {example.example_id}{source}, query "
                f"{example.query[:60]!r}, does not say which part of its completion is the answer. Take the dataset in a design that marks "
                f"values, such as {dataset}.plain (docs/data.md), or set loss_on to 'completion'."
            )


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
