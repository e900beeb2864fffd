"""The client for chat servers, against a local server that fails in every way that matters."""

import base64
import contextlib
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from servers import (
    Action,
    Handler,
    Server,
    body,
    break_off,
    completion,
    compressed,
    drip,
    echo_key,
    endless,
    hang,
    reply,
    serving,
    status,
)

from swift_study.config import load
from swift_study.errors import Rejected, UserError
from swift_study.examples import Message
from swift_study.io import endpoint
from swift_study.io.endpoint import Answer, EndpointSettings, Failure, ask
from swift_study.io.settings import deciding

CANARY = "sk-canary-0123456789abcdef"
SCRIPTS = Path(endpoint.__file__).parents[2]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("OPENAI_API_KEY", CANARY)
    with serving() as server:
        yield server


def settings(server: Server, **changes: Any) -> EndpointSettings:
    fields = {"base_url": server.url, "model": "m", "backoff_s": 0.01, "timeout_s": 5.0, "concurrency": 4}
    return EndpointSettings(**(fields | changes))


def prompts(*texts: str) -> list[list[Message]]:
    return [[Message(role="system", content="Be brief."), Message(role="user", content=text)] for text in texts]


def anything(index: int, text: str) -> str:
    return text


def nothing(index: int, text: str) -> str:
    raise Rejected("not this")


def values(outcomes: list[Answer[str] | Failure]) -> list[str]:
    return [o.value if isinstance(o, Answer) else f"failed: {o.reason}" for o in outcomes]


def test_every_prompt_gets_its_reply_and_the_account_adds_up(server: Server, tmp_path: Path) -> None:
    server.default = reply("fine")
    said: list[str] = []
    priced = settings(server, seed=7, usd_per_million_prompt_tokens=1.0, usd_per_million_completion_tokens=2.0)
    outcomes, account = ask(priced, prompts("a", "b", "c"), lambda i, text: f"{i}:{text}", tmp_path, said.append)

    assert values(outcomes) == ["0:fine", "1:fine", "2:fine"]
    assert (account.requests_sent, account.replies_from_cache, account.retries) == (3, 0, 0)
    assert (account.prompt_tokens, account.completion_tokens, account.tokens_estimated) == (30, 15, False)
    assert account.cost_usd == pytest.approx(3 * (10 + 2 * 5) / 1e6)
    assert said[-1].startswith("3 of 3 prompts, 0 failed")
    sent = server.bodies[server.asked.index("a")]
    assert sent == {
        "model": "m",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "a"}],
        "temperature": 0.0,
        "max_tokens": 512,
        "seed": 7,
    }
    assert set(server.keys) == {f"Bearer {CANARY}"}


@pytest.mark.parametrize(
    "failure",
    [status(429), status(500), status(503), status(408), status(409), status(500, "<html>"), break_off],
    ids=["429", "500", "503", "408", "409", "html", "broken-connection"],
)
def test_a_passing_failure_is_tried_again(server: Server, tmp_path: Path, failure: Action) -> None:
    server.actions.extend([failure, failure])
    outcomes, account = ask(settings(server), prompts("a"), anything, tmp_path)
    assert values(outcomes) == ["fine"]
    assert (account.requests_sent, account.retries, account.rejected) == (3, 2, 0)


@pytest.mark.parametrize("failure", [hang, drip], ids=["silent", "dripping"])
def test_a_reply_must_be_complete_in_time(server: Server, tmp_path: Path, failure: Action) -> None:
    server.actions.append(failure)
    start = time.monotonic()
    outcomes, account = ask(settings(server, timeout_s=0.4), prompts("a"), anything, tmp_path)
    assert values(outcomes) == ["fine"]
    assert account.retries == 1
    assert time.monotonic() - start < 5


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_retry_after_is_honoured(server: Server, tmp_path: Path, form: str) -> None:
    # A date has whole seconds: two ahead is between one and two.
    value = "1" if form == "seconds" else time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 2))
    server.actions.append(status(429, Retry_After=value))
    start = time.monotonic()
    outcomes, _ = ask(settings(server), prompts("a"), anything, tmp_path)
    assert values(outcomes) == ["fine"]
    assert 0.9 < time.monotonic() - start < 3


@pytest.mark.parametrize(("value", "seconds"), [(None, 0), ("3", 3), ("-1", 0), ("1e9", 600), ("nan", 0), ("soon", 0), ("", 0)])
def test_odd_retry_after_values(value: str | None, seconds: float) -> None:
    assert endpoint._retry_after(value) == seconds


BAD_REPLIES = {
    "cut-off JSON": (body(completion("fine")[:50]), "the response is not a chat completion"),
    "not JSON": (body("<html>hello</html>", "text/html"), "the response is not a chat completion"),
    "not UTF-8": (body("\\ud800"), "the response is not a chat completion"),
    "no body": (body(""), "the response is not a chat completion"),
    "null": (body("null"), "the response is not a chat completion"),
    "wrong schema": (body('{"choices": [{"message": "fine"}]}'), "chat completion: choices.0.message"),
    "no choices": (body('{"choices": []}'), "chat completion: choices"),
    "other keys": (body('{"error": "overloaded"}'), "chat completion: choices: Field required"),
    "content is a number": (body('{"choices": [{"message": {"content": 3}}]}'), "chat completion: choices.0.message"),
    "empty": (reply(""), "the reply is empty"),
    "blank": (reply(" \n"), "the reply is empty"),
    "null content": (reply(None), "the reply is empty"),
    "refusal": (reply(None, refusal="I can't\nhelp"), "the server refused to answer: I can't help"),
    "content filter": (reply("x", finish="content_filter"), "the server refused to answer"),
    "cut off": (reply("The answer is", finish="length"), "the reply was cut off after 5 tokens (max_tokens)"),
}


@pytest.mark.parametrize("kind", BAD_REPLIES)
def test_an_unusable_reply_is_asked_for_again_and_at_last_a_failure(server: Server, tmp_path: Path, kind: str) -> None:
    action, reason = BAD_REPLIES[kind]
    server.actions.append(action)
    outcomes, account = ask(settings(server), prompts("a"), anything, tmp_path / "1")
    assert values(outcomes) == ["fine"]
    assert (account.rejected, account.failures, account.retries) == (1, 0, 0)

    server.default = action
    outcomes, account = ask(settings(server, reply_attempts=2), prompts("a"), anything, tmp_path / "2")
    assert isinstance(outcomes[0], Failure)
    assert reason in outcomes[0].reason
    assert outcomes[0].attempts == 2
    assert (account.rejected, account.failures) == (2, 1)


