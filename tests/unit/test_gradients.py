"""The engine against plain autograd: exact in float64, for any batch, padding, shape; and what RelInf predicts of a training step."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from swift_study.config import Lora
from swift_study.errors import UserError
from swift_study.gradients import (
    autograd_gradients,
    certificate,
    isometric_embedding,
    panel_gradients,
    reference_gram,
    relative_error,
    trainable_layers,
)
from swift_study.models import add_lora
from swift_study.tokens import Tokens, collate, sum_losses

PAD = 0
SHAPE = {
    "vocab_size": 97,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}
MODELS = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SHAPE, num_key_value_heads=2)),
    "llama, tied": lambda: LlamaForCausalLM(LlamaConfig(**SHAPE, num_key_value_heads=4, tie_word_embeddings=True)),
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**SHAPE, num_key_value_heads=2)),
    "gpt-neox": lambda: GPTNeoXForCausalLM(GPTNeoXConfig(**SHAPE)),
}


def small_model(kind: str = "llama", trained: bool = True) -> torch.nn.Module:
    """A random float64 model with an adapter; ``trained`` gives B values other than zero."""
    torch.manual_seed(0)
    base = MODELS[kind]().double().eval().requires_grad_(False)
    targets = ["dense_h_to_4h", "dense_4h_to_h"] if kind == "gpt-neox" else ["up_proj", "down_proj"]
    model = add_lora(base, Lora(rank=4, alpha=32, targets=targets), seed=3).double()
    if trained:
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weight, std=0.1)
    return model


def some_tokens(lengths: list[tuple[int, int]], seed: int = 0) -> list[Tokens]:
    rng = np.random.default_rng(seed)
    return [Tokens(rng.integers(1, 97, prompt + completion).tolist(), prompt) for prompt, completion in lengths]


LENGTHS = [(6, 3), (4, 8), (3, 2), (9, 11), (1, 1), (12, 5)]


@pytest.mark.parametrize("kind", MODELS)
def test_inner_products_norms_and_rel_inf_equal_autograd_in_float64(kind: str) -> None:
    model, tokens = small_model(kind), some_tokens(LENGTHS)
    gradients = panel_gradients(model, tokens, PAD, 4, "gram")
    reference = reference_gram(autograd_gradients(model, tokens, PAD))
    dots = gradients.vectors @ gradients.vectors.T
    norms = np.sqrt(np.diagonal(reference))
    assert np.max(np.abs(dots - reference) / np.outer(norms, norms)) < 1e-9
    assert np.max(np.abs(gradients.norms_sq / np.diagonal(reference) - 1)) < 1e-9
    rel_inf, expected = dots / gradients.norms_sq, reference / np.diagonal(reference)
    assert np.max(np.abs(rel_inf - expected) / np.maximum(np.abs(expected), 1e-3)) < 1e-9


@settings(max_examples=15, deadline=None)
@given(
    lengths=st.lists(st.tuples(st.integers(1, 20), st.integers(1, 20)), min_size=1, max_size=9),
    batch_size=st.integers(1, 9),
    seed=st.integers(0, 99),
)
def test_numbers_do_not_depend_on_the_batch(lengths: list[tuple[int, int]], batch_size: int, seed: int) -> None:
    model, tokens = small_model(), some_tokens(lengths, seed)
    alone = panel_gradients(model, tokens, PAD, 1, "exact")
    batched = panel_gradients(model, tokens, PAD, batch_size, "exact")
    scale = np.sqrt(alone.norms_sq)[:, None]
    assert np.max(np.abs(alone.vectors - batched.vectors) / scale) < 1e-9
    assert np.allclose(alone.losses, batched.losses, rtol=1e-12)


def test_padding_left_out_or_in_gives_the_same_loss() -> None:
    model, (tokens,) = small_model(), some_tokens([(5, 7)])
    padded = collate([tokens, *some_tokens([(20, 20)], seed=1)], PAD)
    with torch.no_grad():
        alone = sum_losses(model, collate([tokens], PAD))[0]
        beside = sum_losses(model, padded)[0]
    assert float(alone) == pytest.approx(float(beside), rel=1e-12)


def test_gram_and_exact_representations_agree() -> None:
    model, tokens = small_model(), some_tokens(LENGTHS)
    gram = panel_gradients(model, tokens, PAD, 3, "gram")
    exact = panel_gradients(model, tokens, PAD, 3, "exact")
    assert relative_error(gram.vectors @ gram.vectors.T, exact.vectors @ exact.vectors.T) < 1e-12
    assert gram.vectors.shape == (6, 6)
    assert exact.vectors.shape == (6, sum(layer.weight.numel() for layer in trainable_layers(model).values()))


def test_embedding_of_a_singular_gram_matrix_keeps_it() -> None:
    rows = np.random.default_rng(0).normal(size=(3, 8))
    doubled = np.vstack([rows, rows])
    gram = doubled @ doubled.T
    vectors = isometric_embedding(gram)
    assert np.allclose(vectors @ vectors.T, gram, atol=1e-12)


def test_only_completion_tokens_count() -> None:
    model, (tokens,) = small_model(), some_tokens([(6, 4)])
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([tokens.ids])).logits[0]
        expected = sum(-torch.log_softmax(logits[i - 1], 0)[tokens.ids[i]] for i in range(tokens.prompt_length, len(tokens.ids)))
        assert float(sum_losses(model, collate([tokens], PAD))[0]) == pytest.approx(float(expected), rel=1e-12)


def test_step_0_has_zero_gradients_for_a() -> None:
    model = small_model(trained=False)
    weights = [name for name, p in model.named_parameters() if p.requires_grad]
    for gradients in autograd_gradients(model, some_tokens([(6, 4)]), PAD):
        for name, gradient in zip(weights, gradients, strict=True):
            assert bool((gradient == 0).all()) == ("lora_A" in name)


def test_one_sgd_step_on_a_probe_lowers_the_targets_loss_by_rate_times_dot() -> None:
    """The sign of eq. 2 (SPEC §4, ambiguity 1): to first order ℓ(z₀) falls by η·⟨∇ℓ(z), ∇ℓ(z₀)⟩."""
    # A model without RMSNorm, which transformers computes in float32 whatever the type of the model.
    model, tokens = small_model("gpt-neox"), some_tokens([(6, 5), (4, 6)])
    probe, target = tokens
    gram = reference_gram(autograd_gradients(model, tokens, PAD))
    layers = trainable_layers(model).values()
    with torch.no_grad():
        before = float(sum_losses(model, collate([target], PAD))[0])
    gradients = autograd_gradients(model, [probe], PAD)[0]
    rate = 1e-8
    with torch.no_grad():
        for layer, gradient in zip(layers, gradients, strict=True):
            layer.weight -= rate * gradient
        after = float(sum_losses(model, collate([target], PAD))[0])
    assert (before - after) / (rate * gram[0, 1]) == pytest.approx(1, abs=1e-3)


def test_a_gradient_that_is_not_finite_spoils_only_its_own_example() -> None:
    model, tokens = small_model(), some_tokens([(3, 2), (4, 4), (5, 3)])
    healthy = panel_gradients(model, tokens, PAD, 3, "gram")
    marked = tokens[1].ids[2]
    tokens[0] = Tokens([i if i != marked else i % 96 + 1 for i in tokens[0].ids], 3)
    tokens[2] = Tokens([i if i != marked else i % 96 + 1 for i in tokens[2].ids], 5)
    model.get_input_embeddings().weight.data[marked] = float("nan")
    broken = panel_gradients(model, tokens, PAD, 3, "gram")
    assert np.isnan(broken.norms_sq).tolist() == [False, True, False]
    assert broken.norms_sq[0] > 0
    assert np.isfinite(broken.vectors[[0, 2]]).all()
    assert np.isfinite(healthy.vectors).all()


def test_certificate_passes_for_right_numbers_and_finds_wrong_ones() -> None:
    model, tokens = small_model(), some_tokens([*LENGTHS, LENGTHS[1]])
    tokens[-1] = tokens[1]
    examples = [type("Named", (), {"example_id": str(i)})() for i in range(len(tokens))]
    gradients = panel_gradients(model.float(), tokens, PAD, 4, "gram")
    found = certificate(model, gradients, tokens, examples, PAD, 4)
    assert max(found["alone_vs_batched"], found["against_float64"]) < 1e-5
    assert found["duplicates"] == [["1", "6"]]
    gradients.vectors[:] *= 1.01
    assert certificate(model, gradients, tokens, examples, PAD, 4)["against_float64"] > 1e-2


def test_another_kind_of_trainable_weight_is_refused_by_name() -> None:
    model = small_model()
    model.get_input_embeddings().weight.requires_grad_(True)
    with pytest.raises(UserError, match="embed_tokens"):
        trainable_layers(model)
