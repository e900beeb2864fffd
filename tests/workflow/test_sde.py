"""The SDE collection on a tiny model: designs as factors of runs and evaluations, from the records to the agreement."""

from pathlib import Path

import polars as pl
import pytest
import yaml
from checkout import Checkout, make_checkout

from swift_study.io.tables import RANK_AGREEMENT, read_table

TARGETS = ("sde_options", "sde_ner", "sde_agreement")


@pytest.fixture(scope="module")
def sde(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    checkout = make_checkout(tmp_path_factory.mktemp("sde") / "swift-study", tiny_model)
    model = {"name": str(tiny_model)}
    values = yaml.safe_load((checkout.root / "tests/workflow/sde.yaml").read_text())
    values["models"] = {"sde_model": values["models"]["sde_model"] | model, "sde_exact": model}
    (checkout.root / "sde.yaml").write_text(yaml.safe_dump(values, allow_unicode=True))
    checkout.snakemake(*TARGETS, configs=("sde.yaml",))
    return checkout


def studies(sde: Checkout) -> Path:
    return sde.root / "results/studies"


def test_every_design_is_asked_in_its_own_form_and_paired_by_review(sde: Checkout) -> None:
    table = pl.read_parquet(studies(sde) / "sde_options/table.parquet").filter(pl.col("metric") == "kappa")
    assert table["row"].unique(maintain_order=True).to_list() == ["Inst-last", "JSON", "CoT"]
    assert set(table["evaluation"]) == {"sde_in_domain", "sde_out_of_domain"}
    assert set(table["n"]) == {4}
    against = dict(table.filter(pl.col("against").is_not_null()).select("row", "against").iter_rows())
    assert against == {"JSON": "Inst-last", "CoT": "JSON"}
    assert "What does each option of a sample design change" in (studies(sde) / "sde_options/page.html").read_text(encoding="utf-8")
    forms = {
        mode: pl.read_parquet(sde.root / f"results/data/masa_d1_test.describe.sde_{mode}.parquet") for mode in ("inst_last", "json_cot")
    }
    assert forms["inst_last"]["root_id"].to_list() == forms["json_cot"]["root_id"].to_list()
    asked = {mode: of["messages"].list.last().struct.field("content")[0] for mode, of in forms.items()}
    assert asked["inst_last"].startswith("food: ")
    assert asked["json_cot"].startswith('{"aspect": "food", "description": ')


def test_errors_of_format_are_counted_by_kind(sde: Checkout) -> None:
    """A model without training writes no format: every response is wrong, and none is dropped."""
    (path,) = sde.root.glob("results/scores/sde_tasks/problem=ner/strategy=es/**/scorer=sde_entities/scores.parquet")
    sums = dict(pl.read_parquet(path).group_by("statistic").agg(pl.col("value").sum()).iter_rows())
    assert sums["n"] == 4
    assert sums["wf"] == sums["wf_empty"] + sums["wf_unparsable"] + sums["wf_unknown"] > 0


def test_predictors_and_outcomes_of_the_designs_stand_side_by_side(sde: Checkout) -> None:
    agreement = pl.read_parquet(studies(sde) / "sde_agreement/agreement.parquet")
    assert agreement["item"].to_list() == ["Inst-last", "JSON", "CoT"]  # the rows of the designs that are trained
    for number in (
        "swift",
        "swift_values",
        "swift_own",
        "swift_other_domain",
        "prompt_perplexity",
        "output_perplexity",
        "zero_shot",
        "in_context",
    ):
        assert agreement[number].is_not_null().all(), number
    ranks = read_table(studies(sde) / "sde_agreement/rank_agreement.parquet", RANK_AGREEMENT)
    assert {"swift", "output_perplexity"} <= set(ranks["predictor"])


def test_another_option_of_one_design_reruns_its_descendants_only(sde: Checkout, tmp_path: Path) -> None:
    assert sde.is_finished(*TARGETS, configs=("sde.yaml",))
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text(yaml.safe_dump({"designs": {"sde_json": {"options": {"instruction": "Aspects?"}}}}))
    jobs = sde.jobs("-n", *TARGETS, configs=("sde.yaml", str(overlay)))
    own = [job for job in jobs if job.startswith(("apply_design", "train", "respond", "score", "make_schedule"))]
    assert own
    assert all("json" in job.replace("json_cot", "").replace("json_r_cot", "") for job in own), own
    assert not [job for job in jobs if job.startswith(("load_dataset", "apply_strategy", "find_model"))]
