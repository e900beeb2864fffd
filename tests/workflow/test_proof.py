"""The validation as its users run it: what comes out, what an edit reruns, a judge behind a server, and what goes wrong."""

import json
import os
import re
import shutil
import subprocess
import threading
import uuid
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import polars as pl
import pytest
import yaml
from checkout import BIN, Checkout
from servers import Handler, completion
from tiny import ROOT

from swift_study.evaluation.scorers import read_statistics
from swift_study.io.tables import (
    AGREEMENT,
    AUDIT_SUMMARY,
    BASELINES,
    COMPARISON,
    CONSUMED,
    COSTS,
    ITEMS,
    RANK_AGREEMENT,
    RESPONSES,
    SCHEDULE,
    read_table,
)

ROWS = {"table1": ["Base", "→ D_pos", "→ D_cot"], "table2": ["Base", "Base+CoT", "Base→Clarify"]}
POINT = "seed=17/model=main"
RUNS = {f"{family}/{POINT}" for family in ("full_base", "in_pos", "in_cot", "mix_cot", "then_clarify")}
# Rules of the studies themselves, by which tables and pages are made from scores.
SUMMARY = {
    "compare",
    "agree",
    "count_costs",
    "list_costs",
    "describe_data",
    "hold_claims",
    "write_manifest",
    "swift_study_training",
    "write_config",
    "write_tables",
}
JUDGED = {t: {"scorers": ["judge", "likelihood"]} for t in ("table1", "table2")} | {"scorer_audit": {"scorers": ["key_points", "judge"]}}
CANARY = f"sk-{uuid.uuid4().hex}"  # no file of the repository has it


@pytest.fixture(scope="module")
def proved(finished: Checkout) -> Checkout:
    """The finished checkout with the validation made as well."""
    finished.snakemake("swift_study_training")
    return finished


def overlay(folder: Path, values: dict[str, object]) -> str:
    path = folder / "overlay.yaml"
    path.write_text(yaml.safe_dump(values, allow_unicode=True))
    return str(path)


def listed(checkout: Checkout, *configs: str) -> list[str]:
    jobs = checkout.jobs("-n", "swift_study_training", configs=configs)
    return [job for job in jobs if job.split()[0] not in SUMMARY]


# ---- what comes out ----


def test_tables_of_the_comparisons_are_there_and_whole(proved: Checkout) -> None:
    results = proved.root / "results"
    queries = pl.read_parquet(results / "data/questions.parquet")
    for name, rows in ROWS.items():
        table = read_table(results / f"studies/{name}/table.parquet", COMPARISON).filter(pl.col("metric") == "accuracy")
        assert table["row"].to_list() == rows
        assert set(table["n"]) == {len(queries)} == {24}
        assert set(table["model"]) == {"main"}
        assert table["gain"][0] is None
        assert table.filter(pl.col("row") != "Base")["gain"].null_count() == 0
    for run in RUNS:
        responses = read_table(results / f"responses/{run}/evaluation=questions/responses.parquet", RESPONSES)
        scores = results / f"scores/{run}/evaluation=questions"
        labels, likelihoods = (read_statistics(scores / f"scorer={s}/scores.parquet") for s in ("key_points", "likelihood"))
        assert responses["query_id"].to_list() == labels["query_id"].to_list() == likelihoods["query_id"].to_list()
        assert likelihoods["nats"].max() < 0
        read_table(results / f"runs/{run}/consumed.parquet", CONSUMED)
    table = pl.read_parquet(results / "studies/table2/table.parquet").filter(pl.col("metric") == "nats_token")
    per_query = {
        run: read_statistics(results / f"scores/{run}/{POINT}/evaluation=questions/scorer=likelihood/scores.parquet").select("nats_token")
        for run in ("full_base", "mix_cot")
    }
    gain = float((per_query["mix_cot"] - per_query["full_base"]).to_series().mean())  # type: ignore[arg-type]
    assert table.filter(pl.col("row") == "Base+CoT")["gain"][0] == pytest.approx(gain, rel=1e-9)
    agreement = read_table(results / "studies/agreement/agreement.parquet", AGREEMENT)
    assert agreement.select("item", "group").rows() == [("CoT", "in-task"), ("CoT", "cross-task")]
    verdict = pl.read_parquet(results / "studies/cot/verdicts.parquet").filter(pl.col("context") == "in-task")
    assert agreement["swift"][0] == pytest.approx(verdict["effect"][0], rel=1e-9)
    assert set(read_table(results / "studies/agreement/rank_agreement.parquet", RANK_AGREEMENT)["group"]) == {
        "in-task",
        "cross-task",
        "all",
    }
    claims = pl.read_parquet(results / "studies/table1/claims.parquet")
    assert set(claims["outcome"]) <= {"holds", "fails", "cannot tell"}
    assert {"published_7B", "published_13B"} <= set(claims.columns)
    audit = read_table(results / "studies/scorer_audit/audit.parquet", AUDIT_SUMMARY)
    assert set(audit["measure"]) == {"agreement", "kappa", "repeatability", "hostile flips"}
    costs = read_table(results / "studies/agreement/costs.parquet", COSTS)
    assert (costs.filter(pl.col("part") == "training")["seconds"] > 0).all()
    pairs = read_table(results / "studies/cot/baselines.parquet", BASELINES)
    compared = pl.read_parquet(results / "studies/cot/pairs.parquet").filter(pl.col("step") == 8)
    assert pairs.select("probe_id", "target_id").equals(compared.select("probe_id", "target_id"))
    judged = pl.col("probe_set").is_in(["CoT", "non-CoT"])
    assert pairs.filter(judged)["loss_change"].null_count() == 0
    assert pairs.filter(~judged)["loss_change"].null_count() == len(pairs.filter(~judged)) > 0


