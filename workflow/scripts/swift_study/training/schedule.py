"""Which example is seen at which step: written down as a table before training, the same for any number of processes."""

import random
from collections.abc import Collection, Mapping, Sequence

import polars as pl

from swift_study.config import Part, Run
from swift_study.data.draw import in_order
from swift_study.errors import UserError
from swift_study.examples import Example


def make_schedule(run: Run, datasets: Mapping[str, Sequence[Example]], data_seed: int, left_out: Collection[str] = ()) -> pl.DataFrame:
    """One row for one use of an example: epoch and step from 1, position from 0 within the step, example and dataset.

    An epoch goes through the run's phases in their order, each a random mixture of its datasets, in an order of its own drawn from
    ``run.seed``; the epoch is cut into batches, of which the last may be smaller. Which examples of a dataset the run takes is drawn by
    ``data_seed`` alone, so that a smaller subset is part of a larger one. UserError if a dataset has too few examples.

    Examples in ``left_out`` (ids) are too long for the run's model: the run takes its examples as it would for any model, then drops these.
    """
    taken = chosen(run, datasets, data_seed)
    kept = {key: [i for i in ids if i not in left_out] for key, ids in taken.items()}
    for (number, name), ids in kept.items():
        if taken[number, name] and not ids:
            raise UserError(
                f"All {len(taken[number, name])} examples that the run takes of the dataset {name!r} are longer than model.max_length. "
                "Raise it, or set model.overlong to 'truncate'."
            )
    rows = []
    step = 0
    for epoch in range(1, run.epochs + 1):
        used: list[tuple[str, str]] = []
        for k, phase in enumerate(run.schedule):
            parts = [(i, name) for name, part in phase.items() for i in _in_epoch(kept[k, name], part, f"{run.seed}/{name}/{epoch}")]
            used += random.Random(f"{run.seed}/{k}/{epoch}").sample(parts, len(parts))
        for number, (example_id, name) in enumerate(used):
            extra, position = divmod(number, run.batch_size)
            rows.append((epoch, step + extra + 1, position, example_id, name))
        step += -(-len(used) // run.batch_size)
    return pl.DataFrame(rows, schema=["epoch", "step", "position", "example_id", "dataset"], orient="row")


def chosen(run: Run, datasets: Mapping[str, Sequence[Example]], data_seed: int) -> dict[tuple[int, str], list[str]]:
    """By phase and dataset the ids of the examples that the run takes, before any is left out for its length."""
    return {
        (k, name): _chosen(name, datasets[name], part, data_seed) for k, phase in enumerate(run.schedule) for name, part in phase.items()
    }


def _chosen(name: str, examples: Sequence[Example], part: Part, data_seed: int) -> list[str]:
    """Ids of the examples that the run uses, the same in every epoch."""
    if part.examples is None:
        return [example.example_id for example in examples]
    if part.examples > len(examples):
        raise UserError(
            f"The run asks for {part.examples} examples of the dataset {name!r}, which has {len(examples)}. Lower `examples` in its "
            f"schedule, or see why there are no more: data/rejects/{name}.parquet."
        )
    return [example.example_id for example in in_order(examples, data_seed)[: part.examples]]


def _in_epoch(ids: list[str], part: Part, seed: str) -> list[str]:
    """What one epoch sees of these: each ``weight`` times, its fraction by a draw."""
    times = int(part.weight)
    rest = round(len(ids) * part.weight) - times * len(ids)
    return ids * times + random.Random(seed).sample(ids, rest)
