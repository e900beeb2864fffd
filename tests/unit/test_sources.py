"""Sources: every format gives the same examples, and bad input is told with file, row and column, early."""

import csv
import gzip
import io
import json
import re
import subprocess
import unicodedata
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from configuration import configured
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import PreTrainedTokenizerFast

from swift_study.config import (
    Column,
    Columns,
    Config,
    FileSource,
    GeneratorSource,
    HubSource,
    Model,
)
from swift_study.data.duplicates import nearest
from swift_study.data.load import load
from swift_study.data.sources import read_source, read_sources
from swift_study.errors import UserError
from swift_study.examples import Example, Message
from swift_study.gradients.panel import read_panel
from swift_study.io.tables import LENGTHS, read_table, write_examples, write_table
from swift_study.models.lengths import about_lengths, left_out, measure
from swift_study.models.rendering import load_renderer

ROOT = Path(__file__).resolve().parents[2]
REAL_DATA = ROOT.parent / "shared" / "data"
COLUMNS = ("prompt", "completion", "rationale", "task")
ROWS = [
    dict(zip(COLUMNS, values, strict=True))
    for values in (
        ("How many legs has a spider?", "8", "Two more than an insect.", "count"),
        ("Wie viele Füße hat eine Kuh?\nNur die Zahl.", "4", "Kühe gehen.", "count"),
        ('"Ja" oder "nein", ist 5 > 3?', "ja, gewiss", "5 − 3 = 2", "logic"),
    )
]


def example(query: str, answer: str = "yes", task: str = "task") -> Example:
    messages = [Message(role="user", content=query), Message(role="assistant", content=answer)]
    return Example(task=task, messages=messages, golden=answer)


def jsonl(*rows: object) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    """The rows in the format that the file's name tells."""
    frame, name = pl.DataFrame(rows), path.name.removesuffix(".gz")
    if name.endswith(".jsonl"):
        content = jsonl(*rows)
    elif name.endswith(".parquet"):
        frame.write_parquet(path)
        content = path.read_bytes()
    elif name.endswith(".csv"):
        content = frame.write_csv().encode()
    else:
        lines = [list(rows[0]), *([value.replace("\n", "\\n") for value in row.values()] for row in rows)]
        content = "".join("\t".join(line) + "\n" for line in lines).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


# ---- formats and forms ----


@pytest.mark.parametrize("suffix", ["jsonl", "parquet", "csv", "tsv", "jsonl.gz", "parquet.gz", "csv.gz", "tsv.gz"])
def test_all_formats_give_the_same_examples(suffix: str, tmp_path: Path) -> None:
    path = write_rows(tmp_path / f"rows.{suffix}", ROWS)
    examples = read_source(FileSource(path=str(path), unescape_newlines="tsv" in suffix))
    assert [(e.query, e.completion, e.rationale, e.task) for e in examples] == [tuple(row.values()) for row in ROWS]
    assert [e.golden for e in examples] == ["8", "4", "ja, gewiss"]
    assert {e.strategy for e in examples} == {"source"}


@pytest.mark.parametrize("suffix", ["jsonl", "parquet", "jsonl.gz"])
def test_messages_form_keeps_all_turns_and_fields(suffix: str, tmp_path: Path) -> None:
    turns = [("system", "Be brief."), ("user", "Hi"), ("assistant", "Hello"), ("user", "1 + 1?"), ("assistant", "2")]
    row = {
        "task": "chat",
        "messages": [{"role": role, "content": content} for role, content in turns],
        "rationale": "One and one.",
        "requirements": ["Be brief.", "Give a number."],
        "key_points": [{"text": "It is 2.", "check": "number", "value": "2"}],
        "golden": "2",
        "unsatisfactory": "3",
    }
    (made,) = read_source(FileSource(path=str(write_rows(tmp_path / f"rows.{suffix}", [row]))))
    assert [(m.role, m.content) for m in made.messages] == turns
    assert made.model_dump(include=set(row)) == row


@pytest.mark.parametrize("start", [b"\xef\xbb\xbf", b""])
@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
def test_byte_order_mark_and_windows_line_ends_are_no_content(start: bytes, line_end: bytes, tmp_path: Path) -> None:
    contents = {"a.jsonl": jsonl({"prompt": "q", "completion": "a"}), "a.csv": b"prompt,completion\nq,a\n"}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(start + content.replace(b"\n", line_end))
        (made,) = read_source(FileSource(path=str(tmp_path / name), task="t"))
        assert (made.query, made.completion) == ("q", "a")


def test_columns_are_mapped_with_pattern_and_remove(tmp_path: Path) -> None:
    answer = "Half of 8 is <<8/2\n=4>>4.\nThen <<4*500=2000>>2000 in all.\n#### 2,000"
    row = {"question": " How many? ", "answer": answer, "level": "hard", "needs": ["A number."]}
    path = write_rows(tmp_path / "rows.jsonl", [row])
    columns = Columns(
        prompt="question",
        completion=Column(column="answer", pattern="#### (.*)$", remove=","),
        rationale=Column(column="answer", pattern="^(.*)####", remove="<<.*?>>"),
        requirements="needs",
        task="level",
    )
    (made,) = read_source(FileSource(path=str(path), columns=columns, check="number"))
    assert (made.task, made.query, made.completion, made.golden) == ("hard", "How many?", "2000", "2000")
    assert made.rationale == "Half of 8 is 4.\nThen 2000 in all."
    assert made.requirements == ["A number."]
    (point,) = made.key_points
    assert point.is_met("It is 2,000.") is True
    assert point.is_met("It is 2,001.") is False


@pytest.mark.parametrize(("check", "right", "wrong"), [("contains", "oh yes.", "no"), ("equals", " Yes. ", "oh yes")])
def test_check_makes_one_key_point_from_the_answer(check: str, right: str, wrong: str, tmp_path: Path) -> None:
    path = write_rows(tmp_path / "rows.csv", [{"prompt": "Is it?", "completion": "yes"}])
    (made,) = read_source(FileSource.model_validate({"path": str(path), "task": "t", "check": check}))
    assert [p.is_met(right) for p in made.key_points] == [True]
    assert [p.is_met(wrong) for p in made.key_points] == [False]


def test_key_points_of_the_file_come_before_check(tmp_path: Path) -> None:
    row = {"prompt": "q", "completion": "yes", "key_points": [{"text": "short", "check": "max_words", "value": "3"}]}
    path = write_rows(tmp_path / "rows.jsonl", [row])
    (made,) = read_source(FileSource(path=str(path), task="t", check="equals"))
    assert [p.text for p in made.key_points] == ["short"]


def test_names_and_escaped_newlines_of_a_file_without_header(tmp_path: Path) -> None:
    (tmp_path / "rows.tsv").write_text('Is it?\\n- "yes\\n- no\tyes\tIt is.\nAnd that?\tno\t\n')
    source = FileSource(path=str(tmp_path / "rows.tsv"), names=["prompt", "completion", "rationale"], task="t")
    assert [e.query for e in read_source(source)] == ['Is it?\\n- "yes\\n- no', "And that?"]
    escaped = read_source(source.model_copy(update={"unescape_newlines": True}))
    assert [e.query for e in escaped] == ['Is it?\n- "yes\n- no', "And that?"]
    assert [e.rationale for e in escaped] == ["It is.", None]


