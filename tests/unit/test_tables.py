"""Tables check themselves, and nothing half-written is ever seen: not after an error, not on a full disk."""

import errno
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file

from swift_study import __version__
from swift_study.errors import UserError
from swift_study.examples import Example, KeyPoint, Message
from swift_study.io.tables import EXAMPLES, HISTORY, read_arrow, read_examples, read_table, write_arrow, write_examples, write_table
from swift_study.io.work import copy_file, copy_tree, fingerprint, hash_files, publish, remove, work_folder

STEPS = pl.DataFrame(
    [(1, 2.5, 0.1, 1.0, 7, 3.5), (2, None, 0.2, 2.0, 8, None)],
    schema=["step", "loss", "learning_rate", "grad_norm", "tokens", "held_out_loss"],
    orient="row",
)


def example(number: int = 0) -> Example:
    answer = str(number + 1)
    return Example(
        task="sums",
        messages=[Message(role="user", content=f"What is {number} + 1?"), Message(role="assistant", content=answer)],
        rationale="Zählen.",
        requirements=["Only the number."],
        key_points=[KeyPoint(text="right", check="number", value=answer), KeyPoint(text="polite")],
        golden=answer,
    )


EXAMPLE_LIST = [example(i) for i in range(3)]


def rewrite(path: Path, **columns: Callable[[Any], Any]) -> None:
    """Change columns of an examples file by hand; None takes one out."""
    rows = pq.read_table(path).to_pylist()
    for row in rows:
        for name, change in columns.items():
            row[name] = change(row[name])
    pq.write_table(pa.Table.from_pylist(rows, EXAMPLES), path)


# ---- round trips ----


def test_table_comes_back_as_it_was_with_version_and_metadata(tmp_path: Path) -> None:
    write_table(tmp_path / "new" / "folder" / "t.parquet", STEPS.with_columns(other=1), HISTORY, {"scope": "a\nb ✓"})
    path = tmp_path / "new" / "folder" / "t.parquet"
    assert read_table(path, HISTORY).equals(STEPS)
    assert read_arrow(path).schema.metadata == {b"swift_study": __version__.encode(), b"scope": "a\nb ✓".encode()}
    assert read_arrow(path).schema.remove_metadata().equals(HISTORY)


def test_empty_table_keeps_its_types(tmp_path: Path) -> None:
    write_table(tmp_path / "t.parquet", STEPS.clear(), HISTORY)
    assert read_table(tmp_path / "t.parquet", HISTORY).schema == STEPS.schema


def test_examples_come_back_as_they_were(tmp_path: Path) -> None:
    bare = Example(task="t", messages=[Message(role=r, content="x") for r in ("system", "user", "assistant")])
    examples = [*EXAMPLE_LIST, bare, example().derive("cot", "Why?", "So.")]
    write_examples(tmp_path / "e.parquet", examples)
    assert read_examples(tmp_path / "e.parquet") == examples
    ids = read_table(tmp_path / "e.parquet", EXAMPLES)["example_id"].to_list()
    assert ids == [e.example_id for e in examples]


def test_same_content_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_examples(tmp_path / name, EXAMPLE_LIST, {"x": "y"})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def vector_table(rows: int, size: int, kind: type = np.float32) -> pa.Table:
    vectors = np.random.default_rng(0).standard_normal((rows, size)).astype(kind)
    vectors[1] = np.nan
    lists = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), size)
    return pa.table({"id": [f"x{i}" for i in range(rows)], "step": list(range(rows)), "gradient": lists})


