"""The configuration: one source of truth, every key commented, every mistake told by a sentence that names the key."""

import itertools
import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from configuration import STUDIES, configured, merged
from snakemake.utils import update_config

from swift_study.config import (
    AgreementStudy,
    ComparisonStudy,
    Config,
    FileSource,
    Part,
    chosen,
    configure,
    default_yaml,
    gather,
    load,
    schema_json,
)
from swift_study.config.renamed import RENAMED
from swift_study.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
DEFAULTS = ROOT / "config.default.yaml"
OVERLAYS = sorted((ROOT / "scales").glob("*.yaml"))
STUDY = {
    "question": "Does it help?",
    "probes": {"A": "panel.cot", "B": "panel"},
    "targets": {"B": "panel.similar"},
    "kind": "influence",
    "control": "B",
    "figures": {"figure": ["in-task"]},
}
RUN = {"batch_size": 8, "micro_batch_size": 4, "epochs": 2, "checkpoint_every": 4, "warmup_steps": 2}


def problems(values: dict[str, Any]) -> str:
    with pytest.raises(UserError) as caught:
        configure(values, STUDIES)
    return str(caught.value)


def at(path: str, value: Any) -> dict[str, Any]:
    """A configuration in which one key has this value; numbers in the path are positions in a list."""
    for part in reversed(path.split(".")):
        value = [value] if part.isdigit() else {part: value}
    assert isinstance(value, dict)
    return value


# ---- the three that must be the same: the models, config.yaml, config.schema.json ----


def test_config_yaml_is_written_from_the_models() -> None:
    assert DEFAULTS.read_text(encoding="utf-8") == default_yaml()


def test_schema_is_written_from_the_models() -> None:
    assert (ROOT / "config.schema.json").read_text(encoding="utf-8") == schema_json()


def test_the_reference_holds_every_key_with_its_default() -> None:
    values = yaml.safe_load(DEFAULTS.read_text(encoding="utf-8"))
    assert load(values) == load({}) == Config()
    # Not only the same after validation: the same keys, values and types, so that no default is left unsaid.
    assert values == json.loads(Config().model_dump_json())


def test_config_yaml_changes_nothing_and_is_short() -> None:
    text = (ROOT / "config.yaml").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 60
    assert configured() == configure({}, STUDIES)
    # What stands there as an example works.
    examples = yaml.safe_load("\n".join(line[2:] for line in text.splitlines() if re.match(r"# (\w+: \{| {6,})", line)))
    assert len(examples) > 2
    configured(examples)


def test_every_key_of_the_reference_is_commented() -> None:
    lines = DEFAULTS.read_text(encoding="utf-8").splitlines()
    keys = 0
    for above, line in itertools.pairwise(lines):
        match = re.match(r"((?:# )? *)(\w+):", line)
        if match is None or match[2] == "NAME":
            continue
        keys += 1
        assert re.fullmatch(rf"{match[1]}# (.+)", above), f"{line.strip()!r} has no comment"
    assert keys > 200


def test_every_key_has_a_meaning_in_the_schema() -> None:
    schema = json.loads(schema_json())
    for name, model in {"Config": schema, **schema["$defs"]}.items():
        for key, field in model["properties"].items():
            assert len(field.get("description", "")) > 3, f"{name}.{key}"


def test_the_keys_of_an_endpoint_stand_in_the_reference_as_comments() -> None:
    section = default_yaml().split("\n# endpoints:\n#   NAME:\n")[1].split("\n\n")[0]
    keys = re.findall(r"^#     (\w+):", section, re.MULTILINE)
    assert set(keys) == set(schema_of("EndpointSettings")["properties"])


def schema_of(model: str) -> dict[str, Any]:
    definition: dict[str, Any] = json.loads(schema_json())["$defs"][model]
    return definition


def by_schema(values: dict[str, Any]) -> list[str]:
    validator = jsonschema.Draft202012Validator(json.loads(schema_json()))
    return [error.message for error in validator.iter_errors(values)]


def test_schema_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(json.loads(schema_json()))


@pytest.mark.parametrize("overlay", [None, *OVERLAYS], ids=lambda p: p.stem if p else "config")
def test_schema_and_models_accept_what_comes_with_the_project(overlay: Path | None) -> None:
    values = gather(merged(*[overlay] if overlay else []), STUDIES).values
    assert by_schema(values) == []
    load(values)


@pytest.mark.parametrize(
    "values",
    [
        at("modle", {}),
        at("model.nam", "x"),
        at("model.max_length", 8),
        at("model.overlong", "cut"),
        at("runs.base.lora.rank", "many"),
        at("datasets.base.sources.0", {"kind": "file"}),
        at("datasets.base.sources.0", {"kind": "web", "id": "x"}),
        at("studies.mine", {key: STUDY[key] for key in ("question", "probes")}),
        at("statistics.confidence", 1.0),
        at("studies", None),
    ],
    ids=str,
)
def test_schema_and_models_refuse_the_same(values: dict[str, Any]) -> None:
    assert by_schema(values) != []
    problems(values)