def test_limit_takes_rows_from_the_top_and_does_not_read_further(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "rows.jsonl", [*ROWS, {"prompt": "no answer", "task": "t"}])
    assert [e.completion for e in read_source(FileSource(path=str(path), limit=2))] == ["8", "4"]


def test_generator_source_gives_so_many_of_each_family() -> None:
    from swift_study.data.generator import FAMILIES

    families = list(FAMILIES)[:2]
    examples = read_source(GeneratorSource(families=families, per_family=3, seed=5))
    assert len(examples) == 6
    assert examples == read_source(GeneratorSource(families=families, per_family=3, seed=5))
    assert len(read_source(GeneratorSource(per_family=1))) == len(FAMILIES)


def test_unknown_family_of_the_generator_is_told() -> None:
    with pytest.raises(UserError, match="no_such_family"):
        read_source(GeneratorSource(families=["no_such_family"]))


def test_hub_source_reads_a_data_set_and_tells_a_wrong_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "set").mkdir()
    write_rows(tmp_path / "set" / "train.jsonl", ROWS)
    hub = HubSource(id=str(tmp_path / "set"), limit=2)
    assert [e.completion for e in read_source(hub)] == ["8", "4"]
    message = r"hub data set '.*set' \(configuration None, split 'dev'\) could not be loaded: .*dev"
    with pytest.raises(UserError, match=message):
        read_source(hub.model_copy(update={"split": "dev"}))


# ---- bad input ----

GOOD = {"prompt": "q", "completion": "a"}
TALK = {"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]}
LATIN_1 = jsonl(GOOD) + '{"prompt": "Café?", "completion": "a"}\n'.encode("latin-1")
MAPPED = {"prompt": "prompt", "completion": {"column": "completion", "pattern": "#### (.*)"}}


BAD_FILES: list[tuple[str, bytes, str]] = [
    ("a.jsonl", LATIN_1, "row 2: byte 0xe9 is not UTF-8. Convert the file, for example with iconv -f latin1"),
    ("a.csv", b"prompt,completion\nq,a\nCaf\xe9,a\n", "row 3: byte 0xe9 is not UTF-8"),
    ("a.jsonl", b"", "there are no rows"),
    ("a.csv", b"prompt,completion\n", "there are no rows"),
    ("a.csv", b"", "empty CSV"),
    ("a.txt", b"text", "what format is this? Known are .jsonl, .parquet, .csv and .tsv, also with .gz"),
    ("a.jsonl", jsonl(GOOD) + b'{"prompt": "q", \n', "row 2: this line is not JSON"),
    ("a.jsonl", jsonl(GOOD, ["q", "a"]), "row 2: this line is not a JSON object, but list"),
    ("a.jsonl", b'{"prompt": ' + b"1" * 5000 + b"}\n", "row 1: this line is not JSON"),
    ("a.jsonl", b'{"prompt": ' + b"[" * 100_000 + b"}\n", "row 1: this line is not JSON"),
    ("a.jsonl.gz", gzip.compress(jsonl(GOOD) * 99, mtime=0)[:-9], "this is not a whole gzip file"),
    ("a.jsonl.gz", jsonl(GOOD), "this is not a whole gzip file"),
    ("a.parquet", b"PAR1 and no more", "this is not a whole Parquet file"),
    ("a.csv", b"prompt,completion\nq,a,b\n", "this is not a table of equal rows"),
    ("a.jsonl", jsonl({"q": 1}), "neither a column 'messages' nor 'prompt' and 'completion'; the first row has 'q'"),
    ("a.jsonl", jsonl(GOOD, {"prompt": "q"}), "row 2, column completion: the example has no completion"),
    ("a.csv", b"prompt,completion\nq,a\nq,\n", "row 2, column completion: the example has no completion"),
    ("a.jsonl", jsonl(GOOD, {"completion": "a"}), "row 2, column prompt: the example has no query"),
    ("a.jsonl", jsonl(GOOD, GOOD | {"prompt": ["q"]}), "row 2, column prompt: expected text, found a list"),
    ("a.jsonl", b'{"prompt": "\\ud800", "completion": "a"}\n', "row 1: the text holds half of a surrogate pair"),
    ("a.jsonl", jsonl(TALK, GOOD), "row 2, column messages: Input should be a valid list"),
    ("a.jsonl", jsonl({"messages": TALK["messages"][:1]}), "row 1: the example has no completion"),
    ("a.jsonl", jsonl({"messages": TALK["messages"][1:]}), "row 1: the example has no completion"),
    ("a.jsonl", jsonl({"messages": TALK["messages"][1:] * 2}), "row 1: the message before the completion must be"),
    ("a.jsonl", jsonl({"messages": [{"role": "human", "content": "x"}] * 2}), "row 1, column messages.0.role: "),
    ("a.jsonl", jsonl({"messages": [{"role": "user", "content": [{"type": "image"}]}] * 2}), "row 1, column messages.0.content: "),
    ("a.jsonl", jsonl(GOOD | {"requirements": "Be brief."}), "row 1, column requirements: Input should be a valid"),
    ("a.jsonl", jsonl(GOOD | {"key_points": [{"text": "t", "check": "regex", "value": "("}]}), "does not compile"),
]


@pytest.mark.parametrize(("name", "content", "told"), BAD_FILES)
def test_bad_file_is_told_with_file_row_and_column(name: str, content: bytes, told: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError) as caught:
        read_source(FileSource(path=str(tmp_path / name), task="t"))
    assert str(caught.value).startswith(str(tmp_path / name))
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"task": None}, ", row 1: the example has no task. Set `task` or `columns.task`"),
        ({"check": "number"}, ", row 1: key point 'The answer is a.': number needs a number, not 'a'"),
        ({"columns": {"prompt": "question", "completion": "completion"}}, ": there is no column 'question'; the first"),
        ({"columns": {"prompt": "prompt"}}, ": `columns` of this source needs `messages`, or `prompt` and"),
        ({"columns": MAPPED}, ", row 1, column completion: the pattern '#### (.*)' does not match 'a'"),
        ({"columns": MAPPED | {"completion": {"column": "completion", "pattern": "(x)|a"}}}, "does not match 'a'"),
        ({"names": ["one"]}, ": this is not a table of equal rows"),
    ],
    ids=str,
)
def test_source_that_does_not_fit_its_file_is_told(keys: dict[str, Any], told: str, tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.csv", [GOOD])
    with pytest.raises(UserError) as caught:
        read_source(FileSource.model_validate({"path": str(path), "task": "t"} | keys))
    assert str(caught.value).startswith(str(path))
    assert told in str(caught.value)


def test_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=re.escape(f"{tmp_path / 'no.jsonl'}: there is no such file")):
        read_source(FileSource(path=str(tmp_path / "no.jsonl")))


def test_parquet_cut_short_is_told(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "rows.parquet", ROWS)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError, match=r"rows\.parquet: this is not a whole Parquet file"):
        read_source(FileSource(path=str(path)))


