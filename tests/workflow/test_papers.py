"""Small configurations of what three other papers need (tests/workflow/papers), by configuration alone: each is a whole DAG."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from checkout import BIN, environment, jobs_in
from configuration import STUDIES, merged
from tiny import ROOT

from swift_study.config import Config, gather, lay, load

PAPERS = sorted((ROOT / "tests/workflow/papers").glob("*.yaml"))


def values(upto: Path) -> dict[str, Any]:
    """The default configuration, and over it the files up to this one: later ones build on earlier ones."""
    whole = merged()
    for path in PAPERS[: PAPERS.index(upto) + 1]:
        whole = lay(whole, yaml.safe_load(path.read_text(encoding="utf-8")))
    return whole


@pytest.fixture(scope="module")
def config() -> Config:
    return load(gather(values(PAPERS[-1]), STUDIES).values)


@pytest.mark.parametrize("path", PAPERS, ids=lambda path: path.stem)
def test_each_is_accepted_without_those_after_it(path: Path) -> None:
    load(gather(values(path), STUDIES).values)


def test_all_of_them_are_one_dag(config: Config) -> None:
    targets = [name for path in PAPERS for name in (yaml.safe_load(path.read_text(encoding="utf-8")).get("studies") or {})]
    assert len(PAPERS) == 15
    command = [str(BIN / "snakemake"), "-n", *targets, "--configfile", *map(str, PAPERS)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=environment())
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    counts = dict(re.findall(r"^(\w+) +(\d+)$", done.stdout, re.MULTILINE))
    assert counts["train_for_now"] == "1"  # keep: none
    jobs = jobs_in(done.stdout)
    trained = [job.split()[1] for job in jobs if job.startswith("train ")]
    assert len(trained) == int(counts["train"]) == len(set(trained))
    # Without samples the task does not matter: one run for each seed, and each of the others.
    assert sum(run.startswith("specialise/") for run in trained) == 2 * (1 + 2 * 2)
    # The judge is asked for every run, prompt set and decoding seed; only likelihoods are asked of a model.
    assert int(counts["score_with_endpoint"]) == 4 * 2 * 2 * 3
    # An option of a design that is not asked out of domain.
    assert not [job for job in jobs if "mode=no_instruction" in job and "domain=d1" in job and "asked=d2" in job]
    for study in targets:
        assert f"results/studies/{study}/" in done.stdout


def test_points_are_what_their_grid_says(config: Config) -> None:
    assert [config.run(p.path).loss_on for p in config.named("masks")] == ["all", "completion", "values"]
    assert all(p.run.schedule == [] for p in config.named("untuned"))
    starts = {(p.run.seed, p.run.start) for p in config.named("sequential")}
    assert len(starts) == 2
    assert all(config.run(start).seed == seed and start.startswith("specialise/") for seed, start in starts)
    assert {config.run(p.path).model for p in config.named("integrated")} == {"main", "second"}
    assert len(config.named("forms")) == 2 * 3 * 2 * 2
