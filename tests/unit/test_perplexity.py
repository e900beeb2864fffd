"""What the run's model makes of prompts and values, against a plain forward pass over a plain chat template."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from made_examples import example
from tiny import ROOT

from swift_study.config import Model
from swift_study.errors import UserError
from swift_study.evaluation.likelihood import with_candidates
from swift_study.evaluation.prompts import Prompts, draw_shots
from swift_study.evaluation.scorers import Candidate, Item, load_scorer, score_items, totals
from swift_study.examples import Example
from swift_study.models.loading import load_model
from swift_study.models.rendering import Renderer, load_renderer

SCORER = load_scorer(ROOT / "scorers/perplexity.py")
REVIEWS = [
    example("Aspects of: The soup was cold.", "food: negative\nservice: unmentioned", value_spans=[(6, 14), (24, 35)]),
    example("Aspects of: What a friendly waiter, and so quick!", '{"service": "positive"}', value_spans=[(13, 21)]),
    example("Aspects of: Fine.", "1;0", value_spans=[(0, 1), (2, 3)]),
    example("How many?", "four of them"),  # no design has named its values
]


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> torch.nn.Module:
    return load_model(tiny_model, Model())


@pytest.fixture(scope="module")
def renderer(tiny_model: Path) -> Renderer:
    return load_renderer(tiny_model, Model())


def plain(model: torch.nn.Module, tokenizer: Any, prompt: str, completion: str, spans: Sequence[tuple[int, int]]) -> dict[str, float]:
    """Sums and numbers of tokens, by the positions of characters; those of the values are positions in the completion."""
    encoded = tokenizer(prompt + completion, add_special_tokens=False, return_offsets_mapping=True)
    ids, offsets = encoded["input_ids"], encoded["offset_mapping"]
    with torch.no_grad():
        log_p = torch.log_softmax(model(input_ids=torch.tensor([ids])).logits[0].double(), dim=1)
    nats = [0.0, *(float(log_p[k - 1, ids[k]]) for k in range(1, len(ids)))]
    values = [(len(prompt) + first, len(prompt) + last) for first, last in spans]
    parts = {
        "prompt": [k for k, (a, b) in enumerate(offsets) if b <= len(prompt) and k > 0],
        "output": [k for k, (a, b) in enumerate(offsets) if b > len(prompt)],
        "value": [k for k, (a, b) in enumerate(offsets) if any(a < last and b > first for first, last in values)],
    }
    found = {f"{name}_nats": sum(nats[k] for k in of) for name, of in parts.items()}
    return found | {f"{name}_tokens": len(of) for name, of in parts.items()}


def chat(model: torch.nn.Module, tokenizer: Any, one: Example, *shots: Example) -> dict[str, float]:
    turns = [{"role": m.role, "content": m.content} for e in (*shots, one) for m in e.messages]
    prompt = tokenizer.apply_chat_template(turns[:-1], tokenize=False, add_generation_prompt=True)
    found = plain(model, tokenizer, prompt, one.completion + "<|im_end|>", one.value_spans)
    return found | {"characters": len(one.completion), "n": 1}


def scored(model: torch.nn.Module, prompts: Prompts, examples: list[Example], batch_size: int = 3) -> list[dict[str, float]]:
    items = with_candidates(SCORER, [Item(e) for e in examples], model, prompts, batch_size)
    return [dict(s.score.statistics) for s in score_items(SCORER, items) if s.score.statistics is not None]


@pytest.mark.parametrize("batch_size", [1, 3])
def test_prompt_answer_and_values_are_those_of_a_plain_forward_pass(model: torch.nn.Module, renderer: Renderer, batch_size: int) -> None:
    found = scored(model, Prompts(renderer), REVIEWS, batch_size)
    for one, statistics in zip(REVIEWS, found, strict=True):
        assert statistics == pytest.approx(chat(model, renderer.tokenizer, one), rel=1e-6)
        assert statistics["value_tokens"] == 0 or 0 < statistics["value_tokens"] < statistics["output_tokens"]
    assert found[3]["value_tokens"] == found[3]["value_nats"] == 0
    sums = {name: sum(of[name] for of in found) for name in SCORER.declared.statistics}
    assert SCORER.metrics(sums) == {
        "prompt_nats_token": sums["prompt_nats"] / sums["prompt_tokens"],
        "output_nats_token": sums["output_nats"] / sums["output_tokens"],
        "value_nats_token": sums["value_nats"] / sums["value_tokens"],
        "nats_character": sums["output_nats"] / sums["characters"],
    }


def test_solved_examples_are_a_part_of_the_prompt(model: torch.nn.Module, renderer: Renderer) -> None:
    shots = draw_shots(REVIEWS[:1], REVIEWS[1:], 2)
    (found,) = scored(model, Prompts(renderer, shots=shots), REVIEWS[:1])
    assert found == pytest.approx(chat(model, renderer.tokenizer, REVIEWS[0], *shots[REVIEWS[0].example_id]), rel=1e-6)


def test_raw_text_has_values_and_no_end_token(model: torch.nn.Module, renderer: Renderer) -> None:
    # One space before the completion and none behind it, whatever stands there.
    loose = example("Aspects?\n", "  food: negative ", value_spans=[(8, 16)])
    for one, prompt, completion, spans in (
        (loose, "Aspects?", " food: negative", [(7, 15)]),
        (REVIEWS[1], REVIEWS[1].query, ' {"service": "positive"}', [(14, 22)]),
    ):
        (found,) = scored(model, Prompts(renderer, "none"), [one])
        expected = plain(model, renderer.tokenizer, prompt, completion, spans)
        assert found == pytest.approx(expected | {"characters": len(one.completion), "n": 1}, rel=1e-6)


@pytest.mark.parametrize("template", ["chat", "none"])
def test_values_move_with_a_prompt_that_is_cut(model: torch.nn.Module, renderer: Renderer, template: Any) -> None:
    long = example("word " * 60 + "Aspects?", REVIEWS[0].completion, value_spans=REVIEWS[0].value_spans)
    whole, cut = (Prompts(renderer, template, longest=longest).tokens(long, long.completion, True) for longest in (None, 12))
    assert cut.prompt_length == 12 < whole.prompt_length
    assert [cut.ids[a:b] for a, b in cut.spans] == [whole.ids[a:b] for a, b in whole.spans]
    (found,) = scored(model, Prompts(renderer, template, longest=12), [long])
    assert (found["prompt_tokens"], found["value_tokens"]) == (11, cut.n_labels)


COMPARED = """
from swift_study.evaluation.scorers import Score
NEEDS = ({needs})
STATISTICS = ("n",)
def candidates(item):
    return ["no answer", item.example.completion]