# ---- mistakes ----


@pytest.mark.parametrize(
    ("path", "nearest"),
    [
        ("modle", "model"),
        ("model.max_lenght", "max_length"),
        ("datasets.panel.wher", "where"),
        ("datasets.panel.per_tasks", "per_task"),
        ("datasets.base.sources.0.famillies", "families"),
        ("runs.base.lora.rnk", "rank"),
        ("runs.another.learning_rat", "learning_rate"),
        ("strategies.cot.fil", "file"),
        ("studies.mine.contorl", "control"),
        ("endpoints.teacher.budget_us", "budget_usd"),
        ("statistics.norm_flor", "norm_floor"),
        ("gradients.represantation", "representation"),
        ("selections.chosen.outputs.negative.completon", "completion"),
    ],
)
def test_unknown_key_is_refused_with_its_path_and_the_nearest_known(path: str, nearest: str) -> None:
    values = at(path, 1)
    if "sources" in path:
        values["datasets"]["base"]["sources"][0]["kind"] = "generator"
    if path.startswith("studies.mine"):
        values["studies"]["mine"]["kind"] = "influence"
    assert f"unknown key `{path}` (did you mean '{nearest}'?)" in problems(values)


def test_unknown_key_that_is_like_no_other_has_no_suggestion() -> None:
    assert problems({"zzzzzz": 1}).splitlines() == ["The configuration is not valid:", "  - unknown key `zzzzzz`"]


@pytest.mark.parametrize(
    ("source", "sentences"),
    [
        (
            {"kind": "file", "pth": "x.jsonl"},
            ["`datasets.base.sources.0.path` is missing", "unknown key `datasets.base.sources.0.pth` (did you mean 'path'?)"],
        ),
        (
            {"kind": "hub", "id": "x", "spilt": "test"},
            ["unknown key `datasets.base.sources.0.spilt` (did you mean 'split'?)"],
        ),
        (  # a key of another kind of source is no suggestion
            {"kind": "generator", "limit": 3},
            ["unknown key `datasets.base.sources.0.limit`"],
        ),
        (
            {"kind": "file", "path": "x", "columns": {"prompt": {"colum": "q"}}},
            [
                "`datasets.base.sources.0.columns.prompt.column` is missing",
                "unknown key `datasets.base.sources.0.columns.prompt.colum` (did you mean 'column'?)",
            ],
        ),
        (
            {"kind": "file", "path": "x", "columns": {"completion": 3}},
            ["`datasets.base.sources.0.columns.completion`: Input should be a valid string (it is 3)"],
        ),
        (
            {"kind": "file", "path": "x", "columns": {"completion": {"column": "a", "remove": "<<(.*"}}},
            [
                "`datasets.base.sources.0.columns.completion.remove`: '<<(.*' is not a regular expression: "
                "missing ), unterminated subpattern at position 2"
            ],
        ),
        (
            {"kind": "file", "path": "x", "columns": {"completion": {"column": "a", "pattern": "#### .*"}}},
            ["`datasets.base.sources.0.columns.completion.pattern`: '#### .*' has no group ( ) for what is to be taken"],
        ),
        (
            {"kind": "file", "path": "x", "columns": {"prompt": ["a", 3, {"colum": "q"}], "system": []}},
            [
                "`datasets.base.sources.0.columns.prompt.1`: Input should be a valid string (it is 3)",
                "`datasets.base.sources.0.columns.prompt.2.column` is missing",
                "unknown key `datasets.base.sources.0.columns.prompt.2.colum` (did you mean 'column'?)",
                "`datasets.base.sources.0.columns.system`: List should have at least 1 item after validation, not 0 (it is [])",
            ],
        ),
    ],
    ids=["file", "hub", "generator", "column", "column type", "no expression", "no group", "several columns"],
)
def test_mistakes_in_a_source_are_named_as_the_user_wrote_them(source: dict[str, Any], sentences: list[str]) -> None:
    lines = problems(at("datasets.base.sources.0", source)).splitlines()[1:]
    assert lines == [f"  - {sentence}" for sentence in sentences]