def test_a_rejected_reply_is_asked_for_again_with_another_seed_and_temperature(server: Server, tmp_path: Path) -> None:
    server.actions.extend([reply("bad"), reply("worse")])

    def accept(index: int, text: str) -> str:
        if text != "fine":
            raise Rejected(f"it says {text}")
        return text.upper()

    outcomes, account = ask(settings(server, seed=7), prompts("a"), accept, tmp_path)
    assert outcomes == [Answer(0, 3, "FINE", "fine")]
    assert (account.requests_sent, account.rejected, account.failures) == (3, 2, 0)
    assert [(b["temperature"], b["seed"]) for b in server.bodies] == [(0.0, 7), (0.7, 8), (0.7, 9)]
    # The same again comes from the cache, with the same rejections, and nothing is sent.
    again, account = ask(settings(server, seed=7), prompts("a"), accept, tmp_path)
    assert again == outcomes
    assert (account.requests_sent, account.replies_from_cache, account.rejected, account.cost_usd) == (0, 3, 2, 0.0)
    assert len(server.bodies) == 3


def test_a_temperature_above_zero_stays(server: Server, tmp_path: Path) -> None:
    ask(settings(server, temperature=0.2), prompts("a"), nothing, tmp_path)
    assert [(b["temperature"], b.get("seed")) for b in server.bodies] == [(0.2, None)] * 3


def test_a_prompt_whose_replies_are_all_rejected_is_a_failure_and_the_others_go_on(server: Server, tmp_path: Path) -> None:
    def accept(index: int, text: str) -> str:
        return text if index != 1 else nothing(index, text)

    outcomes, account = ask(settings(server), prompts("a", "b", "c"), accept, tmp_path)
    assert outcomes[1] == Failure(1, 3, "not this", "fine")
    assert values(outcomes) == ["fine", "failed: not this", "fine"]
    assert (account.requests_sent, account.rejected, account.failures) == (5, 3, 1)


def test_an_error_in_the_acceptance_rule_itself_is_not_hidden(server: Server, tmp_path: Path) -> None:
    server.default = reply("fine", seconds=0.1)
    with pytest.raises(ZeroDivisionError):
        ask(settings(server), prompts("a", "b", "c"), lambda i, text: 1 / (i - 1), tmp_path)
    assert len(list(tmp_path.rglob("*.json"))) == 3  # requests in flight were finished and kept


def test_identical_prompts_are_sent_once(server: Server, tmp_path: Path) -> None:
    server.default = reply("fine", seconds=0.1)
    outcomes, account = ask(settings(server), prompts("a", "a", "b", "a"), anything, tmp_path)
    assert values(outcomes) == ["fine"] * 4
    assert sorted(server.asked) == ["a", "b"]
    assert (account.requests_sent, account.replies_from_cache, account.prompt_tokens) == (2, 2, 20)


def test_no_prompts_are_no_requests(server: Server, tmp_path: Path) -> None:
    outcomes, account = ask(settings(server), [], anything, tmp_path)
    assert (outcomes, account.requests_sent) == ([], 0)


def test_missing_counts_are_estimated_and_said_to_be(server: Server, tmp_path: Path) -> None:
    server.default = reply("fine", tokens=None)
    _, account = ask(settings(server), prompts("a"), anything, tmp_path)
    assert account.tokens_estimated
    assert account.completion_tokens == 4
    assert account.prompt_tokens >= len("Be brief.a")
    _, account = ask(settings(server), prompts("a"), anything, tmp_path)
    assert (account.tokens_estimated, account.prompt_tokens, account.cached_completion_tokens) == (False, 0, 4)


# ---- cache ----


def test_the_cache_key_holds_what_affects_the_reply_and_nothing_else(server: Server, tmp_path: Path) -> None:
    ask(settings(server), prompts("a"), anything, tmp_path)
    same = {
        "key_env": "OTHER_KEY",
        "concurrency": 1,
        "timeout_s": 9.0,
        "attempts": 1,
        "backoff_s": 0.02,
        "reply_attempts": 1,
        "budget_usd": 1.0,
        "usd_per_million_prompt_tokens": 1.0,
        "usd_per_million_completion_tokens": 1.0,
    }
    ask(settings(server, **same), prompts("a"), anything, tmp_path)
    ask(settings(server, base_url=server.url + "/"), prompts("a"), anything, tmp_path)
    assert len(server.bodies) == 1
    others: dict[str, Any] = {"model": "n", "temperature": 0.5, "max_tokens": 9, "seed": 1}
    others |= {"max_tokens_field": "max_completion_tokens", "extra_body": {"top_k": 1}}
    others["base_url"] = server.url.replace("127.0.0.1", "localhost")
    for number, (name, value) in enumerate(others.items(), start=2):
        ask(settings(server, **{name: value}), prompts("a"), anything, tmp_path)
        assert len(server.bodies) == number
    assert set(EndpointSettings.model_fields) == set(same) | set(others)
    assert set(deciding(settings(server))) == set(others) | {"reply_attempts"}


@pytest.mark.parametrize("damage", ["cut short", "empty", "other JSON", "not UTF-8", "another's"])
def test_a_damaged_cache_file_is_asked_for_and_written_again(server: Server, tmp_path: Path, damage: str) -> None:
    ask(settings(server), prompts("a", "b"), anything, tmp_path)
    paths = sorted(tmp_path.rglob("*.json"))
    assert all(path.parent.parent == tmp_path and path.name.startswith(path.parent.name) for path in paths)
    whole = paths[0].read_bytes()
    paths[0].write_bytes(
        {
            "cut short": whole[:-20],
            "empty": b"",
            "other JSON": b"[]",
            "not UTF-8": b"\xff" + whole,
            "another's": paths[1].read_bytes(),
        }[damage]
    )
    outcomes, account = ask(settings(server), prompts("a", "b"), anything, tmp_path)
    assert values(outcomes) == ["fine", "fine"]
    assert (account.requests_sent, account.replies_from_cache) == (1, 1)
    assert paths[0].read_bytes() == whole
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".json"]


def test_an_unwritable_cache_is_a_sentence(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"could not be written.*0 of 1 prompts are answered"):
        ask(settings(server), prompts("a"), anything, tmp_path / "file" / "replies")


