"""Sources: every format gives the same examples, and bad input is told with file, row and column, early."""

import gzip
import json
import re
import unicodedata
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import PreTrainedTokenizerFast

from swift_study.config import (
    BaseData,
    Column,
    Columns,
    Config,
    FileSource,
    GeneratorSource,
    HubSource,
    Model,
    Panel,
    load,
)
from swift_study.datasets import fit, write_rejects
from swift_study.duplicates import nearest
from swift_study.errors import UserError
from swift_study.examples import Example, Message
from swift_study.sources import draw_base, find_leaks, read_source, read_sources, split_panel
from swift_study.tables import REJECTS, read_table

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
    from swift_study.generator import FAMILIES

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


def test_overlong_error_names_the_example_and_its_length(model: Path) -> None:
    with pytest.raises(UserError) as caught:
        fit([SHORT, LONG], model, policy("error"), "panel")
    assert str(caught.value).startswith(f"Example {LONG.example_id} (task 'task', strategy 'source', query 'one two")
    assert "has 15 + 3 tokens, more than model.max_length = 16" in str(caught.value)
    assert fit([SHORT], model, policy("error"), "panel") == ([SHORT], [])
    assert fit([LONG], model, policy("error", 18), "panel") == ([LONG], [])


def test_overlong_skip_leaves_out_and_counts(model: Path, tmp_path: Path) -> None:
    kept, rejects = fit([LONG, SHORT], model, policy("skip"), "panel")
    assert kept == [SHORT]
    write_rejects(tmp_path / "rejects.parquet", rejects)
    (row,) = read_table(tmp_path / "rejects.parquet", REJECTS).to_dicts()
    assert row == {
        "dataset": "panel",
        "task": "task",
        "example_id": LONG.example_id,
        "reason": "longer than model.max_length = 16 tokens",
        "attempts": 1,
        "reply": None,
    }


def test_overlong_truncate_keeps_the_example_unless_its_completion_alone_is_too_long(model: Path) -> None:
    assert fit([LONG, SHORT], model, policy("truncate"), "panel") == ([LONG, SHORT], [])
    with pytest.raises(UserError, match=r"has 6 \+ 17 tokens"):
        fit([example("one two three", "no " * 16)], model, policy("truncate"), "panel")


# ---- panels ----


def test_split_panel_takes_the_first_of_each_task_and_leaves_the_rest_as_analogues() -> None:
    examples = [example(f"{task}{i}", task=task) for i in range(5) for task in ("a", "b")]
    used, analogues = split_panel(examples, Panel(per_task=2))
    assert [e.query for e in used] == ["a0", "a1", "b0", "b1"]
    assert [e.query for e in analogues] == ["a2", "a3", "a4", "b2", "b3", "b4"]
    used, _ = split_panel(examples, Panel(tasks=["b"]))
    assert [e.query for e in used] == ["b0"]


def test_task_with_a_single_example_is_told() -> None:
    examples = [example("a0", task="a"), example("a1", task="a"), example("b0", task="b")]
    with pytest.raises(UserError, match=r"Task 'b' has 1 example, but 2 are needed: 1 to use and as many analogues"):
        split_panel(examples, Panel())
    used, _ = split_panel(examples, Panel(tasks=["a"]))
    assert len(used) == 1


def test_task_that_no_source_has_is_told() -> None:
    with pytest.raises(UserError, match="The sources have no task 'c'; they have a, b"):
        split_panel([example(f"{t}{i}", task=t) for t in "ab" for i in range(2)], Panel(tasks=["a", "c"]))


# ---- base data ----

POOL = [example(f"Question {i}: what is {i * 7919 % 999} plus {i * 8933 % 999}{' then' * (i % 3)}?") for i in range(40)]
PROBES = [
    POOL[3],
    example(POOL[5].query, "another answer"),
    example(POOL[8].query.replace("Question", "question") + "!"),
    example("Nothing in the pool is like this one at all."),
]


def test_draw_base_leaves_out_probes_and_their_near_duplicates() -> None:
    drawn, counts = draw_base(POOL, PROBES, BaseData(examples=37), 0.8, seed=1)
    assert counts == {"pool": 40, "same_as_probe": 2, "near_duplicates": 1, "drawn": 37}
    assert {e.example_id for e in drawn} == {e.example_id for i, e in enumerate(POOL) if i not in (3, 5, 8)}
    assert find_leaks(PROBES, drawn, 0.8) == []


def test_draw_base_depends_on_the_seed_only() -> None:
    draws = [[e.query for e in draw_base(POOL, PROBES, BaseData(examples=10), 0.8, seed)[0]] for seed in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]
    assert len(set(draws[0])) == 10


def test_threshold_of_1_leaves_out_only_equal_sets_of_5_grams() -> None:
    _, counts = draw_base(POOL, PROBES, BaseData(examples=1), 1.0, seed=1)
    assert counts["near_duplicates"] == 0
    assert counts["same_as_probe"] == 2
    _, counts = draw_base(POOL, [example(POOL[2].query.upper())], BaseData(examples=1), 1.0, seed=1)
    assert counts["near_duplicates"] == 1
    assert counts["same_as_probe"] == 0
    assert len(find_leaks(PROBES, POOL, 1.0)) == 2


def test_too_few_examples_left_is_told_with_all_counts() -> None:
    message = (
        "The base data needs 38 examples (data.base.examples), but the sources give 40, of which 2 are probes and 1 "
        "near-duplicates of probes: 37 are left."
    )
    with pytest.raises(UserError, match=re.escape(message)):
        draw_base(POOL, PROBES, BaseData(examples=38), 0.8, seed=1)


def test_find_leaks_names_probe_and_base_example() -> None:
    leaks = find_leaks(PROBES, POOL, 0.8)
    assert len(leaks) == 3
    for leak, probe, base in zip(leaks, PROBES, (POOL[3], POOL[5], POOL[8]), strict=False):
        assert probe.example_id in leak
        assert base.example_id in leak
    assert "(similarity 1.00)" in leaks[0]


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
    return load(yaml.safe_load(text.replace("reasoning-data/", f"{REAL_DATA}/")))


def test_reasoning_data_study_reads_the_real_files(reasoning_data: Config) -> None:
    panel = reasoning_data.data.panel
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

    used, analogues = split_panel(examples, panel)
    assert (len(used), len(analogues)) == (12, 12)