@pytest.mark.parametrize("source", [{"path": "x"}, {"kind": "fil", "path": "x"}])
def test_source_without_a_known_kind_is_refused(source: dict[str, Any]) -> None:
    text = problems(at("datasets.panel.sources.0", source))
    assert "`datasets.panel.sources.0" in text
    assert "kind" in text


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        ("runs.base.epochs", "three", "integer"),
        ("runs.base.betas", [0.9], "betas.1` is missing"),
        ("runs.base.learning_rate", 0, "greater than 0"),
        ("model.trust_remote_code", "perhaps", "boolean"),
        ("model.overlong", "cut", "'error', 'skip' or 'truncate'"),
        ("datasets.panel.tasks", "logic", "list"),
        ("near_duplicate", 1.5, "less than or equal to 1"),
        ("model", 3, "dictionary"),
        ("studies", [], "dictionary"),
    ],
)
def test_wrong_value_is_told_with_its_path(path: str, value: Any, told: str) -> None:
    text = problems(at(path, value))
    assert f"`{path}" in text
    assert told in text


def test_all_mistakes_are_told_at_once() -> None:
    text = problems({"model": {"nam": 1, "dtype": "float16"}, "runs": {"base": {"epochs": 0}}})
    assert [line.count("`") for line in text.splitlines()[1:]] == [2, 2, 2]


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (
            {"datasets": {"base": {"examples": 32}}, "runs": {"base": RUN | {"processes": 3}}},
            "runs.base.batch_size 8 is not a multiple of processes × micro_batch_size = 3 × 4",
        ),
        (
            {"datasets": {"base": {"examples": 32}}, "runs": {"base": RUN | {"warmup_steps": 8}}},
            "runs.base.warmup_steps 8 is not below the 8 steps of the run",
        ),
        (
            {"runs": {"in_pos": {"early_stopping": {"dataset": "questions.similr"}}}},
            "runs.in_pos.early_stopping.dataset: unknown dataset 'questions.similr'",
        ),
        (
            {"runs": {"in_pos": {"early_stopping": {"dataset": "questions.similar"}}}},
            "runs.in_pos.early_stopping.dataset: the run is trained on 'questions.similar'",
        ),
        (
            {"studies": {"table1": {"figure": {"kind": "heat_map", "rows": "modle"}}}},
            "studies.table1.figure.rows: there is no factor 'modle' (did you mean 'model'?); known: row, evaluation, model",
        ),
        (
            {"studies": {"table1": {"figure": {"kind": "heatmap"}}}},
            "`studies.table1.figure.kind` is 'heatmap' (did you mean 'heat_map'?); it is one of bars, heat_map, scatter",
        ),
        ({"studies": {"table1": {"figure": {"levels": "accuracy"}}}}, "`studies.table1.figure.kind` is missing; it is one of bars, heat"),
        (
            {"runs": {"in_pos": {"publish": "best"}}},
            "runs.in_pos.publish is 'best', but nothing says on which dataset; set runs.in_pos.early_stopping",
        ),
        (
            {"runs": {"in_pos": {"publish": "best", "early_stopping": {"dataset": "panel"}, "checkpoint_every": 4}}},
            "runs.in_pos.publish: 'best' publishes one checkpoint; set runs.in_pos.checkpoint_every to null, or keep to last",
        ),
        (
            {"runs": {"base": {"early_stopping": {"dataset": "panel"}}}},
            "an influence study reads all checkpoints up to the end of the schedule, and 'base' may stop before",
        ),
        (
            {"runs": {"in_pos": {"optimizer": "lion", "export_second_moments": True}}},
            "runs.in_pos.export_second_moments: lion has no second moments",
        ),
        (
            {"studies": {"mine": STUDY | {"run": "bsae"}}},
            "studies.mine.run: there is no run 'bsae'",
        ),
        (
            {"studies": {"mine": STUDY | {"targets": {"T": "panel.similr"}}}},
            "studies.mine: unknown dataset 'panel.similr' (did you mean 'panel.similar'?)",
        ),
        (
            {"studies": {"mine": STUDY | {"probes": {"A": "pannel", "B": "panel"}}}},
            "studies.mine: unknown dataset 'pannel' (did you mean 'panel'?)",
        ),
        (
            {"studies": {"mine": STUDY | {"targets": {"T": "panel.unheard.similar"}}}},
            "studies.mine: unknown dataset 'panel.unheard'",
        ),
        (
            {
                "studies": {
                    "mine": STUDY | {"references": {"ceiling": {"U": "panel.similar.paraphrase"}, "floor": "panel.similar.unrelated"}}
                }
            },
            "`studies.mine`: references.ceiling names 'U', which is not one of the target sets ['B']",
        ),
        (
            {"studies": {"mine": STUDY | {"references": {"ceiling": {}, "floor": "panel.unrelted"}}}},
            "studies.mine: unknown dataset 'panel.unrelted' (did you mean 'panel.unrelated'?)",
        ),
        (
            {"studies": {"mine": STUDY | {"probes": {"A": "panel", "B": "panel.cot", "unrelated": "panel"}}}},
            "a probe set may not be called 'unrelated': that is the name of a reference",
        ),
        (
            {"studies": {"mine": STUDY | {"control": "C"}}},
            "the control 'C' is not one of the probe sets ['A', 'B']",
        ),
        (
            {"studies": {"mine": STUDY | {"probes": {"B": "panel"}}}},
            "a study needs a probe set beside its control",
        ),
        (
            {"studies": {"Mine!": STUDY}},
            "study name 'Mine!': use lower-case letters, digits and _, beginning with a letter",
        ),
        (
            {"runs": {"full_base": {"start": "full_bsae"}}},
            "runs.full_base.start: there is no run 'full_bsae' (did you mean 'full_base'?)",
        ),
        ({"runs": {"full_base": {"like": "bsae"}}}, "there is no run 'bsae' (did you mean 'base'?)"),
        ({"runs": {"base": {"like": "full_base"}}}, "the run is like itself in the end"),
        ({"runs": {"full_base": {"start": "in_pos"}}}, "the run starts from itself in the end"),
        ({"runs": {"full_base": {"start": "base"}}}, "a run starts from one of the same method"),
        ({"runs": {"mix_cot": {"schedule": [{"base.cto": {}}]}}}, "runs.mix_cot.schedule: unknown dataset 'base.cto'"),
        ({"runs": {"mix_cot": {"schedule": [{"base": {}}, {}]}}}, "runs.mix_cot.schedule: a phase is empty"),
        ({"runs": {"full_base": {"offload": "optimizer"}}}, "runs.full_base.offload: optimizer needs zero_stage 1, 2 or 3"),
        ({"runs": {"full_base": {"offload": "parameters", "zero_stage": 2}}}, "runs.full_base.offload: parameters needs zero_stage 3"),
        ({"runs": {"full_base": {"dtype": "bfloat16"}}}, "runs.full_base: all parameters in bfloat16 need zero_stage 1, 2 or 3"),
        (
            {"studies": {"mine": STUDY | {"run": "full_base"}}},
            "studies.mine.run: an influence study needs a run's checkpoints; 'full_base' publ",
        ),
        (
            {"studies": {"mine": STUDY | {"run": "whole"}}, "runs": {"whole": {"like": "base", "method": "full"}}},
            "studies.mine.run: 'whole' trains all weights and has no adapter; set gradients.scope: full",
        ),
        ({"gradients": {"modules": "(mlp"}}, "gradients.modules '(mlp' is not a regular expression: missing ), unterminated subpattern"),
        ({"gradients": {"sketch_dimensions": 100}}, "gradients.sketch_dimensions = 100 is not a power of two"),
        ({"runs": {"full_base": {"grid": {"model": ["13b"]}}}}, "runs.full_base.model: there is no model '13b'"),
        ({"validation": {"seeds": [17]}}, "`validation` has another name: write studies of the kinds comparison, agreement and audit"),
        ({"studies": {"cot": {"baseline": "CoT"}}}, "`studies.cot.baseline` has another name: write studies.<name>.control"),
        ({"studies": {"agreement": {"claims": "data/claims/cot.yaml"}}}, "unknown key `studies.agreement.claims`"),
        ({"studies": {"table1": {"only": ["Base+Cot"]}}}, "only: there is no row 'Base+Cot'"),
        ({"studies": {"table1": {"scorers": ["jugde"]}}}, "scorers/jugde.py: there is no such scorer file"),
        ({"studies": {"table1": {"rows": {"Base": "fullbase"}}}}, "there is no run 'fullbase' (did you mean 'full_base'?)"),
        (
            {"studies": {"table1": {"rows": {"Base": "full_base[n=3]"}}}},
            "'full_base[n=3]' names the factor 'n'; the factors of 'full_base' are seed, model",
        ),
        ({"studies": {"table1": {"rows": {"Base": None}}}}, "the row 'Base' is left out (null), but others are compared with it"),
        ({"studies": {"table1": {"control": "→ D"}}}, "against and control name the row '→ D', which is not one of the rows"),
        ({"studies": {"table1": {"evaluations": ["quetsions"]}}}, "studies.table1.evaluations: there is no evaluation 'quetsions'"),
        ({"studies": {"table1": {"groups": {"all": ["arc"]}}}}, "groups.all: 'arc' is no evaluation of the study and no group before it"),
        ({"studies": {"mine": {"question": "?"}}}, "`studies.mine.kind` is missing; it is one of influence, comparison, sweep"),
        (
            {"studies": {"table1": {"scorers": ["judge"]}}},
            "studies.table1.scorers: the scorer 'judge' asks an endpoint, and `endpoints.judge`",
        ),
        ({"studies": {"mine": {"kind": "comparision", "question": "?"}}}, "kind` is 'comparision' (did you mean 'comparison'?)"),
        (
            {"studies": {"agreement": {"items": {"in-task": {"CoT": {"training": {"row": "→ D"}}}}}}},
            "studies.agreement.items.in-task.CoT.training.row: 'table1' has no '→ D'",
        ),
        (
            {"studies": {"agreement": {"items": {"in-task": {"CoT": {"swift": {"row": "Cot → In-task non-CoT"}}}}}}},
            "'cot' has no 'Cot → In-task non-CoT' (did you mean 'CoT → In-task non-CoT'?)",
        ),
        ({"studies": {"agreement": {"predictors": {"swift": {"of": "swfit"}}}}}, "predictors.swift.of: no item has a place 'swfit'"),
        (
            {
                "studies": {
                    "curve": {
                        "kind": "sweep",
                        "question": "?",
                        "runs": "full_base",
                        "x": "n",
                        "evaluations": ["questions"],
                        "metrics": ["accuracy"],
                    }
                }
            },
            "studies.curve: 'full_base' has no factor 'n', which x, lines or panels name",
        ),
        ({"studies": {"all": STUDY}}, "study name 'all' is that of a target of the workflow"),
        ({"models": {"S1": {}}}, "model name 'S1': use lower-case letters, digits and _"),
        (
            {"strategies": {"similar": {}, "cot": {"by": "teacher"}}},
            "strategies.cot.by is 'teacher', but `endpoints.teacher` is not configured",
        ),
        (
            {"strategies": {"similar": {}, "cot": {"by": "file"}}},
            "`strategies.cot`: `by: file` and the key `file` go together",
        ),
        (
            {"strategies": {"similar": {}, "cot": {"file": "replies.jsonl"}}},
            "`strategies.cot`: `by: file` and the key `file` go together",
        ),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
