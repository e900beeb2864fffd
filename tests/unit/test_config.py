"""The configuration: one source of truth, every key commented, every mistake told by a sentence that names the key."""

import itertools
import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from snakemake.common.configfile import load_configfile
from snakemake.utils import update_config

from swift_study.config import Config, FileSource, GeneratorSource, default_yaml, load, schema_json
from swift_study.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
DEFAULTS = ROOT / "config.yaml"
OVERLAYS = sorted([*(ROOT / "scales").glob("*.yaml"), *(ROOT / "studies").glob("*.yaml")])
STUDY = {
    "question": "Does it help?",
    "probes": {"A": "panel.cot", "B": "panel"},
    "targets": {"B": "panel.similar"},
    "baseline": "B",
    "figures": {"figure": ["in-task"]},
}
RUN = {"batch_size": 8, "micro_batch_size": 4, "epochs": 2, "checkpoint_every": 4, "warmup_steps": 2}


def merged(*overlays: Path) -> dict[str, Any]:
    """config.yaml with files laid over it in the way Snakemake does for --configfile."""
    values: dict[str, Any] = load_configfile(DEFAULTS)
    for overlay in overlays:
        update_config(values, load_configfile(overlay))
    return values


def problems(values: dict[str, Any]) -> str:
    with pytest.raises(UserError) as caught:
        load(values)
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


def test_config_yaml_holds_every_key_with_its_default() -> None:
    values = yaml.safe_load(DEFAULTS.read_text(encoding="utf-8"))
    assert load(values) == load({}) == Config()
    # Not only the same after validation: the same keys, values and types, so that no default is left unsaid.
    assert values == json.loads(Config().model_dump_json())
    assert load(load_configfile(DEFAULTS)) == Config()


def test_every_key_of_config_yaml_is_commented_where_it_first_appears() -> None:
    named_by_the_user = re.compile(r"  \w+:$")  # a strategy, run or study
    lines = DEFAULTS.read_text(encoding="utf-8").splitlines()
    section, explained, keys = "", set(), 0
    for above, line in itertools.pairwise(lines):
        match = re.match(r"( *)(\w+):", line)
        if match is None:
            continue
        section = match[2] if not match[1] else section
        if section in ("strategies", "runs", "studies") and named_by_the_user.fullmatch(line):
            continue
        keys += 1
        comment = re.fullmatch(rf"{match[1]}# (.+)", above)
        assert comment or match[2] in explained, f"{line.strip()!r} has no comment"
        explained.add(match[2])
    assert keys > 60


def test_every_key_has_a_meaning_in_the_schema() -> None:
    schema = json.loads(schema_json())
    for name, model in {"Config": schema, **schema["$defs"]}.items():
        for key, field in model["properties"].items():
            assert len(field.get("description", "")) > 3, f"{name}.{key}"


def test_the_keys_of_a_teacher_stand_in_config_yaml_as_comments() -> None:
    commented = [line[2:] for line in default_yaml().splitlines() if re.match(r"# (teacher:|  )", line)]
    teacher = yaml.safe_load("\n".join(commented))
    values = merged() | teacher
    assert load(values).teacher is not None
    assert set(teacher["teacher"]) == set(schema_of("EndpointSettings")["properties"])


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
    values = merged(*[overlay] if overlay else [])
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
        at("data.base.sources.0", {"kind": "file"}),
        at("data.base.sources.0", {"kind": "web", "id": "x"}),
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
        ("data.pannel", "panel"),
        ("data.panel.per_tasks", "per_task"),
        ("data.base.sources.0.famillies", "families"),
        ("runs.base.lora.rnk", "rank"),
        ("runs.another.learning_rat", "learning_rate"),
        ("strategies.cot.fil", "file"),
        ("studies.mine.base_line", "baseline"),
        ("teacher.budget_us", "budget_usd"),
        ("statistics.norm_flor", "norm_floor"),
        ("gradients.represantation", "representation"),
        ("selection.positive_responce", "positive_response"),
    ],
)
def test_unknown_key_is_refused_with_its_path_and_the_nearest_known(path: str, nearest: str) -> None:
    values = at(path, 1)
    if "sources" in path:
        values["data"]["base"]["sources"][0]["kind"] = "generator"
    assert f"unknown key `{path}` (did you mean '{nearest}'?)" in problems(values)


