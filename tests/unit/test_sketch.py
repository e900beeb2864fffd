"""Sketches: exact norms, unbiased inner products, an error bar that covers the truth as often as it says."""

import numpy as np
import pytest
import torch
from test_gradients import LENGTHS, PAD, gram, small_model, some_tokens, whole_model

from swift_study.config import Gradients
from swift_study.gradients.engine import panel_gradients
from swift_study.gradients.sketch import REPLICATES, half_width, sides, signs, sketched_products
from swift_study.models.tokens import Tokens


def sketched(
    model: torch.nn.Module, tokens: list[Tokens], seed: int, dimensions: int = 256, batch_size: int = 4
) -> tuple[np.ndarray, np.ndarray]:
    settings = Gradients(representation="sketch", sketch_dimensions=dimensions, sketch_seed=seed, batch_size=batch_size)
    found = panel_gradients(model, tokens, PAD, settings)
    assert found.sketched
    return found.vectors, found.norms_sq


@pytest.mark.parametrize("scope", ["lora", "full"])
def test_norms_are_exact_and_sketches_do_not_depend_on_the_batch(scope: str) -> None:
    model, tokens = small_model() if scope == "lora" else whole_model("llama, tied"), some_tokens(LENGTHS)
    vectors, norms_sq = sketched(model, tokens, seed=1)
    alone, _ = sketched(model, tokens, seed=1, batch_size=1)
    assert vectors.shape == (len(tokens), 256)
    assert np.allclose(norms_sq, np.diagonal(gram(model, tokens)), rtol=1e-9)
    assert np.allclose(vectors, alone, rtol=1e-9, atol=1e-9 * np.abs(vectors).max())


@pytest.mark.parametrize("scope", ["lora", "full"])
def test_inner_products_are_unbiased_and_the_error_bar_covers_the_truth_at_its_nominal_rate(scope: str) -> None:
    model, tokens = small_model() if scope == "lora" else whole_model("qwen2"), some_tokens(LENGTHS)
    truth = gram(model, tokens)
    pairs = np.triu_indices(len(tokens), 1)
    seeds = 150
    found, covered = [], []
    for seed in range(seeds):
        vectors, _ = sketched(model, tokens, seed)
        products, errors = sketched_products(vectors, vectors)
        assert np.allclose(products, vectors @ vectors.T, rtol=1e-9, atol=1e-9 * np.abs(products).max())
        found.append(products[pairs])
        covered.append(np.abs(products - truth)[pairs] <= half_width(errors, 0.95)[pairs])
    away = (np.mean(found, axis=0) - truth[pairs]) / (np.std(found, axis=0, ddof=1) / np.sqrt(seeds))
    assert np.max(np.abs(away)) < 4.5  # of 15 pairs, were it unbiased: one in 10,000
    rate = np.mean(covered)
    assert 0.92 < rate < 0.98, rate


def test_more_dimensions_make_the_error_smaller() -> None:
    model, tokens = small_model(), some_tokens(LENGTHS)
    errors = []
    for dimensions in (256, 4096):
        vectors, _ = sketched(model, tokens, 3, dimensions)
        errors.append(np.median(sketched_products(vectors, vectors)[1]))
    assert 0.15 < errors[1] / errors[0] < 0.4  # a sixteenth of the variance


def test_signs_are_the_same_everywhere_and_of_their_own_for_every_weight() -> None:
    first = signs(17, "layer.weight left", 64, 32, torch.device("cpu"))
    assert torch.equal(first, signs(17, "layer.weight left", 64, 32, torch.device("cpu")))
    assert set(first.unique().tolist()) == {-1.0, 1.0}
    assert abs(float(first.mean())) < 0.1
    for other in (
        signs(18, "layer.weight left", 64, 32, torch.device("cpu")),
        signs(17, "layer.weight right", 64, 32, torch.device("cpu")),
    ):
        assert abs(float((first * other).mean())) < 0.1


@pytest.mark.parametrize(("dimensions", "expected"), [(64, (2, 2)), (8192, (16, 32)), (256, (4, 4))])
def test_dimensions_are_split_between_the_two_sides(dimensions: int, expected: tuple[int, int]) -> None:
    assert sides(dimensions) == expected
    assert REPLICATES * expected[0] * expected[1] == dimensions


def test_a_gradient_that_is_not_finite_spoils_only_its_own_sketch() -> None:
    model, tokens = small_model(), some_tokens([(3, 2), (4, 4), (5, 3)])
    marked = tokens[1].ids[2]
    tokens[0] = Tokens([i if i != marked else i % 96 + 1 for i in tokens[0].ids], 3)
    tokens[2] = Tokens([i if i != marked else i % 96 + 1 for i in tokens[2].ids], 5)
    model.get_input_embeddings().weight.data[marked] = float("nan")
    vectors, norms_sq = sketched(model, tokens, 1)
    assert np.isnan(norms_sq).tolist() == [False, True, False]
    assert np.isnan(vectors).any(axis=1).tolist() == [False, True, False]
