"""What a run published: its folder of checkpoints, with a table of what is in it."""

from dataclasses import dataclass
from pathlib import Path

from swift_study.errors import UserError
from swift_study.io.tables import CHECKPOINTS, read_table

TABLE = "checkpoints.parquet"


@dataclass(frozen=True)
class Checkpoint:
    """A run's state after a step: a folder with all weights or with an adapter; no folder where it is the model itself."""

    step: int
    folder: Path | None


def folder_name(step: int) -> str:
    """The names' order is that of the steps."""
    return f"step-{step:06d}"


def read_checkpoints(folder: Path) -> list[Checkpoint]:
    """Those of a run in the order of their steps; the last is the state in which it ended.

    UserError if the table is missing or names a folder that is not there.
    """
    found = []
    for row in read_table(folder / TABLE, CHECKPOINTS).sort("number").iter_rows(named=True):
        path = None if row["path"] is None else folder / row["path"]
        if path is not None and not path.is_dir():
            raise UserError(
                f"{folder / TABLE} names the checkpoint {row['path']}, which is not there. Delete {folder} and run snakemake again: the "
                "run is trained anew."
            )
        found.append(Checkpoint(row["step"], path))
    if not found:
        raise UserError(f"{folder / TABLE}: the run has no checkpoint. Delete {folder} and run snakemake again.")
    return found


def last_checkpoint(folder: Path) -> Path | None:
    """The state in which a run ended; None where that is the model itself."""
    return read_checkpoints(folder)[-1].folder