@pytest.mark.parametrize(("rows", "size", "groups"), [(3, 2, [3]), (40, 2**18, [16, 16, 8])])
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_vectors_come_back_bit_by_bit_to_every_reader(rows: int, size: int, groups: list[int], kind: type, tmp_path: Path) -> None:
    table, path = vector_table(rows, size, kind), tmp_path / "v.parquet"
    for name in ("v.parquet", "again.parquet"):
        write_arrow(tmp_path / name, table, {"scope": "a\nb ✓"})
    assert path.read_bytes() == (tmp_path / "again.parquet").read_bytes()
    for schema in (read_arrow(path).schema, pq.read_schema(path)):
        assert schema.metadata == {b"swift_study": __version__.encode(), b"scope": "a\nb ✓".encode()}
    *plain, vectors = pq.read_schema(path).types
    assert plain == [pa.string(), pa.int64()]
    assert (vectors.value_type, vectors.list_size) == (pa.from_numpy_dtype(kind), size)
    assert pl.read_parquet_metadata(path)["scope"] == "a\nb ✓"
    expected = pl.DataFrame(table)
    for found in (pl.DataFrame(read_arrow(path)), pl.read_parquet(path)):
        assert found.schema == expected.schema
        assert found["gradient"].to_numpy().tobytes() == expected["gradient"].to_numpy().tobytes()
        assert found.drop("gradient").equals(expected.drop("gradient"))
    assert [pq.read_metadata(path).row_group(i).num_rows for i in range(len(groups))] == groups


# ---- what is refused ----


@pytest.mark.parametrize("keep", [0, 4, 100, -1, -8, -200])
def test_parquet_cut_short_is_told(keep: int, tmp_path: Path) -> None:
    path = tmp_path / "e.parquet"
    write_examples(path, EXAMPLE_LIST)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(UserError) as caught:
        read_examples(path)
    assert str(caught.value).startswith(f"{path}: this is not a whole Parquet file (")
    assert "delete it and run snakemake again" in str(caught.value)


def test_missing_file_is_told(tmp_path: Path) -> None:
    message = f"{tmp_path / 'no.parquet'}: there is no such file. Run the rule that makes it: snakemake"
    with pytest.raises(UserError, match=re.escape(message)):
        read_table(tmp_path / "no.parquet", HISTORY)