def test_schedules_are_the_papers_mixtures(proved: Checkout) -> None:
    mixed, ordered = (
        read_table(proved.root / f"results/runs/{family}/{POINT}/schedule.parquet", SCHEDULE) for family in ("mix_cot", "then_clarify")
    )
    for epoch in (1, 2):
        of_epoch = ordered.filter(pl.col("epoch") == epoch).sort("step", "position")["dataset"].to_list()
        assert of_epoch == ["base"] * 16 + ["base.clarify"] * 10
        of_epoch = mixed.filter(pl.col("epoch") == epoch).sort("step", "position")["dataset"].to_list()
        assert sorted(of_epoch) == ["base"] * 16 + ["base.cot"] * 10
        assert of_epoch != sorted(of_epoch)


def test_no_evaluation_query_is_in_the_training_data(proved: Checkout) -> None:
    data = proved.root / "results/data"
    asked = {m[-2]["content"] for m in pl.read_parquet(data / "questions.parquet")["messages"]}
    for name in ("base", "questions.similar", "questions.similar.cot", "base.cot", "base.clarify"):
        assert not asked & {m[-2]["content"] for m in pl.read_parquet(data / f"{name}.parquet")["messages"]}
    assert pl.read_parquet(data / "leakage/table1.parquet")["leaks"].to_list() == [0]


def test_figures_pages_and_report_are_for_people(proved: Checkout) -> None:
    results = proved.root / "results"
    for name in ("table1", "table2", "agreement"):
        assert (results / f"studies/{name}/figure.svg").read_text().startswith("<?xml")
        assert (results / f"studies/{name}/figure.png").read_bytes().startswith(b"\x89PNG")
    report = (results / "report.html").read_text()
    for part in ("1 Verdicts", "7 Comparisons", "8 Figures of comparisons"):
        assert part in report
    assert "Claims" in (results / "studies/table1/page.html").read_text()


# ---- the rerun promise ----


def test_nothing_is_left_to_do(proved: Checkout) -> None:
    assert proved.is_finished("swift_study_training")
    assert proved.is_finished("all")


def test_editing_a_strategy_trains_only_what_has_its_data(proved: Checkout) -> None:
    proved.edit("strategies/clarify.py", "make its meaning clearer", "make its meaning plainer")
    jobs = listed(proved)
    assert "apply_strategy base.clarify" in jobs
    assert [job for job in jobs if job.startswith("train")] == [f"train then_clarify/{POINT}"]
    # Its own responses and likelihoods; by the base model's responses to revised queries nothing is chosen (golden answers).
    assert {job for job in jobs if job.startswith(("respond", "score_with_model"))} == {
        f"respond then_clarify/{POINT}.questions",
        f"score_with_model then_clarify/{POINT}.questions.likelihood",
    }
    proved.edit("strategies/clarify.py", "make its meaning plainer", "make its meaning clearer")
    assert proved.is_finished("swift_study_training")


def test_a_runs_own_keys_rerun_it_and_what_starts_from_it(proved: Checkout, tmp_path: Path) -> None:
    jobs = listed(proved, overlay(tmp_path, {"runs": {"in_cot": {"learning_rate": 2e-5}}}))
    assert jobs == sorted(
        [f"score in_cot/{POINT}.questions.key_points", f"respond in_cot/{POINT}.questions",
         f"score_with_model in_cot/{POINT}.questions.likelihood", f"train in_cot/{POINT}"]
    )  # fmt: skip
    jobs = listed(proved, overlay(tmp_path, {"runs": {"full_base": {"weight_decay": 0.1}}}))
    assert {job.split()[1] for job in jobs if job.startswith("train ")} == RUNS  # all are like it


