"""Schedules: mixtures, phases, subsets, weights; what a run sees depends on its settings and the datasets only."""

import json
from collections import Counter
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_examples import example
from scripts import run_script

from swift_study.config import Part, Run
from swift_study.errors import UserError
from swift_study.io.tables import SCHEDULE, read_table
from swift_study.training.schedule import make_schedule

BASE = [example(f"base {i}") for i in range(10)]
COT = [e.derive("cot", e.query, f"{e.completion} because") for e in BASE]
# A strategy rejected three, and put the others in another order.
CLARIFY = [e.derive("clarify", f"{e.query} clearly", e.completion) for e in reversed(BASE[3:])]
DATA = {"base": BASE, "base.cot": COT, "base.clarify": CLARIFY}


def schedule(*phases: dict[str, Part], data_seed: int = 17, **settings: object) -> pl.DataFrame:
    run = Run(schedule=list(phases), **({"epochs": 3, "batch_size": 4, "micro_batch_size": 4} | settings))  # type: ignore[arg-type]
    made = make_schedule(run, DATA, data_seed)
    assert made.columns == SCHEDULE.names
    return made


def epochs(made: pl.DataFrame, column: str = "example_id") -> list[list[str]]:
    ordered = made.sort("step", "position")
    return [ordered.filter(pl.col("epoch") == epoch)[column].to_list() for epoch in sorted(set(made["epoch"]))]


def test_a_mixture_sees_everything_once_an_epoch_in_an_order_of_its_own() -> None:
    made = schedule({"base": Part(), "base.cot": Part()})
    ids = [e.example_id for name in ("base", "base.cot") for e in DATA[name]]
    for epoch in epochs(made):
        assert sorted(epoch) == sorted(ids)
    assert len({tuple(epoch) for epoch in epochs(made)}) == 3
    of_epoch = epochs(made, "dataset")[0]
    assert of_epoch != sorted(of_epoch)
    assert made["step"].n_unique() == 3 * 5
    assert made.group_by("step").len()["len"].to_list() == [4] * 15


def test_a_part_of_no_examples_takes_none() -> None:
    assert schedule({"base": Part(), "base.cot": Part(examples=0)}).equals(schedule({"base": Part()}))


def test_phases_come_one_after_the_other_within_each_epoch() -> None:
    """SPEC §4, ambiguity 17: Base→Clarify, base first in every epoch, no shuffle across."""
    made = schedule({"base": Part()}, {"base.clarify": Part()})
    for epoch in epochs(made, "dataset"):
        assert epoch == ["base"] * 10 + ["base.clarify"] * 7
    sizes = made.group_by("step", maintain_order=True).len().sort("step")["len"].to_list()
    assert sizes == [4, 4, 4, 4, 1] * 3  # the last batch of an epoch is smaller, and none reaches into the next epoch


def test_a_subset_is_the_same_in_every_epoch_and_takes_forms_of_the_same_examples() -> None:
    made = schedule({"base": Part(examples=4), "base.cot": Part(examples=4)})
    first, *others = (set(epoch) for epoch in epochs(made))
    assert len(first) == 8
    assert all(epoch == first for epoch in others)
    assert roots(made, "base") == roots(made, "base.cot")


def roots(made: pl.DataFrame, name: str) -> set[str]:
    seen = {*made.filter(pl.col("dataset") == name)["example_id"]}
    return {e.root for e in DATA[name] if e.example_id in seen}


def test_the_data_seed_alone_draws_the_examples() -> None:
    mixture = {"base": Part(examples=4)}
    drawn = {seed: roots(schedule(mixture, data_seed=seed), "base") for seed in range(5)}
    assert len({frozenset(d) for d in drawn.values()}) > 1
    other = schedule(mixture, data_seed=0, seed=18)
    assert roots(other, "base") == drawn[0]
    assert not other.equals(schedule(mixture, data_seed=0, seed=17))  # the training seed orders them


