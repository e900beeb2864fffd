"""Datasets from their sources: conditions, what is kept out, the draw, parts, and records."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripts import run_script

from swift_study.config import Columns, Dataset, FileSource, GeneratorSource
from swift_study.data.load import Loaded, load
from swift_study.data.sources import holds, read_sources
from swift_study.errors import UserError
from swift_study.examples import Example, Message
from swift_study.io.settings import settings as as_settings
from swift_study.io.tables import REJECTS, read_examples, read_table, write_examples

NONE = [FileSource(path="none.jsonl")]  # what `load` is given, it does not read


def example(query: str, completion: str = "an answer", task: str = "task") -> Example:
    return Example(task=task, messages=[Message(role="user", content=query), Message(role="assistant", content=completion)])


def loaded(pool: list[Example], others: dict[str, list[Example]] | None = None, near: float = 0.8, seed: int = 1, **keys: Any) -> Loaded:
    return load("mine", Dataset(sources=NONE, **keys), pool, others or {}, near, seed)


# ---- tasks and analogues ----


def test_the_first_of_each_task_are_used_and_the_rest_are_analogues() -> None:
    examples = [example(f"{task}{i}", task=task) for i in range(5) for task in ("a", "b")]
    found = loaded(examples, per_task=2).parts
    assert [e.query for e in found[""]] == ["a0", "a1", "b0", "b1"]
    assert [e.query for e in found["analogues"]] == ["a2", "a3", "a4", "b2", "b3", "b4"]
    assert [e.query for e in loaded(examples, per_task="half").parts["analogues"]] == ["a2", "a3", "a4", "b2", "b3", "b4"]
    assert [e.query for e in loaded(examples, per_task=1, tasks=["b"]).parts[""]] == ["b0"]
    assert [e.task for e in loaded(examples, tasks=["b", "a"]).parts[""]] == ["b"] * 5 + ["a"] * 5
    assert list(loaded(examples).parts) == [""]  # all are used; there are no analogues


def test_task_with_a_single_example_is_told() -> None:
    examples = [example("a0", task="a"), example("a1", task="a"), example("b0", task="b")]
    with pytest.raises(UserError, match=r"Task 'b' of the dataset 'mine' has 1 example, but 2 are needed: 1 to use and as many analogues"):
        loaded(examples, per_task=1)
    assert len(loaded(examples, per_task=1, tasks=["a"]).parts[""]) == 1


def test_task_that_no_source_has_is_told() -> None:
    with pytest.raises(UserError, match=r"datasets.mine.tasks: the sources have no task 'c'; they have a, b"):
        loaded([example(f"{t}{i}", task=t) for t in "ab" for i in range(2)], tasks=["a", "c"])


# ---- what is kept out, and the draw ----

POOL = [example(f"Question {i}: what is {i * 7919 % 999} plus {i * 8933 % 999}{' then' * (i % 3)}?") for i in range(40)]
PROBES = {
    "panel": [POOL[3], example(POOL[5].query, "another answer")],
    "questions": [example(POOL[8].query.replace("Question", "question") + "!"), example("Nothing in the pool is like this one at all.")],
}


def reasons(found: Loaded) -> list[str]:
    return [r.reason for r in found.rejects[""]]


def test_datasets_and_their_near_duplicates_are_kept_out_and_counted() -> None:
    found = loaded(POOL, PROBES, examples=37)
    assert {e.example_id for e in found.parts[""]} == {e.example_id for i, e in enumerate(POOL) if i not in (3, 5, 8)}
    assert reasons(found) == ["the same as an example of panel"] * 2 + ["nearly an example of questions"]
    assert [r.example_id for r in found.rejects[""]] == [POOL[i].example_id for i in (3, 5, 8)]


def test_the_draw_depends_on_the_seed_and_the_examples_only_and_draws_are_nested() -> None:
    draws = [
        [e.query for e in loaded(pool, PROBES, seed=seed, examples=10).parts[""]] for seed, pool in ((1, POOL), (1, POOL[::-1]), (2, POOL))
    ]
    assert draws[0] == draws[1] != draws[2]
    assert len(set(draws[0])) == 10
    assert draws[0] == [e.query for e in loaded(POOL, PROBES, seed=1, examples=20).parts[""]][:10]


def test_threshold_of_1_leaves_out_only_equal_sets_of_5_grams() -> None:
    assert reasons(loaded(POOL, PROBES, near=1.0)) == ["the same as an example of panel"] * 2
    assert reasons(loaded(POOL, {"x": [example(POOL[2].query.upper())]}, near=1.0)) == ["nearly an example of x"]


def test_too_few_examples_left_is_told_with_all_counts() -> None:
    message = (
        "The dataset 'mine' needs 38 examples (datasets.mine.examples), but its sources give 40, of which 2 are in datasets that are kept "
        "out and 1 nearly are: 37 are left."
    )
    with pytest.raises(UserError, match=re.escape(message)):
        loaded(POOL, PROBES, examples=38)


def test_distinct_leaves_out_analogues_and_examples_of_later_parts() -> None:
    twin = example(POOL[0].query + "!")
    found = loaded([POOL[0], POOL[1], twin, POOL[2]], per_task=2, distinct=True)
    assert [e.query for e in found.parts["analogues"]] == [POOL[2].query]
    assert [r.reason for r in found.rejects["analogues"]] == ["an analogue that is nearly one of the examples"]
    assert [r.dataset for r in found.rejects["analogues"]] == ["mine.analogues"]
    twins = [*POOL[:10], *(example(e.query + "!") for e in POOL[:10])]
    plain, distinct = (loaded(twins, split={"train": 10, "test": "rest"}, distinct=d) for d in (False, True))
    lost = len(plain.parts["test"]) - len(distinct.parts["test"])
    assert lost == len(distinct.rejects["test"]) > 0
    assert plain.parts["train"] == distinct.parts["train"]
    assert distinct.parts[""] == distinct.parts["train"] + distinct.parts["test"]


# ---- parts ----


@given(st.integers(6, 40), st.integers(1, 3), st.floats(0.2, 0.4), st.integers(0, 9))
def test_parts_share_nothing_and_are_all_there_is(n: int, count: int, share: float, seed: int) -> None:
    parts = loaded(POOL[:n], seed=seed, split={"probe": count, "dev": share, "train": "rest"}).parts
    assert (len(parts["probe"]), len(parts["dev"])) == (count, int(share * n))
    ids = [e.example_id for name in ("probe", "dev", "train") for e in parts[name]]
    assert sorted(ids) == sorted(e.example_id for e in POOL[:n])
    assert [e.example_id for e in parts[""]] == ids


def test_a_smaller_part_is_the_beginning_of_a_larger_one_in_every_form() -> None:
    small, large = (loaded(POOL, split={"train": n}).parts["train"] for n in (5, 9))
    assert large[:5] == small != POOL[:5]
    forms = [e.derive("form", e.query[::-1], "x") for e in reversed(POOL)]
    assert [e.root for e in loaded(forms, split={"train": 9}).parts["train"]] == [e.root for e in large]
    assert loaded(POOL, split={"train": 5}, seed=2).parts["train"] != small


@pytest.mark.parametrize(
    ("split", "told"),
    [
        ({"train": 30, "test": 11}, "asks for 41 examples, but there are 40"),
        ({"train": 40, "test": "rest"}, "asks for 40 examples and a rest, but there are 40"),
        ({"train": 0.01}, "datasets.mine.split.train is a share of 40 examples that holds none"),
    ],
)
def test_parts_that_do_not_fit_are_told(split: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told):
        loaded(POOL, split=split)


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"split": {"a": "rest", "b": "rest"}}, "only one part can be the rest"),
        ({"split": {"a": 0.7, "b": 0.7}}, "add up to more than 1"),
        ({"split": {"a": 3}, "per_task": 1}, "both divide the examples"),
        ({"distinct": True}, "there are none"),
        ({"split": {"a": 0}}, "greater than or equal to 1"),
        ({"where": {"n": {"min": "two"}}}, "valid number"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(keys: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        Dataset.model_validate({"sources": [{"kind": "file", "path": "x"}]} | keys)


# ---- where ----


@pytest.mark.parametrize(
    ("value", "condition", "expected"),
    [
        ("d1", "d1", True), ("d1", "d2", False), ("d1", ["d1", "d2"], True), (2, 2, True), ("2", 2, True), (2, "2", True), (2.0, 2, True),
        (None, None, True), ("", None, True), (None, "d1", False), (True, True, True), ("true", True, True), (False, True, False),
        (3, {"min": 2}, True), ("3", {"min": 2, "max": 3}, True), (1, {"min": 2}, False), (None, {"min": 0}, False),
        (2.5, {"max": 2}, False), ("__import__('os')", "x", False),
    ],
)  # fmt: skip
def test_a_condition_is_a_value_several_or_a_range(value: object, condition: Any, expected: bool) -> None:
    where = Dataset.model_validate({"sources": [{"kind": "file", "path": "x"}], "where": {"c": condition}}).where["c"]
    assert holds(value, where, "row") is expected


ROWS = [{"prompt": f"q{i}", "completion": "a", "task": "t", "part": "train" if i % 2 else "test", "n": i} for i in range(6)]


@pytest.mark.parametrize("ending", ["jsonl", "csv"])
def test_where_is_about_the_columns_of_the_file(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"rows.{ending}"
    lines = list(map(json.dumps, ROWS)) if ending == "jsonl" else [",".join(ROWS[0]), *(",".join(map(str, r.values())) for r in ROWS)]
    path.write_text("\n".join(lines))
    source = FileSource(path=str(path))

    def read(where: dict[str, Any]) -> list[str]:
        conditions = Dataset.model_validate({"sources": [source.model_dump()], "where": where}).where
        return [e.query for e in read_sources([source], conditions)]

    assert read({"part": "train"}) == ["q1", "q3", "q5"]
    assert read({"part": "train", "n": {"min": 2}}) == ["q3", "q5"]
    assert read({"n": [0, 5]}) == ["q0", "q5"]
    with pytest.raises(UserError, match=r"`where` names the column 'parts' \(did you mean 'part'\?\); there are prompt, "):
        read({"parts": "train"})
    with pytest.raises(UserError, match=r"none of the 6 rows fits `where` \(part: dev\)"):
        read({"part": "dev"})
    with pytest.raises(UserError, match=r", row \d, column part: `where` compares a number, found 'test'"):
        read({"part": {"min": 1}})


def test_where_is_about_tasks_of_the_generator() -> None:
    source = GeneratorSource(families=["leg_counting", "gcd"], per_family=2, seed=1)
    assert {e.task for e in read_sources([source], {"task": "gcd"})} == {"gcd"}
    assert [e.source for e in read_sources([source], {"task": "gcd"})] == ["generator (seed 1), row 3", "generator (seed 1), row 4"]


# ---- records ----


@pytest.mark.parametrize("columns", [None, ["text", "aspects"]])
def test_a_record_is_kept_as_json_and_stands_for_itself_until_a_design_renders_it(columns: list[str] | None, tmp_path: Path) -> None:
    record = {"text": "The soup was cold, the waiter friendly.", "aspects": {"food": "negative", "service": "positive"}}
    row = record | {"part": "train"} if columns else {"record": record, "part": "train"}
    other = {"text": "x", "aspects": {}} if columns else {"record": {"text": "x"}}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n" + json.dumps(other | {"part": "test"}))
    source = FileSource(path=str(tmp_path / "rows.jsonl"), task="masa", columns=Columns(record=columns) if columns else None)
    (made,) = read_sources([source], {"part": "train"})
    assert json.loads(made.record or "") == record
    assert made.query == made.text == record["text"]
    assert json.loads(made.completion) == record
    write_examples(tmp_path / "mine.parquet", [made])
    assert read_examples(tmp_path / "mine.parquet") == [made]


@pytest.mark.parametrize(
    ("value", "told"), [("not json", "the record is not JSON"), ([1], "expected an object as the record"), (3, "object")]
)
def test_a_record_that_is_no_object_is_told(value: object, told: str, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(json.dumps({"record": value}))
    with pytest.raises(UserError, match=rf"rows.jsonl, row 1, column record: .*{told}"):
        read_sources([FileSource(path=str(tmp_path / "rows.jsonl"), task="t")])


# ---- the rule ----


def test_the_script_loads_a_part_and_writes_what_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, ROWS)))
    write_examples(tmp_path / "probes.parquet", [example("q3")])
    settings = Dataset(sources=[FileSource(path="rows.jsonl")], exclude=["probes"], split={"train": 2, "test": "rest"})
    for part, n in (("", 5), (".train", 2), (".test", 3)):
        given = ["--settings", as_settings(dataset=settings, near_duplicate=0.8, seed=17), "--exclude", "probes.parquet"]
        given += ["--dataset", f"mine{part}", "--output", f"mine{part}.parquet", "--rejects", f"rejects{part}.parquet"]
        run_script("load_dataset.py", *given, cwd=tmp_path)
        assert len(read_examples(tmp_path / f"mine{part}.parquet")) == n
    assert read_table(tmp_path / "rejects.parquet", REJECTS)["reason"].to_list() == ["the same as an example of probes"]