def test_unknown_key_that_is_like_no_other_has_no_suggestion() -> None:
    assert problems({"zzzzzz": 1}).splitlines() == ["The configuration is not valid:", "  - unknown key `zzzzzz`"]


@pytest.mark.parametrize(
    ("source", "sentences"),
    [
        (
            {"kind": "file", "pth": "x.jsonl"},
            ["`data.base.sources.0.path` is missing", "unknown key `data.base.sources.0.pth` (did you mean 'path'?)"],
        ),
        (
            {"kind": "hub", "id": "x", "spilt": "test"},
            ["unknown key `data.base.sources.0.spilt` (did you mean 'split'?)"],
        ),
        (  # a key of another kind of source is no suggestion
            {"kind": "generator", "limit": 3},
            ["unknown key `data.base.sources.0.limit`"],
        ),
        (
            {"kind": "file", "path": "x", "columns": {"prompt": {"colum": "q"}}},
            [
                "`data.base.sources.0.columns.prompt.column` is missing",
                "unknown key `data.base.sources.0.columns.prompt.colum` (did you mean 'column'?)",
            ],
        ),
        (
            {"kind": "file", "path": "x", "columns": {"completion": 3}},
            ["`data.base.sources.0.columns.completion`: Input should be a valid string (it is 3)"],
        ),
        (
            {"kind": "file", "path": "x", "columns": {"completion": {"column": "a", "remove": "<<(.*"}}},
            [
                "`data.base.sources.0.columns.completion.remove`: '<<(.*' is not a regular expression: "
                "missing ), unterminated subpattern at position 2"
            ],
        ),
        (
            {"kind": "file", "path": "x", "columns": {"completion": {"column": "a", "pattern": "#### .*"}}},
            ["`data.base.sources.0.columns.completion.pattern`: '#### .*' has no group ( ) for what is to be taken"],
        ),
    ],
    ids=["file", "hub", "generator", "column", "column type", "no expression", "no group"],
)
def test_mistakes_in_a_source_are_named_as_the_user_wrote_them(source: dict[str, Any], sentences: list[str]) -> None:
    lines = problems(at("data.base.sources.0", source)).splitlines()[1:]
    assert lines == [f"  - {sentence}" for sentence in sentences]


