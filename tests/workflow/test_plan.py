"""The plan before anything is made, against what a run then makes."""

import re
import subprocess
from pathlib import Path

import polars as pl
import pytest
from checkout import BIN, Checkout, copy_repository, environment


def table(plan: str, heading: str) -> dict[str, dict[str, str]]:
    """The rows of the first table below a heading, by their first cell."""
    below = plan.split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    rows = [[cell.strip() for cell in line.strip("| \n").split(" | ")] for line in below.splitlines() if line.startswith("|")]
    return {row[0]: dict(zip(rows[0], row, strict=False)) for row in rows[2:]}


def size(folders: list[Path]) -> int:
    return sum(file.stat().st_size for folder in folders for file in folder.rglob("*") if file.is_file())


@pytest.fixture(scope="module")
def plan(finished: Checkout) -> str:
    """From nothing: the results that are there are not looked at."""
    return finished.snakemake("plan", "--config", "results=planned").stdout


def test_planned_tokens_are_those_of_the_run(plan: str, finished: Checkout) -> None:
    results = finished.root / "results"
    row = table(plan, "Trainings")["base"]
    trained = pl.read_parquet(results / "runs" / "base" / "history.parquet")["tokens"].sum()
    assert int(row["of completions"]) == pytest.approx(trained, rel=0.1)
    steps = pl.read_parquet(results / "runs" / "base" / "consumed.parquet")
    assert int(row["tokens each"]) > int(row["of completions"])
    assert len(steps) * 20 < int(row["tokens each"])  # a query has more than a score of tokens


def test_planned_files_are_those_of_the_run(plan: str, finished: Checkout) -> None:
    results = finished.root / "results"
    checkpoints = list((results / "runs/base/checkpoints").glob("step-*"))
    planned = float(table(plan, "Trainings")["base"]["GB of checkpoints each"]) * 1e9
    assert planned == pytest.approx(size(checkpoints), rel=0.1)
    gradients = sorted((results / "gradients" / "base").glob("*/step-*.parquet"))
    row = table(plan, "Disk")["gradients/"]
    assert int(float(row["number"])) == len(gradients)
    assert float(row["GB"]) * 1e9 == pytest.approx(sum(f.stat().st_size for f in gradients), rel=0.1)


def test_planned_jobs_are_those_of_a_dry_run(plan: str, finished: Checkout) -> None:
    done = finished.snakemake("-n", "--forceall", "all", "swift_study_training")
    counted = {rule: n for rule, n in re.findall(r"^(\w+) +(\d+)$", done.stdout, re.MULTILINE) if rule != "total"}
    rows = table(plan, "Jobs")
    assert {rule: row["jobs"] for rule, row in rows.items() if rule != "in total"} == counted


def test_a_plan_is_told_every_time_and_makes_nothing(finished: Checkout) -> None:
    before = sorted(p for p in (finished.root / "results").rglob("*") if "logs" not in p.parts)
    first, second = (finished.snakemake("plan").stdout for _ in range(2))
    assert first == second
    assert first.startswith("# Plan")
    assert "datasets were read from results/data" in first
    assert "Verdicts" not in first
    assert sorted(p for p in (finished.root / "results").rglob("*") if "logs" not in p.parts) == before
    assert finished.is_finished()


def test_a_run_that_does_not_fit_is_warned_of(finished: Checkout) -> None:
    done = finished.snakemake("plan", "--config", "results=planned", 'plan={"gpu_memory_gb":2.2,"overhead_gb":2}')
    warnings = [line for line in done.stdout.splitlines() if line.startswith("WARNING")]
    assert any("'full_base'" in line and "micro_batch_size" in line for line in warnings)


@pytest.mark.parametrize(("scale", "weights"), [("7b", "6,930,000,000"), ("13b", "13,250,000,000")])
def test_a_paper_scale_is_planned_without_its_model(scale: str, weights: str, tmp_path: Path) -> None:
    copy_repository(tmp_path / "copy")
    command = [str(BIN / "snakemake"), "plan", "--configfile", f"scales/{scale}.yaml"]
    empty = environment() | {"HF_HOME": str(tmp_path / "empty")}  # no model is in the local cache
    done = subprocess.run(command, cwd=tmp_path / "copy", capture_output=True, text=True, check=True, env=empty)
    assert f"{weights} weights" in done.stdout
    assert f"'hfl/chinese-llama-2-{scale}' is not on this machine" in done.stdout
    assert float(table(done.stdout, "GPU-hours")["trainings"]["GPU-hours"]) > 1
    assert table(done.stdout, "Endpoints")["judge"]["USD"]
    full = {"7b": 3.46, "13b": 6.62}[scale]
    assert float(table(done.stdout, "Memory at the peak")["training full_base"]["gradients"]) == pytest.approx(full, rel=0.01)
    assert ("WARNING: The numerics certificate" in done.stdout) == (scale == "13b")


def test_a_hub_data_set_that_is_not_here_is_stood_in_for(finished: Checkout, tmp_path: Path) -> None:
    overlay = tmp_path / "hub.yaml"
    overlay.write_text("datasets: {base: {sources: [{kind: hub, id: nobody/nothing, limit: 40, task: some}]}}\n")
    command = [str(BIN / "snakemake"), "plan", "--config", "results=planned", "--configfile", "tests/workflow/tiny.yaml"]
    command += [str(finished.tiny), str(overlay)]
    done = subprocess.run(command, cwd=finished.root, capture_output=True, text=True, check=True, env=environment())
    assert "The hub data set 'nobody/nothing' is not on this machine: 40 examples of 150 + 150 tokens are assumed" in done.stdout
    assert int(table(done.stdout, "Trainings")["base"]["of completions"]) == pytest.approx(2 * 16 * 151, rel=0.02)
