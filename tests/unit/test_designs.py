"""Designs: rendering and parsing side by side, and which tokens carry the values of a completion."""

import contextlib
import json
import re
import string
from pathlib import Path
from typing import Any

import pytest
from configuration import configured
from hypothesis import given
from hypothesis import strategies as st
from made_examples import example
from scripts import run_script
from tiny import ROOT
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers import PreTrainedTokenizerFast

from swift_study.config import Model, StudyPanel
from swift_study.data.designs import Rendered, Value, apply_design, load_design, record_of
from swift_study.data.leakage import find_leaks
from swift_study.data.strategies import Reject
from swift_study.errors import Rejected, UserError
from swift_study.gradients.panel import read_panel
from swift_study.io.tables import REJECTS, read_examples, read_table, write_examples
from swift_study.models.batches import IGNORED, collate
from swift_study.models.rendering import Renderer
from swift_study.models.tokens import Tokens

DESIGNS = {path.stem: load_design(path) for path in sorted((ROOT / "designs").glob("*.py"))}
PLAIN = DESIGNS["plain"]
TEXT = st.text(st.characters(blacklist_categories=["Cs"]), min_size=1, max_size=60).map(str.strip).filter(bool)


# ---- parse(render(x)) = x ----


@given(
    TEXT,
    TEXT | st.integers() | st.lists(TEXT, min_size=1, max_size=3) | st.dictionaries(TEXT, TEXT, min_size=1, max_size=3),
    st.sampled_from([{}, {"instruction": "Say it."}, {"instruction": "Say it.", "instruction_at": "last"}]),
)
def test_plain_reads_back_what_it_renders(prompt: str, answer: Any, options: dict[str, str]) -> None:
    record, names = {"text": prompt, "label": answer, "part": "train"}, {"prompt": "text", "completion": "label"}
    rendered = PLAIN.render(record, options | names)
    assert prompt in rendered.query
    assert PLAIN.parse(rendered.completion, record, options | names) == {"label": answer}
    assert rendered.value_spans == [(0, len(rendered.completion))]


@given(st.text(max_size=60))
def test_no_response_is_more_than_text_to_plain(response: str) -> None:
    for answer in ("yes", 3, ["a"]):
        with contextlib.suppress(Rejected):
            assert list(PLAIN.parse(response, {"prompt": "q", "completion": answer}, {})) == ["completion"]
    with pytest.raises(Rejected, match="unparsable"):
        PLAIN.parse("}" + response, {"prompt": "q", "completion": [1]}, {})


def test_plain_puts_the_instruction_first_or_last() -> None:
    record, ask = {"prompt": "a review", "completion": "good"}, {"instruction": "Judge."}
    assert PLAIN.render(record, {}).query == "a review"
    assert PLAIN.render(record, ask).query == "Judge.\n\na review"
    assert PLAIN.render(record, ask | {"instruction_at": "last"}).query == "a review\n\nJudge."


# ---- a dataset in a design ----

LINES = """
from swift_study.data.designs import Rendered, Value
from swift_study.errors import Rejected
def render(record, options):
    parts = [p for a, s in record["aspects"].items() for p in (f"{a}: ", Value(s), chr(10))]
    return Rendered(options.get("ask", "") + record["text"], parts[:-1], options.get("system"))
def parse(response, record, options):
    return {"aspects": dict(line.split(": ") for line in response.splitlines())}
"""
RECORD = {"text": "The soup was cold, the waiter friendly.", "aspects": {"food": "negative", "service": "positive"}}
REVIEW = example(RECORD["text"], json.dumps(RECORD), record=json.dumps(RECORD), source="masa.jsonl, row 3")  # type: ignore[arg-type]


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    (tmp_path / "lines.py").write_text(LINES)
    return tmp_path / "lines.py"