@pytest.mark.parametrize("source", [{"path": "x"}, {"kind": "fil", "path": "x"}])
def test_source_without_a_known_kind_is_refused(source: dict[str, Any]) -> None:
    text = problems(at("data.panel.sources.0", source))
    assert "`data.panel.sources.0`" in text
    assert "kind" in text


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        ("runs.base.epochs", "three", "integer"),
        ("runs.base.betas", [0.9], "betas.1` is missing"),
        ("runs.base.learning_rate", 0, "greater than 0"),
        ("model.trust_remote_code", "perhaps", "boolean"),
        ("model.overlong", "cut", "'error', 'skip' or 'truncate'"),
        ("data.panel.tasks", "logic", "list"),
        ("data.near_duplicate", 1.5, "less than or equal to 1"),
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
            {"data": {"base": {"examples": 30}}, "runs": {"base": RUN}},
            "runs.base.batch_size 8 does not divide data.base.examples 30",
        ),
        (
            {"data": {"base": {"examples": 32}}, "runs": {"base": RUN | {"processes": 3}}},
            "runs.base.batch_size 8 is not a multiple of processes × micro_batch_size = 3 × 4",
        ),
        (
            {"data": {"base": {"examples": 32}}, "runs": {"base": RUN | {"checkpoint_every": 5}}},
            "runs.base.checkpoint_every 5 does not divide the 8 steps of the run (32 examples × 2 epochs /",
        ),
        (
            {"data": {"base": {"examples": 32}}, "runs": {"base": RUN | {"warmup_steps": 8}}},
            "runs.base.warmup_steps 8 is not below the 8 steps of the run",
        ),
        (
            {"studies": {"mine": STUDY | {"run": "bsae"}}},
            "studies.mine.run: there is no run 'bsae'; known: base",
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
            {"studies": {"mine": STUDY | {"baseline": "C"}}},
            "`studies.mine`: the baseline 'C' is not one of the probe sets ['A', 'B']",
        ),
        (
            {"studies": {"mine": STUDY | {"probes": {"B": "panel"}}}},
            "`studies.mine`: a study needs a probe set beside its baseline",
        ),
        (
            {"studies": {"Mine!": STUDY}},
            "study name 'Mine!': use lower-case letters, digits and _, beginning with a letter",
        ),
        (
            {"strategies": {"similar": {}, "cot": {"by": "teacher"}}},
            "strategies.cot.by is 'teacher', but no `teacher` is configured",
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
    studies = dict.fromkeys(Config().studies) | values.get("studies", {"good": STUDY})
    assert sentence in problems(merged() | values | {"studies": studies})


def test_same_without_the_mistakes_is_accepted() -> None:
    """The overlays above are refused for their mistake and for nothing else."""
    config = load({"data": {"base": {"examples": 32}}, "runs": {"base": RUN}, "studies": {"mine": STUDY}})
    assert config.steps("base") == [4, 8]
    teacher = {"base_url": "http://localhost:8000/v1", "model": "my-model"}
    load({"strategies": {"similar": {}, "cot": {"by": "teacher"}}, "teacher": teacher, "studies": {"mine": STUDY}})
    load({"strategies": {"similar": {}, "cot": {"by": "file", "file": "r.jsonl"}}, "studies": {"mine": STUDY}})


def test_null_removes_a_study() -> None:
    values = merged()
    update_config(values, {"studies": {"clarify": None}})
    assert list(load(values).studies) == [name for name in Config().studies if name != "clarify"]


def test_step_0_is_added_where_it_is_asked_for() -> None:
    values = {"data": {"base": {"examples": 32}}, "runs": {"base": RUN}}
    assert load(values).gradient_steps("base") == [4, 8]
    assert load(values | {"gradients": {"include_step_0": True}}).gradient_steps("base") == [0, 4, 8]


# ---- scales and studies ----


def test_7b_scale_has_exactly_the_numbers_of_the_paper() -> None:
    config = load(merged(ROOT / "scales" / "7b.yaml"))
    run = config.runs["base"]
    assert config.data.base.examples == 6400
    assert (run.epochs, run.batch_size) == (6, 32)
    assert (run.learning_rate, run.final_learning_rate, run.warmup_steps) == (1e-5, 1e-7, 10)
    assert (run.lora.rank, run.lora.alpha) == (64, 512)
    assert config.steps("base") == list(range(50, 1201, 50))
    assert len(config.steps("base")) == 24
    assert (run.betas, run.weight_decay, run.clip_norm) == ((0.9, 0.999), 0.0, 1.0)
    assert config.selection.positive_response == "model"
    assert config.selection.tasks == 10
    assert config.statistics.after_step == 150


def test_7b_scale_changes_only_what_it_names() -> None:
    config = load(merged(ROOT / "scales" / "7b.yaml"))
    assert config.studies == Config().studies
    assert config.strategies == Config().strategies
    assert config.data.panel == Config().data.panel
    assert config.runs["base"].seed == Config().runs["base"].seed


def test_laptop_scale_is_the_default() -> None:
    assert load(merged(ROOT / "scales" / "laptop.yaml")) == Config()


def test_study_on_ones_own_files_leaves_the_studies_that_need_more() -> None:
    config = load(merged(ROOT / "studies" / "reasoning_data.yaml"))
    assert list(config.studies) == ["cot"]
    sources = config.data.panel.sources
    assert [s.task for s in sources if isinstance(s, FileSource)] == ["gsm8k", "creak", "ecqa", "qasc"]


def test_future_studies_stand_beside_the_others() -> None:
    config = load(merged(ROOT / "studies" / "future.yaml"))
    assert list(config.studies) == [*Config().studies, "conclusion_first", "query_parsing", "prompt_template"]
    for name in config.strategies:
        assert (ROOT / "strategies" / f"{name}.py").is_file()


def test_scale_and_study_go_together() -> None:
    config = load(merged(ROOT / "scales" / "7b.yaml", ROOT / "studies" / "future.yaml"))
    assert config.results == "results-7b"
    assert "query_parsing" in config.studies
    assert isinstance(config.data.base.sources[0], GeneratorSource)
