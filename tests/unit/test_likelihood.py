"""Likelihoods of golden answers against a plain forward pass."""

from pathlib import Path

import numpy as np
import pytest
import torch

from swift_study.config import Model
from swift_study.evaluation.likelihood import golden_example, likelihood_frame, log_likelihoods
from swift_study.examples import Example, Message
from swift_study.io.tables import LIKELIHOODS, read_table, write_table
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
    assert found.dtype == np.float64
    assert found == pytest.approx([plain(model, t) for t in tokens], rel=1e-6)
    assert done[-1] == len(tokens)


def test_the_golden_answer_is_scored_with_its_end_token_and_the_query_keeps_its_id(
    model: torch.nn.Module, tiny_model: Path, tmp_path: Path
) -> None:
    renderer = load_renderer(tiny_model, Model())

    def example(completion: str, golden: str | None) -> Example:
        messages = [Message(role="user", content="What is 2 + 2?"), Message(role="assistant", content=completion)]
        return Example(task="t", messages=messages, golden=golden)

    examples = [example("5, I think.", "4"), example("four", None)]
    tokens = [renderer.tokens(golden_example(e)) for e in examples]
    assert [renderer.tokenizer.decode(t.ids[t.prompt_length :]) for t in tokens] == ["4<|im_end|>", "four<|im_end|>"]
    frame = likelihood_frame(examples, tokens, log_likelihoods(model, tokens, renderer.pad_id, 2))
    write_table(tmp_path / "l.parquet", frame, LIKELIHOODS)
    rows = read_table(tmp_path / "l.parquet", LIKELIHOODS).to_dicts()
    assert [r["query_id"] for r in rows] == [e.example_id for e in examples]
    assert [r["n_tokens"] for r in rows] == [2, len(renderer.tokenizer.encode("four")) + 1]
    assert [r["log_likelihood"] for r in rows] == pytest.approx([plain(model, t) for t in tokens], rel=1e-6)
