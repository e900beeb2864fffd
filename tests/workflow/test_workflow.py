"""The workflow as its users run it: what comes out, what an edit reruns, what a kill costs, what an error says."""

import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import polars as pl
import pytest
import yaml
from checkout import BIN, Checkout, environment, make_checkout
from tiny import ROOT

from swift_study.io.tables import (
    CONFOUNDS,
    CURVES,
    EXAMPLES,
    FAMILIES,
    HISTORY,
    LAYERS,
    PAIRS,
    POWER,
    REJECTS,
    RESPONSES,
    SCHEDULE,
    SCORES,
    VERDICTS,
    read_table,
)

# What the cot study's results are made by, from the strategy on.
AFTER_COT = [
    "all",
    "apply_strategy panel.cot",
    "check_confounds cot",
    "check_leakage cot",
    "compute_baselines cot",
    "decide_verdicts cot",
    "figures cot",
    "gradients base.cot",
    "hold_claims cot",
    "measure_lengths main.panel.cot",
    "pair_influence cot",
    "write_tables",
]
REFERENCES = ["paraphrase", "unrelated"]
PAPER_CURVES = {
    "cot": {f"{p} → {c} non-CoT" for p in ("CoT", "non-CoT") for c in ("In-task", "Cross-task")},
    "clarify": {f"{p} → {c} {t}" for p in ("Clarify", "Pos") for c in ("In-task", "Cross-task") for t in ("Pos", "Neg")},
    "evaluate": {f"{p} → {c} {t}" for p in ("EvalPos", "EvalNeg", "Pos") for c in ("In-task", "Cross-task") for t in ("Pos", "Neg")},
}


def without_targets(jobs: list[str]) -> list[str]:
    return [job for job in jobs if job != "all"]


def expected(jobs: list[str]) -> list[str]:
    return without_targets(sorted(jobs))


# ---- what comes out ----


def test_tables_of_the_contract_are_there_and_whole(finished: Checkout) -> None:
    results = finished.root / "results"
    for study, curves in PAPER_CURVES.items():
        folder = results / "studies" / study
        pairs, curve_table = read_table(folder / "pairs.parquet", PAIRS), read_table(folder / "curves.parquet", CURVES)
        assert set(curve_table.filter(~pl.col("probe_set").is_in(REFERENCES))["curve"]) == curves
        assert set(curve_table["probe_set"]) > set(REFERENCES)
        assert sorted(set(curve_table["step"])) == [2, 4, 6, 8]
        assert len(read_table(folder / "verdicts.parquet", VERDICTS)) == {"cot": 2, "clarify": 4, "evaluate": 8}[study]
        exact = pairs.with_columns(expected=pl.col("dot") / pl.col("target_norm_sq")).filter(pl.col("rel_inf").is_not_null())
        assert (exact["rel_inf"] - exact["expected"]).abs().max() == 0
        means = pairs.group_by("probe_set", "target_set", "context", "step").agg(pl.col("rel_inf").mean().alias("mean"))
        told = read_table(folder / "power.parquet", POWER)
        assert len(told) == 6 * len(read_table(folder / "verdicts.parquet", VERDICTS))  # three numbers of tasks, two effects
        checks = read_table(folder / "confounds.parquet", CONFOUNDS)
        assert checks.filter(pl.col("check") == "sum-loss")["effect"].equals(pl.read_parquet(folder / "verdicts.parquet")["effect"])
        assert checks["of_scale"].null_count() < len(checks)
        families, layers = read_table(folder / "families.parquet", FAMILIES), read_table(folder / "layers.parquet", LAYERS)
        assert set(families["family"]) == {f"mlp.{p}_proj.lora_{w}" for p in ("up", "down") for w in "AB"}
        assert set(layers["layer"]) == {0, 1}
        for parts in (families, layers):
            keys = ["step", "probe_set", "target_set", "probe_id", "target_id"]
            summed = pairs.join(parts.group_by(keys).agg(pl.col("carried").sum()), on=keys).filter(pl.col("rel_inf").is_not_null())
            assert (summed["carried"] - summed["rel_inf"]).abs().max() < 1e-6
        joined = curve_table.join(means, on=["probe_set", "target_set", "context", "step"])
        assert len(joined) == len(curve_table)
        assert (joined["rel_inf"] - joined["mean"]).abs().max() < 1e-12
    assert sum(map(len, PAPER_CURVES.values())) == 24
    read_table(results / "runs" / "base" / "history.parquet", HISTORY)
    read_table(results / "runs" / "base" / "schedule.parquet", SCHEDULE)
    selected = ("negative", "positive", "negative_analogue", "positive_analogue", "clarified")
    for name in ("panel", "panel.similar", "panel.cot", *selected):
        read_table(results / "data" / f"{name}.parquet", EXAMPLES)
    read_table(results / "responses/base/evaluation=tried/dataset=candidates/responses.parquet", RESPONSES)
    read_table(results / "scores/base/evaluation=tried/dataset=candidates/scorer=key_points/scores.parquet", SCORES)