def test_missing_column_is_told_with_what_the_file_has(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    STEPS.drop("tokens", "loss").write_parquet(path)
    message = f"{path}: the column 'loss' (double) is missing; the file has step, learning_rate, grad_norm, held_out_loss. "
    with pytest.raises(UserError, match=re.escape(message + "It was written by version unknown of swift-study")):
        read_table(path, HISTORY)


def test_column_of_another_type_is_told_with_both_types_and_versions(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    table = STEPS.with_columns(pl.col("step").cast(pl.String)).to_arrow()
    pq.write_table(table.replace_schema_metadata({"swift_study": "0.0.1"}), path)
    with pytest.raises(UserError) as caught:
        read_table(path, HISTORY)
    assert str(caught.value) == (
        f"{path}: the column 'step' is large_string, expected int64. It was written by version 0.0.1 of swift-study, "
        f"this is {__version__}: delete it and run again."
    )


def test_file_of_another_kind_of_table_is_told(tmp_path: Path) -> None:
    write_table(tmp_path / "t.parquet", STEPS, HISTORY)
    with pytest.raises(UserError, match=r"the column 'example_id' .* is missing; the file has step, loss"):
        read_examples(tmp_path / "t.parquet")


def test_content_edited_by_hand_is_told_with_row_and_ids(tmp_path: Path) -> None:
    path = tmp_path / "e.parquet"
    write_examples(path, EXAMPLE_LIST)
    rewrite(path, task=lambda task: "differences" if task == "sums" else task)
    with pytest.raises(UserError, match=f"row 1 has the id {example().example_id}, but its content gives "):
        read_examples(path)
    write_examples(path, EXAMPLE_LIST)
    rewrite(path, example_id=lambda i: "0123456789abcdef" if i == EXAMPLE_LIST[2].example_id else i)
    with pytest.raises(UserError, match="row 3 has the id 0123456789abcdef, but its content gives"):
        read_examples(path)


@pytest.mark.parametrize(
    ("column", "value", "told"),
    [
        ("messages", [{"role": "user", "content": "q"}], "row 1, column messages: the example has no completion"),
        ("messages", [{"role": "human", "content": "q"}], "row 1, column messages.0.role: Input should be"),
        ("key_points", [{"text": "t", "check": "regex", "value": "("}], "row 1, column key_points.0: key point 't'"),
        ("task", None, "row 1, column task: Input should be a valid string"),
    ],
)
def test_content_that_is_no_example_is_told(column: str, value: object, told: str, tmp_path: Path) -> None:
    path = tmp_path / "e.parquet"
    write_examples(path, EXAMPLE_LIST)
    rewrite(path, **{column: lambda _: value})
    with pytest.raises(UserError) as caught:
        read_examples(path)
    assert str(caught.value).startswith(f"{path}, {told}")


def test_same_example_twice_is_told_with_both_rows_and_nothing_is_written(tmp_path: Path) -> None:
    path = tmp_path / "e.parquet"
    with pytest.raises(UserError) as caught:
        write_examples(path, [*EXAMPLE_LIST, example(1)])
    assert str(caught.value).startswith(f"{path}: rows 2 and 4 are the same example (id {example(1).example_id}, task")
    assert list(tmp_path.iterdir()) == []


def test_empty_dataset_is_told_and_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"e\.parquet: the dataset would be empty\. See the rejects table beside it"):
        write_examples(tmp_path / "e.parquet", [])
    assert list(tmp_path.iterdir()) == []


# ---- publishing ----


def contents(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): p.read_text() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_published_file_and_folder_stand_in_place_of_the_old_ones(tmp_path: Path) -> None:
    for text in ("old", "new"):
        with publish(tmp_path / "deep" / "file") as part:
            part.write_text(text)
        with publish(tmp_path / "folder") as part:
            part.mkdir()
            (part / text).write_text(text)
            assert not (tmp_path / "folder" / "new").exists()
    assert contents(tmp_path) == {"deep/file": "new", "folder/new": "new"}


def write_half(path: Path, error: BaseException) -> None:
    with publish(path) as part:
        if path.is_dir():
            part.mkdir()
        (part / "in" if path.is_dir() else part).write_text("half")
        raise error


@pytest.mark.parametrize("error", [ValueError("a bug"), OSError(errno.EACCES, "denied"), KeyboardInterrupt()])
def test_error_leaves_the_old_and_nothing_else(error: BaseException, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "in").write_text("old")
    for name in ("file", "folder", "new"):
        with pytest.raises(type(error)) as caught:
            write_half(tmp_path / name, error)
        assert caught.value is error
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder"]
    assert contents(tmp_path) == {"file": "old", "folder/in": "old"}


def test_what_a_killed_run_left_behind_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "a.part").mkdir()
    (tmp_path / "a.part" / "half").write_text("half")
    (tmp_path / "b.part").write_text("half")
    for name in ("a", "b"):
        with publish(tmp_path / name) as part:
            part.write_text("whole")
    assert contents(tmp_path) == {"a": "whole", "b": "whole"}


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_no_space_when_renaming_is_a_sentence(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def replace(source: Path, target: Path) -> None:
        raise OSError(number, os.strerror(number))

    write_table(tmp_path / "t.parquet", STEPS, HISTORY)
    before = (tmp_path / "t.parquet").read_bytes()
    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(UserError) as caught:
        write_table(tmp_path / "t.parquet", STEPS.tail(1), HISTORY)
    place, told = str(caught.value).split(" could not be written: ")
    assert place == str(tmp_path / "t.parquet")
    assert re.match(r"no space is left on the disk \(\d+\.\d GB free\)\. Make room and run the same command", told)
    assert [p.name for p in tmp_path.iterdir()] == ["t.parquet"]
    assert (tmp_path / "t.parquet").read_bytes() == before


def write_parquet(part: Path) -> None:
    pq.write_table(pa.table({"x": np.random.default_rng(0).standard_normal(100_000)}), part)


def write_vectors(part: Path) -> None:
    pl.DataFrame({"x": np.zeros((10, 10_000))}).write_parquet(part, compression="uncompressed")


def write_text(part: Path) -> None:
    part.write_text("x" * 1_000_000)


def write_model(part: Path) -> None:
    part.mkdir()
    (part / "config.json").write_text("{}")
    save_file({"weight": torch.zeros(100_000)}, part / "model.safetensors")


def write_state(part: Path) -> None:
    torch.save({"weight": torch.zeros(100_000)}, part)


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 64 KiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    try:
        subprocess.run(mount, capture_output=True, text=True, check=True)
    except (subprocess.CalledProcessError, FileNotFoundError) as error:
        pytest.skip(f"a small file system cannot be mounted here: {getattr(error, 'stderr', error)}")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)


