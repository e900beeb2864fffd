"""What is taken off a reply before it becomes training text or a label: reasoning blocks and code fences, of any family."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from made_examples import example
from servers import Server, reply, serving

from swift_study.config import Strategy
from swift_study.data.strategies import StrategyFile, apply_strategy, load_strategy
from swift_study.errors import Rejected
from swift_study.evaluation.scorers import Item, load_scorer
from swift_study.examples import Example, KeyPoint
from swift_study.io.endpoint import EndpointSettings
from swift_study.io.replies import whole_text, without_fence, without_reasoning

ROOT = Path(__file__).resolve().parents[2]
JUDGE = load_scorer(ROOT / "scorers" / "judge.py")
COT = Path(__file__).resolve().parents[2] / "strategies" / "cot.py"

# What models of these families put out when their servers take nothing off; the answer is 4 in each.
WITH_A_BLOCK = {
    "DeepSeek, Qwen": "<think>\nTwo and two.\n</think>\n\n4",
    "opened by the template": "Two and two.\n</think>\n\n4",
    "empty": "<think>\n\n</think>\n\n4",
    "only closed": "</think>4",
    "white space before": "\ufeff \n<think>x</think> 4 \n",
    "capitals": "<THINK>x</THINK>4",
    "thinking": "<thinking>x</thinking>\n4",
    "reasoning": "<reasoning>x</reasoning>\n4",
    "EXAONE": "<thought>\nx\n</thought>\n4",
    "Seed-OSS": "<seed:think>x</seed:think>4",
    "Magistral": "[THINK]x[/THINK]4",
    "Magistral, opened by the template": "x[/THINK]4",
    "with bars": "<|think|>x<|/think|>4",
    "with an attribute": '<think budget="200">x</think >4',
    "Kimi": "◁think▷x◁/think▷4",
    "Command A": "<|START_THINKING|>x<|END_THINKING|><|START_RESPONSE|>4<|END_RESPONSE|>",
    "OpenThinker": "<|begin_of_thought|>\nx\n<|end_of_thought|>\n\n<|begin_of_solution|>\n4\n<|end_of_solution|>",
    "Gemma": "<|channel>thought\nx<channel|>4",
    "gpt-oss": "<|channel|>analysis<|message|>x<|end|><|start|>assistant<|channel|>final<|message|>4<|return|>",
    "gpt-oss with a format": "<|channel|>analysis<|message|>x<|end|><|start|>assistant<|channel|>final <|constrain|>json<|message|>4",
    "gpt-oss with commentary": "<|channel|>commentary<|message|>x<|end|><|start|>assistant<|channel|>final<|message|>4<|end|>",
    "gpt-oss without its tokens": "analysisTwo and two.assistantfinal4",
    "two blocks": "<think>x</think>\n<think>y</think>\n4",
    "nested": "<think>x <think>y</think> z</think>4",
    "nested by lines": "<think>\n<think>\nx\n</think>\ny\n</think>\n4",
    "names its tag": "<think>I write <think> first.</think>4",
    "behind a greeting": "Sure.\n<think>x</think>\n4",
    "a tag of another family inside": "<think>x [THINK] y</think>\n4",
}


@pytest.mark.parametrize("family", WITH_A_BLOCK)
def test_a_reasoning_block_is_taken_off(family: str) -> None:
    assert without_reasoning(WITH_A_BLOCK[family]) == "4"


@pytest.mark.parametrize(
    "text",
    [
        "4",
        " 4\n",
        "",
        "I think that <b>4</b> is right; [THINKING] of it, the <think> tag is not used here.",
        '{"reason": "The response says </think> and <think>.", "label": 0}',
        '```json\n{"reason": "The response says </think>.", "label": 0}\n```',
    ],
)
def test_a_reply_without_a_block_stays_as_it_is(text: str) -> None:
    assert without_reasoning(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "<think>",
        "<think>Two and two is 4.",
        "<think>x</think>\n<think>4",
        "[THINK]4",
        "◁think▷4",
        "<reasoning>\n4",
        "Sure.\n<think>\n4",
        "<|channel|>analysis<|message|>4",
        "<|start|>assistant<|channel|>analysis<|message|>4",
        "<think>\n<think>\nx\n</think>\n4",
    ],
)
def test_a_block_that_is_not_closed_is_no_reply(text: str) -> None:
    with pytest.raises(Rejected, match="not closed"):
        without_reasoning(text)


@pytest.mark.parametrize("text", ["<think>x</think>", "x</think> \n", "<|channel|>analysis<|message|>x<|end|><|channel|>final<|message|>"])
def test_a_block_without_an_answer_is_no_reply(text: str) -> None:
    with pytest.raises(Rejected, match="nothing follows its reasoning block"):
        without_reasoning(text)


@pytest.mark.parametrize(
    "text", ["Use <think> and </think>.", "<think>x</think>The tag </think> ends a block.", "Well, <think>x</think> 4"]
)
def test_tags_within_an_answer_are_no_reply_since_they_may_be_a_block(text: str) -> None:
    with pytest.raises(Rejected, match="nobody can tell"):
        without_reasoning(text)


def test_tags_in_the_strings_of_a_json_answer_are_text() -> None:
    answer = '{"reason": "It says </think> twice: </think>", "label": 0}'
    assert json.loads(without_reasoning(f"<think>x</think>\n{answer}")) == json.loads(answer)
    assert json.loads(without_reasoning(f"<think>It says </think> here.</think>\n{answer}")) == json.loads(answer)


@pytest.mark.parametrize(
    ("text", "inside"),
    [
        ("```json\n1\n```", "1"),
        ("```\n1```", "1"),
        (" ```JSON 1```\n", "1"),
        ("1", "1"),
        ("```1", "```1"),
        ("``````", ""),
        ("`````", "`````"),
    ],
)
def test_a_fence_is_taken_off_where_it_is_around_everything(text: str, inside: str) -> None:
    assert without_fence(text) == inside


HOSTILE = {
    "fence and spaces": "```" + " " * 200_000,
    "fence, spaces, text": "```" + " " * 200_000 + "x```y",
    "spaces": " " * 200_000 + "x",
    "opening tags": "<think>" * 30_000,
    "opening tags in a line": "x <think> " * 30_000,
    "closing tags": "</think>" * 30_000,
    "opened, then closed": "<think>\n" * 20_000 + "</think>" * 20_000 + "x",
    "half tags": "<think" * 30_000,
    "half tags with attributes": "<think " * 20_000,
    "half tags and spaces": ("<think" + " " * 9) * 20_000,
    "lists after closing tags": "</think>[" * 30_000,
    "channels": "<|channel|>final" * 20_000,
    "nested": '{"a":' * 50_000,
    "a long number": "9" * 200_000,
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_long_hostile_reply_takes_no_long_time(kind: str) -> None:
    item = Item(example(), "a")
    start = time.process_time()
    with pytest.raises(Rejected):
        JUDGE.from_reply(item, HOSTILE[kind])
    assert time.process_time() - start < 1


@pytest.mark.parametrize(
    ("text", "whole"), [("a\ud800b", "a\ufffdb"), ("\udc00", "\ufffd"), ("\ud83d\ude00", "😀"), ("é😀", "é😀"), ("", "")]
)
def test_half_of_a_surrogate_pair_is_replaced(text: str, whole: str) -> None:
    assert whole_text(text) == whole


# ---- by a teacher ----


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as running:
        yield running


def sums(n: int) -> list[Example]:
    points = [[KeyPoint(text="It is right.", check="number", value=f"{i + 1}")] for i in range(n)]
    return [example(f"What is {i} + 1?", f"{i + 1}", "sums", golden=f"{i + 1}", key_points=points[i]) for i in range(n)]


def cot() -> StrategyFile:
    return load_strategy(COT)


def test_a_teachers_reasoning_block_is_no_training_text_and_stays_in_the_cache(server: Server, tmp_path: Path) -> None:
    probe = sums(4)[3]
    reasoned = cot().from_fields(probe.model_copy(update={"rationale": "One more than 3 is the next number."}), None).completion
    server.default = reply(f"<think>They want a sum, 99.</think>\n\n{reasoned}")
    teacher = EndpointSettings(base_url=server.url, model="m", backoff_s=0.01)
    made, rejects, _ = apply_strategy(cot(), Strategy(by="teacher"), [probe], [], "d", teacher, tmp_path)
    assert [e.completion for e in made] == [reasoned]
    assert rejects == []
    (kept,) = tmp_path.rglob("*.json")
    assert json.loads(kept.read_text())["reply"]["content"].startswith("<think>They want")


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_a_rejected_reply_is_shown_as_it_came(server: Server, tmp_path: Path, field: str) -> None:
    one, two = sums(2)
    good = cot().from_fields(two.model_copy(update={"rationale": "It is a sum."}), None).completion
    server.actions.extend([reply("<think>It is 7."), reply("No.", **{field: "Hm."}), reply(good)])
    teacher = EndpointSettings(base_url=server.url, model="m", backoff_s=0.01, reply_attempts=1, concurrency=1)
    _, rejects, _ = apply_strategy(cot(), Strategy(by="teacher"), [one, sums(3)[2], two], [], "d", teacher, tmp_path)
    assert [(r.reply, "not closed" in r.reason) for r in rejects] == [("<think>It is 7.", True), ("<think>\nHm.\n</think>\n\nNo.", False)]


def test_replies_from_a_file_lose_their_blocks_too(tmp_path: Path) -> None:
    (probe,) = sums(1)
    good = cot().from_fields(probe.model_copy(update={"rationale": "It is a sum."}), None).completion
    file = tmp_path / "replies.jsonl"
    file.write_text(json.dumps({"query": probe.query, "reply": f"hm</think>{good}"}))
    made, _, _ = apply_strategy(cot(), Strategy(by="file", file=str(file)), [probe], [], "d")
    assert [e.completion for e in made] == [good]