@given(st.integers(0, 9), st.integers(1, 10), st.integers(1, 10))
def test_subsets_are_nested(data_seed: int, one: int, other: int) -> None:
    small, large = sorted((one, other))
    drawn = [roots(schedule({"base": Part(examples=n)}, data_seed=data_seed), "base") for n in (small, large)]
    assert [len(d) for d in drawn] == [small, large]
    assert drawn[0] <= drawn[1]


def test_a_subset_of_what_a_strategy_made_is_of_the_same_roots_where_it_rejected_some_and_changed_the_order() -> None:
    made = schedule({"base": Part(examples=6), "base.clarify": Part(examples=6)})
    base, clarify = roots(made, "base"), roots(made, "base.clarify")
    left = {e.root for e in CLARIFY}
    assert base & left <= clarify
    assert len(clarify) == 6


@pytest.mark.parametrize(("weight", "uses"), [(2.0, {2: 10}), (0.5, {1: 5}), (1.3, {1: 7, 2: 3})])
def test_a_weight_is_how_often_an_example_is_seen_in_an_epoch(weight: float, uses: dict[int, int]) -> None:
    made = schedule({"base": Part(weight=weight)})
    for epoch in epochs(made):
        assert Counter(Counter(epoch).values()) == uses
    if weight == 0.5:
        assert len({frozenset(epoch) for epoch in epochs(made)}) > 1  # another half in each


def test_too_few_examples_are_a_sentence() -> None:
    with pytest.raises(UserError, match=r"asks for 8 examples of the dataset 'base.clarify', which has 7"):
        schedule({"base.clarify": Part(examples=8)})


def test_what_is_too_long_for_the_model_is_dropped_after_the_run_has_taken_its_examples() -> None:
    whole = schedule({"base": Part(examples=6), "base.cot": Part(examples=6)})
    run = Run(schedule=[{"base": Part(examples=6), "base.cot": Part(examples=6)}], epochs=3, batch_size=4, micro_batch_size=4)
    taken = [i for i in whole["example_id"].unique(maintain_order=True) if i in {e.example_id for e in DATA["base"]}]
    kept = make_schedule(run, DATA, 17, {taken[0], "of another run"})
    assert {*kept["example_id"]} == {*whole["example_id"]} - {taken[0]}  # no other example takes its place
    assert kept["step"].n_unique() == 3 * 3
    with pytest.raises(UserError, match=r"All 6 examples that the run takes of the dataset 'base' are longer than model.max_length"):
        make_schedule(run, DATA, 17, {e.example_id for e in DATA["base"]})


@settings(deadline=None)
@given(
    st.lists(
        st.dictionaries(st.sampled_from(sorted(DATA)), st.builds(Part, examples=st.one_of(st.none(), st.integers(1, 7)),
                                                                 weight=st.floats(0.2, 3)), min_size=1),
        min_size=1, max_size=3,
    ),
    st.integers(1, 3), st.integers(1, 9), st.integers(0, 5),
)  # fmt: skip
def test_any_schedule_is_whole(phases: list[dict[str, Part]], n_epochs: int, batch: int, seed: int) -> None:
    settings = {"epochs": n_epochs, "batch_size": batch, "micro_batch_size": batch, "seed": seed}
    made = schedule(*phases, **settings)
    size = sum(round((p.examples or len(DATA[name])) * p.weight) for phase in phases for name, p in phase.items())
    assert len(made) == n_epochs * size
    if size:
        assert sorted(set(made["step"])) == list(range(1, n_epochs * -(-size // batch) + 1))
        for _, step in made.group_by("step"):
            assert sorted(step["position"]) == list(range(len(step)))
            assert step["epoch"].n_unique() == 1
    assert made.equals(schedule(*phases, **settings))


def test_a_run_without_a_schedule_trains_on_nothing(tmp_path: Path) -> None:
    """With no dataset at all: the untuned model beside trained ones."""
    told = json.dumps({"run": {"schedule": []}, "data_seed": 17})
    files = ("--output", "schedule.parquet", "--rejects", "rejects.parquet")
    run_script("make_schedule.py", "--run", "untuned", "--settings", told, "--datasets", "--lengths", *files, cwd=tmp_path)
    assert read_table(tmp_path / "schedule.parquet", SCHEDULE).is_empty()
