"""A strategy made by a teacher, through the workflow: replies, rejects, the account, the cache, and where the key does not go."""

import json
import os
import re
import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import ThreadingHTTPServer
from pathlib import Path

import polars as pl
import pytest
import yaml
from checkout import Checkout, make_checkout
from servers import Handler, completion

CANARY = f"sk-{uuid.uuid4().hex}"  # no file of the repository has it


@dataclass
class Teacher:
    """A local server that speaks the protocol and reasons badly, but ends in the answer that the prompt gives."""

    url: str = ""
    keys: list[str] = field(default_factory=list)
    requests: int = 0
    refuse: str = "\0"  # prompts with this text get a reply that breaks the acceptance rule


@pytest.fixture
def teacher() -> Iterator[Teacher]:
    state = Teacher()

    class Teaching(Handler):
        def do_POST(self) -> None:
            prompt = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["messages"][-1]["content"]
            state.requests += 1
            state.keys.append(self.headers["Authorization"])
            answer = re.findall(r"<answer>\n(.*?)\n</answer>", prompt, re.DOTALL)[-1]
            text = "I would rather not." if state.refuse in prompt else f"One thing leads to another. So the answer is {answer}"
            self.send(200, completion(text, tokens=(100, 20)))

    server = ThreadingHTTPServer(("127.0.0.1", 0), Teaching)
    state.url = f"http://127.0.0.1:{server.server_port}/v1"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield state
    server.shutdown()


def overlay(checkout: Checkout, teacher: Teacher, **keys: object) -> str:
    path = checkout.root / "teacher.yaml"
    settings = {
        "base_url": teacher.url,
        "model": "m",
        "key_env": "SWIFT_STUDY_TEST_KEY",
        "budget_usd": 5.0,
        "usd_per_million_prompt_tokens": 1000.0,
        "usd_per_million_completion_tokens": 1000.0,
        **keys,
    }
    path.write_text(yaml.safe_dump({"endpoints": {"teacher": settings}, "strategies": {"cot": {"by": "teacher"}}}))
    return str(path)


def test_a_teacher_makes_a_dataset_with_the_same_strategy_file(
    teacher: Teacher, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SWIFT_STUDY_TEST_KEY", CANARY)
    checkout = make_checkout(tmp_path / "swift-study", tiny_model)
    target = "results/data/panel.cot.parquet"
    panel = "results/data/panel.parquet"
    checkout.snakemake(panel)
    queries = pl.read_parquet(checkout.root / panel)["messages"].list.first().struct.field("content").to_list()
    teacher.refuse = queries[3][:40]

    checkout.snakemake(target, configs=(overlay(checkout, teacher),))
    made = pl.read_parquet(checkout.root / target)
    assert len(made) == 11
    assert made["messages"].list.last().struct.field("content").str.contains("One thing leads to another. So the answer is").all()
    rejects = pl.read_parquet(checkout.root / "results/data/rejects/panel.cot.parquet")
    assert rejects["reason"].to_list() == ["the reply does not end in 'So the answer is' and the answer"]
    assert rejects["attempts"].to_list() == [3]
    account = pl.read_parquet(checkout.root / "results/data/accounts/panel.cot.parquet").row(0, named=True)
    assert account["requests_sent"] == teacher.requests == 11 + 3
    assert account["cost_usd"] == pytest.approx(14 * 120 * 1000 / 1e6)
    assert set(teacher.keys) == {f"Bearer {CANARY}"}

    # A rerun is free, and prices and limits are no reason for one.
    faster = overlay(checkout, teacher, concurrency=2, timeout_s=30.0, budget_usd=7.0)
    assert checkout.is_finished(target, configs=(faster,))
    checkout.snakemake(target, "--forcerun", "apply_strategy", configs=(faster,))
    assert teacher.requests == 14
    again = pl.read_parquet(checkout.root / "results/data/accounts/panel.cot.parquet").row(0, named=True)
    assert again["requests_sent"] == 0
    assert again["cost_usd"] == 0
    assert again["replies_from_cache"] == 14

    for folder, _, files in os.walk(checkout.root):
        for name in files:
            assert CANARY.encode() not in (Path(folder) / name).read_bytes(), Path(folder) / name


def test_a_missing_key_and_a_spent_budget_are_sentences(
    teacher: Teacher, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkout = make_checkout(tmp_path / "swift-study", tiny_model)
    target = "results/data/panel.cot.parquet"
    monkeypatch.delenv("SWIFT_STUDY_TEST_KEY", raising=False)
    remote = overlay(checkout, teacher, base_url="https://api.example.com/v1")
    done = checkout.snakemake(target, configs=(remote,), check=False)
    assert done.returncode != 0
    assert "SWIFT_STUDY_TEST_KEY" in done.stdout
    monkeypatch.setenv("SWIFT_STUDY_TEST_KEY", CANARY)
    done = checkout.snakemake(target, configs=(overlay(checkout, teacher, budget_usd=1e-6),), check=False)
    assert done.returncode != 0
    assert "endpoints.teacher.budget_usd" in done.stdout
    assert teacher.requests == 0