@pytest.mark.parametrize("write", [write_parquet, write_vectors, write_text, write_model, write_state])
def test_no_space_on_a_real_disk_is_a_sentence(write: Callable[[Path], None], full_disk: Path) -> None:
    (full_disk / "old").write_text("kept")
    with pytest.raises(UserError) as caught, publish(full_disk / "old") as part:
        write(part)
    assert str(caught.value).startswith(f"{full_disk / 'old'} could not be written: no space is left on the disk")
    assert contents(full_disk) == {"old": "kept"}


def test_copying_to_a_full_disk_keeps_the_finished_work(tmp_path: Path, full_disk: Path) -> None:
    (tmp_path / "checkpoint-8").mkdir()
    write_text(tmp_path / "checkpoint-8" / "weights")
    with pytest.raises(UserError, match="checkpoint-8 could not be written: no space is left on the disk"):
        copy_tree(tmp_path / "checkpoint-8", full_disk / "checkpoint-8")
    assert list(full_disk.iterdir()) == []
    assert (tmp_path / "checkpoint-8" / "weights").stat().st_size == 1_000_000


# ---- copies, work folders, fingerprints ----


def test_copies_have_the_same_content_and_the_source_stays(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "sub").mkdir(parents=True)
    (source / "a").write_text("A")
    (source / "sub" / "b").write_text("B")
    before = contents(source)
    for _ in range(2):  # the second in place of the first
        copy_tree(source, tmp_path / "out" / "target")
        copy_file(source / "a", tmp_path / "out" / "file")  # replacing a link to a file by one to the same file
    assert contents(source) == before
    assert contents(tmp_path / "out") == {"file": "A", "target/a": "A", "target/sub/b": "B"}
    remove(source)
    assert contents(tmp_path / "out" / "target") == before


def test_copy_without_hard_links_is_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(source: str, target: str) -> None:
        raise OSError(errno.EXDEV, "another file system")

    monkeypatch.setattr(os, "link", link)
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "a").write_text("A")
    copy_tree(tmp_path / "source", tmp_path / "target")
    (tmp_path / "source" / "a").write_text("changed")
    assert contents(tmp_path / "target") == {"a": "A"}


def test_work_folder_keeps_its_own_key_and_clears_the_others(tmp_path: Path) -> None:
    one = work_folder(tmp_path / "work", "one")
    (one / "half").write_text("done so far")
    (tmp_path / "work" / "stray").write_text("x")
    assert work_folder(tmp_path / "work", "one") == one
    assert contents(one) == {"half": "done so far"}
    assert sorted(p.name for p in (tmp_path / "work").iterdir()) == ["lock", "one"]
    two = work_folder(tmp_path / "work", "two")
    assert sorted(p.name for p in (tmp_path / "work").iterdir()) == ["lock", "two"]
    assert list(two.iterdir()) == []


def test_fingerprint_is_stable_and_tells_parts_apart() -> None:
    assert fingerprint({"b": 1, "a": [1, "ä"]}, "x", None) == fingerprint({"a": [1, "ä"], "b": 1}, "x", None)
    # The same from one version to the next, so that unfinished work is found again.
    assert fingerprint({"rank": 64, "seed": 17}, ["a", "b"]) == "e8c1f94dc6880e0c"
    others = [fingerprint("ab", "c"), fingerprint("a", "bc"), fingerprint("abc"), fingerprint(["ab", "c"])]
    others += [fingerprint(1), fingerprint(1.5), fingerprint("1"), fingerprint(None), fingerprint(True)]
    assert len(set(others)) == len(others)


def test_hash_of_files_follows_names_and_bytes(tmp_path: Path) -> None:
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "a").write_text("A")
    first = hash_files(tmp_path / "f")
    assert hash_files(tmp_path / "f") == first
    (tmp_path / "f" / "a").write_text("B")
    second = hash_files(tmp_path / "f")
    (tmp_path / "f" / "a").rename(tmp_path / "f" / "b")
    assert len({first, second, hash_files(tmp_path / "f")}) == 3