def test_rows_without_requirements_have_none(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(jsonl(GOOD | {"requirements": ["Be brief."]}, GOOD, GOOD | {"requirements": None}))
    assert [e.requirements for e in read_source(FileSource(path=str(path), task="t"))] == [["Be brief."], [], []]


def test_same_example_twice_is_told_with_both_places(tmp_path: Path) -> None:
    one, two = (write_rows(tmp_path / name, rows) for name, rows in (("one.jsonl", ROWS), ("two.csv", ROWS[::-1])))
    message = f"{one}, row 3 and {two}, row 1 are the same example (task 'logic', query '\"Ja\" oder"
    with pytest.raises(UserError, match=re.escape(message)):
        read_sources([FileSource(path=str(one)), FileSource(path=str(two))])
    within = write_rows(tmp_path / "within.jsonl", [*ROWS, ROWS[1]])
    with pytest.raises(UserError, match=re.escape(f"{within}, row 2 and {within}, row 4 are the same example")):
        read_sources([FileSource(path=str(within))])


def test_same_query_with_another_answer_is_another_example(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "rows.jsonl", [ROWS[0], ROWS[0] | {"completion": "eight"}])
    assert len(read_sources([FileSource(path=str(path))])) == 2


# ---- forms of rows, by their columns' names ----

Q, A = "Translate the sentence into German.", "Die Katze schläft."
ALPACA = {"instruction": Q, "input": "The cat sleeps.", "output": A}
HUMAN, GPT = {"from": "human", "value": Q}, {"from": "gpt", "value": A}
PARTS = [{"type": "text", "text": Q[:3], "image": None}, {"type": "text", "text": Q[3:]}]
USER, ASSISTANT = {"role": "user", "content": Q}, {"role": "assistant", "content": A}
NULLS = {"name": None, "tool_calls": None, "tool_call_id": None, "audio": None}
BRIEF = ("system", "Be brief.")
TURNS = [("user", Q), ("assistant", A)]


def save(path: Path, rows: list[dict[str, Any]]) -> Path:
    """As JSONL, or as Parquet by another library than the one that reads it."""
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows, pa.unify_schemas([pa.Table.from_pylist([row]).schema for row in rows])), path)
    else:
        path.write_bytes(jsonl(*rows))
    return path


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
@pytest.mark.parametrize(
    ("row", "turns"),
    [
        (ALPACA, [("user", Q + "\n\nThe cat sleeps."), ("assistant", A)]),
        (ALPACA | {"input": ""}, TURNS),
        (ALPACA | {"input": None, "system": "Be brief."}, [BRIEF, *TURNS]),
        (ALPACA | {"input": "", "history": [["Hi", "Hello"]]}, [("user", "Hi"), ("assistant", "Hello"), *TURNS]),
        ({"instruction": Q, "context": "C", "response": A, "category": "qa"}, [("user", Q + "\n\nC"), ("assistant", A)]),
        ({"instruction": Q, "output": A}, TURNS),
        ({"prompt": Q, "completion": A, "response": "another"}, TURNS),
        ({"prompt": Q, "response": A}, TURNS),
        ({"question": Q, "answer": A}, TURNS),
        ({"query": Q, "response": A}, TURNS),
        ({"id": 7, "system_prompt": "Be brief.", "question": Q, "response": A}, [BRIEF, *TURNS]),
        ({"conversations": [HUMAN, GPT]}, TURNS),
        ({"conversations": [HUMAN, GPT], "system": "Be brief."}, [BRIEF, *TURNS]),
        ({"conversations": [{"from": "system", "value": "Be brief."}, HUMAN, GPT], "system": "Be brief."}, [BRIEF, *TURNS]),
        ({"conversations": [{"from": "user", "value": Q}, {"from": "assistant", "value": A}]}, TURNS),
        ({"conversations": [USER, ASSISTANT]}, TURNS),
        ({"messages": [HUMAN, GPT]}, TURNS),
        ({"messages": [USER | NULLS, ASSISTANT | NULLS]}, TURNS),
        ({"messages": [USER | NULLS, ASSISTANT | NULLS], "prompt": "the same in other words", "conversations": []}, TURNS),
        ({"conversation": [USER | {"language": "English"}, ASSISTANT | {"tool_calls": []}]}, TURNS),
        ({"prompt": [USER], "completion": [ASSISTANT]}, TURNS),
        ({"prompt": [{"role": "system", "content": "Be brief."}, USER], "completion": A}, [BRIEF, *TURNS]),
        ({"messages": [{"role": "user", "content": PARTS}, {"role": "assistant", "content": [{"type": "text", "text": A}]}]}, TURNS),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_rows_are_read_by_the_names_that_their_columns_have_elsewhere(
    row: dict[str, Any], turns: list[tuple[str, str]], suffix: str, tmp_path: Path
) -> None:
    (made,) = read_source(FileSource(path=str(save(tmp_path / f"rows.{suffix}", [row])), task="t"))
    assert [(m.role, m.content) for m in made.messages] == turns
    assert made.golden == A
    assert (made.rationale, made.requirements, made.unsatisfactory) == (None, [], None)


def test_columns_that_hold_nothing_are_of_no_form(tmp_path: Path) -> None:
    rows = [{"messages": None, "prompt": [], "completion": "", "question": Q, "answer": A, "response": None, "system": None}]
    path = tmp_path / "rows.parquet"
    pl.DataFrame(rows, schema_overrides={"response": pl.String, "system": pl.String}).write_parquet(path)
    (made,) = read_source(FileSource(path=str(path), task="t"))
    assert [(m.role, m.content) for m in made.messages] == TURNS


def test_an_instruction_takes_its_input_with_it_unless_a_list_names_the_columns(tmp_path: Path) -> None:
    path = str(save(tmp_path / "rows.jsonl", [ALPACA]))

    def query(**columns: Any) -> str:
        (made,) = read_source(FileSource(path=path, task="t", columns=Columns(completion="output", **columns)))
        return made.query

    assert query(prompt="instruction") == f"{Q}\n\nThe cat sleeps."
    assert query(prompt=["instruction"]) == Q
    assert query(prompt="instruction", rationale="input") == Q


def test_columns_are_joined_by_a_blank_line_each_with_its_pattern(tmp_path: Path) -> None:
    rows = [
        {"head": "# A", "passage": "Text: Snow fell. <b>All</b> day.", "q": "What fell?", "a": "Snow", "note": "One word."},
        {"head": "# B", "passage": "", "q": "What is 1 + 1?", "a": "2", "note": None},
        {"head": " ", "q": "What is 1 + 2?", "a": "3"},
    ]
    columns = {"prompt": [{"column": "passage", "pattern": "Text: (.*)", "remove": "</?b>"}, "head", "q"], "completion": ["a", "note"]}
    source = FileSource.model_validate({"path": str(save(tmp_path / "rows.jsonl", rows)), "task": "t", "columns": columns})
    assert [(e.query, e.completion) for e in read_source(source)] == [
        ("Snow fell. All day.\n\n# A\n\nWhat fell?", "Snow\n\nOne word."),
        ("# B\n\nWhat is 1 + 1?", "2"),
        ("What is 1 + 2?", "3"),
    ]
    save(tmp_path / "rows.jsonl", [*rows, {"head": "", "a": "4"}])
    with pytest.raises(UserError, match=r"row 4, column passage \+ head \+ q: the example has no query"):
        read_source(source)


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        (
            [{"messages": [USER, ASSISTANT]}, {"messages": [USER, ASSISTANT | {"tool_calls": [{"name": "f"}]}]}],
            ", row 2, column messages.1.tool_calls: calls of tools cannot be read",
        ),
        ([{"conversations": [HUMAN, GPT | {"from": "function_call"}]}], ", row 1, column conversations.1.from: the role 'function_call'"),
        ([{"messages": [USER, ASSISTANT | {"role": "tool"}]}], ", row 1, column messages.1.role: Input should be 'system', 'user'"),
        ([{"conversations": [USER, ASSISTANT | {"content": 5}]}], ", row 1, column conversations.1.content: Input should be a valid"),
        ([{"conversations": [HUMAN, GPT]}, {"conversations": [HUMAN]}], ", row 2: the example has no completion"),
        ([{"conversations": "human: hi"}], ", row 1, column conversations: Input should be a valid list"),
        ([{"question": Q, "answer": A, "response": A}], ": the columns fit 'question' and 'answer' as well as 'question' and 'response'"),
        ([{"prompt": [USER], "completion": []}], ", row 1, column completion: the example has no completion"),
        ([{"prompt": [], "completion": "a"}], ", row 1, column prompt: the example has no query"),
        ([{"prompt": {"a": 1}, "completion": "a"}], ", row 1, column prompt: expected text, found a dict"),
        (
            [{"conversations": [{"from": "system", "value": "Be kind."}, HUMAN, GPT], "system": "Be brief."}],
            ", row 1, column system: the conversation has a system message of its own",
        ),
        ([ALPACA | {"history": ["Hi", "Hello"]}], ", row 1, column history: expected a list of [query, response] pairs, found 'Hi'"),
        ([ALPACA, {"instruction": Q, "input": "The dog barks."}], ", row 2, column output: the example has no completion"),
    ],
)
def test_row_that_is_not_of_its_form_is_told(rows: list[dict[str, Any]], told: str, tmp_path: Path) -> None:
    path = save(tmp_path / "rows.jsonl", rows)
    with pytest.raises(UserError) as caught:
        read_source(FileSource(path=str(path), task="t"))
    assert str(caught.value).startswith(f"{path}{told}")


