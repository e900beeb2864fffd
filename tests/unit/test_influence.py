"""Influence: RelInf as equation 3 has it, from gradient files that fit together; what has no RelInf is null."""

import math
from pathlib import Path

import numpy as np
import polars as pl
import polars.selectors as cs
import pyarrow as pa
import pytest
import torch
from polars.testing import assert_frame_equal

from swift_study.config import Statistics
from swift_study.errors import UserError
from swift_study.examples import Example, Message
from swift_study.gradients.engine import MODULE_COLUMNS, PanelGradients, gradient_table
from swift_study.gradients.sketch import sketched_products
from swift_study.influence.pairs import GradientFile, inner_products, pairs_at_checkpoint, part_pairs, read_gradients, read_modules
from swift_study.influence.statistics import curves
from swift_study.io.tables import FAMILIES, LAYERS, PAIRS, read_table, write_arrow, write_table
from swift_study.models.tokens import Tokens

METADATA = {"scope": "lora", "representation": "exact", "projection_seed": "none", "checkpoint": "c1", "panel": "p1"}
FLOOR = 1e-12
TASKS = ["a", "b", "c"]
VECTORS = np.random.default_rng(0).standard_normal((9, 5))  # 3 probes, 3 of the control, 3 targets


def example(task: str, number: int) -> Example:
    messages = [Message(role="user", content=f"q{number}"), Message(role="assistant", content="x")]
    return Example(task=task, messages=messages)


EXAMPLES = [example(task, number) for number in range(3) for task in TASKS]
DATASETS = [name for name in ("panel.cot", "panel", "panel.similar") for _ in TASKS]
TOKENS = [Tokens(list(range(10 + i)), 4) for i in range(9)]


def table(vectors: np.ndarray, norms_sq: np.ndarray | None = None, step: int = 8) -> pa.Table:
    norms = norms_sq if norms_sq is not None else np.square(vectors.astype(np.float64)).sum(axis=1)
    n = len(vectors)
    gradients = PanelGradients(np.arange(n) / 2, norms, vectors)
    return gradient_table(step, DATASETS[:n], EXAMPLES[:n], TOKENS[:n], gradients)


def stored(path: Path, content: pa.Table | None = None, **metadata: str) -> GradientFile:
    write_arrow(path, content if content is not None else table(VECTORS), METADATA | metadata)
    return read_gradients(path)


def pairs(gradients: GradientFile, floor: float = FLOOR) -> pl.DataFrame:
    probes, targets = {"CoT": "panel.cot", "non-CoT": "panel"}, {"T": "panel.similar"}
    return pl.concat(pairs_at_checkpoint(gradients, "cot", "base", probes, targets, floor, at_once=4))  # a probe at a time


def matrix(frame: pl.DataFrame, column: str, probe_set: str = "CoT") -> np.ndarray:
    """A column as (probes, targets), in the order of the examples; null as NaN."""
    values = frame.filter(pl.col("probe_set") == probe_set)[column].to_numpy()
    return values.reshape(3, 3)


@pytest.fixture
def gradients(tmp_path: Path) -> GradientFile:
    return stored(tmp_path / "g.parquet")


# ---- numbers ----


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_scores_are_those_of_plain_vectors(dtype: type, tmp_path: Path) -> None:
    vectors: np.ndarray = VECTORS.astype(dtype)
    frame = pairs(stored(tmp_path / "g.parquet", table(vectors)))
    exact = vectors.astype(np.float64)
    targets = exact[6:]
    for name, probes in (("CoT", exact[:3]), ("non-CoT", exact[3:6])):
        dot = np.array([[p @ t for t in targets] for p in probes])
        rel_inf = np.array([[(p @ t) / (t @ t) for t in targets] for p in probes])
        cosine = np.array([[(p @ t) / np.linalg.norm(p) / np.linalg.norm(t) for t in targets] for p in probes])
        np.testing.assert_allclose(matrix(frame, "dot", name), dot, rtol=1e-13)
        np.testing.assert_allclose(matrix(frame, "rel_inf", name), rel_inf, rtol=1e-12)
        np.testing.assert_allclose(matrix(frame, "cosine", name), cosine, rtol=1e-12)


