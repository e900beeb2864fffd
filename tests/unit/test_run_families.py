"""Run families: which points a grid has, what each of them is, and how they are named."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swift_study.config import Config, Family, load
from swift_study.config.families import Point, expand, parse_name, resolve_runs
from swift_study.config.grid import fill, label_of, path_of
from swift_study.errors import UserError


def points(**families: dict[str, Any]) -> dict[str, list[Point]]:
    return resolve_runs({name: Family.model_validate(values) for name, values in families.items()})


def refused(**families: dict[str, Any]) -> str:
    with pytest.raises(ValueError, match=r"runs\.|names no run") as error:
        points(**families)
    return str(error.value)


DATASETS = {"base": {"sources": [{"kind": "generator"}], "examples": 160}}
SDE: dict[str, Any] = {
    "schedule": [{"masa_{domain}.{mode}": {"examples": "{n}"}}],
    "grid": {"domain": ["d1", "d2"], "mode": {"last": {}, "mi": {"loss_on": "all"}}, "n": [160, 500], "seed": [17, 18]},
    "skip": [{"domain": "d2", "mode": "mi"}],
}


def test_a_grid_has_a_run_for_each_combination_but_those_skipped() -> None:
    sde = points(sde=SDE)["sde"]
    assert len(sde) == 2 * 2 * 2 * 2 - 4
    first = sde[0]
    assert (first.path, first.name) == ("sde/domain=d1/mode=last/n=160/seed=17", "sde[domain=d1,mode=last,n=160,seed=17]")
    assert first.levels == {"domain": "d1", "mode": "last", "n": "160", "seed": "17"}
    for point in sde:
        ((name, part),) = point.run.schedule[0].items()
        assert name == f"masa_{point.levels['domain']}.{point.levels['mode']}"
        assert part.examples == int(point.levels["n"])
        assert point.run.seed == int(point.levels["seed"])
        assert point.run.loss_on == ("all" if point.levels["mode"] == "mi" else "completion")
        assert point.is_own
    assert len({p.path for p in sde}) == len(sde)


def test_a_run_without_a_grid_is_a_point_of_its_plain_name() -> None:
    (point,) = points(base={"epochs": 3})["base"]
    assert (point.path, point.name, point.levels, point.run.epochs) == ("base", "base", {}, 3)


def test_runs_take_the_grid_of_the_one_they_are_like_unless_they_have_their_own() -> None:
    found = points(
        full={"grid": {"seed": [17, 18]}}, child={"like": "full", "epochs": 5}, other={"like": "full", "grid": {"epochs": [1, 2, 3]}}
    )
    assert [(p.path, p.run.epochs) for p in found["child"]] == [("child/seed=17", 5), ("child/seed=18", 5)]
    assert [p.path for p in found["other"]] == ["other/epochs=1", "other/epochs=2", "other/epochs=3"]


def test_a_level_sets_keys_and_parts_of_a_section() -> None:
    grid = {"rank": {"4": {"lora": {"rank": 4}}, "8": {"lora": {"rank": 8}, "epochs": 1}}, "optimizer": ["adamw", "lion"]}
    found = points(base={"lora": {"alpha": 16, "targets": ["q_proj"]}, "epochs": 3, "grid": grid})["base"]
    assert [(p.run.lora.rank, p.run.lora.alpha, p.run.lora.targets, p.run.epochs, p.run.optimizer) for p in found] == [
        (4, 16, ["q_proj"], 3, "adamw"), (4, 16, ["q_proj"], 3, "lion"), (8, 16, ["q_proj"], 1, "adamw"), (8, 16, ["q_proj"], 1, "lion"),
    ]  # fmt: skip


def test_a_start_has_the_same_levels_of_the_factors_that_both_have() -> None:
    families = {
        "full": {"grid": {"model": ["main", "big"], "seed": [17, 18]}},
        "then": {"like": "full", "start": "full", "grid": {"model": ["main", "big"], "seed": [17, 18], "n": [10, 20]}},
    }
    for point in points(**families)["then"]:
        assert point.run.start == f"full/model={point.levels['model']}/seed={point.levels['seed']}"


def test_a_start_names_other_levels_in_brackets_and_may_be_filled_in() -> None:
    families = {
        "sizes": {"grid": {"n": [0, 10], "seed": [1, 2]}},
        "other": {"grid": {"seed": [1, 2]}},
        "then": {"start": "{from}", "grid": {"from": ["sizes_10", "other"], "seed": [1, 2]}},
        "last": {"start": "sizes[n=10]", "grid": {"seed": [2]}},
        "sizes_10": {"grid": {"seed": [1, 2]}},
    }
    found = points(**families)
    assert [p.run.start for p in found["then"]] == ["sizes_10/seed=1", "sizes_10/seed=2", "other/seed=1", "other/seed=2"]
    assert [p.run.start for p in found["last"]] == ["sizes/n=10/seed=2"]


def test_a_factor_of_one_level_needs_no_name_in_a_start() -> None:
    found = points(full={"grid": {"seed": [17]}}, then={"start": "full"})
    assert found["then"][0].run.start == "full/seed=17"


SHARED: dict[str, Any] = {
    "schedule": [{"base": {}, "{target}.train": {"examples": "{n}"}}],
    "grid": {"target": ["sst2", "mnli", "conll"], "n": [0, 10], "seed": [1, 2]},
    "shared": {"n": 0},
}


def test_one_point_stands_for_several_that_are_the_same_run() -> None:
    ift = points(ift=SHARED)["ift"]
    assert len(ift) == 12
    assert {p.path for p in ift if p.levels["n"] == "0"} == {"ift/target=sst2/n=0/seed=1", "ift/target=sst2/n=0/seed=2"}
    assert [p.is_own for p in ift] == [p.levels["n"] == "10" or p.levels["target"] == "sst2" for p in ift]
    assert all({*p.run.schedule[0]} == {"base"} for p in ift if p.levels["n"] == "0")  # no examples, no dataset


def test_points_that_differ_are_not_shared() -> None:
    grid = {"target": {"sst2": {}, "mnli": {"epochs": 1}}, "n": [0, 10]}
    found = points(ift=SHARED | {"grid": grid})["ift"]
    assert all(p.is_own for p in found)


@pytest.mark.parametrize(
    ("family", "told"),
    [
        ({"grid": {"a": {"x": {"epochs": 1}}, "epochs": [1]}}, "runs.f.grid: the factors 'a' and 'epochs' both set 'epochs'; let one"),
        ({"grid": {"a": {"x": {"epoch": 1}}}}, "runs.f.grid.a: a level sets 'epoch', which is no key of a run (did you mean 'epochs'?)"),
        ({"grid": {"n": [1]}, "skip": [{"m": 1}]}, "runs.f.skip: the grid has no factor 'm'"),
        ({"grid": {"n": [1]}, "skip": [{"n": 2}]}, "runs.f.skip: the factor 'n' has no level '2'; known: 1"),
        ({"grid": {"n": [1, 2]}, "skip": [{"n": [1, 2]}]}, "runs.f.skip leaves no point of the grid"),
        ({"grid": {"n": [1]}, "shared": {"n": 0}}, "runs.f.shared: the factor 'n' has no level '0'"),
        ({"schedule": [{"base": {"examples": "{n}"}}]}, "runs.f: '{n}' refers to the factor 'n', which is not there; there are: none"),
        ({"schedule": [{"base": {"examples": "{nn}"}}], "grid": {"n": [1]}}, "'{nn}' refers to the factor 'nn', which"),
        ({"schedule": [{"{a}": {}, "base": {}}], "grid": {"a": ["base"]}}, "the datasets {a}, base of a phase become the same one: base"),
        ({"schedule": [{"base": {"examples": "{n}"}}], "grid": {"n": [5, "many"]}}, "runs.f[n=many].schedule.0.base.examples"),
        ({"grid": {"epochs": [1, 0]}}, "runs.f[epochs=0].epochs: Input should be greater than or equal to 1"),
        ({"start": "f"}, "the run starts from itself in the end"),
        ({"start": "g"}, "runs.f.start: there is no run 'g'"),
        ({"like": "g"}, "runs.f.like: there is no run 'g'"),
    ],
)  # fmt: skip
def test_families_that_cannot_be_are_refused(family: dict[str, Any], told: str) -> None:
    assert told in refused(f=family)


@pytest.mark.parametrize(
    ("start", "told"),
    [
        ("g", "runs.f.start: 'g' is 2 points of the run family 'g' for this run; say which level of 'n', as in g[n=1]"),
        ("g[n=3]", "runs.f.start: 'g[n=3]': the factor 'n' has no level '3'; known: 1, 2"),
        ("g[m=3]", "runs.f.start: 'g[m=3]' names the factor 'm'; the factors of 'g' are n"),
        ("g[n]", "'g[n]' names no run; write `family`, or `family[factor=level,…]`"),
    ],
)
def test_starts_that_are_no_point_are_refused(start: str, told: str) -> None:
    assert told in refused(g={"grid": {"n": [1, 2]}}, f={"start": start})


@pytest.mark.parametrize(
    ("grid", "told"),
    [
        ({"N": [1]}, "the factor 'N': use lower-case letters"),
        ({"task": [1]}, "the factor 'task' has the name of a column that results have already"),
        ({"n": []}, "the factor 'n' needs levels"),
        ({"n": 5}, "the factor 'n' needs levels"),
        ({"n": [float("nan")]}, "the factor 'n': a level should be a finite number"),
        ({"n": [1, "1"]}, "the factor 'n' has a level twice"),
        ({"n": ["a,b"]}, "a level has no bracket, brace, comma"),
        ({"n": [None]}, "a level is a text of 1 to 100 characters, or a number"),
        ({"n": {"1": 2}}, "below a level stand the keys that it sets"),
        ([1], "a grid has for each factor its levels"),
    ],
)
def test_grids_that_cannot_be_are_refused_with_their_key(grid: object, told: str) -> None:
    with pytest.raises(UserError) as error:
        load({"runs": {"base": {"grid": grid}}})
    assert "`runs.base.grid`: " in str(error.value)
    assert told in str(error.value)


LEVELS = st.text(st.characters(exclude_categories=("Cs", "Cc", "Zs", "Zl", "Zp"), exclude_characters="[]{},="), min_size=1, max_size=20)


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(["a", "b1", "c_d"]), LEVELS, max_size=3))
def test_names_and_paths_are_read_back(levels: dict[str, str]) -> None:
    assert parse_name(label_of("family", levels)) == ("family", levels)
    path = path_of("family", levels)
    assert len(path.split("/")) == 1 + len(levels)
    assert path.isascii()


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(0, 50), min_size=1, max_size=4, unique=True), min_size=1, max_size=3), st.data())
def test_a_grid_is_the_product_of_its_levels_without_what_is_skipped(levels: list[list[int]], data: st.DataObject) -> None:
    grid = {f"f{i}": list(values) for i, values in enumerate(levels)}
    left_out = {factor: data.draw(st.sampled_from(values)) for factor, values in grid.items()}
    every = list(expand(grid))
    assert len(every) == len({tuple(p.items()) for p in every})
    kept = list(expand(grid, [left_out]))
    assert [p for p in every if p not in kept] == [{factor: str(level) for factor, level in left_out.items()}]


@given(st.recursive(st.text("ab", max_size=3) | st.integers(), lambda below: st.lists(below, max_size=3), max_leaves=5))
def test_what_names_no_factor_is_left_as_it_is(value: object) -> None:
    assert fill(value, {"n": 1}) == value


def test_factors_are_columns_of_a_scan(tmp_path: Path) -> None:
    """As users read them: levels that a path cannot hold are percent-encoded, and Polars decodes them."""
    for level in ("plain", "a/b =ü"):
        folder = tmp_path / path_of("fam", {"mode": level, "n": "5"})
        folder.mkdir(parents=True)
        pl.DataFrame({"value": [1.0]}).write_parquet(folder / "scores.parquet")
    found = pl.scan_parquet(tmp_path / "fam/**/scores.parquet", hive_partitioning=True).collect()
    assert sorted(found["mode"]) == ["a/b =ü", "plain"]
    assert found["n"].to_list() == [5, 5]


def test_a_configuration_looks_runs_up_by_name_and_by_path() -> None:
    config = load(
        {"datasets": DATASETS, "runs": {"base": {}, "full": {"grid": {"seed": [1, 2]}}, "then": {"like": "full", "start": "full"}}}
    )
    assert isinstance(config, Config)
    assert [p.path for p in config.named("full")] == ["full/seed=1", "full/seed=2"]
    assert [p.path for p in config.named("full[seed=2]")] == ["full/seed=2"]
    assert config.run("full/seed=2") == config.run("full[seed=2]")
    assert config.ancestry("then/seed=2") == ["full/seed=2", "then/seed=2"]
    with pytest.raises(ValueError, match=r"studies.x.run: 'full' is 2 runs, such as full\[seed=1\]; name one of them"):
        config.point("full", "studies.x.run")
    with pytest.raises(ValueError, match="there is no run 'full/seed=3'"):
        config.run("full/seed=3")


@pytest.mark.parametrize(
    ("runs", "told"),
    [
        ({"f": {"model": "bigg"}}, "runs.f.model: there is no model 'bigg' (did you mean 'big'?); known: main, big"),
        ({"f": {"model": "big"}, "g": {"start": "f"}}, "runs.g.start: the run trains the model 'main', but 'f' trains 'big'"),
        ({"f": {"grid": {"model": ["big"]}}}, None),
    ],
)
def test_a_run_names_its_model(runs: dict[str, Any], told: str | None) -> None:
    values = {"datasets": DATASETS, "runs": {"base": {}, **runs}, "models": {"big": {"name": "some/model"}}}
    if told is None:
        assert load(values).model_of("f").name == "some/model"
    else:
        with pytest.raises(UserError) as error:
            load(values)
        assert told in str(error.value)