def test_another_seed_adds_its_own_trainings(proved: Checkout, tmp_path: Path) -> None:
    jobs = listed(proved, overlay(tmp_path, {"runs": {"full_base": {"grid": {"seed": [17, 18]}}}}))
    assert {job.split()[1] for job in jobs if job.startswith("train ")} == {run.replace("seed=17", "seed=18") for run in RUNS}
    assert not [job for job in jobs if "seed=17" in job]


def test_further_models_have_trainings_of_their_own(proved: Checkout, tmp_path: Path) -> None:
    values = {"models": {"big": {"name": "some/model"}}, "runs": {"full_base": {"grid": {"model": ["main", "big"]}}}}
    jobs = listed(proved, overlay(tmp_path, values))
    assert "find_model big" in jobs
    assert {job.split()[1] for job in jobs if job.startswith("train ")} == {run.replace("model=main", "model=big") for run in RUNS}


def test_the_rule_of_the_claims_reruns_no_training(proved: Checkout, tmp_path: Path) -> None:
    jobs = proved.jobs("-n", "swift_study_training", configs=(overlay(tmp_path, {"studies": {"table1": {"near": {"accuracy": 0.05}}}}),))
    made = {job for job in jobs if job.split()[0] not in ("write_config", "write_tables")}
    assert made == {"compare table1", "agree agreement", "count_costs agreement", "swift_study_training"}
    proved.edit("prompts/judge.txt", " ", "  ")  # no judge is configured: nothing depends on it
    assert proved.is_finished("swift_study_training")
    proved.edit("prompts/judge.txt", "  ", " ")


def test_another_evaluation_makes_its_own_responses_and_scores(proved: Checkout, tmp_path: Path) -> None:
    more = overlay(tmp_path, {"evaluations": {"extra": {"dataset": "panel", "scorers": ["key_points"], "grid": {"decoding": [1, 2]}}}})
    assert listed(proved, more) == []
    run = f"full_base/{POINT}"
    target = f"results/scores/{run}/evaluation=extra/decoding=2/scorer={{}}/scores.parquet"
    jobs = proved.jobs("-n", target.format("key_points"), configs=(more,))
    assert jobs == [f"respond {run}.extra/decoding=2", f"score {run}.extra/decoding=2.key_points"]
    jobs = proved.jobs("-n", target.format("likelihood"), configs=(more,))
    assert jobs == [f"score_with_model {run}.extra/decoding=2.likelihood"]


def test_a_scorer_file_and_its_options_rerun_its_scores_alone(proved: Checkout, tmp_path: Path) -> None:
    def made(jobs: list[str]) -> set[str]:
        return {job.split()[0] for job in jobs} & {"train", "respond", "score", "score_with_model", "audit_scorer"}

    scored = {f"score {run}.questions.key_points" for run in RUNS}
    proved.edit("scorers/key_points.py", "a response is right if", "A response is right if")
    jobs = listed(proved)
    assert made(jobs) == {"score", "audit_scorer"}
    assert scored <= set(jobs)
    proved.edit("scorers/key_points.py", "A response is right if", "a response is right if")
    assert proved.is_finished("swift_study_training")
    jobs = listed(proved, overlay(tmp_path, {"scorers": {"likelihood": {"options": {"x": 1}}}}))
    assert made(jobs) == {"score_with_model"}
    (proved.root / "scorers" / "unused.py").write_text("STATISTICS = ('n',)\n")
    assert proved.is_finished("swift_study_training")


def test_generation_of_an_evaluation_is_its_own(proved: Checkout, tmp_path: Path) -> None:
    jobs = listed(proved, overlay(tmp_path, {"evaluations": {"questions": {"generation": {"max_new_tokens": 9}}}}))
    assert {job for job in jobs if job.startswith(("respond", "score", "train"))} == {
        *(f"respond {run}.questions" for run in RUNS), *(f"score {run}.questions.key_points" for run in RUNS),
    }  # fmt: skip
    assert listed(proved, overlay(tmp_path, {"generation": {"batch_size": 3}})) == []