def test_rel_inf_divides_by_the_target_and_not_by_the_probe(tmp_path: Path) -> None:
    """A probe twice as long has twice the influence, a target twice as long feels half of it; of itself it is 1."""
    vectors = np.zeros((9, 2))
    vectors[:, 0] = [1, 2, 3, 1, 1, 1, 1, 2, 4]
    frame = pairs(stored(tmp_path / "g.parquet", table(vectors)))
    np.testing.assert_allclose(matrix(frame, "rel_inf"), [[1, 1 / 2, 1 / 4], [2, 1, 1 / 2], [3, 3 / 2, 3 / 4]])
    np.testing.assert_allclose(matrix(frame, "cosine"), np.ones((3, 3)))


def test_every_probe_meets_every_target_with_its_context(gradients: GradientFile) -> None:
    frame = pairs(gradients)
    assert frame.height == 2 * 3 * 3
    rows = frame.select("probe_set", "target_set", "probe_id", "target_id", "context").rows()
    expected = [
        (name, "T", EXAMPLES[start + i].example_id, EXAMPLES[6 + j].example_id, "in-task" if i == j else "cross-task")
        for name, start in (("CoT", 0), ("non-CoT", 3))
        for i in range(3)
        for j in range(3)
    ]
    assert rows == expected


@pytest.mark.parametrize("threads", [1, 3])
def test_any_number_of_threads_keeps_the_order_of_pairs_and_is_left_as_it_was(gradients: GradientFile, threads: int) -> None:
    expected = pairs(gradients)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        assert_frame_equal(pairs(gradients), expected)
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    ids = [gradients.of(name).rows["example_id"] for name in ("panel.cot", "panel", "panel.similar")]
    grids = [(p, t) for probes in ids[:2] for p in probes for t in ids[2]]
    assert expected.select("probe_id", "target_id").rows() == grids


def test_rows_say_where_they_come_from_and_make_the_pairs_table(gradients: GradientFile, tmp_path: Path) -> None:
    frame = pairs(gradients)
    assert frame.select("study", "run", "step").unique().rows() == [("cot", "base", 8)]
    first = frame.row(1, named=True)
    assert (first["probe_task"], first["target_task"]) == ("a", "b")
    assert (first["probe_tokens"], first["target_tokens"]) == (6, 13)  # completion tokens of examples 0 and 7
    assert first["probe_norm_sq"] == pytest.approx(VECTORS[0] @ VECTORS[0])
    assert first["target_norm_sq"] == pytest.approx(VECTORS[7] @ VECTORS[7])
    write_table(tmp_path / "pairs.parquet", frame, PAIRS)
    assert read_table(tmp_path / "pairs.parquet", PAIRS).equals(frame.select(PAIRS.names))


def test_several_target_sets_are_kept_apart(gradients: GradientFile) -> None:
    targets = {"T": "panel.similar", "P": "panel"}
    frame = pl.concat(pairs_at_checkpoint(gradients, "s", "base", {"CoT": "panel.cot"}, targets, FLOOR))
    assert frame["target_set"].to_list() == ["T"] * 9 + ["P"] * 9
    assert frame["dot"][0] == pytest.approx(VECTORS[0] @ VECTORS[6])
    assert frame["dot"][9] == pytest.approx(VECTORS[0] @ VECTORS[3])


# ---- gradients that have no RelInf ----


def spoilt(row: int, value: float) -> pa.Table:
    vectors = VECTORS.copy()
    vectors[row] = value
    return table(vectors)


@pytest.mark.parametrize("value", [math.nan, 0.0])
def test_target_without_a_gradient_has_no_rel_inf_and_the_others_keep_theirs(value: float, tmp_path: Path) -> None:
    whole = pairs(stored(tmp_path / "whole.parquet"))
    frame = pairs(stored(tmp_path / "g.parquet", spoilt(7, value)))
    for score in ("rel_inf", "cosine"):
        assert frame.filter(pl.col("target_id") == EXAMPLES[7].example_id)[score].to_list() == [None] * 6
        others = pl.col("target_id") != EXAMPLES[7].example_id
        assert frame.filter(others)[score].to_list() == whole.filter(others)[score].to_list()
    assert not frame["rel_inf"].is_nan().any()

    counted = curves(frame, Statistics(resamples=200)).filter(pl.col("probe_set") == "CoT").sort("context")
    assert counted.select("context", "n_pairs", "n_skipped").rows() == [("cross-task", 4, 2), ("in-task", 2, 1)]


def test_probe_without_a_finite_gradient_has_no_scores(tmp_path: Path) -> None:
    frame = pairs(stored(tmp_path / "g.parquet", spoilt(1, math.nan)))
    for score in ("rel_inf", "cosine"):
        assert np.isnan(matrix(frame, score)).tolist() == [[False] * 3, [True] * 3, [False] * 3]
        assert frame[score].null_count() == 3  # null, not NaN