def test_what_is_read_as_what_is_in_the_log_and_text_that_is_not_read_is_told_to_people(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("swift_study.io.cli._people", people := io.StringIO())
    rows = [
        {"question": "Where?", "answer": "Here", "passage": "I am here.", "id": 1, "hint": ""},
        {"question": "When?", "answer": "Now", "passage": "It is now.", "id": 2, "hint": "look", "key_points": []},
        {"question": "Who?", "answer": "Me", "passage": None, "id": 3, "hint": None},
    ]
    path = save(tmp_path / "rows.jsonl", rows)
    read_sources([FileSource(path=str(path), task="t")])
    assert capsys.readouterr().err == (
        f"{path}: prompt from 'question', completion from 'answer', key_points from 'key_points'; "
        "columns that are not read: 'passage', 'id', 'hint'.\n"
    )
    assert people.getvalue() == (
        f"{path}: not read, though they hold text in most rows: 'passage'. "
        "Name under `columns` of this source what belongs to an example.\n"
    )
    people.truncate(people.seek(0))
    read_sources([FileSource(path=str(path), task="t")], {"passage": ["I am here.", "It is now."]})
    assert "columns that are not read: 'id', 'hint'." in capsys.readouterr().err
    assert people.getvalue() == ""
    columns = Columns(prompt=["passage", Column(column="question", remove="[?]")], completion="answer")
    first, *_ = read_sources([FileSource(path=str(path), task="t", columns=columns)])
    assert first.query == "I am here.\n\nWhere"
    assert "prompt from 'passage' + 'question', completion from 'answer', " in capsys.readouterr().err
    assert people.getvalue() == ""


def test_keys_of_messages_that_are_not_read_are_in_the_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = save(tmp_path / "rows.jsonl", [{"messages": [USER | {"name": "Ann"}, ASSISTANT | {"name": None, "weight": 0}]}])
    read_source(FileSource(path=str(path), task="t"))
    assert "columns that are not read: 'messages.name', 'messages.weight'." in capsys.readouterr().err


# ---- values: missing, bytes, whole floats ----


@pytest.mark.parametrize("form", ["messages", "prompt", "conversations", "alpaca"])
def test_golden_is_the_completion_in_every_form_unless_the_row_has_one(form: str, tmp_path: Path) -> None:
    row: dict[str, Any] = {
        "messages": {"messages": [USER, ASSISTANT]},
        "prompt": {"prompt": Q, "completion": A},
        "conversations": {"conversations": [HUMAN, GPT]},
        "alpaca": {"instruction": Q, "input": "", "output": A},
    }[form]
    rows = [row | {"task": str(i), "golden": golden} for i, golden in enumerate((None, "", float("nan"), "Oslo", 8))]
    made = read_source(FileSource(path=str(save(tmp_path / "rows.jsonl", rows))))
    assert [e.golden for e in made] == [A, A, A, "Oslo", "8"]
    assert {e.completion for e in made} == {A}


@pytest.mark.parametrize("suffix", ["jsonl", "parquet", "json"])
@pytest.mark.parametrize("missing", [float("nan"), None, "", " \n"], ids=str)
def test_missing_is_missing_however_it_is_written(missing: Any, suffix: str, tmp_path: Path) -> None:
    # Parquet: a column of floats in which NaN stands beside a number; JSON has the literal NaN.
    names = ("prompt", "completion", "rationale", "unsatisfactory", "task")
    filled = 1.5 if isinstance(missing, float) else "text"

    def read(**lacking: Any) -> list[Example]:
        rows = [dict.fromkeys(names, filled) | {"prompt": "Is it?"}, dict.fromkeys(names, filled) | {"prompt": "Is it not?"} | lacking]
        path = tmp_path / f"rows.{suffix}"
        if suffix == "parquet":
            pl.DataFrame(rows).write_parquet(path)
        else:
            path.write_text(json.dumps(rows) if suffix == "json" else "".join(json.dumps(row) + "\n" for row in rows))
        return read_source(FileSource(path=str(path), task="of the source"))

    last = read(rationale=missing, unsatisfactory=missing, task=missing)[1]
    assert (last.completion, last.rationale, last.unsatisfactory, last.task) == (str(filled), None, None, "of the source")
    with pytest.raises(UserError, match="row 2, column completion: the example has no completion"):
        read(completion=missing)


@pytest.mark.parametrize("missing", [None, float("nan"), ""], ids=str)
def test_missing_is_not_held_against_a_pattern(missing: Any, tmp_path: Path) -> None:
    path = save(tmp_path / "rows.jsonl", [{"q": "1 + 1?", "a": "2", "why": "so: one more"}, {"q": "1 + 2?", "a": "3", "why": missing}])
    columns = Columns(prompt="q", completion="a", rationale=Column(column="why", pattern="so: (.*)"))
    assert [e.rationale for e in read_source(FileSource(path=str(path), task="t", columns=columns))] == ["one more", None]


def test_bytes_are_text_and_other_bytes_are_told_where_they_are_read(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    turns = [[{"role": b"user", "content": "Füße?".encode()}, {"role": b"assistant", "content": b"four"}]] * 2
    table: dict[str, Any] = {"prompt": ["Füße?".encode(), b"legs?"], "completion": [b"four", b"two"], "task": [b"a", b"b"]}
    pq.write_table(pa.table(table | {"picture": [b"\x89PNG", b"\xff\xd8"]}), path)
    made = read_source(FileSource(path=str(path)))
    assert [(e.task, e.query, e.completion, e.golden) for e in made] == [("a", "Füße?", "four", "four"), ("b", "legs?", "two", "two")]
    pq.write_table(pa.table({"messages": turns, "task": [b"a", b"b"]}), path)
    assert [[m.content for m in e.messages] for e in read_source(FileSource(path=str(path)))] == [["Füße?", "four"]] * 2
    pq.write_table(pa.table(table | {"completion": [b"four", "fünf".encode("latin1")]}), path)
    with pytest.raises(UserError, match=r"rows\.parquet, row 2, column completion: expected text, found bytes that are not UTF-8"):
        read_source(FileSource(path=str(path)))


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        ([8.0, 6.0], ["8", "6"]),
        ([8.0, None, -6.0], ["8", None, "-6"]),
        ([8.0, float("nan"), 0.0], ["8", None, "0"]),
        ([8.0, 2.5], ["8.0", "2.5"]),
        ([0.1, 100.25], ["0.1", "100.25"]),
        ([1e300, 1.0], ["1e+300", "1.0"]),
    ],
    ids=str,
)
@pytest.mark.parametrize("form", ["jsonl", "float", "double", "decimal"])
def test_floats_that_are_all_whole_are_the_integers_of_a_column_with_gaps(
    values: list[float | None], texts: list[str | None], form: str, tmp_path: Path
) -> None:
    if form in ("float", "decimal") and 1e300 in values:
        pytest.skip("no such number there")
    rows = [{"prompt": f"Number {i}?", "completion": "x", "rationale": value} for i, value in enumerate(values)]
    path = tmp_path / ("rows.jsonl" if form == "jsonl" else "rows.parquet")
    if form == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        kind = {"float": pa.float32(), "double": pa.float64(), "decimal": pa.decimal128(9, 2)}[form]
        numbers = [None if form == "decimal" and v is not None and v != v else v for v in values]  # noqa: PLR0124
        column = pa.array([Decimal(str(v)) if form == "decimal" and v is not None else v for v in numbers], kind)
        pq.write_table(pa.table({"prompt": [r["prompt"] for r in rows], "completion": ["x"] * len(rows), "rationale": column}), path)
    found = [e.rationale for e in read_source(FileSource(path=str(path), task="t"))]
    if form == "decimal" and texts[-1] in ("2.5", "100.25"):  # a decimal keeps the digits that it was written with
        assert found == [f"{v:.2f}" for v in values]
    else:
        assert found == texts
    # A limit changes no example.
    assert [e.rationale for e in read_source(FileSource(path=str(path), task="t", limit=1))] == found[:1]


