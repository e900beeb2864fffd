"""The engine against plain autograd: exact in float64, for any scope, batch, shape and budget; and what RelInf predicts of a step."""

import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    GemmaConfig,
    GemmaForCausalLM,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MptConfig,
    MptForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from swift_study.config import Gradients, Lora
from swift_study.errors import UserError
from swift_study.gradients.certificate import certificate, certify, reference_gram, relative_error, weight_gradients
from swift_study.gradients.engine import PanelGradients, adam_preconditioner, isometric_embedding, panel_gradients
from swift_study.gradients.gram import PIECE, Factors, dense_is_cheaper, ghost, products_of_factors, products_of_vectors
from swift_study.gradients.memory import needs, used_bytes
from swift_study.gradients.stages import make_stages
from swift_study.models.batches import batches, collate, sum_losses
from swift_study.models.loading import add_lora
from swift_study.models.tokens import Tokens
from swift_study.models.weights import Weight, calls, select_weights, trainable_weights

PAD = 0
SHAPE = {
    "vocab_size": 97,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}
MPT = {"vocab_size": 97, "d_model": 16, "n_heads": 4, "n_layers": 2, "max_seq_len": 64, "expansion_ratio": 2}
# Grouped-query attention, tied embeddings, biases, norms of queries and keys, scaled embeddings, parallel attention, fused q/k/v.
MODELS = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SHAPE, num_key_value_heads=2)),
    "llama, tied": lambda: LlamaForCausalLM(LlamaConfig(**SHAPE, num_key_value_heads=4, tie_word_embeddings=True)),
    "llama, biases": lambda: LlamaForCausalLM(LlamaConfig(**SHAPE, attention_bias=True, mlp_bias=True, pad_token_id=3)),
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**SHAPE, num_key_value_heads=2)),
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**SHAPE, num_key_value_heads=2, head_dim=8, tie_word_embeddings=True)),
    "gemma": lambda: GemmaForCausalLM(GemmaConfig(**SHAPE, num_key_value_heads=1, head_dim=8)),
    "gpt-neox": lambda: GPTNeoXForCausalLM(GPTNeoXConfig(**SHAPE)),
    "mpt": lambda: MptForCausalLM(MptConfig(**MPT)),
}
ADAPTED = {"gpt-neox": ["dense_h_to_4h", "dense_4h_to_h"]}


def base_model(kind: str) -> torch.nn.Module:
    """Random weights in float64, also where norms and biases begin with ones and zeros."""
    torch.manual_seed(0)
    model = MODELS[kind]().double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model.requires_grad_(False)


def small_model(kind: str = "llama", trained: bool = True) -> torch.nn.Module:
    """A random float64 model with an adapter; ``trained`` gives B values other than zero."""
    model = add_lora(base_model(kind), Lora(rank=4, alpha=32, targets=ADAPTED.get(kind, ["up_proj", "down_proj"])), seed=3).double()
    if trained:
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weight, std=0.1)
    return model


def whole_model(kind: str, pattern: str | None = None) -> torch.nn.Module:
    model = base_model(kind)
    select_weights(model, "full", pattern)
    return model


def some_tokens(lengths: list[tuple[int, int]], seed: int = 0) -> list[Tokens]:
    rng = np.random.default_rng(seed)
    return [Tokens(rng.integers(1, 97, prompt + completion).tolist(), prompt) for prompt, completion in lengths]


def engine(model: torch.nn.Module, tokens: list[Tokens], **changed: object) -> PanelGradients:
    return panel_gradients(model, tokens, PAD, Gradients.model_validate({"batch_size": 4, "memory_gb": 64, **changed}))


def gram(model: torch.nn.Module, tokens: list[Tokens]) -> np.ndarray:
    return reference_gram(model, tokens, PAD)[0]


def batched(kind: str) -> float:
    """MPT's softmax and Gemma's norm are in float32 whatever the type of the model, and so depend on the padding by that much."""
    return 1e-6 if kind in ("mpt", "gemma") else 1e-9


LENGTHS = [(6, 3), (4, 8), (3, 2), (9, 11), (1, 1), (12, 5)]