def test_probe_with_a_zero_gradient_has_no_influence_and_no_direction(tmp_path: Path) -> None:
    frame = pairs(stored(tmp_path / "g.parquet", spoilt(1, 0.0)))
    assert matrix(frame, "rel_inf")[1].tolist() == [0.0, 0.0, 0.0]
    assert np.isnan(matrix(frame, "cosine")[1]).all()


def test_floor_is_on_the_squared_norm_and_settable(tmp_path: Path) -> None:
    vectors = VECTORS.copy()
    vectors[6:] *= np.array([1e-5, 1e-7, 1.0])[:, None]
    gradients = stored(tmp_path / "g.parquet", table(vectors))
    assert np.isnan(matrix(pairs(gradients), "rel_inf")[0]).tolist() == [False, True, False]
    assert np.isnan(matrix(pairs(gradients, 1e-8), "rel_inf")[0]).tolist() == [True, True, False]
    assert np.isnan(matrix(pairs(gradients, 0.0), "rel_inf")[0]).tolist() == [False, False, False]
    zero = stored(tmp_path / "zero.parquet", spoilt(7, 0.0))
    assert pairs(zero, 0.0)["rel_inf"][:3].is_null().to_list() == [False, True, False]


def test_norm_that_is_not_a_number_gives_no_scores_even_where_the_product_is_one(tmp_path: Path) -> None:
    norms = np.square(VECTORS).sum(axis=1)
    norms[[1, 7]] = math.nan
    frame = pairs(stored(tmp_path / "g.parquet", table(VECTORS, norms)))
    assert frame["rel_inf"].null_count() == 6
    assert frame["cosine"].null_count() == 6 + 2
    assert not frame["rel_inf"].is_nan().any()
    assert not frame["cosine"].is_nan().any()


# ---- files that do not fit ----


@pytest.mark.parametrize("key", ["scope", "representation", "projection_seed", "checkpoint", "panel"])
def test_files_made_differently_are_not_multiplied(key: str, tmp_path: Path) -> None:
    one, two = stored(tmp_path / "one.parquet"), stored(tmp_path / "two.parquet", **{key: "other"})
    with pytest.raises(UserError) as caught:
        inner_products(one.of("panel.cot"), two.of("panel.similar"))
    told = f"{tmp_path / 'one.parquet'} and {tmp_path / 'two.parquet'} cannot be multiplied: their {key} differs "
    assert str(caught.value).startswith(told + f"({METADATA[key]} and other)")


def test_file_without_the_metadata_is_not_multiplied_with_one_that_has_it(tmp_path: Path) -> None:
    one = stored(tmp_path / "one.parquet")
    write_arrow(tmp_path / "two.parquet", table(VECTORS))
    with pytest.raises(UserError, match="their scope differs"):
        inner_products(one, read_gradients(tmp_path / "two.parquet"))


def test_files_made_alike_are_multiplied(tmp_path: Path) -> None:
    one, two = stored(tmp_path / "one.parquet", other="x"), stored(tmp_path / "two.parquet", other="y")
    products, errors = inner_products(one.of("panel"), two)
    np.testing.assert_allclose(products, VECTORS[3:6] @ VECTORS.T)
    assert errors is None


def test_long_float32_vectors_are_multiplied_in_float64(tmp_path: Path) -> None:
    """Sixteen million ones: a float32 sum would stop growing."""
    vectors = np.ones((2, 2**24 + 8), np.float32)
    file = stored(tmp_path / "g.parquet", table(vectors))
    assert inner_products(file, file)[0].tolist() == [[2**24 + 8] * 2] * 2