def test_parts_that_do_not_agree_are_refused(values: dict[str, Any], sentence: str) -> None:
    config = merged()
    update_config(config, values)
    assert sentence in problems(config)


def test_same_without_the_mistakes_is_accepted() -> None:
    """The overlays above are refused for their mistake and for nothing else."""
    small = {"datasets": {"base": {"examples": 32}}, "runs": {"base": RUN}, "studies": {"mine": STUDY}}
    assert configured(small).steps("base") == [4, 8]
    assert configured(small | {"datasets": {"base": {"examples": 30}}}).steps("base") == [4, 8]  # the last batch of an epoch is smaller
    teacher = {"base_url": "http://localhost:8000/v1", "model": "my-model"}
    configured({"strategies": {"similar": {}, "cot": {"by": "teacher"}}, "endpoints": {"teacher": teacher}, "studies": {"mine": STUDY}})
    configured({"strategies": {"similar": {}, "cot": {"by": "file", "file": "r.jsonl"}}, "studies": {"mine": STUDY}})
    configured({"runs": {"full_base": {"dtype": "bfloat16", "zero_stage": 3, "offload": "parameters"}}})
    configured({"runs": {"in_pos": {"early_stopping": {"dataset": "panel"}, "publish": "best", "optimizer": "lion"}}})
    configured({"runs": {"proxy_in_plain": {"lora": {"dropout": 0.1}}}})  # it starts from an adapter that was trained without


