"""What depends on what: the questions that rules ask of a configuration."""

import json
from typing import Any

import pytest
from configuration import configured

from swift_study.config import Graph

TEACHER = {"endpoints": {"teacher": {"base_url": "http://localhost:1/v1", "model": "m", "concurrency": 3}}}


@pytest.fixture(scope="module")
def default() -> Graph:
    return Graph(configured())


def with_run(settings: dict[str, Any], **sections: Any) -> Graph:
    return Graph(configured({"runs": {"mine": {"like": "base", **settings}}, **sections}))


def test_a_run_has_seen_what_the_run_before_it_was_trained_on() -> None:
    graph = with_run({"start": "base", "schedule": [{"base.cot": {}}, {"base": {}, "base.cot": {}}]})
    assert graph.scheduled("mine") == ["base.cot", "base"]
    before = graph.scheduled("base")
    assert graph.seen("mine") == list(dict.fromkeys([*before, "base.cot", "base"]))
    assert graph.started_from("mine") == ["results/runs/base/checkpoints"]
    assert graph.started_from("base") == []
    assert graph.stops_by("mine") == []
    assert with_run({"early_stopping": {"dataset": "questions"}}).stops_by("mine") == ["results/data/questions.parquet"]


def test_lengths_are_those_of_the_runs_model() -> None:
    graph = with_run({"model": "second"}, models={"second": {"max_length": 99}})
    assert graph.lengths("mine", ["base", "panel"]) == ["results/lengths/second/base.parquet", "results/lengths/second/panel.parquet"]
    assert graph.model("second").max_length == 99
    assert graph.model("main").max_length == graph.config.model.max_length
    shown = graph.lengths_shown(["mine", "base"], ["panel"])
    assert len(shown) == len(set(shown)) == 2 * (len(graph.scheduled("base")) + 1)


def test_a_model_is_told_what_is_trained_on_it_once(default: Graph) -> None:
    trained = default.trained_on("main")
    assert [settings["method"] for settings, _ in trained] == ["lora"]
    assert trained[0][1] == {"scope": "lora", "modules": None}
    assert default.gradients_of("full_base/seed=17/model=main") is None  # no influence study looks at it


def test_analogues_are_those_of_the_first_dataset_of_a_name(default: Graph) -> None:
    assert default.analogues("panel.cot") == ["results/data/panel.analogues.parquet"]
    assert default.analogues("base") == []


def test_a_teachers_replies_are_counted_where_it_made_the_dataset() -> None:
    config = configured(TEACHER | {"strategies": {"cot": {"by": "teacher"}}})
    graph = Graph(config)
    assert graph.has_teacher()
    assert graph.accounts(["base", "base.cot", "panel.similar.cot", "base.clarify"]) == [
        "results/data/accounts/base.cot.parquet", "results/data/accounts/panel.similar.cot.parquet",
    ]  # fmt: skip
    teacher = graph.teacher("cot")
    assert teacher is not None
    assert teacher.concurrency == 3
    assert graph.teacher("clarify") is None


def test_what_a_selection_reads(default: Graph) -> None:
    selection = default.selection(next(iter(default.made_by)))
    scores = default.selecting_scores(selection)
    assert scores
    assert all(path.startswith("results/scores/base/evaluation=tried/") for path in scores)
    assert default.selecting_file(selection) == []
    assert default.files.dataset(selection.examples) in default.chosen_among(selection)
    made = next(iter(default.made_by))
    assert default.selections_of(["base", made, made]) == [selection]
    assert default.rejects([made, "base", "base.plain"]) == [f"results/data/rejects/{name}.parquet" for name in ("base", "base.plain")]


def test_a_study_holds_out_its_panel_or_its_evaluations(default: Graph) -> None:
    assert default.held_out("cot") == default.panel("cot")
    assert default.held_out("table2") == default.evaluated("table2") == ["questions"]
    assert default.seen_before("cot") == default.seen("base")
    assert set(default.seen_before("table1")) == {d for run in default.runs_of("table1") for d in default.seen(run)}
    assert not set(default.held_out("table1")) & set(default.seen_before("table1"))


def test_scorers_stand_under_one_rule_each(default: Graph) -> None:
    names = [set(default.scorers_that_need(need).split("|")) for need in (None, "model", "endpoint")]
    assert set.union(*names) - {"-"} == set(default.config.scorer_names())
    assert sum(len(own - {"-"}) for own in names) == len(default.config.scorer_names())
    assert {"likelihood", "perplexity"} <= names[1]  # whatever else they need beside the model
    run = "full_base/seed=17/model=main"
    assert default.responses_read("likelihood", "questions", run) == []
    assert default.responses_read("key_points", "questions", run) == [
        f"results/responses/{run}/evaluation=questions/responses.parquet",
    ]  # fmt: skip


def test_a_study_ends_in_its_tables_in_every_format(default: Graph) -> None:
    ends = default.ends("table1")
    assert {f"results/studies/table1/table.{kind}" for kind in ("parquet", "csv", "md")} <= {*ends}
    assert "results/studies/cot/verdicts.parquet" in default.ends("cot")
    assert set(default.of_kind("agreement").split("|")) == {"agreement", "sde_agreement"}
    assert default.of_kind("correlation") == "-"


def test_words_are_no_part_of_what_is_compared() -> None:
    def told(values: dict[str, Any]) -> tuple[str, str]:
        graph = Graph(configured({"studies": {"cot": values}}))
        return graph.compared("cot").model_dump_json(), json.dumps(graph.told_without_words("cot"))

    assert told({"question": "Other words?", "caption": "Other ones."}) == told({})
    assert told({"probes": {"more": "panel.similar"}})[0] != told({})[0]


def test_a_study_has_its_own_first_step() -> None:
    def after_step(values: dict[str, Any]) -> int:
        return Graph(configured({"statistics": {"after_step": 3}, "studies": {"cot": values}})).statistics("cot").after_step

    assert after_step({"after_step": 5}) == 5
    assert after_step({"after_step": None}) == 3


def test_an_agreement_reads_the_tables_of_its_studies(default: Graph) -> None:
    sources = default.sources("agreement")
    assert set(sources) == {*default.agreement("agreement").sources()}
    assert sources["cot"]["pairs"] == "results/studies/cot/pairs.parquet"
    assert "claims" not in sources["cot"]["settings"]
    assert sources["table2"]["manifest"] == "results/studies/table2/manifest.parquet"
    assert default.comparisons("agreement") == [name for name in sources if default.config.studies[name].kind == "comparison"]
    assert len(default.source_files("agreement")) == 3 * 3 + len(default.comparisons("agreement"))