def test_negatives_are_the_models_unsatisfactory_responses(finished: Checkout) -> None:
    results = finished.root / "results"
    negatives = pl.read_parquet(results / "data" / "negative.parquet")
    scores = pl.read_parquet(results / "scores/base/evaluation=tried/dataset=candidates/scorer=key_points/scores.parquet")
    responses = pl.read_parquet(results / "responses/base/evaluation=tried/dataset=candidates/responses.parquet")
    labels = dict(scores.filter(pl.col("statistic") == "right").select("query_id", "value").iter_rows())
    said = dict(responses.select("query_id", "response").iter_rows())
    for row in negatives.iter_rows(named=True):
        assert labels[row["parent_id"]] == 0
        assert row["messages"][-1]["content"] == said[row["parent_id"]]
    positives = pl.read_parquet(results / "data" / "positive.parquet")
    assert negatives["task"].to_list() == positives["task"].to_list()
    clarifications = pl.read_parquet(results / "data" / "clarified.parquet")
    for clarification, positive in zip(clarifications["messages"], positives["messages"], strict=True):
        assert clarification[-1]["content"] == positive[-2]["content"]


def test_no_probe_is_in_the_base_data(finished: Checkout) -> None:
    data = finished.root / "results" / "data"
    queries = {m[-2]["content"] for m in pl.read_parquet(data / "base.parquet")["messages"]}
    for name in ("panel", "panel.similar", "candidates", "candidates.similar"):
        assert not queries & {m[-2]["content"] for m in pl.read_parquet(data / f"{name}.parquet")["messages"]}
    read_table(data / "rejects" / "base.parquet", REJECTS)


def test_figures_tables_report_and_verdicts_are_for_people(finished: Checkout) -> None:
    results = finished.root / "results"
    names = {"cot": ["figure1"], "clarify": ["figure2a", "figure2b"], "evaluate": ["figure3a", "figure3b"]}
    figures = [results / f"studies/{study}/figures/{name}" for study in names for name in [*names[study], "layers"]]
    for path in [*figures, results / "runs/base/loss"]:
        assert path.with_suffix(".svg").read_text().startswith("<?xml")
        assert path.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    figure = (results / "studies/clarify/figures/figure2b.svg").read_text()
    for curve in PAPER_CURVES["clarify"]:
        assert (curve in figure) == ("Cross-task" in curve)
    assert (results / "tables" / "verdicts.md").read_text().startswith("| study | strategy |")
    assert (results / "tables" / "verdicts.csv").read_text().startswith("study,strategy,")
    report = (results / "report.html").read_text()
    for path in figures:
        assert f"{path.relative_to(finished.root)}.svg" in report
    for part in ("1 Verdicts", "2 Figures", "3 Data", "4 Training", "5 Certificate", "6 Configuration"):
        assert part in report
    said = (finished.root / "first-run.txt").read_text()
    assert "Verdicts: does the strategy" in said
    assert re.search(r"(All|Caution: \d+ of) 14 verdicts .*stand under every score", said)
    assert "Report: results/report.html" in said
    assert re.search(r"train base: .*step \d+/8", said)


def test_certificate_is_in_the_gradients_metadata(finished: Checkout) -> None:
    import pyarrow.parquet as pq

    metadata = pq.read_schema(finished.root / "results/gradients/base/cot/step-000008.parquet").metadata
    certificate = json.loads(metadata[b"certificate"])
    assert certificate["passed"]
    assert certificate["against_float64"] < 1e-5
    for table in ("gradients/base/cot/step-000008", "responses/base/evaluation=tried/dataset=candidates/responses"):
        path = finished.root / f"results/{table}.parquet"
        assert int(pq.read_schema(path).metadata[b"threads"]) == certificate["threads"] == len(os.sched_getaffinity(0)), table
    assert metadata[b"scope"] == b"lora"