def test_a_run_takes_from_the_one_it_is_like_what_it_does_not_name() -> None:
    config = configured({"runs": {"base": {"clip_norm": 0.5}, "in_pos": {"epochs": 7}}})
    alike = [name for name in config.runs if not name.startswith("sde")]
    assert {config.run(name).clip_norm for name in alike} == {0.5}
    assert {name for name in alike if config.run(name).epochs == 7} == {
        "in_pos",
        "in_cot",
        "in_clarify",
        "in_evaluate",
        "in_evaluate_both",
    }
    assert {config.run(f"in_{d}").start for d in ("pos", "cot", "clarify", "evaluate")} == {"full_base/seed=17/model=main"}
    assert config.run("mix_all").method == "full"
    assert config.run("mix_all").lora == config.run("base").lora


def test_runs_on_several_models_and_seeds_are_points_of_a_family() -> None:
    values = {"models": {"big": {"name": "some/model"}}, "model": {"max_length": 99}}
    config = configured(values | {"runs": {"full_base": {"grid": {"seed": [3, 17], "model": ["main", "big"]}}}})
    big, main = "seed=3/model=big", "seed=3/model=main"
    run = config.run(f"in_cot/{big}")
    assert (run.seed, run.start) == (3, f"full_base/{big}")
    assert config.ancestry(f"in_cot/{big}") == [f"full_base/{big}", f"in_cot/{big}"]
    assert (config.model_of(f"in_cot/{big}").name, config.model_of(f"in_cot/{big}").max_length) == ("some/model", 99)
    assert config.model_of(f"in_cot/{main}") == config.model
    assert [p.path for p in config.named("in_cot[seed=3]")] == [f"in_cot/{main}", f"in_cot/{big}"]
    assert configured({}).run("in_cot").seed == configured({}).run("base").seed