def test_a_scorer_that_cannot_run_is_refused_before_anything_runs(proved: Checkout, tmp_path: Path) -> None:
    target = f"results/scores/full_base/{POINT}/evaluation=questions/scorer={{}}/scores.parquet"
    strict = overlay(tmp_path, {"scorers": {"strict": {"by": "judge"}}})
    done = proved.snakemake("-n", target.format("strict"), configs=(strict,), check=False)
    assert done.returncode != 0
    assert "the scorer 'strict' asks an endpoint, and `endpoints.judge` is not configured" in done.stdout + done.stderr
    absent = overlay(tmp_path, {"scorers": {"mine": {"by": "key_points", "model": "nobody/no-such-model"}}})
    done = proved.snakemake("-n", target.format("mine"), configs=(absent,), check=False)
    assert "'nobody/no-such-model' is neither a folder nor in the hub's cache on this machine" in done.stdout + done.stderr
    unlabelled = overlay(tmp_path, {"studies": {"scorer_audit": {"scorers": ["likelihood"]}}})
    done = proved.snakemake("-n", "scorer_audit", configs=(unlabelled,), check=False)
    assert "'likelihood' gives no label (the statistic `right`), so it cannot be audited" in done.stdout + done.stderr


def test_responses_of_a_file_are_scored_without_training(proved: Checkout, tmp_path: Path) -> None:
    queries = pl.read_parquet(proved.root / "results/data/panel.parquet")["messages"].list.get(-2).struct.field("content")
    (tmp_path / "given.jsonl").write_text("\n".join(json.dumps({"query": q, "response": "42"}) for q in queries))
    given = overlay(tmp_path, {"evaluations": {"given": {"dataset": "panel", "responses": str(tmp_path / "given.jsonl")}}})
    run = f"mix_all/{POINT}"
    target = f"results/scores/{run}/evaluation=given/scorer=key_points/scores.parquet"
    assert proved.jobs(target, configs=(given,)) == [f"read_responses {run}.given", f"score {run}.given.key_points"]
    assert len(read_statistics(proved.root / target)) == len(queries)
    shutil.rmtree(proved.root / "results/scores/mix_all")
    shutil.rmtree(proved.root / "results/responses/mix_all")


# ---- a judge behind a server ----


class Judge(Handler):
    """Labels a response 1 if it holds the golden answer; one query in five it answers in prose."""

    requests: ClassVar[list[str]] = []
    refuse = False

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        Judge.requests.append(self.headers["Authorization"])
        item, _ = json.JSONDecoder().raw_decode(body["messages"][-1]["content"])
        label = int(item["golden_answer"] in item["response"])
        text = json.dumps({"reason": "compared", "label": label})
        if len(item["query"]) % 5 == 0:
            text = "I cannot say."
        self.send(200, completion(None if Judge.refuse else text, tokens=(100, 20), refusal="No." if Judge.refuse else None))


@pytest.fixture
def judge_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("SWIFT_STUDY_JUDGE_KEY", CANARY)
    Judge.requests, Judge.refuse = [], False
    server = ThreadingHTTPServer(("127.0.0.1", 0), Judge)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()


def test_a_judge_labels_what_key_points_did_and_is_audited(proved: Checkout, judge_server: str, tmp_path: Path) -> None:
    shutil.copytree(proved.root, tmp_path / "copy", symlinks=True)
    copy = Checkout(tmp_path / "copy", proved.tiny)
    judge = {
        "base_url": judge_server,
        "model": "gpt-4o-2024-08-06",
        "key_env": "SWIFT_STUDY_JUDGE_KEY",
        "usd_per_million_prompt_tokens": 1.0,
        "usd_per_million_completion_tokens": 1.0,
        "backoff_s": 0.01,
    }
    config = overlay(tmp_path, {"endpoints": {"judge": judge}, "studies": JUDGED})
    jobs = copy.jobs("swift_study_training", configs=(config,))
    asking = {"score_with_endpoint", "audit_scorer_with_endpoint", "write_audit"}
    assert {job.split()[0] for job in jobs} - SUMMARY == asking
    results = copy.root / "results"
    folders = [results / f"scores/{run}/evaluation=questions/scorer=judge" for run in sorted(RUNS)]
    judged = [read_statistics(folder / "scores.parquet") for folder in folders]
    unparsed = sum(table["right"].null_count() for table in judged)
    assert 0 < unparsed < sum(map(len, judged))
    assert set(pl.concat([read_table(folder / "items.parquet", ITEMS) for folder in folders])["judge"]) == {"gpt-4o-2024-08-06"}
    table = pl.read_parquet(results / "studies/table1/table.parquet")
    assert set(table["scorer"]) == {"judge", "likelihood"}
    assert table["unscored"][0] == judged[0]["right"].null_count()
    audit = pl.read_parquet(results / "studies/scorer_audit/audit.parquet").filter(pl.col("judge") == "gpt-4o-2024-08-06")
    rate = audit.filter(pl.col("measure") == "agreement").row(0, named=True)
    assert rate["reference"] == 0.87
    assert rate["n"] + rate["unparsed"] == 10
    costs = pl.read_parquet(results / "studies/agreement/costs.parquet")
    assert costs.filter(pl.col("way") == "training", pl.col("part") == "scores: judge")["cost_usd"][0] > 0
    assert set(Judge.requests) == {f"Bearer {CANARY}"}
    sent = len(Judge.requests)
    copy.snakemake("swift_study_training", "--forcerun", "score_with_endpoint", "audit_scorer_with_endpoint", configs=(config,))
    assert len(Judge.requests) == sent  # all from the cache
    # Another word in its instructions: only the judge is asked again.
    copy.edit("prompts/judge.txt", " ", "  ")
    jobs = copy.jobs("-n", "swift_study_training", configs=(config,))
    assert {job.split()[0] for job in jobs} - SUMMARY == asking
    assert not [job for job in jobs if "key_points" in job]
    for folder, _, files in os.walk(copy.root):
        for name in files:
            assert CANARY.encode() not in (Path(folder) / name).read_bytes(), Path(folder) / name


