"""Which example is seen at which step: written down as a table before training, the same for any number of processes."""

import random
from collections.abc import Sequence

import polars as pl

from swift_study.examples import Example


def mixed(examples: Sequence[Example], dataset: str, epochs: int, batch_size: int, seed: int) -> pl.DataFrame:
    """Every epoch sees each example once, in an order of its own drawn from ``seed``.

    One row for one use of an example: epoch and step from 1, position from 0 within the step. ``batch_size`` divides the
    number of examples.
    """
    ids = sorted(example.example_id for example in examples)
    rows = []
    for epoch in range(1, epochs + 1):
        order = random.Random(f"{seed}/{epoch}").sample(ids, len(ids))
        for number, example_id in enumerate(order):
            step, position = divmod(number, batch_size)
            rows.append(((epoch - 1) * (len(ids) // batch_size) + step + 1, epoch, position, example_id))
    frame = pl.DataFrame(rows, schema=["step", "epoch", "position", "example_id"], orient="row")
    return frame.with_columns(pl.lit(dataset).alias("dataset"))