@pytest.mark.parametrize(
    ("cells", "texts"),
    [
        (["8.0", "", "-6.0"], ["8", None, "-6"]),
        (["v8.0", "v6.0"], ["v8.0", "v6.0"]),
        (["8.0", "2.5"], ["8.0", "2.5"]),
        (["8.00", "6.00"], ["8.00", "6.00"]),
        (["8", "6.0"], ["8", "6.0"]),
    ],
)
@pytest.mark.parametrize("suffix", ["csv", "tsv"])
def test_cells_of_an_integer_column_with_gaps(cells: list[str], texts: list[str | None], suffix: str, tmp_path: Path) -> None:
    mark = {"csv": ",", "tsv": "\t"}[suffix]
    lines = [["prompt", "completion", "rationale"], *([f"Number {i}?", "x", cell] for i, cell in enumerate(cells))]
    (tmp_path / f"rows.{suffix}").write_text("".join(mark.join(line) + "\n" for line in lines))
    assert [e.rationale for e in read_source(FileSource(path=str(tmp_path / f"rows.{suffix}"), task="t"))] == texts


def test_a_text_in_json_stays_as_it_is_written(tmp_path: Path) -> None:
    path = save(tmp_path / "rows.jsonl", [{"prompt": "One digit behind the point?", "completion": "8.0"}])
    assert [e.completion for e in read_source(FileSource(path=str(path), task="t"))] == ["8.0"]


def test_a_response_with_the_whole_number_is_right(tmp_path: Path) -> None:
    pl.DataFrame({"prompt": ["Legs of a spider?", "Legs of an ant?"], "completion": [8.0, 6.0]}).write_parquet(tmp_path / "rows.parquet")
    spider, _ = read_source(FileSource(path=str(tmp_path / "rows.parquet"), task="t", check="contains"))
    assert [point.is_met("A spider has 8 legs.") for point in spider.key_points] == [True]


@pytest.mark.parametrize("suffix", ["jsonl", "parquet", "csv"])
def test_task_0_is_a_task(suffix: str, tmp_path: Path) -> None:
    rows = [GOOD | {"task": 1}, GOOD | {"task": 0}]
    assert [e.task for e in read_source(FileSource(path=str(write_rows(tmp_path / f"rows.{suffix}", rows))))] == ["1", "0"]
    gaps = [{"prompt": "q", "completion": str(i), "task": task} for i, task in enumerate([1.0, None, 0.0])]
    source = FileSource(path=str(write_rows(tmp_path / f"gaps.{suffix}", gaps)), task="rest")
    assert [e.task for e in read_source(source)] == ["1", "rest", "0"]
    with pytest.raises(UserError, match="row 2: the example has no task"):
        read_source(source.model_copy(update={"task": None}))


@pytest.mark.parametrize("order", [1, -1])
def test_no_row_decides_for_another(order: int, tmp_path: Path) -> None:
    full = {
        "prompt": "Name a lake in Italy.",
        "completion": "Lake Garda",
        "rationale": "It lies at the foot of the Alps.",
        "requirements": ["One name only."],
        "key_points": [{"text": "A lake.", "check": "contains", "value": "lake"}],
        "golden": "Lake Como",
        "unsatisfactory": "The Po",
        "task": "lakes",
    }
    path = save(tmp_path / "rows.jsonl", [{"prompt": "Name a river.", "completion": "The Ebro."}, full][::order])
    plain, rich = read_source(FileSource(path=str(path), task="t"))[::order]
    assert (plain.task, plain.rationale, plain.requirements, plain.key_points, plain.golden) == ("t", None, [], [], "The Ebro.")
    names = set(full) - {"prompt", "completion"}
    assert rich.model_dump(include=names) == {name: full[name] for name in names}