# ---- the rerun promise ----


def test_nothing_is_left_to_do(finished: Checkout) -> None:
    assert finished.is_finished()


def test_editing_a_strategy_reruns_what_descends_from_it(finished: Checkout) -> None:
    checkpoint = finished.root / "results/runs/base/checkpoints/step-000008/adapter_model.safetensors"
    before = checkpoint.stat().st_mtime_ns
    finished.edit("strategies/cot.py", "Please output the reason first", "Please give the reason first")
    assert without_targets(finished.jobs("-n")) == expected(AFTER_COT)
    assert without_targets(finished.jobs()) == expected(AFTER_COT)
    assert checkpoint.stat().st_mtime_ns == before
    queries = pl.read_parquet(finished.root / "results/data/panel.cot.parquet")["messages"].list.first().struct.field("content")
    assert queries.str.contains("Please give the reason first").all()
    assert finished.is_finished()


def test_editing_one_prompt_word_of_clarify_leaves_training_and_cot_alone(finished: Checkout) -> None:
    finished.edit("strategies/clarify.py", "make its meaning clearer", "make its meaning plainer")
    listed = finished.jobs("-n")
    assert "apply_strategy candidates.clarify" in listed
    assert "gradients base.clarify" in listed
    assert not [job for job in listed if "train" in job or "cot" in job or job == "load_dataset base"]
    finished.edit("strategies/clarify.py", "make its meaning plainer", "make its meaning clearer")
    assert finished.is_finished()


def test_a_studys_own_keys_rerun_only_its_own_rules(finished: Checkout, tmp_path: Path) -> None:
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text(yaml.safe_dump({"studies": {"cot": {"question": "Another wording?"}}}))
    assert without_targets(finished.jobs("-n", configs=(str(overlay),))) == ["write_config", "write_tables"]
    overlay.write_text(yaml.safe_dump({"studies": {"cot": {"caption": "Another caption"}}}))
    assert without_targets(finished.jobs("-n", configs=(str(overlay),))) == ["figures cot", "write_config", "write_tables"]
    overlay.write_text(yaml.safe_dump({"statistics": {"confidence": 0.9}}))
    listed = without_targets(finished.jobs("-n", configs=(str(overlay),)))
    assert [job for job in listed if job.startswith("decide_verdicts")] == [f"decide_verdicts {s}" for s in sorted(PAPER_CURVES)]
    assert not [job for job in listed if "gradients" in job or "pair" in job or "train" in job]


def test_a_comment_in_the_library_reruns_nothing(finished: Checkout) -> None:
    with (finished.root / "workflow/scripts/swift_study/training/trainer.py").open("a") as stream:
        stream.write("# a comment\n")
    with (finished.root / "workflow/scripts/train.py").open("a") as stream:
        stream.write("# a comment\n")
    assert finished.is_finished()


def test_killed_training_resumes_and_every_table_has_the_same_bytes(finished: Checkout, tiny_model: Path, tmp_path: Path) -> None:
    """A study in another folder, its training killed with SIGKILL half-way: the same seed gives the same bytes."""
    again = make_checkout(tmp_path / "swift-study", tiny_model)
    shutil.copy2(finished.root / "strategies/cot.py", again.root / "strategies/cot.py")
    command = [str(BIN / "snakemake"), "results/runs/base/history.parquet", "--configfile", "tests/workflow/tiny.yaml", str(again.tiny)]
    with (tmp_path / "out.txt").open("w") as out:
        process = subprocess.Popen(command, cwd=again.root, stdout=out, stderr=out, env=environment())
        deadline = time.monotonic() + 900
        while not list(again.root.glob("results/work/train/base/*/state/latest")) and time.monotonic() < deadline:
            assert process.poll() is None, (tmp_path / "out.txt").read_text()
            time.sleep(0.01)
        for pid in pids_of("train.py", again.root):
            os.kill(pid, signal.SIGKILL)
        assert process.wait(timeout=120) != 0
    assert not (again.root / "results/runs/base/history.parquet").exists()
    assert "resuming after step" in again.snakemake("cot", "results/runs/base/loss.svg").stdout
    ours, theirs = again.root / "results", finished.root / "results"
    compared = 0
    for table in sorted(ours.rglob("*.parquet")):
        assert table.read_bytes() == (theirs / table.relative_to(ours)).read_bytes(), table
        compared += 1
    assert compared > 30
    for pattern in (
        "studies/cot/figures/*.svg",
        "runs/base/loss.svg",
        "studies/cot/*.md",
        "runs/base/checkpoints/*/adapter_model.safetensors",
    ):
        files = sorted(ours.glob(pattern))
        assert files, pattern
        for file in files:
            assert file.read_bytes() == (theirs / file.relative_to(ours)).read_bytes(), file