def test_sketches_have_an_error_bar_in_the_table_and_others_none(gradients: GradientFile, tmp_path: Path) -> None:
    vectors = np.random.default_rng(3).normal(size=(9, 64)).astype(np.float32)
    frame = pairs(stored(tmp_path / "g.parquet", table(vectors), representation="sketch"))
    products, errors = sketched_products(vectors[:3], vectors[6:])
    np.testing.assert_allclose(matrix(frame, "dot"), products, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(matrix(frame, "dot_error"), errors, rtol=1e-3)
    assert errors.min() > 0
    write_table(tmp_path / "pairs.parquet", frame, PAIRS)
    assert read_table(tmp_path / "pairs.parquet", PAIRS)["dot_error"].to_list() == frame["dot_error"].to_list()
    assert pairs(gradients)["dot_error"].null_count() == 18


def test_dataset_that_the_file_lacks_is_told(gradients: GradientFile) -> None:
    message = r"g\.parquet: there are no gradients of the dataset 'x'; the file has panel\.cot, panel, panel\.similar"
    with pytest.raises(UserError, match=message):
        next(pairs_at_checkpoint(gradients, "s", "base", {"C": "x"}, {"T": "panel.similar"}, FLOOR))


def test_file_cut_short_is_told(tmp_path: Path) -> None:
    path = tmp_path / "g.parquet"
    stored(path)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(UserError, match=r"g\.parquet: this is not a whole Parquet file .* delete it and run"):
        read_gradients(path)


def replaced(name: str, column: pa.Array) -> pa.Table:
    whole = table(VECTORS)
    return whole.set_column(whole.schema.get_field_index(name), name, column)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (replaced("gradient", pa.array([[1.0, 2.0]] * 9)), "'gradient' is list<element: double>, expected a fixed"),
        (replaced("gradient", pa.array([1.0] * 9)), "'gradient' is double, expected a fixed-size list of numbers"),
        (
            replaced("gradient", pa.array([["x", "y"]] * 9, pa.list_(pa.string(), 2))),
            "'gradient' is fixed_size_list<element: string>[2], expected a fixed-size list of numbers",
        ),
        (table(VECTORS).drop_columns(["gradient"]), "'gradient' is missing, expected a fixed-size list of numbers"),
        (table(VECTORS).drop_columns(["norm_sq"]), "'norm_sq' (double) is missing; the file has step, dataset"),
        (replaced("step", pa.array([1.0] * 9)), "'step' is double, expected int64"),
    ],
    ids=["list", "number", "text", "no gradient", "no norm", "step"],
)
def test_gradient_file_of_another_schema_is_told(content: pa.Table, told: str, tmp_path: Path) -> None:
    path = tmp_path / "g.parquet"
    write_arrow(path, content, METADATA)
    with pytest.raises(UserError) as caught:
        read_gradients(path)
    assert str(caught.value).startswith(f"{path}: the column {told}")


# ---- Adam's scale ----


def with_adam(vectors: np.ndarray) -> pa.Table:
    """The gradient table with preconditioned vectors beside the others, as of a run that keeps its second moments."""
    flat = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), vectors.shape[1])
    return table(VECTORS).append_column("norm_sq_adam", pa.array(np.square(vectors).sum(axis=1))).append_column("gradient_adam", flat)


def test_preconditioned_vectors_give_a_score_of_their_own(tmp_path: Path) -> None:
    scaled = VECTORS * np.array([3.0, 0.1, 1.0, 7.0, 0.5])
    plain, adam = pairs(stored(tmp_path / "a.parquet")), pairs(stored(tmp_path / "b.parquet", with_adam(scaled)))
    by_hand = np.array([[(p @ t) / (t @ t) for t in scaled[6:]] for p in scaled[:3]])
    np.testing.assert_allclose(matrix(adam, "rel_inf_adam"), by_hand, rtol=1e-12)
    assert plain["rel_inf_adam"].null_count() == len(plain)
    assert plain.drop(cs.ends_with("adam")).equals(adam.drop(cs.ends_with("adam")))
    write_table(tmp_path / "pairs.parquet", plain, PAIRS)
    assert read_table(tmp_path / "pairs.parquet", PAIRS)["rel_inf_adam"].dtype == pl.Float64


def test_preconditioned_targets_below_the_floor_have_no_score(tmp_path: Path) -> None:
    scaled = VECTORS.copy()
    scaled[7] = 1e-8
    frame = pairs(stored(tmp_path / "g.parquet", with_adam(scaled)))
    assert np.isnan(matrix(frame, "rel_inf_adam")[:, 1]).all()
    assert not np.isnan(matrix(frame, "rel_inf_adam")[:, [0, 2]]).any()
    assert frame["rel_inf"].null_count() == 0


def test_preconditioned_vectors_without_norms_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"the column 'norm_sq_adam' .* is missing"):
        stored(tmp_path / "g.parquet", with_adam(VECTORS).drop_columns(["norm_sq_adam"]))


# ---- by family and layer ----

