"""What all rules that make a dataset do: keep a table of what was left out, and describe what is there."""

import json
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from swift_study.data.strategies import Reject
from swift_study.io.tables import REJECTS, read_examples, write_table


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
