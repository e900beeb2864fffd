"""Where a dataset meets a model: how long its examples are, and which of them a run or a panel leaves out."""

from collections.abc import Sequence

import polars as pl

from swift_study.errors import UserError
from swift_study.examples import Example
from swift_study.io.tables import LENGTHS, read_tables
from swift_study.models.rendering import Overlong, Renderer


def measure(examples: Sequence[Example], renderer: Renderer, dataset: str, model: str) -> pl.DataFrame:
    """One row an example, as the schema LENGTHS has it; ``reason`` is set where `model.overlong: skip` leaves the example out.

    UserError, with the dataset and the example's file and row, for one that is too long otherwise or that the chat template refuses.
    """
    rows = []
    for example in examples:
        reason = None
        try:
            tokens = renderer.tokens(example)
            prompt, completion = tokens.prompt_length, tokens.n_completion
        except UserError as error:
            if not isinstance(error, Overlong) or renderer.settings.overlong != "skip":
                place = f"{example.source} (dataset {dataset!r})" if example.source else f"Dataset {dataset!r}"
                raise UserError(f"{place}: {error}") from error
            prompt, completion = error.prompt, error.completion
            reason = f"longer than model.max_length = {renderer.settings.max_length} tokens"
        rows.append((model, dataset, example.example_id, example.task, prompt, completion, reason))
    return pl.DataFrame(rows, schema=dict.fromkeys(LENGTHS.names) | {"reason": pl.String}, orient="row")


def left_out(lengths: Sequence[str]) -> dict[str, str]:
    """By its id the reason for each example that is left out, from files of lengths of one model."""
    left_out = read_tables(lengths, LENGTHS).drop_nulls("reason")
    return dict(left_out.select("example_id", "reason").iter_rows())


def about_lengths(lengths: Sequence[str]) -> pl.DataFrame:
    """A row a dataset and model, as the schema TOKENS has it, from files of lengths."""
    found = read_tables(lengths, LENGTHS)
    return found.group_by("model", "dataset", maintain_order=True).agg(
        n_examples=pl.len().cast(pl.Int64),
        n_left_out=pl.col("reason").is_not_null().sum().cast(pl.Int64),
        mean_prompt_tokens=pl.col("prompt_tokens").mean(),
        mean_completion_tokens=pl.col("completion_tokens").mean(),
        longest=(pl.col("prompt_tokens") + pl.col("completion_tokens")).max(),
    )