def test_the_same_items_in_another_form(lines: Path) -> None:
    plain = example("How many?", "4")
    (made,), rejects = apply_design(load_design(lines), {"ask": "Aspects? ", "system": "Be brief."}, [REVIEW], "masa.train.lines")
    assert rejects == []
    assert [m.role for m in made.messages] == ["system", "user", "assistant"]
    assert made.query == "Aspects? The soup was cold, the waiter friendly."
    assert made.completion == "food: negative\nservice: positive"
    assert [made.completion[a:b] for a, b in made.value_spans] == ["negative", "positive"]
    assert (made.strategy, made.parent_id, made.root, made.source) == ("lines", REVIEW.example_id, REVIEW.root, REVIEW.source)
    assert (made.text, json.loads(made.record or "")) == (REVIEW.text, RECORD)
    assert load_design(lines).parse(made.completion, RECORD, {}) == {"aspects": RECORD["aspects"]}
    assert made.derive("cot", made.query, "because").value_spans == []  # another completion has other values
    (formed,), _ = apply_design(PLAIN, {"instruction": "Say."}, [plain], "base.said")
    assert (formed.query, formed.completion, formed.value_spans) == ("Say.\n\nHow many?", "4", [(0, 1)])
    assert record_of(plain) == record_of(formed) == {"prompt": "How many?", "completion": "4"}


def test_a_record_that_cannot_be_rendered_is_counted_and_the_others_go_on(lines: Path) -> None:
    plain = example("How many?", "4")
    made, rejects = apply_design(PLAIN, {}, [REVIEW, plain], "masa.plain")
    assert [e.parent_id for e in made] == [plain.parent_id]
    assert rejects == [Reject("masa.plain", "t", REVIEW.example_id, "the record has no 'prompt'; it has text, aspects", 1, None)]
    nothing = example("Soup.", record=json.dumps({"text": "Soup.", "aspects": {}}))
    made, rejects = apply_design(load_design(lines), {}, [nothing, REVIEW], "masa.lines")
    assert [e.parent_id for e in made] == [REVIEW.example_id]
    assert [(r.example_id, r.reason[:29]) for r in rejects] == [(nothing.example_id, "the example has no completion")]


def test_a_design_that_can_render_nothing_is_told_with_a_row_and_the_reasons() -> None:
    told = r"masa.plain: .*plain.py can render none of the 1 examples, .* \w+ \(masa.jsonl, row 3\). Reasons: the record has no 'prompt'"
    with pytest.raises(UserError, match=told):
        apply_design(PLAIN, {}, [REVIEW], "masa.plain")


