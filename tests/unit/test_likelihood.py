"""Likelihoods of golden answers against a plain forward pass."""

from pathlib import Path

import numpy as np
import pytest
import torch
from made_examples import example
from tiny import ROOT

from swift_study.config import Model
from swift_study.errors import UserError
from swift_study.evaluation.likelihood import golden_example, log_likelihoods, with_candidates
from swift_study.evaluation.prompts import Prompts
from swift_study.evaluation.scorers import Item, load_scorer, read_statistics, score_items, write_scores
from swift_study.models.loading import load_model
from swift_study.models.rendering import load_renderer
from swift_study.models.tokens import Tokens

LENGTHS = [(6, 3), (4, 8), (3, 2), (9, 11), (1, 1), (12, 5), (2, 30)]


def plain(model: torch.nn.Module, tokens: Tokens) -> float:
    """One example, no padding, all logits, token by token."""
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([tokens.ids])).logits[0].double()
    log_p = torch.log_softmax(logits, dim=1)
    return sum(float(log_p[i - 1, tokens.ids[i]]) for i in range(tokens.prompt_length, len(tokens.ids)))


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> torch.nn.Module:
    return load_model(tiny_model, Model())


@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_likelihoods_are_those_of_a_plain_forward_pass_for_any_batch(model: torch.nn.Module, batch_size: int) -> None:
    rng = np.random.default_rng(0)
    tokens = [Tokens(rng.integers(3, 49000, a + b).tolist(), a) for a, b in LENGTHS]
    done: list[int] = []
    found = log_likelihoods(model, tokens, 2, batch_size, done.append)
    assert [(len(of), of.dtype) for of in found] == [(t.n_completion, np.float64) for t in tokens]
    assert [of.sum() for of in found] == pytest.approx([plain(model, t) for t in tokens], rel=1e-6)
    assert done[-1] == len(tokens)


def test_the_golden_answer_is_scored_with_its_end_token_and_the_query_keeps_its_id(
    model: torch.nn.Module, tiny_model: Path, tmp_path: Path
) -> None:
    renderer = load_renderer(tiny_model, Model())

    examples = [example("What is 2 + 2?", "5, I think.", golden="4"), example("What is 2 + 2?", "four")]
    tokens = [renderer.tokens(golden_example(e)) for e in examples]
    assert [renderer.tokenizer.decode(t.ids[t.prompt_length :]) for t in tokens] == ["4<|im_end|>", "four<|im_end|>"]
    scorer = load_scorer(ROOT / "scorers" / "likelihood.py")
    items = with_candidates(scorer, [Item(e) for e in examples], model, Prompts(renderer), 2)
    write_scores(tmp_path, scorer, score_items(scorer, items))
    rows = read_statistics(tmp_path / "scores.parquet").to_dicts()
    assert [r["query_id"] for r in rows] == [e.example_id for e in examples]
    assert [r["tokens"] for r in rows] == [2, len(renderer.tokenizer.encode("four")) + 1]
    assert [r["nats"] for r in rows] == pytest.approx([plain(model, t) for t in tokens], rel=1e-6)
    assert [r["nats_token"] for r in rows] == [r["nats"] / r["tokens"] for r in rows]
    sums = {name: sum(r[name] for r in rows) for name in ("nats", "tokens", "nats_token", "n")}
    assert scorer.metrics(sums) == {"nats_token": sums["nats_token"] / 2, "nats": sums["nats"] / 2}


OPTIONS = """
from swift_study.evaluation.scorers import Score
NEEDS = ("model",)
STATISTICS = ("right", "mass", "n")
def candidates(item):
    return item.options["labels"]
def score(item):
    likeliest = max(item.candidates, key=lambda c: c.nats)
    mass = sum(2.718281828459045**c.nats for c in item.candidates)
    return Score({"right": likeliest.text == item.example.completion, "mass": mass, "n": 1}, raw=likeliest.text)
def metrics(sums):
    return {"accuracy": sums["right"] / sums["n"], "mass": sums["mass"] / sums["n"]}
"""


def test_a_scorer_may_ask_for_several_completions_of_a_query(model: torch.nn.Module, tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "labels.py").write_text(OPTIONS)
    scorer, renderer = load_scorer(tmp_path / "labels.py"), load_renderer(tiny_model, Model())
    examples = [example(f"Is {n} even?", "yes") for n in range(3)]
    items = with_candidates(scorer, [Item(e, options={"labels": ["yes", "no, it is not"]}) for e in examples], model, Prompts(renderer), 4)
    for one, item in zip(examples, items, strict=True):
        for candidate, text in zip(item.candidates, ("yes", "no, it is not"), strict=True):
            tokens = renderer.tokens(one.derive("x", one.query, text))
            assert (candidate.text, candidate.tokens) == (text, tokens.n_completion)
            assert candidate.nats == pytest.approx(plain(model, tokens), rel=1e-6)
    scores = [s.score for s in score_items(scorer, items)]
    assert all(0 < s.statistics["mass"] < 1 for s in scores if s.statistics)


def test_a_query_that_is_too_long_is_counted_or_stops(model: torch.nn.Module, tiny_model: Path) -> None:
    items = [Item(example(query)) for query in ("short", "long " * 200, "brief")]
    scorer = load_scorer(ROOT / "scorers" / "likelihood.py")
    skipping = load_renderer(tiny_model, Model(max_length=100, overlong="skip"))
    scored = score_items(scorer, with_candidates(scorer, items, model, Prompts(skipping), 2))
    assert [s.score.statistics is None for s in scored] == [False, True, False]
    assert scored[1].score.reason == "longer than model.max_length = 100 tokens"
    alone = with_candidates(scorer, items[2:], model, Prompts(skipping), 1)[0].candidates[0].nats
    assert scored[2].score.statistics is not None
    assert scored[2].score.statistics["nats"] == pytest.approx(alone, rel=1e-6)
    with pytest.raises(UserError, match=r"more than model\.max_length = 100"):
        with_candidates(scorer, items, model, Prompts(load_renderer(tiny_model, Model(max_length=100))), 2)


def test_a_run_that_has_diverged_is_a_sentence(tiny_model: Path) -> None:
    broken = load_model(tiny_model, Model())
    with torch.no_grad():
        broken.get_input_embeddings().weight.fill_(float("nan"))
    scorer, renderer = load_scorer(ROOT / "scorers" / "likelihood.py"), load_renderer(tiny_model, Model())
    with pytest.raises(UserError, match=r"1 of 1 queries is not a finite number .*diverged"):
        with_candidates(scorer, [Item(example())], broken, Prompts(renderer), 1)
