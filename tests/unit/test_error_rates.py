"""The benchmark of the verdict's error rates: a quick run of it, its worlds, and that it fails where verdicts are wrong too often."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import polars as pl
import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

import error_rates  # noqa: E402
import null_pool  # noqa: E402
from null_studies import CONTROL, NULLS, STRATEGY, pairs_of, plant, simulate  # noqa: E402

from swift_study.config import Statistics  # noqa: E402
from swift_study.influence.pairs import GradientFile, pairs_at_checkpoint  # noqa: E402


def quick(part: str, tmp_path: Path) -> tuple[subprocess.CompletedProcess[str], Path]:
    document = tmp_path / "error_rates.md"
    document.write_text("before\n" + "\nold\n".join(error_rates.MARKS) + "\nafter\n")
    command = [
        sys.executable,
        str(ROOT / "benchmarks" / "error_rates.py"),
        "--only",
        part,
        "--quick",
        "--out",
        str(tmp_path),
        "--docs",
        str(document),
    ]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(command, capture_output=True, text=True, timeout=500, check=False, env=environment), document


def test_a_quick_run_writes_rates_and_puts_its_tables_into_the_document(tmp_path: Path) -> None:
    run, document = quick("simulation", tmp_path)
    assert run.returncode == 0, run.stderr
    result = json.loads((tmp_path / "error_rates.json").read_text())
    assert len(result["false"]) == len(NULLS) * 2 * 3
    for row in result["false"]:
        assert row["interval"][0] <= row["rate"] <= row["interval"][1]
        assert row["rate"] == pytest.approx(row["helps"] + row["hurts"])
    assert {r["planted_sd"] for r in result["power"]} == set(error_rates.PLANTED)
    text = document.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    assert error_rates.tables(result) in text


def test_the_document_holds_the_tables_of_the_stored_result_and_says_where_the_rule_does_not_hold() -> None:
    result = json.loads((ROOT / "benchmarks" / "error_rates.json").read_text())
    assert set(result) >= {"false", "power", "real"}
    document = (ROOT / "docs" / "error_rates.md").read_text()
    assert error_rates.tables(result) in document
    (exceeding,) = error_rates.exceeding([*result["false"], *result["real"]], 0.05)
    assert exceeding == "skewed effects, 36 × 1, in-task, rel_inf: 140 of 2000 verdicts are wrong."
    assert "**Where effects differ between tasks and are skewed, it does not hold**" in document
    assert "in 7.0% [5.9, 8.2] of 36" in document


def test_a_rule_that_is_wrong_too_often_is_found_out() -> None:
    """At a confidence of 0.7 the verdicts that count as 5% are wrong in some 30% of studies."""
    counts = error_rates.simulated_counts("even", 12, 1, 0, 60, Statistics(after_step=0, resamples=200, confidence=0.7))
    row = {"tasks": 12, "per_task": 1, "world": "even", "null": True, **error_rates.rates(counts, 60, "rel_inf", "in-task")}
    (sentence,) = error_rates.exceeding([row], 0.05)
    assert sentence == f"even, 12 × 1, in-task, rel_inf: {row['wrong']} of 60 verdicts are wrong."
    assert error_rates.exceeding([row], 0.3) == []
    assert error_rates.exceeding([row | {"null": False}], 0.05) == []


def test_a_document_without_marks_is_refused() -> None:
    with pytest.raises(ValueError, match="The document lacks the lines"):
        error_rates.insert("text", "tables")


def test_pairs_are_those_that_the_workflow_would_make_of_the_same_gradients() -> None:
    rng = np.random.default_rng(0)
    gradients = rng.standard_normal((3, 12, 5))  # two tasks with two probes of each set and two targets
    probes, targets = gradients[:, :8], gradients[:, 8:]
    tokens = rng.integers(2, 30, 12)
    squared = np.square(gradients).sum(axis=2)
    panel = error_rates.null_pool.Panel(
        probes @ targets.transpose(0, 2, 1), squared[:, :8], squared[:, 8:], tokens[:8], tokens[8:]
    )  # fmt: skip
    ours = pairs_of(panel, 2, 2)
    tasks = ["000", "000", "001", "001"]
    theirs = []
    for step in range(3):
        rows = pl.DataFrame(
            {
                "step": [step] * 12,
                "dataset": [STRATEGY] * 4 + [CONTROL] * 4 + ["targets"] * 4,
                "example_id": [f"{name}.{t}.{k % 2}" for name in (STRATEGY, CONTROL, "targets") for k, t in enumerate(tasks)],
                "task": tasks * 3,
                "norm_sq": squared[step],
                "n_tokens": tokens,
            }
        )
        file = GradientFile(Path("gradients"), rows.with_row_index("row"), gradients[step], {})
        names = {name: name for name in (STRATEGY, CONTROL)}
        found = pairs_at_checkpoint(file, "null", "base", names, {"targets": "targets"}, 0.0)
        theirs += [frame.cast({pl.Enum: pl.String}) for frame in found]
    keys = ["probe_set", "probe_id", "target_id", "context"]
    expected = pl.concat(theirs).group_by(keys).agg(pl.col("rel_inf", "cosine").mean(), pl.col("probe_tokens", "target_tokens").first())
    ours = ours.with_columns(pl.format("targets.{}", "target_id").alias("target_id"))
    both = ours.join(expected, on=keys, suffix="_expected")
    assert both.height == expected.height == 32
    for column in ("rel_inf", "cosine", "probe_tokens", "target_tokens"):
        assert both[column].to_list() == pytest.approx(both[f"{column}_expected"].to_list())


def test_the_worlds_are_as_they_are_described() -> None:
    rng = np.random.default_rng(1)
    for name, null in NULLS.items():
        pairs = pl.concat([pairs_of(simulate(null, 24, 1, rng), 24, 1) for _ in range(40)])
        means = pairs.group_by("context").agg(pl.col("cosine").filter(pl.col("probe_set") == CONTROL).mean())
        in_task, cross_task = (means.filter(pl.col("context") == c)["cosine"].item() for c in ("in-task", "cross-task"))
        assert 0.08 < in_task < 0.3, name
        assert -0.01 < cross_task < 0.06, name
        lengths = pairs.group_by("probe_set").agg(pl.col("probe_tokens").mean()).sort("probe_set")["probe_tokens"].to_list()
        assert lengths[1] / lengths[0] == pytest.approx(null.longer, rel=0.25), name
    shifted = plant(pairs, 0.5).group_by("probe_set").agg(pl.col("rel_inf").mean()).sort("probe_set")["rel_inf"]
    before = pairs.group_by("probe_set").agg(pl.col("rel_inf").mean()).sort("probe_set")["rel_inf"]
    assert (shifted - before).to_list() == pytest.approx([0.0, 0.5])


def fake_pool() -> null_pool.Pool:
    """Four families with 6 plain and 4 shuffled examples each, numbered in their token counts."""
    family = np.repeat(np.arange(4), 10)
    number = np.tile([*range(6), *range(4)], 4)
    shuffled = np.tile([False] * 6 + [True] * 4, 4)
    vectors = np.random.default_rng(2).standard_normal((2, 40, 3))
    return null_pool.Pool(vectors @ vectors.transpose(0, 2, 1), family, number, shuffled, np.arange(40))


@pytest.mark.parametrize("shuffled", [False, True])
def test_a_panel_takes_examples_of_one_subpool_once_each_and_labels_them_by_chance(shuffled: bool) -> None:
    pool, rng = fake_pool(), np.random.default_rng(3)
    seen: Counter[int] = Counter()
    for _ in range(50):
        panel = null_pool.draw(pool, shuffled, 3, 1, 1, 2, rng)
        probes, targets = panel.probe_tokens, panel.target_tokens
        assert len({*probes, *targets}) == 9
        assert (pool.number[[*probes, *targets]] % 2 == 1).all()
        assert (pool.shuffled[probes] == shuffled).all()
        assert not pool.shuffled[targets].any()
        assert (pool.family[probes] == np.tile(pool.family[targets], 2)).all()
        assert panel.dots == pytest.approx(pool.grams[:, probes[:, None], targets[None, :]])
        seen.update(probes[:3].tolist())
    assert len(seen) == (4 * 2 if shuffled else 4 * 3)  # each of a sub-pool's probes is the strategy's in some panel


def test_interval_over_subpools() -> None:
    same = error_rates.clustered([0.04, 0.04, 0.04], 300)
    assert same == {"rate": pytest.approx(0.04), "interval": (pytest.approx(0.04), pytest.approx(0.04)), "effective_draws": 300}
    apart = error_rates.clustered([0.02, 0.06], 2000)
    assert apart["effective_draws"] == round(0.04 * 0.96 / 0.02**2)
    assert apart["interval"] == (0.0, pytest.approx(0.04 + 12.706 * 0.02, abs=1e-4))
