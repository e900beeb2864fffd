"""Configurations that a person can write and nobody should: each is taken, or refused with a sentence before anything runs."""

import copy
import json
import random
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml
from snakemake.common.configfile import load_configfile
from snakemake.utils import update_config

from swift_study.config import RULES, Config, Run, gather, lay, load
from swift_study.errors import UserError
from swift_study.io.settings import pack, unpack

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
DEFAULTS = lay(json.loads(Config().model_dump_json()), gather(load_configfile(ROOT / "config.yaml"), ROOT / "studies").values)
DEFAULTS["runs"]["base"] = json.loads(Run().model_dump_json()) | DEFAULTS["runs"]["base"]
ENDPOINT = {"base_url": "http://localhost:8000/v1", "model": "m"}
# Sections that are empty by default, so that their keys are tried as well.
EVERYTHING: dict[str, Any] = json.loads(json.dumps(DEFAULTS))  # without what YAML lets stand in two places
update_config(
    EVERYTHING,
    {"endpoints": {"teacher": ENDPOINT, "judge": ENDPOINT}, "models": {"big": {"name": "some/model"}}},
)
STUDY = {
    "question": "Does it help?",
    "probes": {"A": "panel.cot", "B": "panel"},
    "targets": {"B": "panel.similar"},
    "kind": "influence",
    "control": "B",
    "figures": {"figure": ["in-task"]},
}


def laid_over(values: dict[str, Any]) -> dict[str, Any]:
    config = copy.deepcopy(DEFAULTS)
    update_config(config, copy.deepcopy(values))
    return config


def problems(values: dict[str, Any]) -> list[str]:
    with pytest.raises(UserError) as caught:
        load(values)
    first, *lines = str(caught.value).splitlines()
    assert first == "The configuration is not valid:"
    assert lines
    return lines