def score(item):
    return Score({{"n": 1}})
def metrics(sums):
    return {{"n": sums["n"]}}
"""


def test_a_candidate_has_what_needs_asks_for_and_values_only_where_a_design_names_them(
    model: torch.nn.Module, renderer: Renderer, tmp_path: Path
) -> None:
    found: dict[str, tuple[Candidate, ...]] = {}
    for needs in ('"model",', '"model", "prompt"', '"model", "values"'):
        (tmp_path / "mine.py").write_text(COMPARED.format(needs=needs))
        (item,) = with_candidates(load_scorer(tmp_path / "mine.py"), [Item(REVIEWS[0])], model, Prompts(renderer), 4)
        found[needs] = item.candidates
    (bare, prompt, values), names = found.values(), ("prompt_nats", "prompt_tokens", "value_nats", "value_tokens")
    given = [[name for name in names if getattr(c, name) is not None] for of in (bare, prompt, values) for c in of]
    assert given == [[], [], list(names[:2]), list(names[:2]), [], list(names[2:])]
    for of in zip(bare, prompt, values, strict=True):
        assert [c.nats for c in of] == pytest.approx([of[0].nats] * 3, rel=1e-6)
        assert len({(c.text, c.tokens) for c in of}) == 1
    assert prompt[0].prompt_nats == pytest.approx(prompt[1].prompt_nats, rel=1e-6)


def test_a_control_token_in_a_completion_with_values_is_told(model: torch.nn.Module, renderer: Renderer) -> None:
    with pytest.raises(UserError, match="control token in its completion"):
        scored(model, Prompts(renderer), [example("q", "a <|im_end|>", value_spans=[(0, 1)])])


NUMBERS = st.none() | st.floats(-50, 0)


@given(st.floats(-50, 0), NUMBERS, NUMBERS)
def test_metrics_of_resamples_are_those_of_each_resample(nats: float, prompt: float | None, value: float | None) -> None:
    """A candidate that lacks prompt or values counts in none of their metrics."""
    full = Candidate("text", -3.0, 2, prompt_nats=-8.0, prompt_tokens=4, value_nats=-1.0, value_tokens=1)
    odd = Candidate("a", nats, 1, prompt, None if prompt is None else 5, value, None if value is None else 2)
    results = score_items(SCORER, [Item(example(), candidates=(c,)) for c in (full, odd)])
    both = SCORER.metrics(totals(SCORER, results))
    assert both["output_nats_token"] == pytest.approx((nats - 3) / 3)
    assert both["nats_character"] == pytest.approx((nats - 3) / 5)
    assert both["prompt_nats_token"] == pytest.approx(-2 if prompt is None else (prompt - 8) / 9)
    assert both["value_nats_token"] == pytest.approx(-1 if value is None else (value - 1) / 3)
    assert [s.score.statistics is None for s in results] == [False, False]
    statistics = {n: np.array([s.score.statistics[n] for s in results if s.score.statistics]) for n in SCORER.declared.statistics}
    draws = SCORER.estimate(statistics, np.array([[1.0, 1.0], [2.0, 0.0]]))
    assert {name: of[0] for name, of in draws.items()} == pytest.approx(both)
    assert draws["prompt_nats_token"][1] == -2