def test_an_example_that_a_design_leaves_as_it_was_is_not_its_own_parent() -> None:
    plain = example("How many?", "4")
    (same,), _ = apply_design(PLAIN, {}, [plain], "base.plain")
    assert (same.example_id, same.parent_id, same.root) == (plain.example_id, None, plain.root)
    (other,) = apply_design(PLAIN, {"instruction": "Say."}, [same], "base.plain.said")[0]
    (leak,) = find_leaks([other], [plain], [same], 0.8)
    assert "is another form of" in leak


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("x = 1", r"the function `render` is missing"),
        ("def render(", r"does not run: SyntaxError"),
        ("def render(r, o):\n    return 'x'\ndef parse(s, r, o):\n    return {}", r"mine.py, line 1: render returned str"),
        ("def render(r, o):\n    return r['no']\ndef parse(s, r, o):\n    return {}", r"mine.py, line 2: render raised KeyError: 'no'"),
        ("import sys\ndef render(r, o):\n    sys.exit()\ndef parse(s, r, o):\n    return {}", r"mine.py, line 3: render raised SystemExit"),
    ],
)
def test_a_design_file_that_is_wrong_is_a_sentence(code: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(code)
    with pytest.raises(UserError, match=told):
        apply_design(load_design(tmp_path / "mine.py"), {}, [REVIEW], "masa.mine")


def test_the_script_writes_a_dataset_that_keeps_its_values(lines: Path, tmp_path: Path) -> None:
    write_examples(tmp_path / "masa.parquet", [REVIEW])
    given = ["--settings", "{}", "--parent", "masa.parquet", "--output", "masa.lines.parquet", "--rejects", "rejects.parquet"]
    run_script("apply_design.py", "--dataset", "masa.lines", "--design", "lines.py", *given, cwd=tmp_path)
    assert (read_examples(tmp_path / "masa.lines.parquet"), []) == apply_design(load_design(lines), {}, [REVIEW], "masa.lines")
    assert read_table(tmp_path / "rejects.parquet", REJECTS).is_empty()


@pytest.mark.parametrize("spans", [[(0, 0)], [(0, 99)], [(1, 2), (0, 1)], [(-1, 2)]])
def test_spans_that_are_not_in_the_completion_are_refused(spans: list[tuple[int, int]]) -> None:
    with pytest.raises(ValueError, match="value_spans"):
        example("q", "answer", value_spans=spans)


# ---- the loss on values ----


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    """A byte-level BPE whose tokens begin with their space, as those of most models do."""
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    words = ["food: negative\nservice: positive, neutral; the soup was cold, the waiter friendly"] * 20
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(words, BpeTrainer(vocab_size=400, special_tokens=["<u>", "<a>", "</s>"], initial_alphabet=alphabet))
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>")
    turns = "{% for m in messages %}{{ '<u>' if m.role == 'user' else '<a>' }}{{ m.content }}</s>{% endfor %}"
    fast.chat_template = turns + "{% if add_generation_prompt %}<a>{% endif %}"
    return Renderer(fast, Model())


def labelled(renderer: Renderer, tokens: Tokens) -> list[str]:
    return [renderer.tokenizer.decode(tokens.ids[a:b]) for a, b in tokens.spans]


def test_the_loss_is_on_the_completion_on_everything_or_on_the_values(renderer: Renderer) -> None:
    review = example("Aspects?", "food: negative\nservice: positive", value_spans=[(6, 14), (24, 32)])
    assert labelled(renderer, renderer.tokens(review)) == ["food: negative\nservice: positive</s>"]
    assert labelled(renderer, renderer.tokens(review, "all")) == ["Aspects?</s><a>food: negative\nservice: positive</s>"]
    tokens = renderer.tokens(review, "values")
    assert [text.strip() for text in labelled(renderer, tokens)] == ["negative", "positive"]
    assert tokens.n_labels == sum(b - a for a, b in tokens.spans) < tokens.n_completion
    (labels,) = collate([tokens], renderer.pad_id).labels.tolist()
    picked = [i for a, b in tokens.spans for i in tokens.ids[a:b]]
    assert [i for i in labels if i != IGNORED] == picked
    whole = collate([renderer.tokens(review)], renderer.pad_id).labels[0].tolist()
    assert all(label in (IGNORED, other) for label, other in zip(labels, whole, strict=True))
    assert renderer.tokens(review).ids == tokens.ids
    assert collate([tokens], 0).keep == len(tokens.ids) - 1 - (tokens.first_label - 1)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["", "food: ", '{"a": "', "naïve→ ", "\n"]), st.text(string.ascii_letters + "é→ ", min_size=1, max_size=8)
        ),
        min_size=1,
        max_size=5,
    )
)
def test_the_tokens_of_the_values_hold_all_their_characters_and_no_whole_token_beside_them(
    renderer: Renderer, parts: list[tuple[str, str]]
) -> None:
    made = Rendered("q", [p for label, value in parts for p in (label, Value(value))])
    if not made.completion.strip():
        return
    review = example("q", made.completion, value_spans=made.value_spans)
    tokens = renderer.tokens(review, "values")
    encoded = renderer.tokenizer(made.completion, add_special_tokens=False, return_offsets_mapping=True)
    if (
        renderer.tokenizer.decode(tokens.ids[tokens.prompt_length : -1]) != made.completion
        or encoded["input_ids"] != tokens.ids[tokens.prompt_length : -1]
    ):
        return
    wanted = {k for k, (a, b) in enumerate(encoded["offset_mapping"]) for first, last in made.value_spans if a < last and b > first}
    found = {k - tokens.prompt_length for a, b in tokens.spans for k in range(a, b)}
    assert wanted <= found
    # A token that ends where a value begins may come along, where the text before it would be cut otherwise.
    assert len(found - wanted) <= 2 * len(made.value_spans)


def test_values_that_nobody_has_named_are_told(renderer: Renderer) -> None:
    with pytest.raises(UserError, match="does not say which part of its completion is the answer"):
        renderer.tokens(example("q", "answer"), "values")


def refusal(folder: Path, script: str, *arguments: str) -> str:
    return run_script(script, *arguments, cwd=folder, code=1).stdout


