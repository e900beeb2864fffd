"""Generation: the same responses for any batch, by draws of the right distribution, and after a kill; and through a server."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from made_examples import example
from pydantic import ValidationError
from scipy.stats import chisquare
from scripts import run_script
from servers import Server, reply, serving, status
from tiny import ROOT

from swift_study.config import Generation, Lora, Model, Responding
from swift_study.errors import UserError
from swift_study.evaluation.prompts import Prompts
from swift_study.evaluation.responses import Draw, merge_adapter, respond, respond_by_endpoint, row_generator, within_top_p
from swift_study.evaluation.scorers import read_statistics
from swift_study.examples import Message
from swift_study.io.endpoint import EndpointSettings
from swift_study.io.lines import append_lines, read_lines
from swift_study.io.settings import limits, settings
from swift_study.io.tables import CHECKPOINTS, ITEMS, RESPONSES, read_table, write_examples, write_table
from swift_study.models.batches import batches
from swift_study.models.loading import add_lora, load_model
from swift_study.models.rendering import Renderer, load_renderer

QUERIES = [
    example(text)
    for n in range(10)
    for text in (f"Write {n} things that are blue.", "Tell me about the number " + " and ".join(str(k) for k in range(n, 3 * n + 2)) + ".")
]


@pytest.fixture(scope="module")
def model(packaged: Path) -> Any:
    return load_model(packaged, Model())


@pytest.fixture(scope="module")
def renderer(packaged: Path) -> Any:
    return load_renderer(packaged, Model())


@pytest.mark.parametrize("sampling", [{}, {"temperature": 0.9, "top_p": 0.9}], ids=["greedy", "sampled"])
def test_responses_are_the_same_for_any_batch(model: Any, renderer: Any, sampling: dict[str, float]) -> None:
    found = {n: respond(model, Prompts(renderer), QUERIES, Generation(max_new_tokens=8, batch_size=n, **sampling)) for n in (1, 3, 16)}
    assert found[1] == found[3] == found[16]
    assert [r.query_id for r in found[1]] == [e.example_id for e in QUERIES]
    assert {r.seed for r in found[1]} == ({17} if sampling else {None})
    assert all(r.response for r in found[1])
    # Fewer queries, the other way round: what one query gets does not depend on the others.
    some = respond(model, Prompts(renderer), QUERIES[5:2:-1], Generation(max_new_tokens=8, batch_size=2, **sampling))
    assert some == found[1][5:2:-1]


def test_another_seed_gives_other_responses_and_a_small_top_p_the_likeliest(tiny_model: Path) -> None:
    model, renderer = load_model(tiny_model, Model()), load_renderer(tiny_model, Model())

    def texts(**changes: Any) -> list[str]:
        return [r.response for r in respond(model, Prompts(renderer), QUERIES[:4], Generation(max_new_tokens=8, **changes))]

    assert texts(temperature=1.0) == texts(temperature=1.0)
    assert texts(temperature=1.0) != texts(temperature=1.0, seed=18)
    assert texts(temperature=1.0) != texts()
    assert texts(temperature=1.0, top_p=1e-9) == texts()
    assert texts(temperature=1e-4) == texts()


def test_the_model_s_own_generation_settings_do_not_count(tiny_model: Path) -> None:
    model, renderer = load_model(tiny_model, Model()), load_renderer(tiny_model, Model())
    settings = Generation(max_new_tokens=12)
    plain = respond(model, Prompts(renderer), QUERIES[:4], settings)
    for key, value in {"repetition_penalty": 5.0, "no_repeat_ngram_size": 1, "do_sample": True, "temperature": 3.0, "top_k": 3}.items():
        setattr(model.generation_config, key, value)
    assert respond(model, Prompts(renderer), QUERIES[:4], settings) == plain


def test_generation_stops_where_the_template_ends_a_turn(model: Any, renderer: Any, packaged: Path) -> None:
    other = load_renderer(packaged, Model())
    other.tokenizer.eos_token = "<|endoftext|>"  # as of base models: the template ends a turn with another token
    settings = Generation(max_new_tokens=40)
    found = respond(model, Prompts(renderer), QUERIES[:4], settings)
    assert any(r.finish_reason == "stop" for r in found)
    assert respond(model, Prompts(Renderer(other.tokenizer, Model())), QUERIES[:4], settings) == found


def test_stop_texts_are_cut_off_with_what_follows(model: Any, renderer: Any) -> None:
    free = respond(model, Prompts(renderer), QUERIES[:6], Generation(max_new_tokens=12))
    stop = [free[0].response.split()[2], free[3].response[-4:]]
    for n in (1, 6):
        found = respond(model, Prompts(renderer), QUERIES[:6], Generation(max_new_tokens=12, batch_size=n, stop=stop))
        for before, after in zip(free, found, strict=True):
            where = [before.response.find(s) for s in stop if s in before.response]
            if where:
                assert after.response == before.response[: min(where)].strip()
                assert after.finish_reason == "stop"
                assert 0 < after.n_tokens <= before.n_tokens
            else:
                assert after == before
        assert found[0].n_tokens < free[0].n_tokens


def test_a_merged_adapter_responds_as_the_adapter_does(packaged: Path, renderer: Any) -> None:
    adapted = add_lora(load_model(packaged, Model()), Lora(), seed=1)
    torch.manual_seed(2)
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=1e-3)
    settings = Generation(max_new_tokens=8)
    beside = respond(adapted, Prompts(renderer), QUERIES[:6], settings)
    merged = merge_adapter(adapted)
    assert not any("lora" in name for name, _ in merged.named_parameters())
    assert respond(merged, Prompts(renderer), QUERIES[:6], settings) == beside


# ---- draws ----


def test_draws_are_distributed_as_the_softmax_within_top_p() -> None:
    logits = torch.tensor([2.0, 1.0, 0.5, 0.0, -1.0, -30.0])
    rows, steps, temperature, top_p = 50, 400, 0.8, 0.95
    draw = Draw(temperature, top_p, [row_generator(3, str(k)) for k in range(rows)])
    chosen = torch.stack([draw(None, logits.repeat(rows, 1)).argmax(dim=1) for _ in range(steps)])
    p = torch.softmax(logits / temperature, dim=0)
    order = p.argsort(descending=True)
    inside = order[: int((p[order].cumsum(0) < top_p).sum()) + 1]
    expected = torch.zeros_like(p).index_put((inside,), p[inside]) / p[inside].sum()
    assert 1 < len(inside) < 6
    counts = torch.bincount(chosen.flatten(), minlength=6).numpy()
    assert counts[(expected == 0).numpy()].sum() == 0
    kept = (expected > 0).numpy()
    shares = expected.double().numpy()[kept]
    assert chisquare(counts[kept], shares / shares.sum() * counts.sum()).pvalue > 1e-3
    # One step does not tell the next, nor one row another.
    for a, b in ((chosen[:-1], chosen[1:]), (chosen[:, :-1], chosen[:, 1:])):
        assert abs(float(np.corrcoef(a.flatten(), b.flatten())[0, 1])) < 0.03


@pytest.mark.parametrize("top_p", [1e-6, 0.5, 0.9, 0.999, 1.0])
@pytest.mark.parametrize("spread", [0.01, 1.0, 5.0])
def test_top_p_keeps_the_fewest_likeliest_tokens(top_p: float, spread: float) -> None:
    torch.manual_seed(0)
    scores = torch.randn(4, 3000) * spread  # a small spread takes more tokens than the first look
    found = within_top_p(scores, top_p)
    for row, kept in zip(scores.double().softmax(dim=1), found, strict=True):
        best, order = row.sort(descending=True)
        n = int(((best.cumsum(0) - best) < top_p).sum()) if top_p < 1 else len(best)
        inside = torch.isfinite(kept)
        assert abs(int(inside.sum()) - n) <= 1  # rounding at the edge
        assert inside[order[: n - 1]].all()
    assert torch.equal(found[torch.isfinite(found)], scores[torch.isfinite(found)])


# ---- resuming ----


def test_a_cut_last_line_is_ignored_and_written_over(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    assert read_lines(path) == []
    append_lines(path, [{"a": 0.1 + 0.2}, {"a": "line\u2028separator\n"}])
    whole = path.read_bytes()
    for cut in (b'{"a": 3', b'{"a": 3}', b"\0\0\0", b"3\n"):
        path.write_bytes(whole + cut)
        assert read_lines(path) == [{"a": 0.1 + 0.2}, {"a": "line\u2028separator\n"}]
        assert path.read_bytes() == whole


def test_only_missing_batches_are_generated(tiny_model: Path, tmp_path: Path) -> None:
    model, renderer = load_model(tiny_model, Model()), load_renderer(tiny_model, Model())
    settings, file = Generation(max_new_tokens=4, batch_size=8), tmp_path / "r.jsonl"
    done: list[int] = []
    whole = respond(model, Prompts(renderer), QUERIES, settings, file, lambda n, tokens: done.append(n))
    assert done == [8, 16, 20]
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(lines[:10]) + lines[10][:20])
    done.clear()
    assert respond(model, Prompts(renderer), QUERIES, settings, file, lambda n, tokens: done.append(n)) == whole
    assert done == [16, 20]


def test_batches_hold_similar_lengths_the_longest_first() -> None:
    assert batches([3, 9, 3, 5, 9], 2) == [[1, 4], [3, 0], [2]]


def command(folder: Path, output: str, work: str, checkpoints: Path | None = None, **changes: Any) -> list[str]:
    generation = Generation(**({"max_new_tokens": 8, "batch_size": 2, "temperature": 0.7, "stop": ["\n\n"]} | changes))
    options = {
        "name": "base queries",
        "run": "base",
        "settings": settings(responding=Responding(generation=generation), model=Model(), lora=Lora()),
        "limits": limits(responding=Responding(generation=generation)),
        "model": folder / "model.json",
        "checkpoints": checkpoints or folder / "checkpoints",
        "dataset": folder / "queries.parquet",
        "work": folder / work,
        "cache": folder / "cache",
        "threads": 1,
        "output": folder / output,
    }
    return [
        sys.executable,
        str(ROOT / "workflow/scripts/respond.py"),
        "--gpus",
        "0",
        *(str(x) for k, v in options.items() for x in (f"--{k}", v)),
    ]


@pytest.fixture
def folder(tmp_path: Path, packaged: Path) -> Path:
    write_examples(tmp_path / "queries.parquet", QUERIES)
    (tmp_path / "model.json").write_text(json.dumps({"folder": str(packaged), "weights": "w"}))
    untrained = pl.DataFrame([(1, 0, None, "model")], schema=CHECKPOINTS.names, orient="row")
    write_table(tmp_path / "checkpoints" / "checkpoints.parquet", untrained, CHECKPOINTS)
    return tmp_path


def test_a_killed_job_goes_on_and_ends_in_the_same_bytes(folder: Path) -> None:
    subprocess.run(command(folder, "whole.parquet", "work-1"), check=True, stderr=subprocess.DEVNULL)
    job = subprocess.Popen(command(folder, "killed.parquet", "work-2"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 300
    kept: list[Path] = []
    while not kept or len(kept[0].read_bytes().splitlines()) < 6:
        assert time.monotonic() < until
        assert job.poll() is None, "it ended before it could be killed"
        time.sleep(0.02)
        kept = list((folder / "work-2").glob("*/responses.jsonl"))
    os.kill(job.pid, signal.SIGKILL)
    job.wait()
    assert not (folder / "killed.parquet").exists()
    before = len(kept[0].read_bytes().splitlines())
    assert 6 <= before < len(QUERIES)
    with kept[0].open("ab") as stream:
        stream.write(b'{"query_id": "0123')
    again = subprocess.run(command(folder, "killed.parquet", "work-2"), check=True, capture_output=True, text=True)
    assert (folder / "killed.parquet").read_bytes() == (folder / "whole.parquet").read_bytes()
    assert "20 responses" in again.stdout
    assert "tokens/s" in again.stderr
    assert list((folder / "work-2").iterdir()) == [folder / "work-2" / "lock"]
    rows = read_table(folder / "whole.parquet", RESPONSES)
    assert rows["query_id"].to_list() == [e.example_id for e in QUERIES]
    assert set(rows["seed"]) == {17}


# ---- through a server ----


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as running:
        yield running


def by_server(server: Server, **changes: Any) -> tuple[Generation, EndpointSettings]:
    endpoint = EndpointSettings(base_url=server.url, model="study-{run}", attempts=2, backoff_s=0.01, concurrency=1)
    return Generation(**({"max_new_tokens": 9} | changes)), endpoint


def test_a_server_is_asked_for_the_run_s_own_responses(server: Server, tmp_path: Path) -> None:
    server.actions.extend([reply("Six.\nSeven."), reply("and so on and", finish="length"), reply("  ")])
    found, account = respond_by_endpoint(*by_server(server, stop=["\n"]), "base", QUERIES[:3], tmp_path)
    assert [(r.response, r.finish_reason, r.seed) for r in found] == [
        ("Six.", "stop", None),
        ("and so on and", "length", None),
        ("", "stop", None),
    ]
    assert [r.query_id for r in found] == [e.example_id for e in QUERIES[:3]]
    assert (account.requests_sent, account.rejected) == (3, 0)
    sent = server.bodies[0]
    assert (sent["model"], sent["max_tokens"], sent["temperature"]) == ("study-base", 9, 0.0)
    assert sent["messages"] == [{"role": "user", "content": QUERIES[0].query}]
    assert "seed" not in sent
    again, second = respond_by_endpoint(*by_server(server, stop=["\n"]), "base", QUERIES[:3], tmp_path)
    assert again == found
    assert second.requests_sent == 0
    respond_by_endpoint(*by_server(server), "other", QUERIES[:1], tmp_path)
    assert server.bodies[-1]["model"] == "study-other"


def test_a_server_is_told_the_values_for_its_chat_template(server: Server, tmp_path: Path) -> None:
    respond_by_endpoint(*by_server(server), "base", QUERIES[:1], tmp_path)
    assert "chat_template_kwargs" not in server.bodies[-1]
    system = Message(role="system", content="Be brief.")
    asked = example("What is blue?").model_copy(update={"messages": [system, *example("What is blue?").messages]})
    settings = Model(chat_template_kwargs={"enable_thinking": False}, fold_system_message=True)
    respond_by_endpoint(*by_server(server), "base", [asked], tmp_path, model=settings)
    assert server.bodies[-1]["chat_template_kwargs"] == {"enable_thinking": False}
    assert server.bodies[-1]["messages"] == [{"role": "user", "content": "Be brief.\n\nWhat is blue?"}]


def test_a_server_samples_with_the_seed_and_cannot_be_told_top_p(server: Server, tmp_path: Path) -> None:
    found, _ = respond_by_endpoint(*by_server(server, temperature=0.5, seed=4), "base", QUERIES[:1], tmp_path)
    assert found[0].seed == 4
    assert (server.bodies[0]["temperature"], server.bodies[0]["seed"]) == (0.5, 4)
    with pytest.raises(ValidationError, match=r"top_p is 0\.5: it cannot be sent to an endpoint"):
        Generation(top_p=0.5, endpoint="mine")


def test_failures_of_a_server_are_counted_and_only_they_are_asked_for_again(server: Server, tmp_path: Path) -> None:
    server.actions.extend([reply("one"), *[status(500)] * 2, reply("three")])
    with pytest.raises(UserError, match=r"1 of 3 queries got no response from the server .*model study-base.*the first: .*status 500"):
        respond_by_endpoint(*by_server(server), "base", QUERIES[:3], tmp_path)
    found, account = respond_by_endpoint(*by_server(server), "base", QUERIES[:3], tmp_path)
    assert [r.response for r in found] == ["one", "fine", "three"]
    assert account.requests_sent == 1


@pytest.mark.parametrize("refusal", [status(400), reply("", finish="content_filter")], ids=["status 400", "filter"])
def test_a_query_that_the_server_refuses_has_no_response_and_no_label(refusal: Any, server: Server, folder: Path, tmp_path: Path) -> None:
    server.actions.extend([reply("one"), refusal, reply("three")])
    found, _ = respond_by_endpoint(*by_server(server), "base", QUERIES[:3], tmp_path)
    assert [(r.response, r.finish_reason) for r in found] == [("one", "stop"), (None, "refused"), ("three", "stop")]
    write_examples(tmp_path / "queries.parquet", QUERIES[:3])
    write_table(tmp_path / "responses.parquet", pl.DataFrame([vars(r) for r in found], schema_overrides={"seed": pl.Int64}), RESPONSES)
    paths = {"dataset": tmp_path / "queries.parquet", "responses": tmp_path / "responses.parquet", "output": tmp_path}
    paths |= {"scorer": ROOT / "scorers/key_points.py", "name": Path("base"), "settings": Path('{"scoring": {}}')}
    run_script("score.py", *(text for name, path in paths.items() for text in (f"--{name}", path)))
    items = read_table(tmp_path / "items.parquet", ITEMS).to_dicts()
    assert [item["query_id"] for item in items] == [e.example_id for e in QUERIES[:3]]
    assert items[1]["reason"] == "there is no response: the server refused the query"
    assert read_statistics(tmp_path / "scores.parquet")["right"][1] is None


def test_the_script_asks_the_server_and_loads_no_model(server: Server, folder: Path) -> None:
    generation, endpoint = by_server(server, temperature=0.0, stop=[])
    args = command(folder, "out.parquet", "work", folder / "nowhere")
    server_settings = endpoint.model_copy(update={"concurrency": 2, "backoff_s": 0.01})
    responding = Responding(generation=generation, endpoint=server_settings, endpoint_name="mine")
    args[args.index("--settings") + 1] = settings(responding=responding, model=Model(), lora=Lora())
    args[args.index("--limits") + 1] = limits(responding=responding)
    done = subprocess.run(args, check=True, capture_output=True, text=True)
    assert read_table(folder / "out.parquet", RESPONSES)["response"].to_list() == ["fine"] * len(QUERIES)
    assert "20 responses" in done.stdout
    assert not (folder / "work").exists()