def test_what_is_cached_needs_neither_key_nor_server(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ask(settings(server), prompts("a"), anything, tmp_path)
    server.shutdown()
    server.server_close()
    monkeypatch.delenv("OPENAI_API_KEY")
    assert values(ask(settings(server), prompts("a"), anything, tmp_path)[0]) == ["fine"]


# ---- the server as a whole ----


@pytest.mark.parametrize(
    ("code", "hint"),
    [(401, "OPENAI_API_KEY"), (403, "OPENAI_API_KEY"), (404, "teacher.base_url`"), (400, "refuses the request")],
)
def test_a_refused_request_stops_the_run_in_a_sentence_without_the_key(server: Server, tmp_path: Path, code: int, hint: str) -> None:
    server.default = status(code, json.dumps({"error": {"message": f"Bad: {CANARY} no\nmodel m"}}))
    with pytest.raises(UserError) as caught:
        ask(settings(server, concurrency=1), prompts("a", "b"), anything, tmp_path)
    text = str(caught.value)
    for part in (server.url, "model m", f"status {code}", hint, "0 of 2 prompts are answered"):
        assert part in text
    assert CANARY not in text
    assert "\n" not in text
    assert len(server.bodies) == (2 if code == 400 else 1)  # a 400 may concern one prompt only: another one is asked


def test_requests_in_flight_finish_before_the_run_stops(server: Server, tmp_path: Path) -> None:
    server.actions.append(reply("fine", seconds=0.3))
    server.default = status(401)
    with pytest.raises(UserError, match="1 of 9 prompts are answered"):
        ask(settings(server), prompts(*"abcdefghi"), anything, tmp_path)
    assert len(list(tmp_path.rglob("*.json"))) == 1
    assert len(server.bodies) == 4  # no new request after the first refusal


def test_a_server_that_cannot_be_reached_is_a_sentence(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    down = EndpointSettings(base_url=url, model="m", backoff_s=0.01, attempts=3)
    with pytest.raises(UserError) as caught:
        ask(down, prompts("a", "b"), anything, tmp_path)
    for part in (url, "cannot be reached", "3 times", "0 of 2 prompts are answered", str(tmp_path)):
        assert part in str(caught.value)


def test_replies_before_the_server_went_down_are_kept(server: Server, tmp_path: Path) -> None:
    server.actions.extend([reply("fine"), reply("fine")])
    server.default = status(503)
    with pytest.raises(UserError, match=r"status 503.*2 of 4 prompts are answered"):
        ask(settings(server, concurrency=1, attempts=2), prompts(*"abcd"), anything, tmp_path)
    server.default = reply("fine")
    outcomes, account = ask(settings(server), prompts(*"abcd"), anything, tmp_path)
    assert values(outcomes) == ["fine"] * 4
    assert (account.requests_sent, account.replies_from_cache) == (2, 2)


@pytest.mark.parametrize("failure", [status(500), status(400), hang, break_off], ids=["500", "400", "silent", "broken"])
def test_one_prompt_without_a_reply_is_a_failure_where_others_get_theirs(server: Server, tmp_path: Path, failure: Action) -> None:
    def act(handler: Handler) -> None:
        (failure if server.asked[-1] == "b" else reply("fine"))(handler)

    server.default = act
    slow = settings(server, concurrency=1, attempts=2, timeout_s=0.3)
    outcomes, account = ask(slow, prompts(*"abc"), anything, tmp_path)
    assert [type(o) for o in outcomes] == [Answer, Failure, Answer]
    assert account.failures == 1


def test_a_cached_reply_shows_too_that_the_server_answers_others(server: Server, tmp_path: Path) -> None:
    ask(settings(server), prompts("a"), anything, tmp_path)
    server.default = status(500)
    outcomes, _ = ask(settings(server, concurrency=1, attempts=1), prompts("a", "b"), anything, tmp_path)
    assert [type(o) for o in outcomes] == [Answer, Failure]


def test_a_server_that_goes_silent_midway_stops_the_run(server: Server, tmp_path: Path) -> None:
    server.actions.append(reply("fine"))
    server.default = status(500)
    with pytest.raises(UserError, match=r"does not answer: status 500.*1 of 9 prompts"):
        ask(settings(server, concurrency=1, attempts=1), prompts(*"abcdefghi"), anything, tmp_path)
    assert len(server.bodies) == 1 + endpoint.UNANSWERED_IN_A_ROW


def test_a_stop_does_not_wait_for_another_requests_next_try(server: Server, tmp_path: Path) -> None:
    server.actions.append(status(503, Retry_After="60"))
    server.default = lambda handler: (handler.server.closing.wait(0.3), status(401)(handler))[1]
    start = time.monotonic()
    with pytest.raises(UserError, match="status 401"):
        ask(settings(server), prompts(*"abcd"), anything, tmp_path)
    assert time.monotonic() - start < 5
    assert len(server.bodies) == 4  # and there is no next try


def test_a_proxy_does_not_lead_to_this_machine(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    outcomes, _ = ask(settings(server, attempts=1), prompts("a"), anything, tmp_path)
    assert values(outcomes) == ["fine"]


def test_no_more_requests_are_in_flight_than_allowed(server: Server, tmp_path: Path) -> None:
    server.default = reply("fine", seconds=0.05)
    ask(settings(server, concurrency=3), prompts(*"abcdefghijkl"), anything, tmp_path)
    assert server.most_in_flight == 3


# ---- a prompt that is refused ----


def refuses(*texts: str, code: int = 400) -> Action:
    def act(handler: Handler) -> None:
        refused = handler.body["messages"][-1]["content"] in texts
        (status(code, "filtered") if refused else reply("fine"))(handler)

    return act


@pytest.mark.parametrize(
    ("where", "code", "concurrency"),
    [
        *(("a", 400, 1), ("b", 400, 1), ("f", 400, 1), ("ab", 400, 1), ("abf", 413, 1), ("cdef", 422, 1), ("bcdef", 400, 1)),
        *(("a", 400, 4), ("ab", 413, 4), ("bcdef", 422, 4)),
    ],
)
def test_a_refused_prompt_is_its_own_null_wherever_it_stands(
    server: Server, tmp_path: Path, where: str, code: int, concurrency: int
) -> None:
    server.default = refuses(*where, code=code)
    outcomes, account = ask(settings(server, concurrency=concurrency), prompts(*"abcdef"), anything, tmp_path)
    assert "".join("abcdef"[o.index] for o in outcomes if isinstance(o, Failure)) == where
    assert account.failures == len(where)
    assert all(f"status {code} (filtered)" in o.reason for o in outcomes if isinstance(o, Failure))
    assert account.requests_sent == 6  # none is tried twice


def test_a_refusal_that_comes_before_slower_replies_is_no_sign_against_them(server: Server, tmp_path: Path) -> None:
    texts = [str(i) for i in range(12)]
    slow = reply("fine", seconds=0.4)
    server.default = lambda h: (status(400) if int(h.body["messages"][-1]["content"]) < 6 else slow)(h)
    outcomes, account = ask(settings(server, concurrency=8), prompts(*texts), anything, tmp_path)
    assert [type(o) for o in outcomes] == [Failure] * 6 + [Answer] * 6
    assert account.requests_sent == 12


def test_many_prompts_in_a_row_may_be_refused_once_another_was_answered(server: Server, tmp_path: Path) -> None:
    texts = [str(i) for i in range(12)]
    server.default = refuses(*texts[1:11])
    outcomes, _ = ask(settings(server, concurrency=1), prompts(*texts), anything, tmp_path)
    assert [i for i, o in enumerate(outcomes) if isinstance(o, Answer)] == [0, 11]


@pytest.mark.parametrize("concurrency", [1, 8])
@pytest.mark.parametrize("n", [1, 2, 3, 300])
def test_a_server_that_refuses_every_prompt_stops_the_run_after_a_few(server: Server, tmp_path: Path, n: int, concurrency: int) -> None:
    server.default = status(400, "unknown parameter")
    with pytest.raises(UserError, match=r"refuses the request: status 400 \(unknown parameter\).*teacher.model`.*0 of \d+ prompts"):
        ask(settings(server, concurrency=concurrency), prompts(*map(str, range(n))), anything, tmp_path)
    assert len(server.bodies) <= min(n, endpoint.REFUSED_BEFORE_ANY_ANSWER - 1 + concurrency)


def test_the_same_prompt_again_is_no_further_sign_that_every_prompt_is_refused(server: Server, tmp_path: Path) -> None:
    server.default = refuses("a")
    outcomes, _ = ask(settings(server, concurrency=1), prompts("a", "a", "a", "a", "b"), anything, tmp_path)
    assert [type(o) for o in outcomes] == [Failure] * 4 + [Answer]


def test_replies_of_an_earlier_run_speak_for_the_settings_as_far_as_they_go(server: Server, tmp_path: Path) -> None:
    ask(settings(server), prompts("v", "w", "x", "y", "z"), anything, tmp_path)
    server.default = status(400)
    outcomes, _ = ask(settings(server, concurrency=1), prompts(*"abcdvwxyz"), anything, tmp_path)
    assert [type(o) for o in outcomes] == [Failure] * 4 + [Answer] * 5
    before = len(server.bodies)
    with pytest.raises(UserError, match=r"refuses the request: status 400"):
        ask(settings(server, concurrency=1), prompts("z", *map(str, range(100))), anything, tmp_path)
    assert len(server.bodies) == before + endpoint.REFUSED_BEFORE_ANY_ANSWER


# ---- servers that take other requests ----


def test_a_server_may_take_another_limit_no_temperature_and_further_fields(server: Server, tmp_path: Path) -> None:
    further = {"chat_template_kwargs": {"enable_thinking": False}, "top_k": 20}
    other = settings(server, max_tokens_field="max_completion_tokens", temperature=None, extra_body=further)
    for _ in range(2):
        outcomes, account = ask(other, prompts("a"), nothing, tmp_path)
    assert isinstance(outcomes[0], Failure)
    assert (account.requests_sent, account.replies_from_cache) == (0, 3)
    assert len(server.bodies) == 3
    for sent in server.bodies:
        assert sent == {"model": "m", "messages": sent["messages"], "max_completion_tokens": 512} | further


@pytest.mark.parametrize(
    "further",
    [{"n": 2}, {"model": "x"}, {"stream": True}, {"max_tokens": 10**6}, {"x": float("nan")}, {"x": {1, 2}}, {"x": "\ud800"}, "x", None],
)
def test_further_fields_that_cannot_be_sent_are_refused(further: Any) -> None:
    with pytest.raises(ValidationError):
        EndpointSettings(base_url="http://localhost/v1", model="m", extra_body=further)


def test_content_may_come_as_parts_and_reasoning_in_a_field_of_its_own(server: Server, tmp_path: Path) -> None:
    parts = [{"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]}, {"type": "text", "text": "4"}, {"type": "image"}]
    server.actions.extend([reply(parts), reply("4", reasoning_content="Hm."), reply("4", reasoning="Hm."), reply("4", reasoning="")])
    for _ in range(2):
        outcomes, _ = ask(settings(server, concurrency=1), prompts(*"abcd"), anything, tmp_path)
        assert values(outcomes) == ["4"] * 4
        assert [o.reply for o in outcomes] == ["<think>\nHm.\n</think>\n\n4"] * 3 + ["4"]
    assert len(server.bodies) == 4


# ---- replies that no table can hold ----


@pytest.mark.parametrize(
    ("usage", "known"),
    [
        ('{"prompt_tokens": 10, "completion_tokens": 5}', True),
        ('{"prompt_tokens": 10.0, "completion_tokens": 5e0}', True),
        ('{"prompt_tokens": -1, "completion_tokens": -5}', False),
        ('{"prompt_tokens": 1' + "0" * 30 + ', "completion_tokens": 1' + "0" * 30 + "}", False),
        ('{"prompt_tokens": 1' + "0" * 5000 + ', "completion_tokens": 5}', False),
        ('{"prompt_tokens": 1e400, "completion_tokens": NaN}', False),
        ('{"prompt_tokens": 1.5, "completion_tokens": -Infinity}', False),
        ('{"prompt_tokens": "10", "completion_tokens": [5]}', False),
        ('{"prompt_tokens": true, "completion_tokens": false}', False),
        ('{"prompt_tokens": null}', False),
        ("[1, 2]", False),
        ('"many"', False),
        ("null", False),
    ],
)
def test_counts_that_cannot_be_are_estimated(server: Server, tmp_path: Path, usage: str, known: bool) -> None:
    server.default = body('{"choices": [{"message": {"content": "fine"}, "finish_reason": "stop"}], "usage": ' + usage + "}")
    priced = settings(server, usd_per_million_prompt_tokens=1.0, usd_per_million_completion_tokens=1.0)
    for _ in range(2):
        outcomes, account = ask(priced, prompts("a"), anything, tmp_path)
        assert values(outcomes) == ["fine"]
        assert outcomes[0].tokens == 15 if known else 0 < outcomes[0].tokens < 300
    assert (account.requests_sent, account.cached_completion_tokens) == (0, 5 if known else account.cached_completion_tokens)
    assert account.cached_completion_tokens in (4, 5)


@pytest.mark.parametrize("half", ["\\ud800", "\\udc00", "\\ud83d", "\\udfff\\ud800"])
def test_half_of_a_surrogate_pair_in_a_reply_is_replaced(server: Server, tmp_path: Path, half: str) -> None:
    server.default = body('{"choices": [{"message": {"content": "fine HALF \\ud83d\\ude00", "reasoning": "HALF"}}]}'.replace("HALF", half))
    for _ in range(2):
        outcomes, _ = ask(settings(server), prompts("a"), anything, tmp_path)
        assert values(outcomes)[0].replace("\ufffd", "") == "fine  😀"
        assert outcomes[0].reply is not None
        outcomes[0].reply.encode()
    assert len(server.bodies) == 1


@pytest.mark.parametrize(
    "text",
    [
        '{"choices": [{"message": {"content": "fine"}}], "created": ' + "9" * 10_000 + "}",
        '\ufeff{"choices": [{"message": {"content": "fine"}}]}',
        '{"choices": [{"message": {"content": "fine", "tool_calls": {"a": [1]}}, "logprobs": 1e999}], "usage": {}, "model": 3}',
    ],
    ids=["a number of many digits", "byte order mark", "fields of any kind"],
)
def test_what_stands_beside_the_reply_does_not_matter(server: Server, tmp_path: Path, text: str) -> None:
    server.default = body(text)
    outcomes, account = ask(settings(server), prompts("a"), anything, tmp_path)
    assert (values(outcomes), account.rejected) == (["fine"], 0)


def test_a_response_that_is_nested_too_deeply_is_no_reply(server: Server, tmp_path: Path) -> None:
    server.default = body('{"choices": ' + "[" * 200_000)
    outcomes, _ = ask(settings(server, reply_attempts=2), prompts("a"), anything, tmp_path)
    assert isinstance(outcomes[0], Failure)
    assert "not a chat completion" in outcomes[0].reason


# ---- a server that does harm ----


@pytest.mark.parametrize(
    "long",
    [
        compressed(" " * 2**20, 200, times=80),
        compressed(" " * 2**20, 500, times=80),
        status(200, "x" * 2**22),
        status(401, "x" * 2**22),
        endless,
    ],
    ids=["compressed", "compressed error", "plain", "plain error", "endless"],
)
def test_a_response_is_not_read_beyond_its_limit(server: Server, tmp_path: Path, long: Action) -> None:
    server.default = lambda h: (reply("fine") if h.body["messages"][-1]["content"] == "a" else long)(h)
    tracemalloc.start()
    try:
        outcomes, _ = ask(settings(server, concurrency=1, reply_attempts=1), prompts("a", "b"), anything, tmp_path)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert values(outcomes)[0] == "fine"
    assert "the response is longer than" in values(outcomes)[1]
    assert most < 30 * 2**20


def test_a_compressed_reply_is_read(server: Server, tmp_path: Path) -> None:
    server.default = compressed(completion("fine " * 1000))
    assert values(ask(settings(server), prompts("a"), anything, tmp_path)[0]) == ["fine " * 1000]


@pytest.mark.parametrize(
    ("form", "code"),
    [
        *(("other port", code) for code in (301, 302, 303, 307, 308)),
        *((form, 307) for form in ("other host", "same server", "nowhere", "not an address")),
    ],
)
def test_prompts_and_key_are_not_sent_on_to_another_address(server: Server, tmp_path: Path, code: int, form: str) -> None:
    with serving() as other:
        port = other.server_address[1]
        to = {
            "other port": f"http://127.0.0.1:{port}/v1/chat/completions?key={CANARY}",
            "other host": f"http://user:{CANARY}@localhost:{port}/v1/chat/completions",
            "same server": "/v1/other",
            "nowhere": "",
            "not an address": "http://[::1",
        }[form]
        server.default = status(code, Location=to)
        with pytest.raises(
            UserError, match=rf"sends requests on to .*\(status {code}\): prompts are not sent there.*`endpoints.teacher.base_url`"
        ) as caught:
            ask(settings(server), prompts("a"), anything, tmp_path)
        assert other.bodies == []
        assert CANARY not in str(caught.value)
        if form.startswith("other"):
            assert f":{port} " in str(caught.value)
    assert len(server.bodies) == 1


# ---- what an answer took ----


def test_an_answer_says_how_it_ended_and_what_it_cost_whether_or_not_it_is_cached(server: Server, tmp_path: Path) -> None:
    server.actions.append(reply("bad", tokens=(100, 50)))

    def accept(index: int, text: str) -> str:
        return text if text != "bad" else nothing(index, text)

    priced = settings(server, usd_per_million_prompt_tokens=1.0, usd_per_million_completion_tokens=2.0)
    for paid in (True, False):
        outcomes, account = ask(priced, prompts("a"), accept, tmp_path)
        assert isinstance(outcomes[0], Answer)
        assert (outcomes[0].finish_reason, outcomes[0].tokens) == ("stop", 15)
        assert outcomes[0].cost_usd == pytest.approx(20 / 1e6)  # of the accepted reply
        assert account.cost_usd == pytest.approx((200 + 20) / 1e6 if paid else 0)


def test_a_failure_says_what_all_its_replies_cost(server: Server, tmp_path: Path) -> None:
    priced = settings(server, reply_attempts=2, usd_per_million_prompt_tokens=1.0)
    outcomes, _ = ask(priced, prompts("a"), nothing, tmp_path)
    assert isinstance(outcomes[0], Failure)
    assert (outcomes[0].tokens, outcomes[0].cost_usd) == (30, pytest.approx(20 / 1e6))


@pytest.mark.parametrize(
    ("content", "finish"), [("The answer is", "length"), ("", "length"), ("", "stop"), (None, "stop"), (" \n", "stop")]
)
def test_a_reply_is_taken_as_it_comes_where_that_is_allowed(server: Server, tmp_path: Path, content: str | None, finish: str) -> None:
    server.default = reply(content, finish=finish)
    outcomes, account = ask(settings(server), prompts("a"), anything, tmp_path, allow_cut_off=True)
    assert values(outcomes) == [content or ""]
    assert isinstance(outcomes[0], Answer)
    assert outcomes[0].finish_reason == finish
    assert (account.requests_sent, account.rejected) == (1, 0)
    # The rule is about the reply, not part of the request: the same cached reply is not accepted without it.
    outcomes, account = ask(settings(server, reply_attempts=1), prompts("a"), anything, tmp_path)
    assert (account.requests_sent, account.rejected, account.failures) == (0, 1, 1)


@pytest.mark.parametrize("refusal", [reply(None, refusal="no"), reply("x", finish="content_filter")])
def test_a_refusal_is_never_taken(server: Server, tmp_path: Path, refusal: Action) -> None:
    server.default = refusal
    outcomes, _ = ask(settings(server, reply_attempts=1), prompts("a"), anything, tmp_path, allow_cut_off=True)
    assert isinstance(outcomes[0], Failure)


# ---- format and repeat ----

FORMAT = {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": {"type": "object"}}}


def takes_no_format(code: int) -> Action:
    def act(handler: Handler) -> None:
        (status(code) if "response_format" in handler.body else reply("fine"))(handler)

    return act


def test_without_format_and_repeat_the_keys_of_older_caches_hold(server: Server, tmp_path: Path) -> None:
    request = endpoint._Request(
        base_url="http://localhost:1/v1", model="m", messages=[Message(role="user", content="é")], temperature=0.0, max_tokens=9,
        seed=None, attempt=1,
    )  # fmt: skip
    assert request.key == "9ca1ed4f4dcb84777bc06532452e0efbbec256ef"  # as it was before requests had these two
    ask(settings(server), prompts("a"), anything, tmp_path)
    (path,) = tmp_path.rglob("*.json")
    assert set(json.loads(path.read_text())["request"]) == set(endpoint._Request.model_fields) - {
        *("response_format", "repeat", "max_tokens_field", "extra_body")
    }


def test_a_format_is_sent_and_is_part_of_the_key(server: Server, tmp_path: Path) -> None:
    for _ in range(2):
        outcomes, account = ask(settings(server), prompts("a", "b"), anything, tmp_path, response_format=FORMAT)
        assert values(outcomes) == ["fine", "fine"]
    assert [body["response_format"] for body in server.bodies] == [FORMAT, FORMAT]
    assert (account.requests_sent, account.replies_from_cache) == (0, 2)
    ask(settings(server), prompts("a"), anything, tmp_path)
    assert len(server.bodies) == 3
    assert "response_format" not in server.bodies[2]
    ask(settings(server), prompts("a"), anything, tmp_path, response_format={"type": "json_object"})
    assert len(server.bodies) == 3  # the reply without a format will do: the acceptance rule is the same


@pytest.mark.parametrize("code", endpoint.REFUSES_FORMAT)
def test_a_server_that_does_not_take_a_format_is_asked_without(server: Server, tmp_path: Path, code: int) -> None:
    server.default = takes_no_format(code)
    one = settings(server, concurrency=1)
    outcomes, account = ask(one, prompts("a", "b", "c"), anything, tmp_path, response_format=FORMAT)
    assert values(outcomes) == ["fine"] * 3
    assert ["response_format" in body for body in server.bodies] == [True, False, False, False]  # once is enough
    assert (account.requests_sent, account.retries, account.rejected) == (4, 0, 0)
    # The replies are kept under the requests that were sent, and both forms are looked up.
    again, account = ask(one, prompts("a", "b", "c"), anything, tmp_path, response_format=FORMAT)
    assert again == outcomes
    assert (account.requests_sent, account.replies_from_cache, len(server.bodies)) == (0, 3, 4)
    _, account = ask(one, prompts("a"), anything, tmp_path)
    assert account.requests_sent == 0


def test_a_prompt_that_is_refused_with_and_without_a_format_says_nothing_about_the_format(server: Server, tmp_path: Path) -> None:
    def act(handler: Handler) -> None:
        (status(400) if handler.body["messages"][-1]["content"] == "b" else reply("fine"))(handler)

    server.default = act
    outcomes, _ = ask(settings(server, concurrency=1), prompts(*"abc"), anything, tmp_path, response_format=FORMAT)
    assert [type(o) for o in outcomes] == [Answer, Failure, Answer]
    assert all("response_format" in body for body in server.bodies)


@pytest.mark.parametrize("code", [400, 404, 422])
def test_a_server_that_refuses_either_form_is_a_sentence(server: Server, tmp_path: Path, code: int) -> None:
    server.default = status(code, "no such model")
    with pytest.raises(UserError, match=rf"status {code} \(no such model\).*`judge.model`"):
        ask(settings(server, concurrency=1), prompts("a"), anything, tmp_path, name="judge", response_format=FORMAT)
    assert len(server.bodies) == 2


def test_replies_in_either_form_count_for_the_budget(server: Server, tmp_path: Path) -> None:
    server.default = takes_no_format(422)
    paid = {"usd_per_million_prompt_tokens": 1e6, "usd_per_million_completion_tokens": 1e6, "max_tokens": 20}
    ask(settings(server, **paid), prompts("a"), anything, tmp_path, response_format=FORMAT)
    with pytest.raises(UserError, match=r"15\.000000 of 200 USD are spent \(15\.000000 of it by earlier runs\)"):
        ask(settings(server, budget_usd=200, **paid), prompts("a", "b"), anything, tmp_path, response_format=FORMAT)


def test_a_repeat_is_asked_anew_and_kept_apart(server: Server, tmp_path: Path) -> None:
    server.actions.extend([reply("first"), reply("second")])
    said = [values(ask(settings(server), prompts("a"), anything, tmp_path, repeat=n)[0])[0] for n in (0, 1, 0, 1)]
    assert said == ["first", "second", "first", "second"]
    assert len(server.bodies) == 2
    assert server.bodies[0] == server.bodies[1]  # the server is told nothing of it


# ---- budget ----


def test_the_budget_is_never_exceeded_and_a_raised_one_pays_only_for_the_rest(server: Server, tmp_path: Path) -> None:
    # One USD a token; a prompt counts at most 128 + 2·16 + 10 bytes = 170 tokens before it is sent, 15 afterwards.
    texts = [f"{i}" for i in range(10)]
    server.default = reply("fine", seconds=0.02)
    paid = {"usd_per_million_prompt_tokens": 1e6, "usd_per_million_completion_tokens": 1e6, "max_tokens": 20}
    with pytest.raises(UserError) as caught:
        ask(settings(server, budget_usd=250, **paid), prompts(*texts), anything, tmp_path)
    assert server.tokens_paid == 75  # a sixth request could have cost 190 more: 75 + 190 > 250
    for part in (
        "75.000000 of 250 USD are spent",
        "190.000000",
        "5 of 10 prompts are answered",
        "`endpoints.teacher.budget_usd`",
    ):
        assert part in str(caught.value)
    assert len(list(tmp_path.rglob("*.json"))) == 5

    # What earlier runs paid for these prompts counts: the same budget does not start anew.
    with pytest.raises(UserError, match=r"75\.000000 of 250 USD are spent \(75\.000000 of it by earlier runs\)"):
        ask(settings(server, budget_usd=250, **paid), prompts(*texts), anything, tmp_path, name="judge")
    assert server.tokens_paid == 75

    outcomes, account = ask(settings(server, budget_usd=1000, **paid), prompts(*texts), anything, tmp_path)
    assert values(outcomes) == ["fine"] * 10
    assert (account.requests_sent, account.replies_from_cache, account.cost_usd) == (5, 5, 75.0)
    assert sorted(server.asked) == texts


def test_the_budget_holds_with_replies_as_dear_as_they_can_be(server: Server, tmp_path: Path) -> None:
    server.default = reply("fine", seconds=0.02, tokens=(170, 20))
    paid = {"usd_per_million_prompt_tokens": 1e6, "usd_per_million_completion_tokens": 1e6, "max_tokens": 20}
    with pytest.raises(UserError, match="3 of 10 prompts are answered"):
        ask(settings(server, budget_usd=600, **paid), prompts(*map(str, range(10))), anything, tmp_path)
    assert server.tokens_paid == 570
    assert server.most_in_flight <= 3


def test_a_lost_reply_counts_with_the_most_it_can_have_cost(server: Server, tmp_path: Path) -> None:
    server.actions.append(break_off)
    paid = {"usd_per_million_prompt_tokens": 1e6, "usd_per_million_completion_tokens": 1e6, "max_tokens": 20}
    _, account = ask(settings(server, **paid), prompts("a"), anything, tmp_path)
    assert account.cost_usd == 190 + 15
    assert account.prompt_tokens + account.completion_tokens == 15


LOSES = {
    "silent": hang,
    "broken connection": break_off,
    "not a completion": body("{}"),
    "gateway": status(504),
    "bomb": status(200, " " * 2**21),
}


@pytest.mark.parametrize("kind", LOSES)
def test_what_was_lost_counts_in_every_further_run(server: Server, tmp_path: Path, kind: str) -> None:
    """One USD a token and at most 190 a request: a budget of 500 is enough for two requests without a reply, however often it is run."""
    server.default = LOSES[kind]
    paid = {"usd_per_million_prompt_tokens": 1e6, "usd_per_million_completion_tokens": 1e6, "max_tokens": 20, "budget_usd": 500}
    strict = settings(server, attempts=1, reply_attempts=1, concurrency=1, timeout_s=0.3, **paid)
    ask_ = partial(ask, strict, prompts("a"), anything, tmp_path)
    for _ in range(4):
        with contextlib.suppress(UserError):
            ask_()
    assert len(server.bodies) == 2
    with pytest.raises(UserError, match=r"380\.000000 of 500 USD are spent \(380\.000000 of it by earlier runs\)"):
        ask_()
    # Other prompts have a budget of their own, and a larger budget is enough for these.
    server.default = reply("fine")
    assert values(ask(strict, prompts("b"), anything, tmp_path)[0]) == ["fine"]
    outcomes, account = ask(strict.model_copy(update={"budget_usd": 600.0}), prompts("a"), anything, tmp_path)
    assert values(outcomes) == ["fine"]
    assert (account.cost_usd, account.lost_usd) == (15, 380)


def test_what_was_answered_or_refused_is_not_lost(server: Server, tmp_path: Path) -> None:
    paid = {"usd_per_million_prompt_tokens": 1e6, "usd_per_million_completion_tokens": 1e6, "max_tokens": 20, "budget_usd": 250}
    server.actions.extend([status(500), status(429), reply("fine")])
    for _ in range(3):
        outcomes, account = ask(settings(server, **paid), prompts("a"), anything, tmp_path)
        assert values(outcomes) == ["fine"]
        assert account.lost_usd == 0
    assert not list(tmp_path.rglob("*.jsonl"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    for _ in range(3):
        with pytest.raises(UserError, match="cannot be reached"):
            ask(settings(server, base_url=url, **paid), prompts("a"), anything, tmp_path)


def test_a_request_of_a_killed_job_counts_with_the_most_it_can_have_cost(server: Server, tmp_path: Path) -> None:
    server.default = hang
    paid = {"usd_per_million_prompt_tokens": 1e6, "usd_per_million_completion_tokens": 1e6, "max_tokens": 20, "budget_usd": 500}
    given = settings(server, concurrency=1, timeout_s=60.0, **paid)
    code = f"""
from pathlib import Path
from swift_study.io.endpoint import EndpointSettings, ask
from swift_study.examples import Message
prompts = [[Message(role="system", content="Be brief."), Message(role="user", content="a")]]
ask(EndpointSettings.model_validate_json({given.model_dump_json()!r}), prompts, lambda i, reply: reply, Path({str(tmp_path)!r}))
"""
    for n in (1, 2):
        job = subprocess.Popen([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(SCRIPTS)})
        until = time.monotonic() + 30
        while len(server.bodies) < n and time.monotonic() < until:
            time.sleep(0.01)
        job.send_signal(signal.SIGKILL)
        job.wait()
    for path in tmp_path.rglob("*.jsonl"):
        path.write_bytes(path.read_bytes() + b'{"number": 2, "req')  # a line that was cut short: its request was never sent
    with pytest.raises(UserError, match=r"380\.000000 of 500 USD are spent \(380\.000000 of it by earlier runs\)"):
        ask(given, prompts("a"), anything, tmp_path)
    assert len(server.bodies) == 2


def test_a_ledger_that_cannot_be_written_stops_the_run_before_anything_is_sent(server: Server, tmp_path: Path) -> None:
    (tmp_path / "ledger").write_text("")
    with pytest.raises(UserError, match=r"could not be noted.*0 of 1 prompts are answered"):
        ask(settings(server, usd_per_million_prompt_tokens=1.0), prompts("a"), anything, tmp_path)
    assert server.bodies == []


@pytest.mark.parametrize("price", [0.0, 1e6])
def test_a_server_that_counts_more_than_the_limit_stops_the_run(server: Server, tmp_path: Path, price: float) -> None:
    server.default = reply("fine", tokens=(10, 21))
    over = settings(server, concurrency=1, max_tokens=20, usd_per_million_completion_tokens=price)
    with pytest.raises(UserError, match=r"counts 21 tokens in a reply that may have 20 \(max_tokens\).*teacher.max_tokens_field`"):
        ask(over, prompts(*"abcdef"), anything, tmp_path)
    assert len(server.bodies) == 1
    if price:  # what it took counts in the next run
        with pytest.raises(UserError, match=r"21\.000000 of 40 USD are spent"):
            ask(over.model_copy(update={"budget_usd": 40.0}), prompts(*"abcdef"), anything, tmp_path)
        assert len(server.bodies) == 1
    server.default = reply("fine", tokens=(10, 20))
    assert values(ask(over, prompts("g"), anything, tmp_path)[0]) == ["fine"]


def test_a_prompt_that_the_server_lengthens_counts_for_what_the_next_may_cost(server: Server, tmp_path: Path) -> None:
    server.default = reply("fine", tokens=(400, 5))  # its own system prompt, say
    paid = {"usd_per_million_prompt_tokens": 1e6, "max_tokens": 20, "budget_usd": 1000, "concurrency": 1}
    with pytest.raises(UserError, match="2 of 5 prompts are answered"):
        ask(settings(server, **paid), prompts(*"abcde"), anything, tmp_path)
    assert len(server.bodies) == 2


# ---- a killed job ----


def test_a_killed_job_asks_only_for_what_is_missing(server: Server, tmp_path: Path) -> None:
    server.default = reply("fine", seconds=0.05)
    texts = [str(i) for i in range(30)]
    code = f"""
from pathlib import Path
from swift_study.io.endpoint import EndpointSettings, ask
from swift_study.examples import Message
settings = EndpointSettings(base_url={server.url!r}, model="m", concurrency=2)
prompts = [[Message(role="user", content=text)] for text in {texts!r}]
outcomes, account = ask(settings, prompts, lambda i, reply: reply, Path({str(tmp_path)!r}))
print(len(outcomes), account.requests_sent, account.replies_from_cache)
"""
    command = [sys.executable, "-c", code]
    environment = os.environ | {"PYTHONPATH": str(SCRIPTS)}
    job = subprocess.Popen(command, env=environment)
    try:
        until = time.monotonic() + 15
        while len(server.bodies) < 10 and time.monotonic() < until:
            time.sleep(0.01)
    finally:
        job.send_signal(signal.SIGKILL)
        job.wait()
    time.sleep(0.2)  # the server's last replies go nowhere
    kept = len(list(tmp_path.rglob("*.json")))
    asked = len(server.bodies)
    assert 0 < kept <= asked < 30
    assert asked - kept <= 2  # those in flight when it was killed

    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.split() == ["30", str(30 - kept), str(kept)]
    assert len(server.bodies) == asked + 30 - kept


# ---- the key ----


def test_the_key_goes_nowhere_but_into_the_request(
    server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    server.actions.extend([status(500, CANARY, X_Key=CANARY), echo_key, echo_key])
    outcomes, account = ask(settings(server), prompts("a", "b"), anything, tmp_path / "ok")
    assert "your header: Bearer [key]" in values(outcomes)

    server.default = hang
    texts = []
    for action in (status(401, CANARY), status(404, "x" * 290 + CANARY), status(503, CANARY), break_off, None, hang):
        server.default = action or server.default
        broken = settings(server, attempts=1, timeout_s=0.2, backoff_s=0.0)
        with pytest.raises(UserError) as caught:
            ask(broken, prompts("c"), anything, tmp_path / "broken")
        texts.append(str(caught.value))
        assert caught.value.__cause__ is None
        assert caught.value.__suppress_context__
    files = [path.read_text() for path in tmp_path.rglob("*") if path.is_file()]
    assert files
    assert server.keys[0] == f"Bearer {CANARY}"
    output = capfd.readouterr()
    for text in [*files, *texts, repr(outcomes), repr(account), output.out, output.err]:
        assert "canary" not in text
    ours = [r.getMessage() for r in caplog.records if not r.name.startswith(("httpcore", "asyncio"))]
    assert any("try 2" in text for text in ours)
    assert not [text for text in ours if "canary" in text]


SLASHED = "sk-canary/0123456789/abcdef"


@pytest.mark.parametrize(
    "spelled",
    [
        SLASHED,
        "".join(f"\\u{ord(c):04x}" for c in SLASHED),
        "\u200b".join(SLASHED),
        SLASHED.replace("/", "\\/"),
        SLASHED.upper(),
        SLASHED.replace("/", "%2F"),
        base64.b64encode(f"Bearer {SLASHED}".encode()).decode(),
    ],
    ids=["plain", "escaped", "zero width", "slashes", "capitals", "URL", "Base64"],
)
def test_a_key_that_the_server_repeats_in_other_spelling_is_taken_out(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, spelled: str
) -> None:
    caplog.set_level(logging.DEBUG, "swift_study")
    monkeypatch.setenv("OPENAI_API_KEY", SLASHED)
    message = {"content": spelled, "refusal": spelled, "reasoning_content": f"so {spelled} is it"}
    text = json.dumps({"choices": [{"message": message, "finish_reason": spelled}]})
    with_escapes = "".join(f"\\u{ord(c):04x}" if c.isalnum() else c for c in json.dumps(spelled).replace("\\", "\\\\"))
    escaped = '{"choices": [{"message": {"content": KEY, "reasoning_content": KEY}, "finish_reason": KEY}]}'.replace("KEY", with_escapes)
    server.actions.extend([status(500, text), *(body(t) for t in (text, text.replace("/", "\\/"), escaped)), status(400, text)])
    outcomes, _ = ask(settings(server, concurrency=1, reply_attempts=1), prompts(*"abcd"), anything, tmp_path)
    written = [path.read_text() for path in tmp_path.rglob("*") if path.is_file()]
    assert len(written) == 3
    assert all(found.count("[key]") >= 3 for found in written)
    logged = [r.getMessage() for r in caplog.records if r.name.startswith("swift")]
    assert any("try 2" in text for text in logged)
    in_base64 = base64.b64encode(f"Bearer {SLASHED}".encode()).decode()[12:24]
    for found in [*written, repr(outcomes), *logged]:
        plain = found.lower().replace("\u200b", "").replace("\\u200b", "")
        for trace in ("canary", "0123", "abcdef", "u0063\\u0061", "u0063\\\\u0061"):
            assert trace not in plain
        assert in_base64 not in found


def test_a_key_in_an_older_cache_does_not_leave_it(server: Server, tmp_path: Path) -> None:
    ask(settings(server), prompts("a"), anything, tmp_path)
    (path,) = tmp_path.rglob("*.json")
    path.write_text(path.read_text().replace('"fine"', json.dumps("\u200b".join(CANARY))))
    assert values(ask(settings(server), prompts("a"), anything, tmp_path)[0]) == ["[key]"]


def test_a_missing_key_is_a_sentence_unless_the_server_is_on_this_machine(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    remote = EndpointSettings(base_url="https://models.invalid/v1", model="m", key_env="MY_KEY")
    with pytest.raises(UserError, match="environment variable MY_KEY is not set"):
        ask(remote, prompts("a"), anything, tmp_path)
    assert values(ask(settings(server), prompts("a"), anything, tmp_path)[0]) == ["fine"]
    assert CANARY not in server.keys[0]


@pytest.mark.parametrize("bad", ["sk-canary\nX-Header: 1", "sk-canäry-0123"])
def test_a_key_that_cannot_be_sent_is_not_repeated(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bad: str) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", bad)
    with pytest.raises(UserError, match="OPENAI_API_KEY is not a key") as caught:
        ask(settings(server), prompts("a"), anything, tmp_path)
    assert "can" not in str(caught.value).replace("cannot", "")
    assert not server.bodies
    monkeypatch.setenv("OPENAI_API_KEY", CANARY + "\n")  # a file's last line break is taken off
    assert values(ask(settings(server), prompts("a"), anything, tmp_path)[0]) == ["fine"]


# ---- settings ----


@pytest.mark.parametrize(
    "change",
    [
        {"base_url": "example.org/v1"},
        {"base_url": "file:///etc/passwd"},
        {"base_url": "https://user:secret@example.org/v1"},
        {"base_url": "https://example.org/v1?key=secret"},
        {"key_env": CANARY},
        {"key_env": "gsk_a1b2c3d4e5f6g7h8"},
        {"key_env": "hf_AbCdEfGhIjKlMnOpQrStUvWxYz"},
        {"key_env": "AKIAIOSFODNN7EXAMPLE"},
        {"key_env": "KEY\n"},
        {"base_url": f"https://{CANARY}@example.org/v1"},
        {"base_url": f"https://user:{CANARY}/v1"},
        {"api_key": CANARY},
        {"budget_usd": 1.0},
        {"temperature": -1},
        {"temperature": float("nan")},
        {"timeout_s": float("inf")},
        {"budget_usd": float("nan"), "usd_per_million_prompt_tokens": 1.0},
        {"budget_usd": float("inf"), "usd_per_million_prompt_tokens": 1.0},
        {"usd_per_million_prompt_tokens": float("inf")},
        {"concurrency": 0},
    ],
)
def test_settings_that_cannot_be_right_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as caught:
        EndpointSettings(**({"base_url": "http://localhost/v1", "model": "m"} | change))
    secrets = [value for value in change.values() if isinstance(value, str)]
    assert not any(secret in str(caught.value) for secret in secrets)


def test_every_setting_says_what_it_means() -> None:
    assert all(field.description for field in EndpointSettings.model_fields.values())


@pytest.mark.parametrize("section", ["endpoints", "teacher", "judge", "responses"])
@pytest.mark.parametrize(
    "change",
    [
        {"key_env": CANARY},
        {"key_env": "gsk_canary0123456789"},
        {"key_env": [CANARY]},
        {"base_url": f"https://user:{CANARY}@example.org/v1"},
        {"base_url": [f"https://user:{CANARY}@example.org/v1"]},
        {"base_url": f"https://[{CANARY}/v1"},
        {"model": {"key": CANARY}},
        {"api_key": CANARY},
        {"temperature": CANARY},
        {"extra_body": CANARY},
        CANARY,
        [CANARY],
    ],
)
def test_a_key_in_the_configuration_is_not_printed(section: str, change: Any) -> None:
    values = {"base_url": "http://localhost/v1", "model": "m"} | change if isinstance(change, dict) else change
    with pytest.raises(UserError, match="The configuration is not valid") as caught:
        load({section: {"mine": values} if section == "endpoints" else values})
    assert "canary" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_a_models_name_may_hold_braces(server: Server, tmp_path: Path) -> None:
    named = settings(server, model="{x}/{0}-{{run}} %s {")
    assert values(ask(named, prompts("a"), anything, tmp_path)[0]) == ["fine"]
    assert server.bodies[0]["model"] == "{x}/{0}-{{run}} %s {"
    server.default = status(404)
    with pytest.raises(UserError, match=r"model \{x\}/\{0\}-\{\{run\}\} %s \{"):
        ask(named, prompts("b"), anything, tmp_path)
