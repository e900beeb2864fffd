"""The engine against independent libraries on a tiny Llama. They are installed apart (benchmarks/peers.lock); without them this is skipped.

Run with ``PYTHONPATH=$PWD/.peers .venv/bin/pytest tests/peers``, as ``./check`` does.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import ROOT

for library in ("dattri_llm", "bergson", "kronfluence"):
    pytest.importorskip(library, reason="the peers are not installed; benchmarks/peers.lock says how")
sys.path.insert(0, str(ROOT / "benchmarks"))

from ways import WAYS, disagreement, full_scope  # noqa: E402

from swift_study.config import Lora, Model  # noqa: E402
from swift_study.models.batches import collate, sum_losses  # noqa: E402
from swift_study.models.loading import add_lora, exact_numerics, load_model  # noqa: E402
from swift_study.models.tokens import Tokens  # noqa: E402

PAD = 2
TOLERANCE = 1e-4


def lora(model: Any) -> Any:
    model = add_lora(model, Lora(rank=4), seed=1).eval()
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)
    return model


def full(model: Any) -> Any:
    full_scope(model)
    return model


SCOPES: dict[str, Callable[[Any], Any]] = {"lora": lora, "full": full}


def prepared(folder: Path, scope: str) -> Any:
    torch.manual_seed(0)
    return SCOPES[scope](load_model(folder, Model()).float())


@pytest.fixture(scope="module")
def tokens() -> list[Tokens]:
    """Examples and completions of different lengths."""
    rng = np.random.default_rng(0)
    lengths = [(6, 9), (12, 4), (3, 20), (9, 9), (1, 5), (15, 11), (7, 2)]
    return [Tokens(rng.integers(3, 40_000, prompt + completion).tolist(), prompt) for prompt, completion in lengths]


@pytest.fixture(scope="module")
def truth(tiny_model: Path, tokens: list[Tokens]) -> dict[str, np.ndarray]:
    """By scope, the inner products of plain autograd in float64, one example after the other."""
    found = {}
    for scope in SCOPES:
        model = prepared(tiny_model, scope).double()
        weights = [p for p in model.parameters() if p.requires_grad]
        rows = []
        with exact_numerics():
            for example in tokens:
                loss = sum_losses(model, collate([example], PAD, model.device)).sum()
                rows.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, weights)]).cpu().numpy())
        found[scope] = np.stack(rows) @ np.stack(rows).T
    return found


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("name", [name for name in WAYS if name != "autograd"])
def test_inner_products_are_those_of_autograd(
    name: str, scope: str, tiny_model: Path, tokens: list[Tokens], truth: dict[str, np.ndarray]
) -> None:
    with exact_numerics():
        gram = WAYS[name](prepared(tiny_model, scope), PAD, 3, 4)(tokens)
    assert gram.shape == (len(tokens), len(tokens))
    assert disagreement(gram, truth[scope]) < TOLERANCE


@pytest.mark.parametrize("scope", SCOPES)
def test_a_loss_averaged_over_tokens_would_be_noticed(scope: str, tokens: list[Tokens], truth: dict[str, np.ndarray]) -> None:
    counts = np.array([t.n_completion for t in tokens])
    assert disagreement(truth[scope] / np.outer(counts, counts), truth[scope]) > 100 * TOLERANCE