def test_only_takes_a_part_of_the_rows_with_what_they_are_compared_with() -> None:
    config = configured({"studies": {"table1": {"only": ["→ D_cot"]}, "table2": {"rows": {"Base+Eval": None}}}})
    table1, table2 = (config.studies[name] for name in ("table1", "table2"))
    assert isinstance(table1, ComparisonStudy)
    assert isinstance(table2, ComparisonStudy)
    assert list(table1.taken()) == ["Base", "→ D_pos", "→ D_cot"]
    assert "Base+Eval" not in table2.taken()
    assert len(table2.taken()) == 8


def test_a_study_that_is_taken_out_takes_its_places_along() -> None:
    agreement = configured({"studies": {"clarify": None}}).studies["agreement"]
    assert isinstance(agreement, AgreementStudy)
    assert set(agreement.items["in-task"]["Clarify"]) == {"proxy", "training"}
    assert set(agreement.items["in-task"]["CoT"]) == {"swift", "proxy", "training"}


def test_null_removes_a_study() -> None:
    values = merged()
    update_config(values, {"studies": {"clarify": None}})
    assert list(configure(values, STUDIES).studies) == [name for name in configured().studies if name != "clarify"]


def test_step_0_is_added_where_it_is_asked_for() -> None:
    values = {"datasets": {"base": {"examples": 32}}, "runs": {"base": RUN}}
    assert configured(values).gradient_steps("base") == [4, 8]
    assert configured(values | {"gradients": {"include_step_0": True}}).gradient_steps("base") == [0, 4, 8]
    assert configured(values | {"runs": {"base": RUN | {"checkpoint_every": 5}}}).gradient_steps("base") == [5, 8]  # the last as well


def test_a_run_of_which_the_last_checkpoint_is_kept_writes_no_other_and_others_start_from_it() -> None:
    best = {"publish": "best", "early_stopping": {"dataset": "panel"}}
    runs = {"short": {"like": "base", "keep": "last", "grid": {"seed": [1, 2]}}, "best": {"like": "short"} | best}
    runs["more"] = {"like": "base", "start": "short", "grid": {"seed": [1, 2]}}
    config = configured({"runs": runs})
    assert config.run("base").checkpoint_every is not None
    found = [config.run(name).checkpoint_every for name in ("short/seed=1", "best/seed=2", "more/seed=1")]
    assert found == [None, None, config.run("base").checkpoint_every]
    assert (config.steps("short/seed=1"), config.ancestry("more/seed=2")) == ([], ["short/seed=2", "more/seed=2"])
    with pytest.raises(
        UserError, match=r"run: an influence study needs a run's checkpoints; 'base' publ\w+ its last state only \(keep: last"
    ):
        configured({"runs": {"base": {"keep": "last"}}})


# ---- scales and studies ----


def test_7b_scale_has_exactly_the_numbers_of_the_paper() -> None:
    config = configure(merged(ROOT / "scales" / "7b.yaml"), STUDIES)
    run = config.runs["base"]
    assert config.datasets["base"].examples == 6400
    assert (run.epochs, run.batch_size) == (6, 32)
    assert (run.learning_rate, run.final_learning_rate, run.warmup_steps) == (1e-5, 1e-7, 10)
    assert (run.lora.rank, run.lora.alpha) == (64, 512)
    assert config.steps("base") == list(range(50, 1201, 50))
    assert len(config.steps("base")) == 24
    assert (run.betas, run.weight_decay, run.clip_norm) == ((0.9, 0.999), 0.0, 1.0)
    tried = config.selections["chosen"]
    assert {tried.outputs[name].completion for name in ("positive", "positive_analogue")} == {"response"}
    assert tried.where == {"example": 0, "analogue": 0, "revised": 1, "revised_analogue": 1}
    assert (tried.take.tasks, tried.take.per_task) == (10, 1)
    assert {study.after_step for study in config.influence.values() if study.run == "base"} == {150}


@pytest.mark.parametrize("scale", ["7b", "13b"])
def test_scales_have_the_papers_comparisons(scale: str) -> None:
    """SPEC §4, regime B, and ambiguities 13 to 15."""
    config = configure(merged(ROOT / "scales" / f"{scale}.yaml"), STUDIES)
    assert len({p.run.seed for p in config.named("in_pos")}) >= 3
    judge = config.endpoints["judge"]
    assert (judge.model, judge.temperature) == ("gpt-4o-2024-08-06", 0)
    table1, table2 = (config.studies[name] for name in ("table1", "table2"))
    assert isinstance(table1, ComparisonStudy)
    assert isinstance(table2, ComparisonStudy)
    assert table1.scorers == table2.scorers == ["judge", "likelihood"]
    for point in (p for name in table1.taken().values() for p in config.named(name)):
        run = point.run
        assert run.method == "full"
        if point.family != "full_base":
            assert run.start == f"full_base/seed={run.seed}/model=main"
            assert (run.epochs, run.learning_rate, run.decay, run.batch_size) == (3, 1e-6, "constant", 32)
    for run in (p.run for name in table2.taken().values() for p in config.named(name)):
        assert (run.start, run.method, run.epochs, run.batch_size, run.warmup_steps) == ("model", "full", 6, 32, 10)
        assert (run.learning_rate, run.final_learning_rate, run.decay) == (1e-5, 1e-7, "linear")
        assert all(part == Part() for phase in run.schedule for part in phase.values())
    assert len(table2.taken()) == 9
    assert [list(phase) for phase in config.run("then_clarify[seed=17]").schedule] == [["base"], ["base.clarify"]]


