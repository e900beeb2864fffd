"""The client for chat servers, against a real one: `transformers serve` with the packaged model, on the CPU."""

from pathlib import Path

import pytest
from configuration import HANDWRITTEN
from scripts import run_script
from tiny import ROOT

from swift_study.data.sources import read_source
from swift_study.errors import Rejected, UserError
from swift_study.examples import Message
from swift_study.io.endpoint import Answer, EndpointSettings, Failure, ask
from swift_study.io.settings import limits, settings
from swift_study.io.tables import ACCOUNTS, REJECTS, read_examples, read_table, write_examples

PROMPTS = [
    [Message(role="user", content="What is 2 + 2?")],
    [Message(role="user", content="What is the capital of France?")],
    [Message(role="system", content="Answer in one word."), Message(role="user", content="What is the capital of Italy?")],
]


@pytest.fixture
def teacher(served_model: EndpointSettings) -> EndpointSettings:
    return served_model


def test_replies_come_from_the_model_once_and_then_from_the_cache(teacher: EndpointSettings, tmp_path: Path) -> None:
    outcomes, account = ask(teacher, PROMPTS, lambda i, reply: reply.strip(), tmp_path)
    replies = [o.value if isinstance(o, Answer) else o.reason for o in outcomes]
    assert "4" in replies[0]
    assert "Paris" in replies[1]
    assert replies[2]
    assert (account.requests_sent, account.rejected, account.failures, account.tokens_estimated) == (3, 0, 0, False)
    assert account.prompt_tokens > 3 * 10
    assert 3 <= account.completion_tokens <= 3 * 32

    again, second = ask(teacher, PROMPTS, lambda i, reply: reply.strip(), tmp_path)
    assert again == outcomes
    assert (second.requests_sent, second.replies_from_cache) == (0, 3)
    assert (second.cached_prompt_tokens, second.cached_completion_tokens) == (account.prompt_tokens, account.completion_tokens)


def test_a_rule_that_no_reply_meets_makes_failures(teacher: EndpointSettings, tmp_path: Path) -> None:
    def accept(index: int, reply: str) -> str:
        raise Rejected("it is not a sonnet")

    outcomes, account = ask(teacher, PROMPTS[:2], accept, tmp_path)
    assert [type(o) for o in outcomes] == [Failure, Failure]
    assert {o.reason for o in outcomes if isinstance(o, Failure)} == {"it is not a sonnet"}
    assert (account.requests_sent, account.rejected, account.failures) == (6, 6, 2)


def test_a_reply_that_reaches_max_tokens_is_not_accepted(teacher: EndpointSettings, tmp_path: Path) -> None:
    short = teacher.model_copy(update={"max_tokens": 3, "reply_attempts": 1})
    outcomes, _ = ask(short, PROMPTS[:1], lambda i, reply: reply, tmp_path)
    assert isinstance(outcomes[0], Failure)
    assert "cut off after 3 tokens" in outcomes[0].reason
    assert outcomes[0].reply


def test_a_wrong_model_name_is_a_sentence(teacher: EndpointSettings, tmp_path: Path) -> None:
    wrong = teacher.model_copy(update={"model": "no-such-model"})
    with pytest.raises(UserError, match=r"model no-such-model\) refuses the request: status 400 .*`endpoints\.teacher\.model`"):
        ask(wrong, PROMPTS, lambda i, reply: reply, tmp_path)


def test_a_strategys_data_by_a_real_teacher(served_model: EndpointSettings, tmp_path: Path) -> None:
    """Through the script that the rule calls: every example ends in the dataset or in the rejects, and a second run asks for nothing."""
    examples = read_source(HANDWRITTEN.model_copy(update={"path": str(ROOT / HANDWRITTEN.path)}))[:2]
    write_examples(tmp_path / "panel.parquet", examples)
    teacher = served_model.model_copy(update={"reply_attempts": 1, "max_tokens": 48})
    given = [
        "--dataset", "panel.clarify",
        "--strategy", str(ROOT / "strategies" / "clarify.py"), "--settings", settings(strategy={"by": "teacher"}, teacher=teacher),
        "--limits", limits(teacher=teacher),
        "--parent", str(tmp_path / "panel.parquet"),
        "--cache", str(tmp_path / "cache"), *(f"--{name}={tmp_path / f'{name}.parquet'}" for name in ("output", "rejects", "account")),
    ]  # fmt: skip
    for sent in (2, 0):
        done = run_script("apply_strategy.py", *given, code=None)
        if done.returncode:  # so small a teacher may be rejected twice; then that is what is said, and nothing is passed on
            assert "none of the 2 examples passed the strategy" in done.stdout
            assert not (tmp_path / "output.parquet").exists()
            continue
        made = read_examples(tmp_path / "output.parquet")
        rejects = read_table(tmp_path / "rejects.parquet", REJECTS)
        assert {e.parent_id for e in made} | set(rejects["example_id"]) == {e.example_id for e in examples}
        assert read_table(tmp_path / "account.parquet", ACCOUNTS)["requests_sent"][0] == sent
