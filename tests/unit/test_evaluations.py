"""Evaluations: grids, what levels change, what a run's factors decide, and the sentences; prompts with shots and raw text."""

import json
import re
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
import yaml
from configuration import configured
from tiny import ROOT
from transformers import LogitsProcessorList, RepetitionPenaltyLogitsProcessor

from swift_study.config import Config, Generation, Graph, Model, Responding, Scoring
from swift_study.config.grid import agrees, fill, label_of, path_of, points, read_path
from swift_study.config.studies import AuditStudy
from swift_study.errors import UserError
from swift_study.evaluation.prompts import Prompts, draw_shots, raw_text, with_shots
from swift_study.evaluation.responses import RepetitionPenalty, read_given, respond
from swift_study.evaluation.scorers import load_scorer, read_items, score_items
from swift_study.examples import Example, Message
from swift_study.io.settings import argument, changing_nothing, deciding, read_settings
from swift_study.io.tables import RESPONSES, write_examples, write_table
from swift_study.models.loading import load_model
from swift_study.models.rendering import Renderer, load_renderer


def example(query: str, answer: str = "a", system: str | None = None) -> Example:
    turns = [Message(role="system", content=system)] if system else []
    turns += [Message(role="user", content=query), Message(role="assistant", content=answer)]
    return Example(task="t", messages=turns)


def with_evaluation(name: str = "mine", **keys: Any) -> Config:
    return configured({"evaluations": {name: {"dataset": "panel", "scorers": ["key_points"]} | keys}})


# ---- grids ----


def test_points_have_names_and_paths_that_can_be_read_back() -> None:
    grid = {"n": [0, 10], "design": ["a/b", "x y, ü=1"], "flag": [True]}
    found = points(grid, skip=[{"n": 0, "design": "a/b"}])
    assert [p["n"] for p in found] == [0, 10, 10]
    assert path_of("fam", found[1]) == "fam/n=10/design=a%2Fb/flag=true"
    assert label_of("fam", found[1]) == "fam[n=10,design=a/b,flag=true]"
    for point in found:
        name, levels = read_path(path_of("fam", point))
        assert name == "fam"
        assert agrees(point, levels)
    assert points({}) == [{}]
    assert path_of("fam", {}) == label_of("fam", {}) == "fam"


def test_fields_are_filled_in_and_one_alone_keeps_its_type() -> None:
    value = {"seed": "{n}", "dataset": "masa_{d}.test.{mode}", "list": ["{n}", 3]}
    assert fill(value, {"n": 5, "d": "d1", "mode": "json"}) == {"seed": 5, "dataset": "masa_d1.test.json", "list": [5, 3]}
    with pytest.raises(ValueError, match=r"'\{x\}' refers to the factor 'x', which is not there; there are: n"):
        fill("{x}", {"n": 1})


# ---- the configuration ----


def test_the_default_evaluations_are_those_of_the_paper() -> None:
    config = configured()
    assert config.evaluation_points("questions", "full_base") == ["questions"]
    tried = config.evaluation_points("tried", "base")
    assert [config.evaluation(path, "base").dataset for path in tried][:2] == ["candidates", "candidates.similar"]
    assert config.evaluation("questions", "full_base").generation == config.generation == Generation()


def test_an_evaluation_lays_its_generation_over_the_default() -> None:
    config = configured(
        {
            "generation": {"max_new_tokens": 99, "stop": ["\n"]},
            "evaluations": {
                "mine": {"dataset": "panel", "generation": {"temperature": 0.7, "seed": "{decoding}"}, "grid": {"decoding": [1, 2]}}
            },
        }
    )
    found = [config.evaluation(path, "base").generation for path in config.evaluation_points("mine", "base")]
    assert [(g.max_new_tokens, g.stop, g.temperature, g.seed) for g in found] == [(99, ["\n"], 0.7, 1), (99, ["\n"], 0.7, 2)]