def test_13b_scale_is_7b_but_for_the_model() -> None:
    seven, thirteen = (yaml.safe_load((ROOT / "scales" / f"{s}.yaml").read_text()) for s in ("7b", "13b"))
    assert (seven.pop("scale"), thirteen.pop("scale")) == ("7b", "13b")
    assert thirteen.pop("results") == seven.pop("results").replace("7b", "13b")
    assert thirteen["model"].pop("name") == seven["model"].pop("name").replace("7b", "13b")
    sizes = seven.pop("plan"), thirteen.pop("plan")
    assert sizes[0].keys() == sizes[1].keys()
    for size in sizes:  # Llama's: embeddings in and out; four attention and three MLP matrices and two norms a layer, one at the end
        hidden, layers = size["hidden_size"], size["layers"]
        layer = 4 * hidden**2 + 3 * hidden * size["intermediate_size"] + 2 * hidden
        assert size["parameters"] == pytest.approx(2 * size["vocabulary"] * hidden + layers * layer + hidden, rel=1e-3)
    assert seven == thirteen


def test_7b_scale_changes_only_what_it_names() -> None:
    config = configure(merged(ROOT / "scales" / "7b.yaml"), STUDIES)
    own = {name: study.model_copy(update={"after_step": None}) for name, study in config.influence.items()}
    assert own == configured().influence
    assert config.strategies == configured().strategies
    assert config.datasets["panel"] == configured().datasets["panel"]
    assert config.runs["base"].seed == configured().runs["base"].seed


def test_laptop_scale_is_the_default() -> None:
    assert configure(merged(ROOT / "scales" / "laptop.yaml"), STUDIES) == configured()


def test_a_study_on_ones_own_files_is_a_collection() -> None:
    assert gather(merged(), STUDIES).studies["reasoning_data"] == ["cot_of_reasoning_data"]
    sources = configured().datasets["reasoning"].sources
    assert [s.task for s in sources if isinstance(s, FileSource)] == ["gsm8k", "creak", "ecqa", "qasc"]


def test_future_studies_stand_beside_the_others() -> None:
    gathered = gather(merged(), STUDIES)
    assert gathered.studies["future"] == ["conclusion_first", "query_parsing", "prompt_template"]
    for name in configured().strategies:
        assert (ROOT / "strategies" / f"{name}.py").is_file()


@pytest.mark.parametrize("old", RENAMED)
def test_an_old_key_is_refused_with_its_new_name(old: str) -> None:
    assert f"`{old.replace('*', 'x')}` has another name: write {RENAMED[old]}" in problems(at(old.replace("*", "x"), 1))


# ---- collections ----