def test_a_judge_that_refuses_everything_leaves_no_label_and_loses_nothing(proved: Checkout, judge_server: str, tmp_path: Path) -> None:
    Judge.refuse = True
    shutil.copytree(proved.root, tmp_path / "copy", symlinks=True)
    copy = Checkout(tmp_path / "copy", proved.tiny)
    judge = {"base_url": judge_server, "model": "m", "key_env": "SWIFT_STUDY_JUDGE_KEY"}
    config = overlay(tmp_path, {"endpoints": {"judge": judge}, "studies": JUDGED})
    target = f"results/scores/full_base/{POINT}/evaluation=questions/scorer=judge/items.parquet"
    done = copy.snakemake(target, configs=(config,))
    judged = read_table(copy.root / target, ITEMS)
    assert read_statistics((copy.root / target).with_name("scores.parquet"))["right"].null_count() == len(judged) == 24
    assert judged["reason"].str.contains("the server refused to answer").all()
    assert "24 could not be scored" in done.stdout


# ---- what goes wrong ----


def with_last_word(checkout: Checkout, folder: Path, values: dict[str, object]) -> Checkout:
    """The checkout with these values laid over everything else, the tiny configuration included."""
    path = folder / "last.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(checkout.tiny.read_text()) | values))
    return Checkout(checkout.root, path)


def test_training_on_the_evaluation_set_is_an_error(proved: Checkout, tmp_path: Path) -> None:
    target = "results/data/leakage/table1.parquet"
    before = (proved.root / target).read_bytes()
    leaking = with_last_word(proved, tmp_path, {"runs": {"in_cot": {"schedule": [{"questions.cot": {}}]}}})
    done = leaking.snakemake(target, check=False)
    assert done.returncode != 0
    assert "24 of 24 examples are in the training data" in done.stdout
    proved.snakemake(target)
    assert (proved.root / target).read_bytes() == before


def test_evaluation_queries_whose_ids_clash_are_a_sentence(finished: Checkout, tmp_path: Path) -> None:
    twice = tmp_path / "twice.jsonl"
    twice.write_text('{"prompt": "a", "completion": "b", "task": "t"}\n' * 2)
    values = {"results": str(tmp_path / "results"), "datasets": {"questions": {"sources": [{"kind": "file", "path": str(twice)}]}}}
    done = with_last_word(finished, tmp_path, values).snakemake(str(tmp_path / "results/data/questions.parquet"), check=False)
    assert done.returncode != 0
    assert f"{twice}, row 1 and {twice}, row 2 are the same example" in done.stdout


@pytest.mark.parametrize("scale", ["7b", "13b"])
def test_paper_scales_are_whole(scale: str) -> None:
    """Every row of both tables with three seeds: 13 rows, of which Base stands in both, and the swift study's own run."""
    command = [str(BIN / "snakemake"), "-n", "all", "swift_study_training", "--configfile", f"scales/{scale}.yaml"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    counts = {name: int(n) for name, n in re.findall(r"^(\w+) +(\d+)$", done.stdout, re.MULTILINE)}
    assert counts["train"] == 1 + 13 * 3 + 8
    assert counts["respond"] == 13 * 3 + 4
    assert counts["score_with_endpoint"] == 13 * 3
    assert counts["score"] == 4
    assert counts["score_with_model"] == 13 * 3 + 8