def at(path: str, value: Any) -> dict[str, Any]:
    for part in reversed(path.split("/")):
        value = {part: value}
    assert isinstance(value, dict)
    return value


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Every place of a configuration with its value."""
    if path:
        yield path, value
    below = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in below:
        yield from places(child, (*path, key))


def put(path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    config: dict[str, Any] = copy.deepcopy(EVERYTHING)
    here: Any = config
    for part in path[:-1]:
        here = here[part]
    here[path[-1]] = value
    return config


# ---- numbers, and what is no text ----

# Levels of a grid, in `skip` as well, are told by the grid's own key, keys by level by the key that they change; a value of `where` may be
# text as well.
NUMBERS = [
    path
    for path, value in places(EVERYTHING)
    if isinstance(value, int | float) and not isinstance(value, bool) and not {"grid", "skip", "by_level", "where"} & set(path)
]


ENDLESS = [float("nan"), float("inf"), -float("inf"), "nan", "inf", "-Infinity", 10**400, -(10**20), "1e999"]


@pytest.mark.parametrize("value", ENDLESS, ids=lambda value: str(value)[:10])
def test_every_number_is_finite_and_has_a_bound(value: Any) -> None:
    assert len(NUMBERS) > 120
    for path in NUMBERS[:: max(1, len(NUMBERS) // 60)]:  # a part of them, of every section
        told = problems(put(path, value))
        if path[0] == "evaluations":  # with the point, where the evaluation or the run has a grid
            assert any(re.search(rf"evaluations\.{path[1]}(\[[^\]]*\])?\.{'.'.join(map(str, path[2:]))}", line) for line in told)
        else:
            assert any(f"`{'.'.join(map(str, path))}" in line for line in told)


def test_every_float_of_the_sections_is_finite() -> None:
    """By the schema: every key of type number, also those that are null by default or have a default in no file."""
    definitions = json.loads((ROOT / "config.schema.json").read_text(encoding="utf-8"))["$defs"]
    keys = [(name, key) for name, section in definitions.items() for key, field in section["properties"].items() if is_number(field)]
    assert len(keys) > 60
    import swift_study.config as module

    for name, key in keys:
        section = getattr(module, name)
        for value in (float("nan"), float("inf")):
            with pytest.raises(ValueError, match=r"finite number|Input should be"):
                section.model_validate({key: value})
            assert any(e["loc"][:1] == (key,) for e in errors_of(section, {key: value}))


def is_number(field: dict[str, Any]) -> bool:
    return field.get("type") in ("number", "integer") or any(is_number(one) for one in field.get("anyOf", []))


def errors_of(section: Any, values: dict[str, Any]) -> list[Any]:
    from pydantic import ValidationError

    with pytest.raises(ValidationError) as caught:
        section.model_validate(values)
    return caught.value.errors()


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("strategies: {no: {}}", "`strategies`: the name False is not text: YAML reads yes, no, on, off, null and numbers so."),
        ("studies: {on: null}", "`studies`: the name True is not text"),
        ("runs: {7: {like: base}}", "`runs`: the name 7 is not text"),
        ("models: {~: {}}", "`models`: the name None is not text"),
        ("1: 2", "`config`: the name 1 is not text"),
        ("studies: {table1: {published: {7: {Base: 1.0}}}}", "`studies.table1.published`: the name 7 is not text"),
        ("studies: {cot: {probes: {off: panel}}}", "`studies.cot.probes`: the name False is not text"),
        ("studies: {cot: {control: no}}", "`studies.cot.control`: Input should be a valid string (it is False); YAML reads yes, no, on"),
        ("model: {name: 2024-01-01}", "`model.name`: datetime.date(2024, 1, 1) is a date, which no key takes. Put text in quotes"),
        ("datasets: {panel: {tasks: !!set {a, b}}}", "`datasets.panel.tasks`: {"),
        ("model: {name: !!binary aGVsbG8=}", "`model.name`: b'hello' is a bytes, which no key takes"),
        ("results: &a [*a]", "`results.0.0`: the values below it are nested more than 30 levels deep, or hold themselves"),
        ('model: {name: "a\\0b"}', "`model.name`: the text 'a\\x00b' holds a zero byte"),
        ('results: "\\ud800"', "`results`: the text '\\ud800' holds half of a surrogate pair"),
        ('runs: {"\\ud800": {}}', "`runs`: the name '\\ud800' holds half of a surrogate pair"),
        ('studies: {"a\\nb": {}}', "`studies`: the name 'a\\nb' has a line break"),
        (
            "datasets: {base: {examples: 100000000000000000000}}",
            "`datasets.base.examples`: the number has 67 bits and is beyond ±9007199254740992",
        ),
    ],
)
def test_what_yaml_makes_of_a_word_is_told(written: str, told: str) -> None:
    assert any(told in line for line in problems(laid_over(yaml.safe_load(written))))


@pytest.mark.parametrize(
    ("values", "told"),
    [
        (
            {"model": "foo"},
            "`model`: Input should be a valid dictionary or instance of Model (it is 'foo'); write its keys below it, such",
        ),
        ({"datasets": "x"}, "`datasets`: "),
        ({"endpoints": {"mine": "http://localhost"}}, "such as endpoints.mine.base_url"),
        ({"runs": {"base": {"lora": 64}}}, "such as runs.base.lora.rank"),
        ({"runs": "base"}, "`runs`: Input should be a valid dictionary (it is 'base')"),
        ({"datasets": {"panel": {"sources": ["x.jsonl"]}}}, "`datasets.panel.sources.0`: "),
        ({"runs": {"base": {"schedule": [{"base": 5}]}}}, "`runs.base.schedule.0.base`: Input should be a valid dictionary"),
        ({"runs": {"base": {"schedule": ["base"]}}}, "`runs.base.schedule.0`: Input should be a valid dictionary (it is 'base')"),
    ],
    ids=str,
)
def test_text_where_a_section_is_expected_is_told_with_a_key(values: dict[str, Any], told: str) -> None:
    assert any(told in line for line in problems(laid_over(values)))


@pytest.mark.parametrize(
    ("path", "nearest"),
    [
        ("runs/base/schedule/0/base/exmaples", "examples"),
        ("runs/lora/epoch", "epochs"),  # a run of the name of a section
        ("runs/base/lora/alhpa", "alpha"),
        ("datasets/panel/sources/0/columns/promt", "prompt"),
        ("datasets/panel/sources/0/columns/prompt/remvoe", "remove"),
        ("endpoints/mine/concurency", "concurrency"),
        ("models/big/max_lenght", "max_length"),
        ("studies/mine/references/flor", "floor"),
        ("studies/scorer_audit/settings/lables", "labels"),
        ("studies/table1/contxt", "context"),
        ("studies/agreement/items/in-task/CoT/swift/rwo", "row"),
        ("plan/teraflop", "teraflops"),
    ],
)
def test_unknown_keys_at_every_depth_have_their_path_and_the_nearest_known(path: str, nearest: str) -> None:
    value: Any = 1
    for part in reversed(path.split("/")):
        value = [value] if part.isdigit() else {part: value}
    if "sources" in path:
        value["datasets"]["panel"]["sources"][0] |= {"kind": "file", "path": "x"}
    if path.startswith("studies"):
        kinds = {"mine": "influence", "scorer_audit": "audit", "table1": "comparison", "agreement": "agreement"}
        value["studies"][path.split("/")[1]]["kind"] = kinds[path.split("/")[1]]
    assert f"  - unknown key `{path.replace('/', '.')}` (did you mean '{nearest}'?)" in problems(value)


# ---- names that have two readings ----


@pytest.mark.parametrize(
    ("values", "told"),
    [
        *(({"studies": {rule: STUDY}}, f"study name '{rule}' is that of a target of the workflow; take another") for rule in sorted(RULES)),
        ({"runs": {"model": {"like": "base"}}}, "run name 'model' is that of the model itself"),
        ({"models": {"main": {}}}, "model name 'main' is that of the model under study"),
        *(
            ({"strategies": {name: {}}}, f"the name '{name}' under ")
            for name in ("analogues", "rejects", "panel", "base", "questions", "candidates", "negative", "positive", "chosen")
        ),
        ({"studies": {"mine": STUDY | {"figures": {"layers": ["in-task"]}}}}, "figures: 'layers' is the figure of what each layer carries"),
        ({"studies": {"mine": STUDY | {"run": "x" * 65}}, "runs": {"x" * 65: {"like": "base"}}}, "beginning with a letter, at most 64"),
        (at("studies/agreement/items/in-task/CoT/swift/study", "ctо"), "CoT.swift.study: there is no study 'ctо'"),  # a Cyrillic letter
        ({"studies": {"mine": STUDY | {"targets": {"T": "panel" + ".similar" * 300}}}}, "has 2405 characters, more than 200"),
        (at("runs/base", {"epochs": 10**9}), "runs.base would have 20000000000 steps, more than 100000000"),
        (at("datasets/base/examples", 10**15), "runs.base would have"),
    ],
    ids=lambda value: value[:50] if isinstance(value, str) else "",
)
def test_a_name_or_number_that_cannot_work_is_refused(values: dict[str, Any], told: str) -> None:
    assert any(told in line for line in problems(laid_over(values)))


@pytest.mark.parametrize("name", ["model_x", "allin", "cot2", "negatives", "trained", "if", "lambda", "none", "rules", "input"])
def test_names_that_are_only_like_others_are_taken(name: str) -> None:
    figures = {f"loss_of_{name}": ["in-task"], "figure1": ["in-task"], "table1": ["in-task"]}
    values = {"runs": {name: {"like": "base"}}, "strategies": {name: {}}, "studies": {name: STUDY | {"figures": figures}}}
    config = laid_over(values | {"models": {name: {}}})
    assert name in load(config).studies


@pytest.mark.parametrize("strategy", ["similar", "clarify", "revise"])
def test_a_selection_whose_relatives_cannot_be_made_is_refused(strategy: str) -> None:
    values = laid_over({})
    values["strategies"].pop(strategy)
    values["selections"] = {"chosen": values["selections"]["chosen"]}
    (line,) = problems(values)
    assert strategy in line
    assert "unknown dataset" in line


@pytest.mark.parametrize(
    ("values", "told"),
    [
        (
            {"relatives": {"analogue": "questions.similar"}},
            "selections.chosen.relatives.analogue: 'questions.similar' is not made from 'candidates'",
        ),
        ({"relatives": {"analogue": "negative.similar"}}, "'negative.similar' is made from the selection itself"),
        ({"examples": "candidate"}, "selections.chosen.examples: unknown dataset 'candidate' (did you mean 'candidates'?)"),
        ({"scores": {"run": "bsae"}}, "selections.chosen.scores.run: there is no run 'bsae'"),
        ({"outputs": {"panel": {}}}, "the name 'panel' under outputs of selections is also under datasets"),
        ({"outputs": {"cot": {}}}, "the name 'cot' under outputs of selections is also under strategies"),
    ],
)
def test_a_selection_that_names_something_else_is_refused(values: dict[str, Any], told: str) -> None:
    assert told in problems(laid_over({"selections": {"chosen": values}}))[0]


@pytest.mark.parametrize(
    ("values", "told"),
    [
        (
            {"mine": {"sources": [{"kind": "generator"}], "exclude": ["panels"]}},
            "datasets.mine.exclude: unknown dataset 'panels' (did you mean",
        ),
        ({"panel": {"exclude": ["panel.cot"]}}, "datasets.panel.exclude: what is kept out is made from 'panel' itself"),
        (
            {"panel": {"exclude": ["base.cot"]}},
            "datasets.panel.exclude: what is kept out is made from 'panel' itself, or keeps it out in turn",
        ),
        (
            {"mine": {"sources": [{"kind": "generator"}], "split": {"cot": 3}}},
            "the name 'cot' under parts of a split is also under strategies",
        ),
        (
            {"mine": {"sources": [{"kind": "generator"}], "split": {"analogues": 3}}},
            "the name 'analogues' under parts of a split is reserved",
        ),
        ({"mine": {"sources": []}}, "`datasets.mine.sources`: List should have at least 1 item"),
        ({"Mine": {"sources": [{"kind": "generator"}]}}, "dataset name 'Mine': use lower-case letters"),
    ],
)
def test_a_dataset_that_has_two_readings_or_keeps_itself_out_is_refused(values: dict[str, Any], told: str) -> None:
    assert told in problems(laid_over({"datasets": values}))[0]


# ---- names that reach a command line, a path or a figure ----


@pytest.mark.parametrize("key", ["results", "cache"])
@pytest.mark.parametrize(
    "path",
    [
        "",
        "  ",
        "my {x} results",
        "a}",
        "{",
        "-r",
        "--help",
        "a\nb",
        "a\tb",
        "~nobody-at-all/x",
        "x" * 256,
        "a/" * 501,
        "ü" * 128,
        "a[1]",
        "a*",
        "a?",
    ],
)
def test_a_folder_that_cannot_work_is_refused(key: str, path: str) -> None:
    assert problems({key: path})[0].startswith(f"  - `{key}`: ")


@pytest.mark.parametrize("path", ["it's", "a b", "ü→", "/tmp/x", "$HOME", "a;b&c", 'q"q', "100%", "..", "a\\b"])
def test_a_folder_that_can_work_is_taken(path: str) -> None:
    assert load({"results": path, "cache": path}).results == path


@pytest.mark.parametrize(("path", "folder"), [("a/", "a"), ("./a//b", "a/b"), ("~/x", str(Path.home() / "x"))])
def test_a_folder_is_written_in_one_way(path: str, folder: str) -> None:
    assert load({"results": path}).results == folder


NAMED = [
    "studies/mine/probes",
    "studies/mine/targets",
    "studies/table1/rows",
    "studies/table1/published",
    "studies/agreement/predictors",
]


@pytest.mark.parametrize("path", NAMED)
@pytest.mark.parametrize("name", ["", " a", "a ", "-a", "_a", "x" * 101, "a\tb", "a\u2028b"])
def test_a_name_that_cannot_be_shown_is_refused(path: str, name: str) -> None:
    value: dict[str, Any] = {"studies": {"mine": copy.deepcopy(STUDY)}}
    update_config(
        value, at(f"{path}/{name}", {} if path.endswith("published") else {"of": "swift"} if path.endswith("predictors") else "panel")
    )
    assert any(line.startswith(f"  - `{path.replace('/', '.')}`: the name {name!r}") for line in problems(laid_over(value)))


@pytest.mark.parametrize("name", ["", "a/b", "../x", "{x}", "a}", "-f", ".x", "a\nb", "x" * 201, "ü" * 101, " a", "a\\b"])
def test_a_figure_that_cannot_be_a_file_is_refused(name: str) -> None:
    lines = problems(laid_over({"studies": {"mine": STUDY | {"figures": {name: ["in-task"]}}}}))
    assert any(re.match(r"  - `studies\.mine\.figures`: the name ", line) for line in lines)


@pytest.mark.parametrize("key", ["studies/cot/claims", "studies/scorer_audit/settings/labels"])
@pytest.mark.parametrize("path", ["", "a {x}.yaml", "-a.yaml", "a\nb"])
def test_a_file_that_no_rule_can_name_is_refused(key: str, path: str) -> None:
    assert problems(laid_over(at(key, path)))[0].startswith(f"  - `{key.replace('/', '.')}`: the path {path!r} is empty, begins with -")


ODD = """it's {x} {{y}} $5 "q" 100% <b>&amp; [/red] `id` $(id) \\frac $\\bad{$ | a=b; ü→"""


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, list[list[str]]], Path]:
    """A dry run with odd names everywhere: its text, the words of each rule's commands as a shell reads them, and the results' folder."""
    folder = tmp_path_factory.mktemp("odd")
    results = folder / """it's a ü $HOME `id` "q" & ; #1 a=b 100% \\ !<>|(x)~"""
    probe, target = ODD[:90], f"T {ODD[:80]}"
    study = {
        "question": f"{ODD}\nsecond line?\n",
        "caption": f"-{ODD}\n\n====\n",
        "probes": {probe: "panel.cot", "plain {z}": "panel"},
        "targets": {target: "panel.similar"},
        "kind": "influence",
        "control": "plain {z}",
        "unwanted": [target],
        "figures": {"""it's $5 [x] ü %d "q" `id` & ;""": ["in-task", "cross-task"]},
    }
    places = {"swift": {"study": "odd", "row": f"{probe} → In-task {target}"}, "training": {"study": "table1", "row": probe}}
    values: dict[str, Any] = {
        "results": str(results),
        "cache": str(folder / "c 'ache $x"),
        "model": {"name": str(folder / "model {m} 'x'")},
        "generation": {"stop": [ODD]},
        "studies": dict.fromkeys(["cot", "clarify", "evaluate"])
        | {"odd": study, "table1": {"question": ODD, "rows": {probe: "in_cot"}}}
        | {"agreement": {"items": {ODD[:80]: {probe: places}}}},
    }
    (folder / "odd.yaml").write_text(yaml.safe_dump(values, allow_unicode=True))
    command = [str(BIN / "snakemake"), "-n", "-p", "--nolock", "all", "swift_study_training", "--configfile", str(folder / "odd.yaml")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    found: dict[str, list[list[str]]] = {}
    for line in done.stdout.splitlines():
        if match := re.match(r" *Shell command: (.*) 2> ", line):
            words = shlex.split(match[1])
            script = next(w for w in words if w.endswith(".py"))
            found.setdefault(Path(script).stem, []).append(words)
    return done.stdout, found, results


def option(words: list[str], name: str) -> list[str]:
    """The values of an option as argparse would see them."""
    for k, word in enumerate(words):
        if word.startswith(f"--{name}="):
            return [word.partition("=")[2]]
        if word == f"--{name}":
            values = []
            for value in words[k + 1 :]:
                if value.startswith("--"):
                    break
                values.append(value)
            return values
    raise AssertionError(f"there is no --{name} in {words}")


def test_odd_names_reach_each_script_as_they_were_written(commands: tuple[str, dict[str, list[list[str]]], Path]) -> None:
    _, found, results = commands
    probe, target, line = ODD[:90], f"T {ODD[:80]}", ODD
    assert len(found) > 20  # scripts
    (figures,) = found["draw_figures"]
    drawn = json.loads(option(figures, "settings")[0])
    assert drawn["title"] == f"-{line} ===="
    assert drawn["control"] == "plain {z}"
    assert list(drawn["figures"]) == ["""it's $5 [x] ü %d "q" `id` & ;"""]
    assert option(figures, "output") == [f"{results}/studies/odd/figures"]
    (tables,) = found["write_tables"]
    assert json.loads(option(tables, "settings")[0])["questions"] == {"odd": f"{line} second line?"}
    (verdicts,) = found["decide_verdicts"]
    assert json.loads(option(verdicts, "settings")[0])["unwanted"] == [target]
    assert json.loads(option(verdicts, "settings")[0])["control"] == "plain {z}"
    (pairs,) = found["pair_influence"]
    assert list(json.loads(option(pairs, "settings")[0])["panel"]["probes"]) == [probe, "plain {z}"]
    (agree,) = found["agree"]
    assert unpack(option(agree, "settings")[0])["study"]["items"][ODD[:80]][probe]["swift"]["study"] == "odd"
    assert unpack(option(agree, "settings")[0])["sources"]["odd"]["pairs"] == f"{results}/studies/odd/pairs.parquet"
    compared = {option(words, "study")[0]: words for words in found["compare"]}
    assert set(unpack(option(compared["table1"], "settings")[0])["study"]["rows"]) >= {probe, "Base"}
    assert option(compared["table1"], "folder") == [f"{results}/studies/table1"]
    made = {option(words, "dataset")[0]: option(words, "analogues") for words in found["apply_strategy"]}
    assert made["panel.similar"] == [f"{results}/data/panel.analogues.parquet"]
    assert made["base.cot"] == []
    starts = {option(words, "name")[0]: option(words, "start-from") for words in found["train"]}
    assert starts["base"] == []
    assert starts["in_cot/seed=17/model=main"] == [f"{results}/runs/full_base/seed=17/model=main/checkpoints"]
    assert {option(words, "stop")[0] for words in found["train"]} == {f"{results}/work/train/{run}.stop" for run in starts}
    for words in found["respond"]:
        assert json.loads(option(words, "settings")[0])["responding"]["generation"]["stop"] == [ODD]
    for words in found["find_model"]:
        assert json.loads(option(words, "settings")[0])["name"].endswith("/model {m} 'x'")
    written = [w for words in found["write_config"] for w in option(words, "config")]
    assert unpack(written[0])["studies"]["odd"]["probes"][probe] == "panel.cot"


def test_names_of_rules_are_those_of_the_workflow() -> None:
    """Written in the configuration's module, since names are checked there; here they are held against the rules themselves."""
    named = set()
    for file in (ROOT / "Snakefile", *(ROOT / "rules").glob("*.smk")):
        named |= set(re.findall(r"^(?:rule|use rule \w+ as) (\w+)", file.read_text(), re.MULTILINE))
    assert named == RULES


def test_what_a_study_reads_stands_on_no_command_line(tmp_path: Path) -> None:
    """Fault 1: Linux allows 131,071 bytes for a command that a shell gets, and the paths of 400 runs' scores alone have twice as many."""
    runs = {f"many_{k:03}": {"like": "full_base"} for k in range(400)}
    rows = {"Base": "full_base"} | {run: run for run in runs}
    values: dict[str, Any] = {
        "results": str(tmp_path / "results"),
        "runs": runs,
        "studies": {
            "cot": {"caption": "ü' " * 600},
            "many": DEFAULTS["studies"]["table1"] | {"rows": rows, "control": None, "claims": None},
        },
    }
    (tmp_path / "many.yaml").write_text(yaml.safe_dump(values))
    command = [str(BIN / "snakemake"), "-n", "-p", "--nolock", str(tmp_path / "results/studies/many/page.html"), "agreement"]
    done = subprocess.run([*command, "--configfile", str(tmp_path / "many.yaml")], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    lines = [line for line in done.stdout.splitlines() if "Shell command: " in line]
    assert max(len(line.encode()) for line in lines) < 20_000
    (compare,) = (line for line in lines if "/compare.py" in line and "--study many" in line)
    assert "scores.parquet" not in compare


@pytest.mark.parametrize("value", [{}, [], {"a": "it's ü=\n{x}"}, "=", [{"row": "→ D_pos"}] * 1000])
def test_packed_values_come_back(value: Any) -> None:
    text = json.dumps(value, ensure_ascii=False)
    assert unpack(text) == unpack(pack(text)) == value
    assert not set(pack(text)) & set("'\"\\ {}$`")


# ---- anything at all ----

HOSTILE: list[Any] = [
    None, "", " ", "x", "it's", "{x}", "{", "}}", "%s", "ä→", "\n", "a\nb", "-x", "--help", "_x", "\0", "\ud800", "a" * 300, "a" * 5000,
    "panel" + ".similar" * 300, "nan", "inf", "1e309", "no", "..", "/", "a/b", "~nobody/x", "$(x)", "base", "model", "judge", "train", ".",
    True, False, 0, 1, -1, 3, 10**6, 10**9, 10**15, 2**53, 10**20, 10**400, 0.5, 1e308, -1e308, 1e-308, float("nan"), float("inf"),
    [], {}, [[]], [{}], {"a": 1}, {"": {}}, {1: 2}, {None: 1}, {True: {}}, [None], ["x"], [0], ["base"], {"x": {"x": {"x": {}}}},
    date(2020, 1, 1), b"x", {1, 2}, {"like": "base"}, {"base": {}}, [{"base": {}}], [{"base": {"examples": 10**12}}], {"base": None},
]  # fmt: skip


def mutated(draw: random.Random) -> dict[str, Any]:
    """The configuration with one to three random places set, removed, renamed or given another key."""
    config: dict[str, Any] = copy.deepcopy(EVERYTHING)
    for _ in range(draw.choice([1, 1, 1, 2, 3])):
        path, _ = draw.choice(ALL_PLACES)
        here: Any = config
        try:
            for part in path[:-1]:
                here = here[part]
            old = here[path[-1]]
        except (KeyError, IndexError, TypeError):
            continue  # another change took it away
        if not isinstance(here, dict | list):
            continue  # or put a text there
        value, name = draw.choice(HOSTILE), draw.choice([h for h in HOSTILE if isinstance(h, str | int | float | None)])
        match draw.choice(["set", "set", "set", "remove", "rename", "add"]):
            case "set":
                here[path[-1]] = value
            case "remove":
                del here[path[-1]]
            case "rename" if isinstance(here, dict):
                here[name] = here.pop(path[-1])
            case "add" if isinstance(old, dict):
                old[name] = draw.choice([*old.values(), value])
            case "add" if isinstance(old, list):
                old.append(value)
    return config


ALL_PLACES = list(places(EVERYTHING))


@pytest.mark.parametrize("seed", range(4))
def test_any_configuration_is_taken_or_refused_with_a_key(seed: int) -> None:
    draw = random.Random(seed)
    taken = 0
    for _ in range(150):
        config = mutated(draw)
        began = time.process_time()
        try:
            load(config)
            taken += 1
        except UserError as error:
            first, *lines = str(error).splitlines()
            assert first == "The configuration is not valid:"
            assert lines
            for line in lines:
                assert re.match(r"  - (unknown key )?`[^`]+`", line), line
                assert len(line) < 1010
        assert time.process_time() - began < 2
    assert 5 < taken < 75


def test_every_default_is_what_a_file_may_say() -> None:
    assert load(copy.deepcopy(EVERYTHING)).results == Config().results