def assert_equal(found: PanelGradients, reference: np.ndarray, within: float = 1e-9) -> None:
    """Inner products, norms and RelInf."""
    dots = found.vectors @ found.vectors.T
    norms = np.sqrt(np.diagonal(reference))
    assert np.max(np.abs(dots - reference) / np.outer(norms, norms)) < within
    assert np.max(np.abs(found.norms_sq / np.diagonal(reference) - 1)) < within
    rel_inf, expected = dots / found.norms_sq, reference / np.diagonal(reference)
    assert np.max(np.abs(rel_inf - expected) / np.maximum(np.abs(expected), 1e-3)) < within


@pytest.mark.parametrize("kind", MODELS)
def test_lora_scope_equals_autograd_in_float64(kind: str) -> None:
    model, tokens = small_model(kind), some_tokens(LENGTHS)
    assert_equal(engine(model, tokens, batch_size=1), gram(model, tokens))
    assert_equal(engine(model, tokens), gram(model, tokens), batched(kind))


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("batch_size", [1, 4])
def test_full_scope_equals_autograd_in_float64(kind: str, batch_size: int) -> None:
    model, tokens = whole_model(kind), some_tokens(LENGTHS)
    found = engine(model, tokens, scope="full", batch_size=batch_size)
    assert_equal(found, gram(model, tokens), 1e-9 if batch_size == 1 else batched(kind))
    assert len(found.by_weight) == len(list(model.parameters()))  # a tied weight once
    assert np.allclose(sum(found.by_weight.values()), found.vectors @ found.vectors.T, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", ["llama, tied", "qwen3", "gpt-neox"])
def test_each_weight_has_its_own_inner_products(kind: str) -> None:
    model, tokens = whole_model(kind), some_tokens(LENGTHS[:4])
    found = engine(model, tokens, scope="full").by_weight
    for names, gradients in weight_gradients(model, tokens, PAD):
        for position, name in enumerate(names):
            rows = torch.stack([g[position].flatten() for g in gradients])
            assert relative_error(found[name], (rows @ rows.T).numpy()) < 1e-9, name


@pytest.mark.parametrize(
    "pattern",
    [
        r"layers\.2\.",
        r"layers\.1\..*mlp",
        "lm_head",
        r"^model\.norm",
        "embed_tokens",
        "layernorm",
        r"(q_proj|k_proj).bias",
        r"layers\.0\.mlp",
    ],
)
def test_any_part_of_the_weights(pattern: str) -> None:
    """Backward passes end at the lowest layer of the part."""
    model = whole_model("llama, biases", pattern)
    tokens = some_tokens([pair for pair in LENGTHS if pair != (1, 1)])  # a single token attends to itself: its queries have no gradient
    found = engine(model, tokens, scope="full", modules=pattern)
    assert_equal(found, gram(model, tokens))
    assert all(re.search(pattern, name) for name in found.by_weight)


def budget(
    model: torch.nn.Module,
    tokens: list[Tokens],
    weights: list[Weight],
    share: float,
    monkeypatch: pytest.MonkeyPatch,
    representation: str = "gram",
) -> float:
    """A budget in GB that leaves this share of what all weights together would need, where nothing else counts."""
    monkeypatch.setattr("swift_study.gradients.memory.used_bytes", lambda model: 0.0)
    monkeypatch.setattr("swift_study.gradients.memory.pass_bytes", lambda *given: 0.0)
    monkeypatch.setattr("swift_study.gradients.memory.BLOCK", {"cpu": 0})
    batches = [list(range(len(tokens)))]
    need = needs(model, weights, calls(model, weights, tokens[0], PAD), tokens, batches, representation)
    return (share * sum(n.own + sum(n.inputs.values()) for n in need.values()) + len(tokens) ** 2 * 8 * (len(weights) + 8)) / 1e9


@pytest.mark.parametrize(
    ("kind", "representation"),
    [*((kind, "gram") for kind in ("llama", "llama, tied", "qwen2", "gpt-neox", "mpt")), ("llama, tied", "exact"), ("mpt", "exact")],
)
def test_a_small_budget_makes_groups_and_the_same_numbers(kind: str, representation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """From two groups to several of one layer: less and less memory, until there is too little."""
    model, tokens = whole_model(kind), some_tokens(LENGTHS)
    at_once = engine(model, tokens, scope="full", representation=representation)
    weights = trainable_weights(model)
    whole = len(tokens) * sum(w.size for w in weights) * 8 / 1e9 if representation == "exact" else 0.0
    seen = set()
    for share in np.arange(1.0, 0.0, -0.1):
        little = 1.0001 * whole + budget(model, tokens, weights, float(share), monkeypatch, representation)
        done: list[int] = []
        settings = Gradients(scope="full", batch_size=4, memory_gb=little, representation=representation)
        try:
            in_groups = panel_gradients(model, tokens, PAD, settings, progress=done.append)
        except UserError:  # another test reads what it says
            break
        seen.add(done[-1] // len(tokens))
        assert np.array_equal(in_groups.norms_sq, at_once.norms_sq)
        assert np.array_equal(in_groups.vectors, at_once.vectors)
    assert 1 in seen
    assert max(seen) >= 3 or representation == "exact"  # which keeps most of these small weights' gradients whole


@pytest.mark.parametrize("layer", [1, 2])
def test_a_model_that_does_more_between_its_layers_is_not_taken_in_groups(layer: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokens = whole_model("llama"), some_tokens(LENGTHS)
    model.model.layers[layer].register_forward_pre_hook(lambda module, args: (2 * args[0], *args[1:]))
    assert_equal(engine(model, tokens, scope="full"), gram(model, tokens))
    little = budget(model, tokens, trainable_weights(model), 0.7, monkeypatch)
    with pytest.raises(UserError, match="does more between its decoder layers than hand on their output"):
        engine(model, tokens, scope="full", memory_gb=little)


def test_inputs_that_layers_share_are_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokens = whole_model("llama", "layers"), some_tokens([(2, 2)] * 40)
    weights = trainable_weights(model)
    called = calls(model, weights, tokens[0], PAD)
    same = [called[f"model.layers.1.self_attn.{name}"].same_input for name in ("q_proj", "k_proj", "v_proj")]
    assert len(set(same)) == 1
    assert called["model.layers.1.mlp.gate_proj"].same_input == called["model.layers.1.mlp.up_proj"].same_input
    assert called["model.layers.1.mlp.down_proj"].same_input not in same
    batches = [list(range(40))]
    need = needs(model, weights, called, tokens, batches, "gram")
    enough = budget(model, tokens, weights, 0.9, monkeypatch)  # less than all would need if each had an input of its own
    parts = make_stages(model, weights, called, need, tokens, batches, Gradients(scope="full", memory_gb=enough))
    assert all(n.factored for name, n in need.items() if "norm" not in name)
    assert len(parts) == 1


def test_too_small_a_budget_is_told_with_one_that_is_not() -> None:
    model, tokens = whole_model("llama"), some_tokens(LENGTHS)
    with pytest.raises(UserError, match=r"gradients.memory_gb = 0.001 is too little: .* Set it to (\d+\.\d) or more") as caught:
        engine(model, tokens, scope="full", memory_gb=0.001)
    suggested = re.search(r"Set it to (\d+\.\d)", str(caught.value))
    assert suggested is not None
    engine(model, tokens, scope="full", memory_gb=float(suggested[1]))


def test_a_second_panel_in_one_process_makes_no_more_groups() -> None:
    """What an earlier pass has freed may still be resident; it is not in use."""
    model, tokens = whole_model("llama"), some_tokens(LENGTHS)
    before = used_bytes(model)
    done: list[int] = []
    for _ in range(2):
        panel_gradients(model, tokens, PAD, Gradients(scope="full", batch_size=4, memory_gb=3), progress=done.append)
    assert max(done) == len(tokens)
    assert used_bytes(model) == before


def test_one_weight_that_does_not_fit_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokens = whole_model("llama"), some_tokens(LENGTHS)
    little = budget(model, tokens, trainable_weights(model), 0.001, monkeypatch)
    with pytest.raises(
        UserError, match=r"and for lm_head.weight alone that is .* Set it to (\d+\.\d) or more, or leave weights out"
    ) as caught:
        engine(model, tokens, scope="full", memory_gb=little)
    suggested = re.search(r"Set it to (\d+\.\d)", str(caught.value))
    assert suggested is not None
    engine(model, tokens, scope="full", memory_gb=float(suggested[1]))


@settings(max_examples=15, deadline=None)
@given(
    lengths=st.lists(st.tuples(st.integers(1, 20), st.integers(1, 20)), min_size=1, max_size=9),
    batch_size=st.integers(1, 9),
    seed=st.integers(0, 99),
    scope=st.sampled_from(["lora", "full"]),
)
def test_numbers_do_not_depend_on_the_batch(lengths: list[tuple[int, int]], batch_size: int, seed: int, scope: str) -> None:
    model, tokens = small_model() if scope == "lora" else whole_model("qwen3"), some_tokens(lengths, seed)
    alone = engine(model, tokens, scope=scope, batch_size=1, representation="exact")
    batched = engine(model, tokens, scope=scope, batch_size=batch_size, representation="exact")
    scale = np.sqrt(alone.norms_sq)[:, None]
    assert np.max(np.abs(alone.vectors - batched.vectors) / scale) < 1e-9
    assert np.allclose(alone.losses, batched.losses, rtol=1e-12)


@settings(max_examples=25, deadline=None)
@given(
    batches=st.lists(st.tuples(st.integers(1, 4), st.integers(1, 7)), min_size=1, max_size=4),
    rows=st.integers(1, 9),
    columns=st.integers(1, 9),
    uses=st.sampled_from([("linear",), ("embedding",), ("embedding", "linear"), ("linear", "linear")]),
    block=st.sampled_from([1, 16, 4096]),
    seed=st.integers(0, 99),
)
def test_ghost_and_dense_products_are_those_of_the_gradients(
    batches: list[tuple[int, int]], rows: int, columns: int, uses: tuple[str, ...], block: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    n = sum(examples for examples, _ in batches)
    found, gradients = [], torch.zeros((n, rows, columns), dtype=torch.float64)
    for use in uses:
        factors, first = Factors(), 0
        for examples, width in batches:
            right = torch.randn((examples, width, columns), generator=generator, dtype=torch.float64)
            if use == "linear":
                left = torch.randn((examples, width, rows), generator=generator, dtype=torch.float64)
                one_hot = left
            else:
                left = torch.randint(0, rows, (examples, width), generator=generator)
                one_hot = torch.nn.functional.one_hot(left, rows).double()
            gradients[first : first + examples] += one_hot.transpose(1, 2) @ right
            factors.batches.append((left, right))
            first += examples
        found.append(factors)
    expected = gradients.flatten(1) @ gradients.flatten(1).T
    scale = torch.rand((rows, columns), generator=generator, dtype=torch.float64)
    scaled = (gradients * scale).flatten(1) @ (gradients * scale).flatten(1).T
    cpu = torch.device("cpu")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("swift_study.gradients.gram.BLOCK", {"cpu": block})
        patch.setattr("swift_study.gradients.gram.GHOST_TOKENS", block)
        dense, with_scale = products_of_factors(found, (rows, columns), scale, cpu)
        assert torch.allclose(dense, expected, rtol=1e-12, atol=1e-10)
        assert with_scale is not None
        assert torch.allclose(with_scale, scaled, rtol=1e-12, atol=1e-10)
        assert torch.allclose(ghost(found, n, cpu), expected, rtol=1e-12, atol=1e-10)


@pytest.mark.parametrize(("n", "tokens", "dense"), [(2, 512, False), (36, 64, False), (36, 512, True), (400, 128, True)])
def test_the_cheaper_way_is_that_of_the_cost_model(n: int, tokens: int, dense: bool) -> None:
    """A 4096² matrix: dense is cheaper from about 2,049 tokens for 2 examples, 130 for 36, 51 for 400."""
    left = torch.empty((n, tokens, 1)).expand(n, tokens, 4096)
    assert dense_is_cheaper([Factors([(left, left)])], (4096, 4096), n) == dense


def test_many_examples_use_the_symmetric_half() -> None:
    model, tokens = whole_model("llama", r"layers\.1"), some_tokens([(3, 2)] * 150, seed=4)
    found = engine(model, tokens, scope="full", batch_size=50, representation="exact")
    products = found.vectors @ found.vectors.T
    in_gram = engine(model, tokens, scope="full", batch_size=50).vectors
    assert relative_error(in_gram @ in_gram.T, products) < 1e-9
    by_weight = sum(found.by_weight.values())
    assert relative_error(by_weight, products) < 1e-9


@pytest.mark.parametrize("n", [3, 300])
@pytest.mark.parametrize("size", [PIECE - 1, PIECE, 2 * PIECE + 700])
def test_long_rows_are_multiplied_in_pieces_that_are_summed_in_float64(n: int, size: int) -> None:
    beside = torch.randn((n, size + 5), generator=torch.Generator().manual_seed(1)) + 10
    rows = beside[:, 2 : size + 2]
    wide = rows.double()
    assert torch.allclose(products_of_vectors(rows, None), wide @ wide.T, rtol=1e-6, atol=0)


def test_batches_hold_so_many_examples_and_tokens_at_most() -> None:
    lengths = [5, 30, 7, 7, 12, 40, 6]
    assert batches(lengths, 3) == [[5, 1, 4], [2, 3, 6], [0]]
    assert batches(lengths, 3, 36) == [[5], [1], [4, 2, 3], [6, 0]]  # the longest is over the limit alone


def test_padding_left_out_or_in_gives_the_same_loss() -> None:
    model, (tokens,) = small_model(), some_tokens([(5, 7)])
    padded = collate([tokens, *some_tokens([(20, 20)], seed=1)], PAD)
    with torch.no_grad():
        alone = sum_losses(model, collate([tokens], PAD))[0]
        beside = sum_losses(model, padded)[0]
    assert float(alone) == pytest.approx(float(beside), rel=1e-12)


@pytest.mark.parametrize("scope", ["lora", "full"])
def test_gram_and_exact_representations_agree(scope: str) -> None:
    model, tokens = small_model() if scope == "lora" else whole_model("llama, tied"), some_tokens(LENGTHS)
    in_gram, exact = (engine(model, tokens, scope=scope, batch_size=3, representation=r) for r in ("gram", "exact"))
    assert relative_error(in_gram.vectors @ in_gram.vectors.T, exact.vectors @ exact.vectors.T) < 1e-12
    assert in_gram.vectors.shape == (6, 6)
    assert exact.vectors.shape == (6, sum(weight.size for weight in trainable_weights(model)))


@pytest.mark.parametrize("scope", ["lora", "full"])
def test_adams_inner_products_are_those_of_scaled_gradients(scope: str) -> None:
    model, tokens = small_model() if scope == "lora" else whole_model("llama, tied"), some_tokens(LENGTHS)
    torch.manual_seed(5)
    moments = {name: torch.rand_like(p) * 1e-4 for name, p in model.named_parameters() if p.requires_grad}
    scales = adam_preconditioner(moments, 10, (0.9, 0.999), 1e-8)
    found = panel_gradients(model, tokens, PAD, Gradients(batch_size=4, memory_gb=64), scales)
    plain, expected = reference_gram(model, tokens, PAD, scales)
    assert expected is not None
    assert found.adam_vectors is not None
    assert found.adam_norms_sq is not None
    assert relative_error(found.adam_vectors @ found.adam_vectors.T, expected) < 1e-9
    assert np.allclose(found.adam_norms_sq, np.diagonal(expected), rtol=1e-9)
    assert_equal(found, plain)
    corrected = moments[next(iter(moments))].flatten()[0] / (1 - 0.999**10)
    assert float(scales[next(iter(moments))].flatten()[0]) == pytest.approx(float(1 / (corrected**0.5 + 1e-8)))


def test_embedding_of_a_singular_gram_matrix_keeps_it() -> None:
    rows = np.random.default_rng(0).normal(size=(3, 8))
    doubled = np.vstack([rows, rows])
    products = doubled @ doubled.T
    vectors = isometric_embedding(products)
    assert np.allclose(vectors @ vectors.T, products, atol=1e-12)


def test_only_completion_tokens_count() -> None:
    model, (tokens,) = small_model(), some_tokens([(6, 4)])
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([tokens.ids])).logits[0]
        expected = sum(-torch.log_softmax(logits[i - 1], 0)[tokens.ids[i]] for i in range(tokens.prompt_length, len(tokens.ids)))
        assert float(sum_losses(model, collate([tokens], PAD))[0]) == pytest.approx(float(expected), rel=1e-12)


def test_step_0_has_zero_gradients_for_a() -> None:
    model = small_model(trained=False)
    found = engine(model, some_tokens([(6, 4)])).by_weight
    for name, products in found.items():
        assert bool((products == 0).all()) == ("lora_A" in name)


def test_one_sgd_step_on_a_probe_lowers_the_targets_loss_by_rate_times_dot() -> None:
    """The sign of eq. 2 (SPEC §4, ambiguity 1): to first order ℓ(z₀) falls by η·⟨∇ℓ(z), ∇ℓ(z₀)⟩."""
    # A model without RMSNorm, which transformers computes in float32 whatever the type of the model.
    model, tokens = whole_model("gpt-neox"), some_tokens([(6, 5), (4, 6)])
    probe, target = tokens
    found = engine(model, tokens, scope="full")
    dot = float(found.vectors[0] @ found.vectors[1])
    with torch.no_grad():
        before = float(sum_losses(model, collate([target], PAD))[0])
    (names, gradients) = next(weight_gradients(model, [probe], PAD))
    rate = 1e-8
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, gradient in zip(names, gradients[0], strict=True):
            parameters[name] -= rate * gradient
        after = float(sum_losses(model, collate([target], PAD))[0])
    assert (before - after) / (rate * dot) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("scope", ["lora", "full"])
def test_a_gradient_that_is_not_finite_spoils_only_its_own_example(scope: str) -> None:
    model, tokens = small_model() if scope == "lora" else whole_model("llama"), some_tokens([(3, 2), (4, 4), (5, 3)])
    healthy = engine(model, tokens, scope=scope)
    marked = tokens[1].ids[2]
    tokens[0] = Tokens([i if i != marked else i % 96 + 1 for i in tokens[0].ids], 3)
    tokens[2] = Tokens([i if i != marked else i % 96 + 1 for i in tokens[2].ids], 5)
    model.get_input_embeddings().weight.data[marked] = float("nan")
    broken = engine(model, tokens, scope=scope)
    assert np.isnan(broken.norms_sq).tolist() == [False, True, False]
    assert broken.norms_sq[0] > 0
    assert np.isfinite(broken.vectors[[0, 2]]).all()
    assert np.isfinite(healthy.vectors).all()


@pytest.mark.parametrize("scope", ["lora", "full"])
def test_certificate_passes_for_right_numbers_and_finds_wrong_ones(scope: str) -> None:
    model = small_model() if scope == "lora" else whole_model("llama, tied")
    tokens = some_tokens([*LENGTHS, LENGTHS[1]])
    tokens[-1] = tokens[1]
    examples = [type("Named", (), {"example_id": str(i)})() for i in range(len(tokens))]
    model = model.float()
    moments = {name: torch.rand_like(p) * 1e-4 for name, p in model.named_parameters() if p.requires_grad}
    scales = adam_preconditioner(moments, 10, (0.9, 0.999), 1e-8)
    gradients = panel_gradients(model, tokens, PAD, Gradients(batch_size=4, memory_gb=64), scales)
    found = certificate(model, gradients, tokens, examples, PAD, 4, scales)
    assert max(found["alone_vs_batched"], found["against_float64"], found["adam_against_float64"]) < 1e-5
    assert found["duplicates"] == [["1", "6"]]
    assert certify(found, Gradients(tolerance=1e-3))["passed"]
    gradients.vectors[:] *= 1.01
    off = certificate(model, gradients, tokens, examples, PAD, 4, scales)
    assert off["against_float64"] > 1e-2
    with pytest.raises(UserError, match=r"inner products are off by 2\.\de-02 .*model.dtype: float32"):
        certify(off, Gradients(tolerance=1e-3))


def test_a_weight_whose_gradient_cannot_be_split_is_refused_by_name() -> None:
    model = base_model("llama")
    model.model.layers[0].mlp.extra = torch.nn.Parameter(torch.zeros(3))
    with pytest.raises(UserError, match=r"but model.layers.0.mlp.extra belongs to a LlamaMLP. Leave it out with gradients.modules"):
        trainable_weights(model)


def test_a_pattern_that_matches_nothing_is_refused_with_names_that_it_could_match() -> None:
    with pytest.raises(UserError, match=r"'nothing' is found in no weight of the scope 'full'; its weights are named model.embed_tokens"):
        whole_model("llama", "nothing")


def test_names_of_layers_and_families() -> None:
    weights = {w.name: (w.layer, w.family) for w in trainable_weights(whole_model("llama"))}
    assert weights["model.layers.2.mlp.up_proj.weight"] == (2, "mlp.up_proj")
    assert weights["model.embed_tokens.weight"] == (None, "embed_tokens")
    assert weights["model.layers.0.input_layernorm.weight"] == (0, "input_layernorm")
    adapter = {w.name: (w.layer, w.family) for w in trainable_weights(small_model())}
    assert adapter["base_model.model.model.layers.1.mlp.down_proj.lora_B.default.weight"] == (1, "mlp.down_proj.lora_B")