def test_columns_of_the_source_may_be_those_of_later_rows(tmp_path: Path) -> None:
    path = save(tmp_path / "rows.jsonl", [{"q": "1?", "a": "1"}, {"q": "2?", "a": "2", "why": "so", "kind": "k", "rationale": "not this"}])
    columns = Columns(prompt="q", completion="a", rationale="why", task="kind")
    made = read_source(FileSource(path=str(path), task="t", columns=columns))
    assert [(e.rationale, e.task) for e in made] == [(None, "t"), ("so", "k")]
    with pytest.raises(UserError, match="there is no column 'whence'"):
        read_source(FileSource(path=str(path), task="t", columns=columns.model_copy(update={"rationale": "whence"})))


def test_columns_that_a_source_names_leave_the_others_to_their_names(tmp_path: Path) -> None:
    row = ALPACA | {"topic": "animals", "rationale": "sleeps is schläft", "requirements": ["In German."]}
    path = str(save(tmp_path / "rows.jsonl", [row]))
    (made,) = read_source(FileSource(path=path, columns=Columns(task="topic")))
    assert (made.task, made.query, made.rationale) == ("animals", f"{Q}\n\nThe cat sleeps.", "sleeps is schläft")
    (made,) = read_source(FileSource(path=path, task="t", columns=Columns(prompt=["input"], completion="rationale")))
    assert (made.query, made.completion, made.rationale) == ("The cat sleeps.", "sleeps is schläft", None)
    assert made.requirements == ["In German."]
    with pytest.raises(UserError, match="needs `messages`, or `prompt` and `completion`"):
        read_source(FileSource(path=path, task="t", columns=Columns(messages="input", prompt="input", completion="output")))


def test_thousands_separators_of_gsm8k_are_read(tmp_path: Path) -> None:
    path = save(
        tmp_path / "rows.jsonl", [{"question": "Melons in 90 crates?", "answer": "90 * 12 = <<90*12=1080>>1,080 melons.\n#### 1,080"}]
    )
    columns = Columns(
        prompt="question",
        completion=Column(column="answer", pattern="#### (.*)$"),
        rationale=Column(column="answer", pattern="^(.*)####", remove="<<.*?>>"),
    )
    (made,) = read_source(FileSource(path=str(path), task="gsm8k", check="number", columns=columns))
    assert (made.completion, made.rationale) == ("1,080", "90 * 12 = 1,080 melons.")
    assert [[point.is_met(text) for point in made.key_points] for text in ("1080", "It is 1,080.", "1,081", "1")] == [
        [True],
        [True],
        [False],
        [False],
    ]


# ---- files ----


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"])
@pytest.mark.parametrize("name", ["rows.jsonl", "rows.csv", "rows.json", "rows.tsv.gz"])
def test_unicode_is_read_with_and_without_a_byte_order_mark(name: str, encoding: str, tmp_path: Path) -> None:
    text = {
        "rows.jsonl": jsonl(GOOD | {"prompt": "一 Füße?"}).decode(),
        "rows.csv": "prompt,completion\n一 Füße?,a\n",
        "rows.json": f"[\n{json.dumps(GOOD | {'prompt': '一 Füße?'}, ensure_ascii=False, indent=1)}]\n",
        "rows.tsv.gz": "prompt\tcompletion\r\n一 Füße?\ta\r\n",
    }[name]
    content = text.encode(encoding)
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    (made,) = read_source(FileSource(path=str(tmp_path / name), task="t"))
    assert (made.query, made.completion) == ("一 Füße?", "a")


@pytest.mark.parametrize("big_endian", [False, True])
def test_advice_for_utf_16_that_has_no_mark_is_right(big_endian: bool, tmp_path: Path) -> None:
    path = tmp_path / "rows.tsv"
    names = ["提问", "completion"]
    path.write_bytes("提问\tcompletion\nIs it?\tyes\n".encode("utf-16-be" if big_endian else "utf-16-le"))
    source = FileSource(path=str(path), task="t", columns=Columns(prompt=names[0], completion=names[1]))
    with pytest.raises(UserError) as caught:
        read_source(source)
    (command,) = re.findall(r"iconv .* (?=" + re.escape(str(path)) + ")", str(caught.value))
    path.write_bytes(subprocess.run([*command.split(), str(path)], check=True, capture_output=True).stdout)
    assert [e.query for e in read_source(source)] == ["Is it?"]