def collections(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    return folder


@pytest.mark.parametrize("scale", ["laptop", "7b", "13b"])
def test_every_collection_at_every_scale(scale: str) -> None:
    """Its sizes are its own at that scale, whichever other collection is asked for."""
    gathered = gather(merged(ROOT / "scales" / f"{scale}.yaml"), STUDIES)
    assert list(gathered.studies) == [path.stem for path in sorted(STUDIES.glob("*.yaml"))]
    assert gathered.lacking == []
    config = load(gathered.values)
    paper = scale != "laptop"
    assert (config.scale, config.datasets["base"].examples) == (scale, 6400 if paper else 160)
    assert config.steps("base")[-1] == (1200 if paper else 40)
    assert config.named("mix_cot")[0].run.schedule == [{"base": Part(), "base.cot": Part(examples=None if paper else 48)}]
    assert config.run("proxy_cross_cot").schedule == [{"base.cot": Part(examples=640 if paper else 48)}]
    assert {p.run.processes for p in config.named("in_cot")} == {8 if paper else 1}
    assert [p.run.seed for p in config.named("in_cot")] == ([17, 18, 19] if paper else [17])
    table1 = config.studies["table1"]
    assert isinstance(table1, ComparisonStudy)
    assert table1.scorers == ["judge" if paper else "key_points", "likelihood"]
    half = Part(weight=0.5) if paper else Part(examples=32)
    both = {"questions.similar.evaluate": half, "questions.similar.wrong.evaluate": half}
    assert {str(p.run.schedule) for p in config.named("in_evaluate_both")} == {str([both])}


def test_a_collection_gives_its_own_values_at_a_scale(tmp_path: Path) -> None:
    plain = "strategies: {a: {by: fields}}\nat: {7b: {strategies: {a: {by: file, file: x.jsonl}}}}"
    folder = collections(tmp_path, one=plain, two="strategies: {b: {by: fields}}")
    assert configure({}, folder).strategies["a"].by == "fields"
    large = gather({"scale": "7b"}, folder)
    assert large.lacking == ["two"]
    assert load(large.values).strategies == {"a": load({"strategies": {"a": {"by": "file", "file": "x.jsonl"}}}).strategies["a"]}
    over = configure({"scale": "7b", "strategies": {"a": {"file": "y.jsonl"}}}, folder)  # what the user says comes last
    assert over.strategies["a"].file == "y.jsonl"


@pytest.mark.parametrize(
    ("files", "values", "sentence"),
    [
        ({"one": "runs: {a: {}}", "two": "runs: {a: {}}"}, {}, "one.yaml and .*two.yaml both have runs.a. Rename one of the two"),
        ({"one": "runs: {a: {}}"}, {"scale": "7c"}, "no collection in .* has values at the scale '7c'"),
        ({"one": "at: {7b: {}}"}, {"scale": "7c"}, r"scale '7c' \(did you mean '7b'\?\); known are laptop, 7b"),
        ({"One!": "{}"}, {}, "One!.yaml: a collection's file is named in lower-case letters"),
        ({"one": "[1, 2]"}, {}, "one.yaml: expected sections such as runs and studies"),
        ({"one": "at: [7b]"}, {}, "one.yaml: expected sections such as runs and studies"),
        ({"one": "runs: {"}, {}, "one.yaml: this is not YAML"),
        ({"one": "runs: {a: {epoch: 3}}"}, {}, r"unknown key `runs.a.epoch` \(did you mean 'epochs'\?\)"),
        ({"one": "studies: {a: {}}"}, {"studies": {"a": None}}, "studies: there is none left; keep one"),
        ({"one": "{}"}, {"scale": 7}, "`scale`: Input should be a valid string"),
    ],
)
def test_collections_that_do_not_fit_are_a_sentence(files: dict[str, str], values: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=sentence):
        configure(values, collections(tmp_path, **files))


def test_files_of_a_collection_are_found_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shipped = ROOT / "data/panel/handwritten.jsonl"
    source = configured().datasets["panel"].sources[0]
    assert isinstance(source, FileSource)
    assert source.path == str(shipped)
    (tmp_path / "data/panel").mkdir(parents=True)
    (tmp_path / "data/panel/handwritten.jsonl").write_text("")  # one's own of the same name
    source = configured().datasets["panel"].sources[0]
    assert isinstance(source, FileSource)
    assert source.path == "data/panel/handwritten.jsonl"


def test_default_names_collections_and_studies_and_ones_own_are_always_made(tmp_path: Path) -> None:
    gathered = gather({}, collections(tmp_path, one="studies: {a: {}, b: {}}", two="studies: {c: {}}", large="at: {7b: {}}"))
    known = ["a", "b", "c", "mine"]
    assert list(chosen(["one"], gathered, known)) == ["a", "b", "mine"]
    assert list(chosen(["c"], gathered, known)) == ["c", "mine"]
    with pytest.raises(UserError, match=r"default: there is no collection or study 'on' \(did you mean 'one'\?\); known are"):
        list(chosen(["on"], gathered, known))
    lacking = gather({"scale": "7b"}, tmp_path)
    with pytest.raises(UserError, match=r"the collection 'one' has no values at this scale. Add them under `at` in studies/one.yaml"):
        list(chosen(["one"], lacking, []))


# ---- references of a study ----


def test_a_ceiling_is_paired_with_its_own_targets_and_the_floor_with_all() -> None:
    clarify = configured().studies["clarify"]
    assert clarify.grids() == [
        (clarify.probes, clarify.targets),
        ({"paraphrase": "positive_analogue.paraphrase"}, {"Pos": "positive_analogue"}),
        ({"paraphrase": "negative_analogue.paraphrase"}, {"Neg": "negative_analogue"}),
        ({"unrelated": "positive_analogue.unrelated"}, clarify.targets),
    ]
    without = clarify.model_copy(update={"references": None})
    assert set(clarify.datasets()) - set(without.datasets()) == {
        "positive_analogue.paraphrase", "negative_analogue.paraphrase", "positive_analogue.unrelated",
    }  # fmt: skip
    assert without.grids() == [(clarify.probes, clarify.targets)]
