"""A family of 2,400 runs is planned within seconds, each point a job of each stage."""

import re
import resource
import subprocess
from pathlib import Path

import yaml
from checkout import BIN, environment
from tiny import ROOT

from swift_study.config import configure
from swift_study.planning.costs import read_jobs

FAMILY = {
    "like": "base",
    "schedule": [{"base": {"examples": "{n}"}}],
    "checkpoint_every": None,
    "warmup_steps": 0,
    "export_second_moments": False,
    "grid": {
        "n": [8 * k for k in range(1, 21)],
        "rate": {f"{k}e-5": {"learning_rate": k * 1e-5} for k in range(1, 13)},
        "seed": list(range(10)),
    },
}


def test_2400_runs_with_an_evaluation_and_a_scorer_are_planned_in_time(tmp_path: Path) -> None:
    """9,600 jobs and what they are made from, in the processor's own seconds, which other work on the machine does not change."""
    values = {"results": str(tmp_path / "results"), "runs": {"many": FAMILY}}
    (tmp_path / "many.yaml").write_text(yaml.safe_dump(values))
    points = configure(values, ROOT / "studies").named("many")
    assert len(points) == 2400
    targets = [f"{tmp_path}/results/scores/{p.path}/evaluation=questions/scorer=key_points/scores.parquet" for p in points]
    began = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [str(BIN / "snakemake"), "-n", "--nolock", *targets, "--configfile", str(tmp_path / "many.yaml")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=environment())
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = ended.ru_utime + ended.ru_stime - began.ru_utime - began.ru_stime
    counts = {rule: int(n) for rule, n in re.findall(r"^(\w+) +(\d+)$", done.stdout, re.MULTILINE)}
    assert {counts[rule] for rule in ("make_schedule", "train", "respond", "score")} == {2400}
    trained = {job.wildcards["run"] for job in read_jobs(done.stdout) if job.rule == "train"}
    assert trained == {p.path for p in points}
    assert seconds < 120
    print(f"{sum(counts.values()) - counts['total']} jobs in {seconds:.0f} s")


def test_checkpoints_that_are_not_kept_are_outputs_for_now(tmp_path: Path) -> None:
    """The dry run tells what would be removed, and only of families that say so."""
    runs = {"proxy_in_plain": {"keep": "none"}, "gone": {"like": "proxy_in_plain", "keep": "none", "grid": {"seed": [1, 2]}}}
    runs["ends"] = {"like": "proxy_in_plain", "keep": "last"}
    (tmp_path / "keep.yaml").write_text(yaml.safe_dump({"results": str(tmp_path / "results"), "runs": runs}))
    targets = [
        f"{tmp_path}/results/scores/{run}/evaluation=questions/scorer=likelihood/scores.parquet"
        for run in ("proxy_in_plain", "gone/seed=1", "proxy_cross_cot", "ends")
    ]
    command = [str(BIN / "snakemake"), "-n", "--nolock", *targets, "--configfile", str(tmp_path / "keep.yaml")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, env=environment())
    jobs = {(job.rule, job.wildcards["run"]) for job in read_jobs(done.stdout) if job.rule.startswith("train")}
    # proxy_cross_cot is like proxy_in_plain, and so in this as well.
    assert jobs == {
        ("train", "base"),
        ("train", "ends"),
        *(("train_for_now", run) for run in ("proxy_in_plain", "gone/seed=1", "proxy_cross_cot")),
    }