def test_values_that_nobody_has_named_are_told_before_anything_is_trained(tmp_path: Path) -> None:
    reviews, _ = apply_design(PLAIN, {"prompt": "text", "completion": "aspects"}, [REVIEW], "masa.plain")
    plain = [example("How many?", "4", source="base.jsonl, row 2"), example("How few?", "1", source="base.jsonl, row 3")]
    for name, examples in (("masa.plain", reviews), ("base", [*plain[:1], *reviews]), ("asked", [reviews[0], plain[1]])):
        write_examples(tmp_path / f"{name}.parquet", examples)
    told = r"'base' has no values for loss_on: values. Its example \w+, base.jsonl, row 2, query 'How many\?', does not say .* base.plain"
    run = {"schedule": [{"masa.plain": {}, "base": {}}], "loss_on": "values"}
    ends = ("--run", "mine", "--output", "schedule.parquet", "--rejects", "rejects.parquet")

    def told_to(run: dict[str, Any]) -> str:
        return json.dumps({"run": run, "data_seed": 17})

    both = ("--datasets", "masa.plain.parquet", "base.parquet")
    assert re.search(told, refusal(tmp_path, "make_schedule.py", "--settings", told_to(run), *both, *ends))
    held_out = ("--held-out", "base.parquet", "--datasets", "masa.plain.parquet")
    alone = run | {"schedule": [{"masa.plain": {}}], "early_stopping": {"dataset": "base"}}
    assert re.search(told, refusal(tmp_path, "make_schedule.py", "--settings", told_to(alone), *held_out, *ends))
    study = (
        "--study",
        "mine",
        "--near-duplicate",
        "0.8",
        "--output",
        "leakage.parquet",
        "--datasets",
        "masa.plain.parquet",
        "asked.parquet",
    )
    assert "row 3, query 'How few?'" in refusal(tmp_path, "check_leakage.py", *study, "--values", "masa.plain", "asked")
    assert not list(tmp_path.glob("[slr]*.parquet"))


def test_a_study_names_the_datasets_that_need_values() -> None:
    config = configured({"studies": {"cot": {"loss_on": {"probes": "completion", "targets": "values"}}}})
    assert config.with_values("cot") == ["panel.similar"]
    assert config.with_values("clarify") == config.with_values("table1") == []


def test_values_move_with_a_prompt_that_is_cut(renderer: Renderer) -> None:
    review = example("word " * 200, "food: negative", value_spans=[(6, 14)])
    cut = Renderer(renderer.tokenizer, Model(max_length=32, overlong="truncate"))
    tokens = cut.tokens(review, "values")
    assert len(tokens.ids) == 32
    assert [text.strip() for text in labelled(cut, tokens)] == ["negative"]


def test_a_panels_probes_and_targets_have_losses_of_their_own(renderer: Renderer, tmp_path: Path) -> None:
    review = example("Aspects?", "food: negative", value_spans=[(6, 14)])
    for name in ("probes", "targets"):
        write_examples(tmp_path / f"{name}.parquet", [review])
    study = StudyPanel.model_validate(
        {"probes": {"A": "probes"}, "targets": {"B": "targets"}, "loss_on": {"probes": "all", "targets": "values"}}
    )
    files = [str(tmp_path / f"{name}.parquet") for name in ("probes", "targets")]
    first, second = read_panel(files, renderer, study.loss_of())
    assert first.tokens == renderer.tokens(review, "all")
    assert second.tokens == renderer.tokens(review, "values")
    with pytest.raises(ValueError, match="loss_on: 'x' stands for the sets 'A' and 'B', one with the loss on completion, one on values"):
        StudyPanel.model_validate({"probes": {"A": "x"}, "targets": {"B": "x"}, "loss_on": {"targets": "values"}})


def test_one_probe_set_has_the_loss_on_its_prompts_as_well() -> None:
    sets = {"probes": {"A": "a", "MI": "mi"}, "targets": {"B": "b"}}
    study = StudyPanel.model_validate(sets | {"loss_on": {"probes": {"MI": "all"}}})
    assert study.loss_of() == {"a": "completion", "mi": "all", "b": "completion"}
    with pytest.raises(ValueError, match=r"loss_on.probes names 'M', which is not one of the probe sets \['A', 'MI'\]"):
        StudyPanel.model_validate(sets | {"loss_on": {"probes": {"M": "all"}}})