def pids_of(script: str, folder: Path) -> list[int]:
    """Processes that run ``script`` with ``folder`` as their working folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if script in (process / "cmdline").read_text() and (process / "cwd").resolve() == folder.resolve():
                found.append(int(process.name))
        except OSError:
            continue
    return [pid for pid in found if "snakemake" not in Path(f"/proc/{pid}/cmdline").read_text().split("\0")[1]]


# ---- new strategies, other data, other scales ----


def test_future_strategies_work_as_studies_of_their_own(finished: Checkout) -> None:
    """All are planned, on the base run that is there; the first is made."""
    jobs = finished.jobs("-n", "future")
    assert {job.split()[1] for job in jobs if job.startswith("decide_verdicts")} == {"conclusion_first", "query_parsing", "prompt_template"}
    assert not [job for job in jobs if "train" in job or "select" in job]
    finished.snakemake("conclusion_first")
    made = finished.root / "results/studies/conclusion_first"
    assert set(read_table(made / "verdicts.parquet", VERDICTS)["context"]) == {"in-task", "cross-task"}
    assert (made / "figures/conclusion_first.png").is_file()


@pytest.mark.skipif(not (ROOT.parent / "shared" / "data" / "gsm8k").is_dir(), reason="the folder with GSM8K and FLAN CoT is not here")
def test_own_files_by_configuration_alone(tiny_model: Path, tmp_path: Path) -> None:
    checkout = make_checkout(tmp_path / "swift-study", tiny_model)
    (checkout.root / "reasoning-data").symlink_to(ROOT.parent / "shared" / "data")
    checkout.snakemake("reasoning_data")
    verdicts = read_table(checkout.root / "results/studies/cot_of_reasoning_data/verdicts.parquet", VERDICTS)
    assert set(verdicts["n_tasks"]) == {4}
    assert set(verdicts["n_probes"]) == {12}
    cot = pl.read_parquet(checkout.root / "results/data/reasoning.cot.parquet")
    assert cot["messages"].list.last().struct.field("content").str.contains("So the answer is ").all()


def test_paper_scale_is_a_whole_dag(tmp_path: Path) -> None:
    done = subprocess.run(
        [str(BIN / "snakemake"), "-n", "--configfile", "scales/7b.yaml"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "results-7b/gradients/base/evaluate" in done.stdout
    counts = dict(re.findall(r"^(\w+) +(\d+)$", done.stdout, re.MULTILINE))
    assert (counts["train"], counts["gradients"]) == ("1", "3")


def snakemake_in(folder: Path, *arguments: str) -> str:
    command = [str(BIN / "snakemake"), *arguments, "--cores", "2"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, env=environment())
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout + done.stderr


def test_another_folder_has_its_own_configuration_strategies_and_results(tmp_path: Path) -> None:
    (tmp_path / "strategies").mkdir()
    shutil.copy2(ROOT / "strategies/cot.py", tmp_path / "strategies/mine.py")
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"strategies": {"mine": {}}}))
    there = ["--snakefile", str(ROOT / "Snakefile"), "--directory", str(tmp_path)]
    snakemake_in(tmp_path.parent, *there, "results/data/panel.mine.parquet", "results/data/panel.cot.parquet")
    own, shipped = (pl.read_parquet(tmp_path / f"results/data/panel.{name}.parquet") for name in ("mine", "cot"))
    assert own["messages"].equals(shipped["messages"])
    assert "Nothing to be done" in snakemake_in(tmp_path.parent, *there, "results/data/panel.mine.parquet", "-n")
    counts = re.findall(r"^total +(\d+)", snakemake_in(tmp_path.parent, *there, "-n", "all", "swift_study_training"), re.MULTILINE)
    assert int(counts[0]) > 100


def test_another_workflow_takes_this_one_as_a_module(tmp_path: Path) -> None:
    (tmp_path / "Snakefile").write_text(
        f"module swift_study:\n    snakefile: {str(ROOT / 'Snakefile')!r}\n    config: {{'results': 'study'}}\n\n"
        "use rule * from swift_study as swift_study_*\n\n"
        "rule count:\n    default_target: True\n    input: 'study/data/panel.cot.parquet'\n    output: 'count.txt'\n"
        "    shell: 'ls {input} > {output}'\n"
    )
    snakemake_in(tmp_path)
    assert len(pl.read_parquet(tmp_path / "study/data/panel.cot.parquet")) == 12
    assert (tmp_path / "count.txt").is_file()


# ---- errors ----


def test_an_unknown_key_stops_before_anything_runs(finished: Checkout, tmp_path: Path) -> None:
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text(yaml.safe_dump({"runs": {"base": {"learning_rat": 1}}}))
    done = finished.snakemake("-n", configs=(str(overlay),), check=False)
    assert done.returncode != 0
    assert "unknown key `runs.base.learning_rat` (did you mean 'learning_rate'?)" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_a_failing_rule_says_a_sentence_and_logs_the_traceback(finished: Checkout, tmp_path: Path) -> None:
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"prompt": "a", "completion": "b", "task": "t"}\n{"prompt": "a", "completion": "", "task": "t"}\n')
    overlay = tmp_path / "overlay.yaml"
    results = str(tmp_path / "results")
    overlay.write_text(yaml.safe_dump({"results": results, "datasets": {"panel": {"sources": [{"kind": "file", "path": str(broken)}]}}}))
    done = finished.snakemake("cot", configs=(str(overlay),), check=False)
    assert done.returncode != 0
    assert f"ERROR in load_dataset: {broken}, row 2, column completion: the example has no completion" in done.stdout
    assert "Traceback" not in done.stdout
    logs = list((tmp_path / "results/logs/load_dataset").glob("panel*.log"))  # of the dataset or of its analogues, whichever came first
    assert any("Traceback" in log.read_text() for log in logs)


def test_too_few_negatives_is_a_sentence_with_the_counts(finished: Checkout, tmp_path: Path) -> None:
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text(yaml.safe_dump({"selections": {"chosen": {"where": {"revised": 1, "revised_analogue": 1}}}}))
    shutil.copytree(finished.root, tmp_path / "copy", symlinks=True)
    copy = Checkout(tmp_path / "copy", finished.tiny)
    done = copy.snakemake("clarify", configs=(str(overlay),), check=False)
    assert done.returncode != 0
    assert "selections.chosen: 5 tasks are asked for (take), but " in done.stdout


def test_a_cut_short_checkpoint_is_named(finished: Checkout, tmp_path: Path) -> None:
    shutil.copytree(finished.root, tmp_path / "copy", symlinks=True)
    copy = Checkout(tmp_path / "copy", finished.tiny)
    weights = copy.root / "results/runs/base/checkpoints/step-000004/adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    done = copy.snakemake("cot", "--forcerun", "gradients", check=False)
    assert done.returncode != 0
    assert "step-000004/adapter_model.safetensors: this is not a whole checkpoint" in done.stdout


# ---- the face ----


def edges(mermaid: str) -> set[tuple[str, str]]:
    """The rule graph's edges by the rules' names: their order and numbers differ from call to call."""
    names = dict(re.findall(r"(id\d+)\[(\w+)\]", mermaid))
    return {(names[a], names[b]) for a, b in re.findall(r"(id\d+) --> (id\d+)", mermaid)}


def test_readme_shows_the_current_rule_graph() -> None:
    command = [str(BIN / "snakemake"), "all", "swift_study_training", "--rulegraph", "mermaid-js"]
    current = edges(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout)
    shown = (ROOT / "README.md").read_text().split("```mermaid")[1].split("```")[0]
    assert ("apply_strategy", "gradients") in current
    assert edges(shown) == current


def test_run_hands_its_arguments_to_snakemake() -> None:
    if not (ROOT / ".venv" / "pins").is_file():
        pytest.skip("./setup has not made .venv here")
    done = subprocess.run([str(ROOT / "run"), "-n", "cot"], cwd=ROOT, capture_output=True, text=True, check=False, env=environment())
    assert done.returncode == 0, done.stdout + done.stderr
    counts = dict(re.findall(r"^(\w+) +(\d+)$", done.stdout, re.MULTILINE))
    assert (counts["gradients"], counts["cot"]) == ("1", "1")  # of one study, and not of the others