def test_advice_for_a_compressed_file_decompresses_it(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(gzip.compress(LATIN_1))
    with pytest.raises(UserError) as caught:
        read_source(FileSource(path=str(path), task="t"))
    (command,) = re.findall(r"gzip .* utf-8", str(caught.value))
    out = subprocess.run(command, shell=True, check=True, capture_output=True).stdout
    assert "Café?" in out.decode()


@pytest.mark.parametrize("first", ["Is it?\tyes\tIt is.\n", "yes\tyes\tIt is.\n"])
def test_file_without_a_header_line_is_told_about_names(first: str, tmp_path: Path) -> None:
    (tmp_path / "rows.tsv").write_text(first + "And that?\tno\t\n")
    with pytest.raises(UserError, match=r"`names`.* if the file has no header line"):
        read_source(FileSource(path=str(tmp_path / "rows.tsv"), task="t"))


def test_gzip_is_known_by_its_content(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_bytes(gzip.compress(jsonl(GOOD)))
    assert len(read_source(FileSource(path=str(tmp_path / "rows.jsonl"), task="t"))) == 1


@pytest.mark.parametrize("name", ["rows.json", "rows.jsonl", "rows.json.gz"])
@pytest.mark.parametrize("indent", [None, 2])
def test_json_array_is_read(name: str, indent: int | None, tmp_path: Path) -> None:
    content = b" \n" + json.dumps(ROWS, indent=indent).encode() + b"\n"
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    assert [(e.query, e.completion) for e in read_source(FileSource(path=str(tmp_path / name)))] == [
        (row["prompt"], row["completion"]) for row in ROWS
    ]


PAIR = b'{"prompt": "q", "completion": "a"}'
TWICE = b'{"prompt": "q", "prompt": "r", "completion": "a"}'
MORE_BAD_FILES: list[tuple[str, bytes, str]] = [
    ("a.json", b"[]", ": there are no rows"),
    ("a.json", b"[" + PAIR + b",\n5]", ", row 2: this element of the array is not a JSON object, but int"),
    ("a.json", b"[" + PAIR + b",\n" + PAIR[:-5], ", row 2: this element of the array is not JSON"),
    ("a.json", b"[" + PAIR, ", row 1: a comma or the end of the array is missing behind it. The file is cut"),
    ("a.json", b"[" + PAIR + b"\n" + PAIR + b"]", ", row 1: a comma or the end of the array is missing"),
    ("a.json", b"[" + PAIR + b",]", ", row 2: this element of the array is not JSON"),
    ("a.json", b"[" + PAIR + b"] " + PAIR, ": more follows after the JSON array's end"),
    ("a.json", b"[" + PAIR + b", " + TWICE + b"]", ", row 2: this element of the array has the key 'prompt' twice"),
    (
        "a.json",
        b'{"data": [' + PAIR + b"]}",
        ": there is neither a column 'messages' nor 'prompt' and 'completion'; the first row has 'data'",
    ),
    ("a.json", b'{\n "prompt": "q",\n "completion": "a"\n}', ", row 1: this line is not JSON"),
    ("a.jsonl", PAIR + b"\n\n" + TWICE, ", row 3: this line has the key 'prompt' twice in one object. Remove one"),
    ("a.jsonl", b'{"messages": [{"role": "user", "content": "x", "content": "y"}]}', ", row 1: this line has the key 'content' twice"),
    ("a.jsonl", PAIR + PAIR, ", row 1: this line is not JSON"),
    ("a.jsonl", PAIR + b"\n\n" + b'{"prompt": "q"}', ", row 3, column completion: the example has no completion"),
    ("a.jsonl", b'{"prompt": "q", "completion": -Infinity}', ", row 1, column completion: expected text or a number, found -inf"),
    ("a.jsonl", (PAIR + b"\n" + PAIR).decode().encode("utf-16")[:-1], ", row 2: by its first bytes the file is UTF-16, but here it is not"),
    ("a.csv", b"prompt,completion\nq,a\nq\n", ", row 2: this is not a table of equal rows; this row has 1 cells, but there are 2"),
    ("a.csv", b"prompt,completion\nq,a\nq,a,b\n", ", row 2: this is not a table of equal rows; this row has 3 cells"),
    ("a.csv", b'prompt,completion\nq,a\n"q,b\nr,c\n', ", row 2: this is not a table of equal rows; a quotation mark is not closed"),
    (
        "a.csv",
        b'prompt,completion\n"q" r,a\n',
        ", row 1: this is not a table of equal rows; a quotation mark is not closed, or text follows",
    ),
    ("a.csv", b"prompt,completion,prompt\nq,a,r\n", ": two columns have the name 'prompt'. Rename one of them"),
    ("a.tsv", b"prompt\tcompletion\nq\ta\nq\n", ", row 2: this is not a table of equal rows; this row has 1 cells"),
    ("a.tsv", b"prompt\tcompletion\tprompt\nq\ta\tr\n", ": two columns have the name 'prompt'"),
    ("a.tsv", b"", ": this is an empty TSV file"),
    ("a.csv.gz", gzip.compress(b"prompt,completion\nq,a\n")[:-4], ": this is not a whole gzip file"),
    ("a.csv.gz", gzip.compress(b"prompt,completion\nq,a\n") + b"rest", ": this is not a whole gzip file"),
]


@pytest.mark.parametrize(("name", "content", "told"), MORE_BAD_FILES)
def test_nothing_of_a_file_is_lost_without_a_word(name: str, content: bytes, told: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError) as caught:
        read_source(FileSource(path=str(tmp_path / name), task="t"))
    assert str(caught.value).startswith(f"{tmp_path / name}{told}")


def test_two_parquet_columns_of_one_name_are_told(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.Table.from_arrays([pa.array([text]) for text in "abc"], names=["prompt", "completion", "prompt"]), path)
    with pytest.raises(UserError, match=r"rows\.parquet: two columns have the same name"):
        read_source(FileSource(path=str(path), task="t"))


def test_csv_cells_of_any_length_and_with_line_breaks(tmp_path: Path) -> None:
    long = "word " * 50_000
    with (tmp_path / "rows.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([["prompt", "completion"], [f'say "it"\n\n{long}', "a, b"], ["q", "\tc "]])
    made = read_source(FileSource(path=str(tmp_path / "rows.csv"), task="t"))
    assert [(e.query, e.completion) for e in made] == [(f'say "it"\n\n{long}'.strip(), "a, b"), ("q", "c")]


def test_places_are_files_and_their_rows(tmp_path: Path) -> None:
    lines = tmp_path / "rows.jsonl"
    lines.write_bytes(b"\n" + jsonl(ROWS[0]) + b"\n \n" + jsonl(ROWS[1]))
    table = tmp_path / "rows.csv"
    table.write_bytes(b'prompt,completion,task\n"two\nlines",a,t\n\nq,a,t\n')
    parquet = write_rows(tmp_path / "rows.parquet", ROWS[2:])
    sources = [FileSource(path=str(path)) for path in (lines, table, parquet)]
    examples = read_sources([*sources, GeneratorSource(families=["leg_counting"], per_family=2, seed=4)])
    assert [e.source for e in examples] == [
        f"{lines}, row 2",
        f"{lines}, row 5",
        f"{table}, row 1",
        f"{table}, row 3",
        f"{parquet}, row 1",
        "generator (seed 4), row 1",
        "generator (seed 4), row 2",
    ]


# ---- hub data sets: the same rules ----


def test_hub_rows_follow_the_same_rules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")

    def hub(name: str, table: pa.Table, **keys: Any) -> HubSource:
        (tmp_path / name).mkdir()
        pq.write_table(table, tmp_path / name / "train.parquet")
        return HubSource.model_validate({"id": str(tmp_path / name), "task": "t"} | keys)

    names = {"instruction": [b"Legs of a spider?", b"Legs of an ant?", b"Eyes?"], "input": ["", None, "of a fish"]}
    numbers = {
        "output": pa.array([8.0, 6.0, 2.0]),
        "task": pa.array([0, None, 1], pa.int64()),
        "rationale": pa.array([0.1, None, 0.5], pa.float32()),
    }
    alpaca = hub("alpaca", pa.table(names | numbers))
    examples = read_sources([alpaca])
    assert [(e.query, e.completion, e.golden, e.task, e.rationale) for e in examples] == [
        ("Legs of a spider?", "8", "8", "0", "0.1"),
        ("Legs of an ant?", "6", "6", "t", None),
        ("Eyes?\n\nof a fish", "2", "2", "1", "0.5"),
    ]
    assert examples[2].source == f"hub data set {tmp_path / 'alpaca'}, row 3"
    assert read_sources([alpaca.model_copy(update={"limit": 2})]) == examples[:2]

    turns = [[USER | NULLS, ASSISTANT | NULLS], [USER | NULLS, ASSISTANT | NULLS | {"name": "Ann"}]]
    (first, second) = read_source(hub("messages", pa.table({"messages": turns, "task": ["a", "b"]})))
    assert [(m.role, m.content) for m in first.messages] == [(m.role, m.content) for m in second.messages] == TURNS
    assert first.golden == A

    halves = hub("halves", pa.table({"prompt": ["a", "b"], "completion": [8.0, 2.5]}), limit=1)
    assert [e.completion for e in read_source(halves)] == ["8.0"]
    gaps = hub("gaps", pa.table({"prompt": ["a", "b"], "completion": [8.0, float("nan")]}))
    with pytest.raises(UserError, match="gaps, row 2, column completion: the example has no completion"):
        read_source(gaps)


# ---- longer than the context ----


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model.json whose tokenizer has one token a word, and a template of two tokens around each message."""
    folder = tmp_path_factory.mktemp("model")
    words = {word: i for i, word in enumerate(["<unk>", "</s>", "<user>", "<assistant>", "<system>"])}
    tokenizer = Tokenizer(WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", eos_token="</s>")
    turns = "{% for m in messages %}<{{ m.role }}> {{ m.content }} </s> {% endfor %}"
    fast.chat_template = turns + "{% if add_generation_prompt %}<assistant> {% endif %}"
    fast.save_pretrained(folder)
    (folder / "model.json").write_text(json.dumps({"folder": str(folder)}))
    return folder / "model.json"


SHORT = example("one two three", "yes")  # 6 tokens of prompt, 2 of completion
LONG = example("one two three four five six seven eight nine ten eleven twelve", "no no")  # 15 and 3


def policy(overlong: str, max_length: int = 16) -> Model:
    return Model.model_validate({"max_length": max_length, "overlong": overlong})


def lengths(model: Path, settings: Model, *examples: Example) -> pl.DataFrame:
    return measure(examples, load_renderer(model.parent, settings), "panel", "main")


def test_overlong_error_names_the_dataset_the_row_the_example_and_its_length(model: Path) -> None:
    with pytest.raises(UserError) as caught:
        lengths(model, policy("error"), SHORT, LONG)
    assert str(caught.value).startswith(f"Dataset 'panel': Example {LONG.example_id} (task 'task', strategy 'source', query 'one two")
    assert "has 15 + 3 tokens, more than model.max_length = 16" in str(caught.value)
    cot = LONG.model_copy(update={"source": "rows.jsonl, row 7"}).derive("cot", LONG.query, LONG.completion)
    with pytest.raises(UserError, match=r"^rows.jsonl, row 7 \(dataset 'panel'\): Example .* strategy 'cot'"):
        lengths(model, policy("error"), cot)
    assert lengths(model, policy("error"), SHORT)["reason"].to_list() == [None]
    assert lengths(model, policy("error", 18), LONG)["reason"].to_list() == [None]


def test_overlong_skip_leaves_out_and_counts(model: Path, tmp_path: Path) -> None:
    write_table(tmp_path / "panel.parquet", lengths(model, policy("skip"), LONG, SHORT), LENGTHS)
    rows = read_table(tmp_path / "panel.parquet", LENGTHS).to_dicts()
    assert rows[0] == {
        "model": "main",
        "dataset": "panel",
        "example_id": LONG.example_id,
        "task": "task",
        "prompt_tokens": 15,
        "completion_tokens": 3,
        "reason": "longer than model.max_length = 16 tokens",
    }
    assert (rows[1]["prompt_tokens"], rows[1]["completion_tokens"], rows[1]["reason"]) == (6, 2, None)
    assert list(left_out([str(tmp_path / "panel.parquet")])) == [LONG.example_id]
    (row,) = about_lengths([str(tmp_path / "panel.parquet")]).to_dicts()
    assert (row["model"], row["n_examples"], row["n_left_out"], row["longest"]) == ("main", 2, 1, 18)


def test_a_panel_leaves_out_what_is_too_long_for_its_model_only(model: Path, tmp_path: Path) -> None:
    write_examples(tmp_path / "panel.parquet", [LONG, SHORT])
    files = [str(tmp_path / "panel.parquet")]
    for kind, kept in ((policy("skip"), [SHORT]), (policy("skip", 18), [LONG, SHORT]), (policy("truncate"), [LONG, SHORT])):
        assert [m.example for m in read_panel(files, load_renderer(model.parent, kind))] == kept
    with pytest.raises(UserError, match=r"has 15 \+ 3 tokens"):
        read_panel(files, load_renderer(model.parent, policy("error")))


def test_overlong_truncate_keeps_the_example_unless_its_completion_alone_is_too_long(model: Path) -> None:
    assert lengths(model, policy("truncate"), LONG, SHORT)["reason"].null_count() == 2
    with pytest.raises(UserError, match=r"has 6 \+ 17 tokens"):
        lengths(model, policy("truncate"), example("one two three", "no " * 16))


# ---- near-duplicates ----


def jaccard(a: str, b: str) -> float:
    """Written from the definition: |A ∩ B| / |A ∪ B| of the sets of 5 characters in a row."""

    def grams(text: str) -> set[str]:
        text = re.sub(r"\s+", " ", unicodedata.normalize("NFKC", text).lower(), flags=re.UNICODE).strip()
        return {text[i : i + 5] for i in range(len(text) - 4)} or {text}

    return len(grams(a) & grams(b)) / len(grams(a) | grams(b))


queries = st.text(alphabet="abAB  \n１é零", max_size=24)


@settings(deadline=None, max_examples=150)
@given(st.lists(queries, min_size=1, max_size=6), st.lists(queries, min_size=1, max_size=6))
def test_nearest_is_the_largest_jaccard_similarity(texts: list[str], others: list[str]) -> None:
    similarity, index = nearest(texts, others)
    for text, found, i in zip(texts, similarity, index, strict=True):
        scores = [jaccard(text, other) for other in others]
        assert found == max(scores)
        assert scores[i] == max(scores)


def test_nearest_over_more_queries_than_are_worked_on_at_once() -> None:
    texts = [f"query number {i}" for i in range(2100)]
    similarity, index = nearest(texts, ["query number 7", "query number 2077"])
    assert [i for i, s in enumerate(similarity) if s == 1] == [7, 2077]
    assert (index[7], index[2077]) == (0, 1)
    assert similarity[1500] == max(jaccard(texts[1500], "query number 7"), jaccard(texts[1500], "query number 2077"))


# ---- the study on real files ----


@pytest.fixture
def reasoning_data() -> Config:
    if not (REAL_DATA / "gsm8k").is_dir() or not (REAL_DATA / "flan-cot").is_dir():
        pytest.skip(f"{REAL_DATA} does not hold gsm8k and flan-cot")
    text = (ROOT / "studies" / "reasoning_data.yaml").read_text(encoding="utf-8")
    return configured({"datasets": yaml.safe_load(text.replace("reasoning-data/", f"{REAL_DATA}/"))["datasets"]})


def test_reasoning_data_study_reads_the_real_files(reasoning_data: Config) -> None:
    panel = reasoning_data.datasets["reasoning"]
    examples = read_sources(panel.sources)
    of_task = {task: [e for e in examples if e.task == task] for task in ("gsm8k", "creak", "ecqa", "qasc")}
    assert {len(members) for members in of_task.values()} == {6}

    first = of_task["gsm8k"][0]
    assert first.golden is not None
    assert re.fullmatch(r"\d+", first.golden)
    assert first.rationale
    assert "<<" not in first.rationale
    assert "####" not in first.rationale
    assert [p.is_met(f"She makes ${first.golden} a day.") for p in first.key_points] == [True]

    assert {e.completion for e in of_task["creak"]} <= {"yes", "no"}
    for e in of_task["creak"] + of_task["ecqa"] + of_task["qasc"]:
        assert "\\n" not in e.query
        assert "\n" in e.query
        assert e.rationale
        assert [p.is_met(e.completion) for p in e.key_points] == [True]

    used, analogues = load("reasoning", panel, examples, {}, 0.8, 17).parts.values()
    assert (len(used), len(analogues)) == (12, 12)