# A module's own part of each gradient: two layers with an up and a down projection, and an embedding outside the layers.
MODULES = {
    "layers.0.up": (0, "up", slice(0, 1)), "layers.0.down": (0, "down", slice(1, 2)), "layers.1.up": (1, "up", slice(2, 3)),
    "layers.1.down": (1, "down", slice(3, 4)), "embed": (None, "embed", slice(4, 5)),
}  # fmt: skip


def stored_modules(path: Path, examples: int = 9, checkpoint: str = "c1") -> Path:
    """The modules file that goes with the gradient table of ``VECTORS``."""
    upper = np.triu_indices(examples)
    rows = [
        {"step": 8, "module": name, "layer": layer, "family": family, "inner_products": (own @ own.T)[upper].tolist()}
        for name, (layer, family, columns) in MODULES.items()
        for own in [VECTORS[:examples, columns]]
    ]
    write_arrow(path, pa.Table.from_pylist(rows, MODULE_COLUMNS), METADATA | {"checkpoint": checkpoint})
    return path


def test_parts_are_those_of_the_vectors_own_parts(gradients: GradientFile, tmp_path: Path) -> None:
    modules = read_modules(stored_modules(tmp_path / "m.parquet"), gradients)
    whole = pairs(gradients)
    for by, columns in (("family", {"up": [0, 2], "down": [1, 3], "embed": [4]}), ("layer", {0: [0, 1], 1: [2, 3], None: [4]})):
        parts = part_pairs(whole, modules, by, FLOOR)
        assert len(parts) == 3 * len(whole)
        for key, own in columns.items():
            part = parts.filter(pl.col(by).eq_missing(pl.lit(key)))
            p, t = VECTORS[:3, own], VECTORS[6:, own]
            norms = np.square(t).sum(axis=1)
            np.testing.assert_allclose(matrix(part, "rel_inf"), p @ t.T / norms, rtol=1e-10)
            np.testing.assert_allclose(matrix(part, "cosine"), p @ t.T / np.sqrt(np.square(p).sum(axis=1)[:, None] * norms), rtol=1e-10)
            np.testing.assert_allclose(matrix(part, "carried"), p @ t.T / np.square(VECTORS[6:]).sum(axis=1), rtol=1e-10)
        sums = parts.group_by("probe_set", "probe_id", "target_id").agg(pl.col("carried").sum())
        joined = whole.join(sums, on=["probe_set", "probe_id", "target_id"])
        np.testing.assert_allclose(joined["carried"], joined["rel_inf"], rtol=1e-10)
        schema = FAMILIES if by == "family" else LAYERS
        write_table(tmp_path / f"{by}.parquet", parts, schema)
        assert read_table(tmp_path / f"{by}.parquet", schema).columns[3] == by


def test_a_part_without_a_gradient_has_no_rel_inf_and_carries_nothing(tmp_path: Path) -> None:
    """As A of an adapter at step 0, where B is zero."""
    vectors = VECTORS.copy()
    vectors[:, 4] = 0
    file = stored(tmp_path / "g.parquet", table(vectors))
    stored_modules(tmp_path / "m.parquet")
    rows = read_modules(tmp_path / "m.parquet", file).with_columns(
        pl.when(pl.col("family") == "embed")
        .then(pl.col("inner_products").list.eval(pl.element() * 0))
        .otherwise("inner_products")
        .alias("inner_products")
    )
    part = part_pairs(pairs(file), rows, "family", FLOOR).filter(pl.col("family") == "embed")
    assert part["rel_inf"].null_count() == len(part)
    assert set(part["carried"]) == {0.0}


def test_no_modules_make_empty_tables_of_the_schema(gradients: GradientFile, tmp_path: Path) -> None:
    write_arrow(tmp_path / "m.parquet", MODULE_COLUMNS.empty_table(), METADATA)
    modules = read_modules(tmp_path / "m.parquet", gradients)
    for by, schema in (("family", FAMILIES), ("layer", LAYERS)):
        write_table(tmp_path / "t.parquet", part_pairs(pairs(gradients), modules, by, FLOOR), schema)
        assert read_table(tmp_path / "t.parquet", schema).is_empty()


def test_modules_of_other_examples_or_another_checkpoint_are_refused(gradients: GradientFile, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has 36 inner products, but .* has 9 examples, which make 45 pairs"):
        read_modules(stored_modules(tmp_path / "m.parquet", examples=8), gradients)
    with pytest.raises(UserError, match="are of different checkpoints"):
        read_modules(stored_modules(tmp_path / "m.parquet", checkpoint="c2"), gradients)