def test_stop_texts_may_hold_braces() -> None:
    config = with_evaluation(generation={"stop": ["{x}", "}}"]}, grid={"x": [1]})
    assert config.evaluation("mine/x=1", "base").generation.stop == ["{x}", "}}"]
    assert configured({"generation": {"stop": ["{y}"]}}).evaluation("questions", "base").generation.stop == ["{y}"]


def test_levels_of_the_grid_and_of_the_run_change_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    config = with_evaluation(
        dataset="{part}.{mode}",
        grid={"part": {"panel": {}, "candidates": {"shots": 2}}},
        by_level={"mode": {"json": {"generation": {"max_new_tokens": 90}}}},
        skip=[{"part": "candidates", "mode": "cot"}],
    )
    monkeypatch.setattr(Config, "factors_of", lambda self, run: {"run": run, "mode": run})
    assert config.evaluation_points("mine", "json") == ["mine/part=panel", "mine/part=candidates"]
    assert config.evaluation_points("mine", "cot") == ["mine/part=panel"]
    panel, candidates = (config.evaluation(p, "json") for p in config.evaluation_points("mine", "json"))
    assert (panel.dataset, panel.shots, panel.generation.max_new_tokens) == ("panel.json", 0, 90)
    assert (candidates.dataset, candidates.shots) == ("candidates.json", 2)
    assert config.evaluation("mine/part=panel", "cot").generation.max_new_tokens == 32


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"dataset": "panell"}, "evaluations.mine.dataset: unknown dataset 'panell' (did you mean 'panel'?)"),
        ({"scorers": ["key_point"]}, "scorers/key_point.py: there is no such scorer file"),
        ({"generation": {"max_new_token": 3}}, "unknown key `generation.max_new_token` (did you mean 'max_new_tokens'?)"),
        ({"generation": {"max_new_tokens": 0}}, "evaluations.mine.generation.max_new_tokens: Input should be greater than or equal to 1"),
        ({"generation": {"top_p": 0.5, "endpoint": "x"}}, "top_p is 0.5: it cannot be sent to an endpoint"),
        ({"generation": {"repetition_penalty": 1.1, "endpoint": "x"}}, "repetition_penalty is 1.1: it cannot be sent to an endpoint"),
        ({"generation": {"prompt_tokens": 9, "endpoint": "x"}}, "prompt_tokens is 9: it cannot be sent to an endpoint"),
        ({"template": "none", "generation": {"endpoint": "x"}}, "template: none cannot be sent to an endpoint"),
        ({"grid": {"run": [1]}}, "the factor 'run' cannot be used"),
        ({"grid": {"n": []}}, "grid.n: it needs levels, each once and none empty"),
        ({"grid": {"n": [1, "1"]}}, "grid.n: it needs levels, each once"),
        ({"grid": {"n": {"a": {"scorers": []}}}}, "grid.n.a: 'scorers' cannot be changed by level"),
        ({"grid": {"n": {"a": {"generation": {"endpoint": "x"}}}}}, "grid.n.a.generation.endpoint: it is the same for all points"),
        ({"grid": {"n": {"a": {"shots": 1}}, "m": {"b": {"shots": 2}}}}, "the factors 'n' and 'm' both change `shots`"),
        ({"shots": -1}, "evaluations.mine.shots: Input should be greater than or equal to 0"),
        ({"template": "raw"}, "`evaluations.mine.template`: Input should be 'chat' or 'none'"),
        ({"scorer": ["key_points"]}, "unknown key `evaluations.mine.scorer` (did you mean 'scorers'?)"),
    ],
)
def test_an_evaluation_that_cannot_be_is_a_sentence(keys: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as caught:
        with_evaluation(**keys)
    assert said in str(caught.value)


FAMILY = {
    "fam": {
        "like": "full_base",
        "warmup_steps": 0,
        "schedule": [{"base": {"examples": "{n}"}}],
        "grid": {"n": [8, 16], "seed": [1, 2], "mode": ["plain", "json"]},
    },
    "lima": {"like": "full_base", "grid": {"seed": [1, 2]}},
}


def test_an_evaluation_may_refer_to_the_factors_of_a_run_family() -> None:
    keys = {"dataset": "panel", "grid": {"decoding": [1, 2]}, "generation": {"seed": "{decoding}", "max_new_tokens": "{n}"}}
    keys |= {"by_level": {"mode": {"json": {"shots": 2}}}, "skip": [{"decoding": 2, "n": 8}]}
    config = configured({"runs": FAMILY, "evaluations": {"mine": keys}})
    assert config.evaluation_points("mine", "fam/n=8/seed=1/mode=json") == ["mine/decoding=1"]
    assert config.evaluation_points("mine", "fam/n=16/seed=1/mode=json") == ["mine/decoding=1", "mine/decoding=2"]
    json_run, plain = (config.evaluation("mine/decoding=2", f"fam/n=16/seed=1/mode={mode}") for mode in ("json", "plain"))
    assert (json_run.shots, json_run.generation.seed, json_run.generation.max_new_tokens) == (2, 2, 16)
    assert plain.shots == 0


def test_a_factor_of_run_and_evaluation_alike_is_a_sentence() -> None:
    config = configured({"runs": FAMILY, "evaluations": {"mine": {"dataset": "panel", "grid": {"seed": [1]}}}})
    with pytest.raises(UserError, match=r"the run 'lima/seed=1' has a factor 'seed' as well, and one column cannot hold both"):
        config.evaluation("mine/seed=1", "lima/seed=1")


def test_an_opponent_has_the_run_s_own_levels() -> None:
    scorers = {"wins": {"by": "key_points", "against": "lima"}, "same": {"by": "key_points", "against": "fam[n=8,mode=plain]"}}
    config = configured({"runs": FAMILY, "scorers": scorers | {"open": {"by": "key_points", "against": "fam"}}})
    assert config.opponent("key_points", "fam/n=16/seed=2/mode=json") is None
    assert config.opponent("wins", "fam/n=16/seed=2/mode=json") == "lima/seed=2"
    assert config.opponent("same", "fam/n=16/seed=2/mode=json") == "fam/n=8/seed=2/mode=plain"
    with pytest.raises(
        UserError, match=r"scorers\.open\.against: 'fam' is 4 runs for the run 'lima/seed=1'; name the levels of one in brackets"
    ):
        config.opponent("open", "lima/seed=1")
    with pytest.raises(UserError, match=r"scorers\.wins\.against"):
        configured({"scorers": {"wins": {"by": "key_points", "against": "nobody"}}})


def test_a_scorer_gets_the_response_of_the_opponent(tmp_path: Path) -> None:
    (tmp_path / "longer.py").write_text(
        "from swift_study.evaluation.scorers import Score\nSTATISTICS = ('wins', 'n')\n"
        "def score(item): return Score({'wins': len(item.response) > len(item.opponent), 'n': 1})\n"
        "def metrics(sums): return {'win_rate': sums['wins'] / sums['n']}\n"
    )
    write_examples(tmp_path / "q.parquet", [example("1"), example("2")])
    for name, texts in (("ours", ("long", "s")), ("theirs", ("l", "short"))):
        rows = [
            {"query_id": example(q).example_id, "response": r, "finish_reason": "stop", "n_tokens": 1, "seed": 1}
            for q, r in zip("12", texts, strict=True)
        ]
        write_table(tmp_path / f"{name}.parquet", pl.DataFrame(rows), RESPONSES)
    items = read_items(tmp_path / "q.parquet", Scoring(), tmp_path / "ours.parquet", tmp_path / "theirs.parquet")
    assert [item.opponent for item in items] == ["l", "short"]
    scorer = load_scorer(tmp_path / "longer.py")
    assert [s.score.statistics for s in score_items(scorer, items)] == [{"wins": True, "n": 1}, {"wins": False, "n": 1}]


def test_a_design_reads_responses_back(tmp_path: Path) -> None:
    examples = [e.model_copy(update={"record": json.dumps({"prompt": e.query, "completion": {"food": "good"}})}) for e in POOL[:3]]
    write_examples(tmp_path / "q.parquet", examples)
    said = ['{"food": "bad"}', "food is bad", None]
    rows = [{"query_id": e.example_id, "response": r} for e, r in zip(examples, said, strict=True)]
    frame = pl.DataFrame([row | {"finish_reason": "stop", "n_tokens": 1, "seed": 1} for row in rows])
    write_table(tmp_path / "r.parquet", frame, RESPONSES)
    items = read_items(tmp_path / "q.parquet", Scoring(), tmp_path / "r.parquet", design=ROOT / "designs" / "plain.py")
    assert [item.parsed for item in items] == [{"completion": {"food": "bad"}}, None, None]
    assert "unparsable: the response is not JSON" in str(items[1].unreadable)
    assert items[0].unreadable is None
    assert read_items(tmp_path / "q.parquet", Scoring(), tmp_path / "r.parquet")[0].parsed is None


def test_the_design_of_an_evaluation_is_the_last_part_of_its_dataset() -> None:
    designs = {"json": {"like": "plain", "options": {"completion": "aspects"}}}
    config = configured({"designs": designs, "evaluations": {"mine": {"dataset": "panel.json"}, "other": {"dataset": "panel.cot"}}})
    assert (config.design_of("mine", "base"), config.design_of("other", "base")) == ("json", None)
    assert Graph(config).scoring("key_points", "mine", "base").design_options == {"completion": "aspects"}


def test_a_factor_that_no_run_has_is_a_sentence_where_it_is_asked_for() -> None:
    config = with_evaluation(dataset="masa.test.{design}")
    with pytest.raises(UserError, match=r"evaluations\.mine: .*refers to the factor 'design', which is not there; there are: run"):
        config.evaluation("mine", "base")
    with pytest.raises(UserError, match=r"evaluations\.mine\[n=3\]: there is no such point; `evaluations\.mine` has the factors none"):
        config.evaluation("mine/n=3", "base")
    with pytest.raises(UserError, match=r"there is no evaluation 'mien' \(did you mean 'mine'\?\)"):
        config.evaluation("mien", "base")


def test_the_page_of_evaluations_is_right(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every example of docs/evaluations.md is a configuration, beside scorers that are there."""
    page = (ROOT / "docs" / "evaluations.md").read_text(encoding="utf-8")
    blocks = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)]
    assert len(blocks) == 6
    whole = Config.factors_of
    monkeypatch.setattr(
        Config, "factors_of", lambda self, run: {**whole(self, run), "design": run} if "=" in run else {"run": run, "design": run}
    )
    assert configured(blocks[0]).evaluation("questions", "base").generation.max_new_tokens == 32
    with pytest.raises(UserError, match=r"scorers/brevity\.py: there is no such scorer file"):
        configured(blocks[1])
    config = configured(blocks[2])
    assert config.evaluation_points("reviews", "bare") == [f"reviews/test=d1/decoding={n}" for n in (1, 2, 3)]
    reviews = config.evaluation("reviews/test=d2/decoding=3", "json")
    assert (reviews.dataset, reviews.generation.seed, reviews.generation.max_new_tokens) == ("reviews_d2.test.json", 3, 90)
    assert config.evaluation("published", "mine").responses == "outputs/mine.jsonl"
    assert set(configured(blocks[3]).endpoints) == {"teacher", "judge", "served"}
    assert configured(blocks[4]).scorer_endpoint("judge_mini") == "mini"
    uses = configured(blocks[5])
    assert [uses.scorer_file(name).stem for name in blocks[5]["scorers"]] == ["aspects", "aspects", "mentions"]


def test_the_page_of_evaluations_has_scorers_with_metrics_that_they_give() -> None:
    page = (ROOT / "docs" / "evaluations.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| (`[^|]*) \|", page[page.index("scorers come with the repository") :].split("\n\n")[1], re.MULTILINE)
    assert len(rows) == 6
    for name, metrics in rows:
        scorer = load_scorer(ROOT / "scorers" / f"{name}.py")
        assert set(re.findall(r"`(\w+)`", metrics)) <= set(scorer.metrics(dict.fromkeys(scorer.declared.statistics, 1.0)))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"teacher": {"model": "m"}}, "`teacher` has another name: write `endpoints.teacher`"),
        ({"judge": {}}, "`judge` has another name: write `endpoints.judge`"),
        ({"responses": {"max_new_tokens": 9}}, "`responses` has another name: write `generation`"),
        ({"generation": {"server": {"model": "m"}}}, "`generation.server` has another name: write `endpoints.<name>`"),
    ],
)
def test_old_keys_are_told_their_new_names(values: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as caught:
        configured(values)
    assert said in str(caught.value)


# ---- what the rules are told ----

SERVER = {"base_url": "http://localhost:1/v1", "model": "m"}


def test_what_changes_no_response_is_not_among_what_does() -> None:
    endpoint = SERVER | {"concurrency": 3, "timeout_s": 7}
    config = configured(
        {"endpoints": {"other": endpoint}, "evaluations": {"mine": {"dataset": "panel", "generation": {"endpoint": "other"}}}}
    )
    responding = Graph(config).responding("mine", "base")
    told, left = deciding(responding), changing_nothing(responding)
    assert "batch_size" not in told["generation"]
    assert read_settings(Responding, argument(told), argument(left)) == responding
    assert told["endpoint"]["model"] == "m"
    assert not {"concurrency", "timeout_s", "key_env"} & set(told["endpoint"])
    assert (left["endpoint"]["concurrency"], left["generation"]["batch_size"]) == (3, 64)
    assert config.responder("mine") == "other"
    assert config.responder("questions") is None


def test_an_endpoint_that_is_not_configured_is_refused_where_it_is_used() -> None:
    config = configured({"endpoints": {"judge": SERVER}, "evaluations": {"mine": {"dataset": "panel", "generation": {"endpoint": "juge"}}}})
    with pytest.raises(UserError, match=r"`endpoints\.juge` is not configured \(did you mean 'judge'\?\)"):
        Graph(config).responding("mine", "base")


def test_scorers_that_cannot_run_are_told_by_name() -> None:
    config = configured(
        {
            "scorers": {
                "strict": {"by": "judge"},
                "sbert": {"by": "key_points", "model": "nobody/no-model"},
                "odd": {"by": "key_points", "endpoint": "x"},
            }
        }
    )
    assert config.refusal("key_points") is None
    assert config.refusal("strict") == "the scorer 'strict' asks an endpoint, and `endpoints.judge` is not configured"
    assert "'nobody/no-model' is neither a folder nor in the hub's cache on this machine" in str(config.refusal("sbert"))
    assert "scorers.odd.endpoint is set, and the scorer asks none" in str(config.refusal("odd"))
    with pytest.raises(UserError, match=r"`endpoints\.judge` is not configured"):
        Graph(config).scoring("strict", "questions", "full_base")
    able = configured({"endpoints": {"judge": SERVER}, "scorers": {"strict": {"by": "judge", "options": {"scale": 2}}}})
    told = Graph(able).scoring("strict", "questions", "full_base")
    assert told.endpoint is not None
    assert (told.name, told.options, told.endpoint_name, told.endpoint.model) == ("strict", {"scale": 2}, "judge", "m")


def test_only_a_scorer_that_labels_is_audited() -> None:
    study = {"kind": "audit", "question": "?", "evaluation": "questions", "scorers": ["key_points"]}
    config = configured({"studies": {"mine": study}})
    assert config.labels("key_points")
    assert not config.labels("likelihood")
    with pytest.raises(UserError, match=r"scorers\.likelihood: an audit needs a scorer that labels; its STATISTICS have no `right`"):
        Graph(config).auditing("mine", "likelihood")


def test_an_audit_may_be_of_one_point_of_an_evaluation_and_knows_the_options_of_its_design() -> None:
    study = {"kind": "audit", "question": "?", "evaluation": "mine[form=plain]", "scorers": ["key_points"]}
    evaluation = {"dataset": "panel.{form}", "scorers": ["key_points"], "grid": {"form": ["plain"]}}
    designs = {"plain": {"options": {"instruction": "Say."}}}
    config = configured({"designs": designs, "evaluations": {"mine": evaluation}, "studies": {"mine": study}})
    audited = config.studies["mine"]
    assert isinstance(audited, AuditStudy)
    assert config.audited(audited) == "mine/form=plain"
    assert Graph(config).auditing("mine", "key_points").design_options == {"instruction": "Say."}


ASKING = {
    "comparison": {"rows": {"A": "fam[n=8]", "B": "fam[n=16]"}, "against": "A"},
    "sweep": {"runs": "fam", "x": "n"},
    "correlation": {"runs": ["lima", "fam"], "reference": "nats"},
}


@pytest.mark.parametrize("kind", ASKING)
def test_what_a_runs_factors_make_of_an_evaluation_is_checked_for_every_run_that_a_study_asks(kind: str) -> None:
    study = {"kind": kind, "question": "?", "evaluations": ["mine"], "metrics": ["nats_token"]} | ASKING[kind]
    designs = {"plain": {}, "json": {"like": "plain"}}

    def loaded(**keys: Any) -> Config:
        runs = FAMILY | {"lima": {"like": "full_base", "grid": {"mode": ["plain"], "n": [8]}}}
        evaluation = {"dataset": "panel.{mode}", "scorers": ["likelihood"]} | keys
        return configured({"designs": designs, "runs": runs, "evaluations": {"mine": evaluation}, "studies": {"mine": study}})

    assert loaded().evaluation("mine", "fam/n=8/seed=1/mode=json").dataset == "panel.json"
    of = r", for the run '(fam|lima)\[.*\]' \(studies.mine.evaluations\)"
    to_json = {"mode": {"json": {"dataset": "panel.jsn"}}}
    for keys, said in (
        ({"dataset": "panl.{mode}"}, rf"dataset{of}: unknown dataset 'panl.plain' \(did you mean 'panel'\?\)"),
        ({"by_level": to_json}, rf"dataset{of}: unknown dataset 'panel.jsn' \(did you mean 'panel.json'"),
        ({"shots": 1, "shots_from": "panel.{mode}.x"}, rf"shots_from{of}: unknown dataset 'panel.plain.x'"),
        ({"dataset": "panel.{made}"}, rf".*the factor 'made', which is not there; there are: .*mode.*{of}"),
        ({"by_level": {"mode": {"json": {"shots": -1}}}}, rf"shots: Input should be greater than or equal to 0 \(it is -1\){of}"),
    ):
        with pytest.raises(UserError, match=rf"evaluations\.mine[.:]{said}"):
            loaded(**keys)
    # What the evaluation skips is not asked.
    loaded(by_level=to_json, skip=[{"mode": "json"}])


def test_what_a_selection_or_an_audit_asks_is_checked_as_well() -> None:
    mine = {"mine": {"dataset": "candidates.{mode}", "scorers": ["key_points"]}}
    runs = {"fam": {"like": "base", "grid": {"mode": ["clarify", "clarfy"]}}}
    scores = {"run": "fam[mode=clarfy]", "evaluation": "mine"}
    chosen = {"examples": "candidates.clarify", "scores": scores, "outputs": {"some": {}}}
    with pytest.raises(UserError, match=r"\(selections.fresh.scores.evaluation\): unknown dataset 'candidates.clarfy' \(did you mean"):
        configured({"evaluations": mine, "runs": runs, "selections": {"fresh": chosen}})
    study = {"kind": "audit", "question": "?", "evaluation": "mine", "scorers": ["key_points"]}
    with pytest.raises(UserError, match=r"'candidates.\{mode\}' refers to the factor 'mode', which is not there"):
        configured({"evaluations": mine, "runs": runs, "studies": {"fresh": study}})


def test_generation_settings_do_not_reach_the_likelihood_and_shots_do() -> None:
    def told(**keys: Any) -> dict[str, Any]:
        config = configured({"evaluations": {"mine": {"dataset": "panel", "scorers": ["likelihood"]} | keys}})
        return Graph(config).scoring("likelihood", "mine", "base").model_dump()

    assert told() == told(generation={"max_new_tokens": 400, "temperature": 1.0})
    assert told()["shots"] == 0
    assert told(shots=3, template="none") | {"shots": 0, "template": "chat"} == told()


# ---- prompts ----


@pytest.fixture(scope="module")
def renderer(tiny_model: Path) -> Renderer:
    return load_renderer(tiny_model, Model())


POOL = [example(f"What is {n} + 1?", str(n + 1)) for n in range(8)]


def test_shots_depend_on_the_query_alone_and_fewer_are_the_first_of_more() -> None:
    three, two = draw_shots(POOL, POOL, 3), draw_shots(POOL[::-1], POOL[::-1], 2)
    for e in POOL:
        assert e.query not in {shot.query for shot in three[e.example_id]}
        assert len({shot.query for shot in three[e.example_id]}) == 3
        assert three[e.example_id][:2] == two[e.example_id]
    assert len({tuple(s.query for s in shots) for shots in three.values()}) > 1
    assert draw_shots(POOL, POOL, 0) == {}
    with pytest.raises(UserError, match=r"8 solved examples are to stand before each query \(shots\), but there are 7 beside the query"):
        draw_shots(POOL, POOL, 8)


def test_shots_are_turns_behind_the_system_message(renderer: Renderer) -> None:
    asked = with_shots(example("q", system="Be brief."), [example("1?", "one"), example("2?", "two")])
    said = [("user", "1?"), ("assistant", "one"), ("user", "2?"), ("assistant", "two"), ("user", "q"), ("assistant", "a")]
    assert [(m.role, m.content) for m in asked.messages] == [("system", "Be brief."), *said]
    query = example("q", system="Be brief.")
    prompts = Prompts(renderer, shots={query.example_id: [example("1?", "one"), example("2?", "two")]})
    assert prompts.ids(query) == renderer.prompt(asked)
    assert prompts.tokens(query, "yes") == renderer.tokens(asked.derive("x", "q", "yes"))


def test_raw_text_has_no_template(renderer: Renderer) -> None:
    query = example("Capital of Peru? ", system="Geography.")
    shots = {query.example_id: [example("Capital of Chile?", "Santiago")]}
    prompts = Prompts(renderer, "none", shots)
    assert raw_text(with_shots(query, shots[query.example_id])) == "Geography.\nCapital of Chile? Santiago\nCapital of Peru?"
    decode = renderer.tokenizer.decode
    assert decode(prompts.ids(query)) == "Geography.\nCapital of Chile? Santiago\nCapital of Peru?"
    tokens = prompts.tokens(query, "Lima")
    assert tokens.ids[: tokens.prompt_length] == prompts.ids(query)
    assert decode(tokens.ids[tokens.prompt_length :]) == " Lima"


def test_control_tokens_in_raw_text_stay_text(renderer: Renderer) -> None:
    prompts = Prompts(renderer, "none")
    ids = prompts.ids(example("Say <|im_end|> aloud"))
    assert not set(ids) & set(renderer.tokenizer.all_special_ids)
    assert renderer.tokenizer.decode(ids) == "Say <|im_end|> aloud"


def test_a_prompt_is_cut_from_the_left(renderer: Renderer) -> None:
    query = example("Write down every number from one to one hundred.")
    whole, cut = Prompts(renderer).ids(query), Prompts(renderer, longest=7).ids(query)
    begins = int(whole[:1] == [renderer.tokenizer.bos_token_id])
    assert cut == whole[:begins] + whole[len(whole) - (7 - begins) :]
    assert Prompts(renderer, longest=10**6).ids(query) == whole
    tokens = Prompts(renderer, longest=7).tokens(query, "one")
    assert (tokens.ids[:7], tokens.prompt_length) == (cut, 7)


# ---- repetition penalty ----


@pytest.mark.parametrize("penalty", [1.3, 0.8])
def test_the_penalty_is_that_of_transformers_without_padding(penalty: float) -> None:
    generator = torch.Generator().manual_seed(1)
    lengths, width, vocabulary = [5, 3, 1], 5, 20
    ids = torch.randint(0, vocabulary, (3, width), generator=generator)
    ours = RepetitionPenalty(penalty, lengths)
    theirs = LogitsProcessorList([RepetitionPenaltyLogitsProcessor(penalty=penalty)])
    for _ in range(4):
        scores = torch.randn((3, vocabulary), generator=generator)
        found = ours(ids, scores)
        for row, length in enumerate(lengths):
            padding = width - length
            expected = theirs(ids[row : row + 1, padding:], scores[row : row + 1].clone())
            torch.testing.assert_close(found[row : row + 1], expected, rtol=0, atol=0)
        ids = torch.cat([ids, torch.randint(0, vocabulary, (3, 1), generator=generator)], dim=1)


def test_responses_with_a_penalty_are_those_of_transformers_alone_and_for_any_batch(tiny_model: Path, renderer: Renderer) -> None:
    model = load_model(tiny_model, Model())
    queries = [example(text) for text in ("Hi", "Write seven long words about the sea and the sky.", "a a a a a b b b")]
    settings = Generation(max_new_tokens=12, repetition_penalty=1.7)
    alone = respond(model, Prompts(renderer), queries, settings.model_copy(update={"batch_size": 1}))
    assert respond(model, Prompts(renderer), queries, settings) == alone
    assert alone != respond(model, Prompts(renderer), queries, Generation(max_new_tokens=12))
    for query, response in zip(queries, alone, strict=True):
        prompt = torch.tensor([renderer.prompt(query)])
        with torch.inference_mode():
            output = model.generate(
                prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_new_tokens=12, repetition_penalty=1.7,
                eos_token_id=renderer.end_ids, pad_token_id=renderer.pad_id,
            )  # fmt: skip
        text = renderer.tokenizer.decode(output[0, prompt.shape[1] :], skip_special_tokens=True)
        assert response.response == text.strip()


# ---- responses from a file ----


def test_responses_come_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    rows = [
        {"query": "what is  1 + 1?", "response": "2"},
        {"query": "What is 0 + 1?", "response": None},
        {"query": "other", "response": "x"},
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    found = read_given(path, [POOL[0], POOL[1]])
    assert [(r.query_id, r.response, r.finish_reason) for r in found] == [
        (POOL[0].example_id, None, "refused"), (POOL[1].example_id, "2", "given"),
    ]  # fmt: skip
    with pytest.raises(UserError, match=r"r\.jsonl: there is no response to 6 of the 8 queries, such as 'What is 2 \+ 1\?'"):
        read_given(path, POOL)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"query": "q"}, "row 2: there is no column 'response'; the row has query"),
        ({"query": 1, "response": "x"}, "row 2, column query: expected text, found 1"),
        ({"query": "q", "response": 1}, "row 2, column response: expected text, found 1"),
        ({"query": "P ", "response": "x"}, "row 2: there is a response to the query 'P ' above already"),
    ],
)
def test_a_wrong_row_of_responses_is_a_sentence(tmp_path: Path, row: dict[str, Any], said: str) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text("\n".join(map(json.dumps, [{"query": "p", "response": "x"}, row])))
    with pytest.raises(UserError, match=rf"r\.jsonl, {said}"):
        read_given(path, [example("p")])


def test_the_repository_has_the_instructions_of_its_judge() -> None:
    config = configured({"endpoints": {"judge": SERVER}})
    found = config.scorer_instructions("judge")
    assert found is not None
    assert (ROOT / "prompts" / "judge.txt").samefile(ROOT / found)
    assert config.scorer_instructions("key_points") is None
