"""Influence: RelInf of every probe on every target at every checkpoint (SPEC §4, eq. 3).

RelInf(z, z₀; θ) = ⟨∇ℓ(z), ∇ℓ(z₀)⟩ / ⟨∇ℓ(z₀), ∇ℓ(z₀)⟩, by the arguments (probe z, target z₀).
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import torch

from swift_study.errors import UserError
from swift_study.gradients.engine import GRADIENT_COLUMNS, MODULE_COLUMNS
from swift_study.gradients.sketch import sketched_products
from swift_study.io.tables import read_arrow

# Vectors can be multiplied only if all of these are the same.
MUST_AGREE = ("scope", "representation", "projection_seed", "checkpoint", "panel")


@dataclass(frozen=True)
class GradientFile:
    path: Path
    rows: pl.DataFrame  # the columns without the vectors, and `row`, the number of a row in the file
    vectors: np.ndarray  # (rows, D) as stored, float32 or float64
    metadata: dict[str, str]
    adam: np.ndarray | None = None  # (rows, D'): vectors whose inner products are preconditioned as Adam's steps are

    def of(self, dataset: str) -> "GradientFile":
        """The part of one dataset. UserError if the file has none of it."""
        mask = (self.rows["dataset"] == dataset).to_numpy()
        if not mask.any():
            known = ", ".join(self.rows["dataset"].unique(maintain_order=True))
            raise UserError(f"{self.path}: there are no gradients of the dataset '{dataset}'; the file has {known}.")
        found = np.flatnonzero(mask)
        together = len(found) == found[-1] - found[0] + 1
        rows = slice(found[0], found[-1] + 1) if together else found  # a slice copies nothing
        adam = None if self.adam is None else self.adam[rows]
        return GradientFile(self.path, self.rows.filter(mask), self.vectors[rows], self.metadata, adam)

    def part(self, start: int, stop: int) -> "GradientFile":
        """Some rows, by their place in this one."""
        adam = None if self.adam is None else self.adam[start:stop]
        return GradientFile(self.path, self.rows[start:stop], self.vectors[start:stop], self.metadata, adam)


def read_gradients(path: Path) -> GradientFile:
    """With or without the columns `norm_sq_adam` and `gradient_adam`, which only runs with second moments have."""
    table = read_arrow(path, GRADIENT_COLUMNS)
    vectors = _vectors(path, table, "gradient")
    adam = None
    if "gradient_adam" in table.column_names:
        read_arrow(path, pa.schema([("norm_sq_adam", pa.float64())]))
        adam = _vectors(path, table, "gradient_adam")
    metadata = {k.decode(): v.decode() for k, v in (table.schema.metadata or {}).items()}
    rows = table.drop_columns([name for name in ("gradient", "gradient_adam") if name in table.column_names])
    return GradientFile(path, pl.DataFrame(rows).with_row_index("row"), vectors, metadata, adam)


def _vectors(path: Path, table: pa.Table, name: str) -> np.ndarray:
    """A column of vectors, shape (rows, D), as it is stored."""
    position = table.schema.get_field_index(name)
    kind = table.schema.field(position).type if position >= 0 else None
    if kind is None or not pa.types.is_fixed_size_list(kind) or not pa.types.is_floating(kind.value_type):
        found = "missing" if kind is None else str(kind)
        raise UserError(f"{path}: the column '{name}' is {found}, expected a fixed-size list of numbers.")
    parts = [chunk.flatten().to_numpy(zero_copy_only=False).reshape(-1, kind.list_size) for chunk in table.column(name).chunks]
    vectors: np.ndarray = parts[0] if len(parts) == 1 else np.concatenate(parts or [np.empty((0, kind.list_size))])
    return vectors if vectors.dtype == np.float32 else vectors.astype(np.float64, copy=False)


def inner_products(probes: GradientFile, targets: GradientFile) -> tuple[np.ndarray, np.ndarray | None]:
    """⟨probe, target⟩ for all pairs, shape (probes, targets), float64; and of sketches their standard errors, else None.

    UserError if the vectors are of different checkpoints, scopes, representations or projections.
    """
    for key in MUST_AGREE:
        if probes.metadata.get(key) != targets.metadata.get(key):
            raise UserError(
                f"{probes.path} and {targets.path} cannot be multiplied: their {key} differs "
                f"({probes.metadata.get(key)} and {targets.metadata.get(key)}). Make both with the same settings at the same checkpoint."
            )
    if probes.metadata.get("representation") == "sketch":
        products, errors = sketched_products(probes.vectors, targets.vectors)
        return products.astype(np.float64), errors.astype(np.float64)
    return _products(probes.vectors, targets.vectors), None


def _products(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """left rightᵀ in float64, of long vectors a piece at a time: a copy of all in float64 might not fit."""
    total = np.zeros((len(left), len(right)))
    for start in range(0, left.shape[1], 2**13):
        piece = slice(start, start + 2**13)
        total += left[:, piece].astype(np.float64, copy=False) @ right[:, piece].astype(np.float64, copy=False).T
    return total


def pairs_at_checkpoint(
    gradients: GradientFile,
    study: str,
    run: str,
    probes: Mapping[str, str],
    targets: Mapping[str, str],
    norm_floor: float,
    at_once: int = 2**18,
) -> Iterator[pl.DataFrame]:
    """Every probe × target × (probe set, target set) at one checkpoint, some ``at_once``: the pairs table's columns and two row numbers.

    Names and ids are of an enumeration: a number for each pair, which a Parquet file stores as it is. The next frames are made while one
    is used, each by one of as many threads as PyTorch has.
    """
    of = {name: gradients.of(name) for name in dict.fromkeys([*probes.values(), *targets.values()])}
    rows = pl.concat(file.rows for file in of.values())
    ids = pl.Enum(rows["example_id"].unique(maintain_order=True))
    names = pl.Enum(list(dict.fromkeys([study, run, "in-task", "cross-task", *probes, *targets, *rows["task"]])))
    same = pl.col("probe_task") == pl.col("target_task")
    named = [
        pl.lit(study, names).alias("study"),
        pl.lit(run, names).alias("run"),
        pl.when(same).then(pl.lit("in-task", names)).otherwise(pl.lit("cross-task", names)).alias("context"),
    ]

    def some(probe_set: str, p: GradientFile, t: GradientFile, right: pl.DataFrame) -> pl.DataFrame:
        pairs = _side(p.rows, "probe", probe_set, names, ids).join(right, how="cross", maintain_order="left_right")
        return _scored(pairs, p, t, norm_floor).with_columns(named)

    def blocks() -> Iterator[tuple[str, GradientFile, GradientFile, pl.DataFrame]]:
        for probe_set, probe_dataset in probes.items():
            for target_set, target_dataset in targets.items():
                t = of[target_dataset]
                right = _side(t.rows, "target", target_set, names, ids)
                step = max(1, at_once // len(t.rows))
                for start in range(0, len(of[probe_dataset].rows), step):
                    yield probe_set, of[probe_dataset].part(start, start + step), t, right

    yield from _in_threads(some, blocks())


def _in_threads(make: Callable[..., pl.DataFrame], blocks: Iterable[tuple[Any, ...]]) -> Iterator[pl.DataFrame]:
    """``make`` of every block, in their order, by threads that each work alone: none waits for another at the end of each small product."""
    count = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(count) as threads:
            coming: deque[Future[pl.DataFrame]] = deque()
            for block in blocks:
                coming.append(threads.submit(make, *block))
                if len(coming) > count:
                    yield coming.popleft().result()
            while coming:
                yield coming.popleft().result()
    finally:
        torch.set_num_threads(count)


def _scored(pairs: pl.DataFrame, p: GradientFile, t: GradientFile, norm_floor: float) -> pl.DataFrame:
    dots, errors = inner_products(p, t)
    error = pl.lit(None, pl.Float64) if errors is None else pl.lit(pl.Series(errors.reshape(-1)))
    adam = None if p.adam is None or t.adam is None else _products(p.adam, t.adam)
    dot_adam = pl.lit(float("nan")) if adam is None else pl.lit(pl.Series(adam.reshape(-1)))
    usable_adam = pl.col("dot_adam").is_not_nan() & (pl.col("target_norm_sq_adam") > norm_floor)
    pairs = pairs.with_columns(pl.Series("dot", dots.reshape(-1)), error.alias("dot_error"), dot_adam.alias("dot_adam"))
    return _with_scores(pairs, norm_floor).with_columns(
        pl.when(usable_adam).then(pl.col("dot_adam") / pl.col("target_norm_sq_adam")).alias("rel_inf_adam")
    )


def _with_scores(pairs: pl.DataFrame, norm_floor: float) -> pl.DataFrame:
    """Pairs with ``rel_inf`` and ``cosine`` from inner products and norms."""
    usable_target = pl.col("target_norm_sq").is_not_nan() & (pl.col("target_norm_sq") > norm_floor) & pl.col("dot").is_not_nan()
    usable_probe = usable_target & pl.col("probe_norm_sq").is_not_nan() & (pl.col("probe_norm_sq") > norm_floor)
    return pairs.with_columns(
        pl.when(usable_target).then(pl.col("dot") / pl.col("target_norm_sq")).alias("rel_inf"),
        pl.when(usable_probe).then(pl.col("dot") / (pl.col("probe_norm_sq").sqrt() * pl.col("target_norm_sq").sqrt())).alias("cosine"),
    )


def read_modules(path: Path, gradients: GradientFile) -> pl.DataFrame:
    """The inner products of each module by itself, of the rows of a gradient file at the same checkpoint."""
    table = read_arrow(path, MODULE_COLUMNS)
    n = len(gradients.rows)
    lengths = set(pl.DataFrame(table)["inner_products"].list.len())
    if lengths - {n * (n + 1) // 2}:
        raise UserError(
            f"{path}: a module has {min(lengths - {n * (n + 1) // 2})} inner products, but {gradients.path} has {n} examples, which make "
            f"{n * (n + 1) // 2} pairs. Make both anew by their rule."
        )
    theirs = (table.schema.metadata or {}).get(b"checkpoint", b"").decode()
    if theirs != gradients.metadata.get("checkpoint", ""):
        raise UserError(f"{path} and {gradients.path} are of different checkpoints. Make both anew by their rule.")
    return pl.DataFrame(table)


def part_pairs(pairs: pl.DataFrame, modules: pl.DataFrame, by: str, norm_floor: float) -> pl.DataFrame:
    """Pairs of one checkpoint again for each family (or layer) of modules by itself: ``by`` is a column of both.

    ``rel_inf`` and ``cosine`` are those of the part's own gradients; ``carried`` is the part's inner product over the target's whole
    squared norm, so that the sum over parts is the pair's RelInf. Null where the pair has none.
    """
    probe, target = pairs["probe_row"].to_numpy(), pairs["target_row"].to_numpy()
    parts = []
    for (key,), part in modules.group_by(by, maintain_order=True):
        gram = _symmetric(np.sum(part["inner_products"].to_numpy(), axis=0))
        norms_sq = np.diagonal(gram)
        dots = pl.Series("dot", gram[probe, target])
        own = pairs.with_columns(
            pl.lit(key, modules.schema[by]).alias(by),
            dots,
            pl.Series("probe_norm_sq", norms_sq[probe]),
            pl.Series("target_norm_sq", norms_sq[target]),
            pl.when(pl.col("rel_inf").is_not_null()).then(pl.lit(dots) / pl.col("target_norm_sq")).alias("carried"),
        )
        parts.append(_with_scores(own, norm_floor))
    return (
        pl.concat(parts) if parts else pairs.clear().with_columns(pl.lit(None, modules.schema[by]).alias(by), pl.lit(0.0).alias("carried"))
    )


def _symmetric(triangle: np.ndarray) -> np.ndarray:
    """The (N, N) matrix whose upper triangle this is, row by row, with the diagonal."""
    n = int((2 * len(triangle) + 0.25) ** 0.5)
    matrix = np.empty((n, n))
    upper = np.triu_indices(n)
    matrix[upper] = triangle
    matrix.T[upper] = triangle
    return matrix


def _side(rows: pl.DataFrame, side: str, name: str, names: pl.Enum, ids: pl.Enum) -> pl.DataFrame:
    columns = [
        pl.lit(name, names).alias(f"{side}_set"),
        pl.col("example_id").cast(ids).alias(f"{side}_id"),
        pl.col("task").cast(names).alias(f"{side}_task"),
        pl.col("norm_sq").alias(f"{side}_norm_sq"),
        (pl.col("norm_sq_adam") if "norm_sq_adam" in rows.columns else pl.lit(float("nan"))).alias(f"{side}_norm_sq_adam"),
        pl.col("n_tokens").alias(f"{side}_tokens"),
        pl.col("row").alias(f"{side}_row"),
    ]
    return rows.select(*columns, *(["step"] if side == "probe" else []))
