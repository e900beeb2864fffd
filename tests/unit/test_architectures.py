"""The engine on the architectures that people fine-tune: inner products as plain autograd gives them, batched as alone, with a certificate.

The reference uses torch and the model's own forward pass only.
"""

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    DeepseekV3Config,
    FalconConfig,
    Gemma2Config,
    Gemma3TextConfig,
    GemmaConfig,
    GPT2Config,
    GPTJConfig,
    GPTNeoXConfig,
    GptOssConfig,
    LlamaConfig,
    MixtralConfig,
    MptConfig,
    OPTConfig,
    Phi3Config,
    PhiConfig,
    Qwen2Config,
    Qwen2MoeConfig,
    Qwen3Config,
    Qwen3MoeConfig,
)

from swift_study.config import Gradients, Lora, Run
from swift_study.errors import UserError
from swift_study.gradients.certificate import certificate, certify
from swift_study.gradients.engine import PanelGradients, adam_preconditioner, panel_gradients
from swift_study.gradients.memory import needs
from swift_study.models.loading import add_lora
from swift_study.models.tokens import Tokens
from swift_study.models.weights import calls, check_captured, select_weights, train_weights, trainable_weights

PAD = 0
SHAPE = {
    "vocab_size": 97,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}
GPT = {"vocab_size": 97, "n_embd": 16, "n_layer": 2, "n_head": 4, "n_positions": 64}
OPT = {"vocab_size": 97, "hidden_size": 16, "ffn_dim": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 64}
MOE = SHAPE | {"num_key_value_heads": 2, "num_experts_per_tok": 2}
SMALL = {"num_experts": 4, "moe_intermediate_size": 8}
LATENT = {"kv_lora_rank": 8, "q_lora_rank": 8, "qk_rope_head_dim": 4, "qk_nope_head_dim": 4, "v_head_dim": 4}
# Configuration, attention, targets of an adapter.
MODELS = {
    "phi3": (Phi3Config(**SHAPE, num_key_value_heads=2, pad_token_id=0), "sdpa", ["gate_up_proj", "down_proj"]),
    "phi": (PhiConfig(**SHAPE), "sdpa", ["fc1", "fc2"]),
    "mixtral": (MixtralConfig(**MOE, num_local_experts=4), "sdpa", ["q_proj", "v_proj", "o_proj"]),
    "qwen3-moe": (Qwen3MoeConfig(**MOE, **SMALL, head_dim=8), "sdpa", ["q_proj", "v_proj", "o_proj"]),
    "qwen2-moe": (Qwen2MoeConfig(**MOE, **SMALL, shared_expert_intermediate_size=16), "sdpa", ["up_proj", "down_proj"]),
    "deepseek-v3": (
        DeepseekV3Config(
            **(MOE | {"num_key_value_heads": 4}), n_routed_experts=4, moe_intermediate_size=8, n_group=1, topk_group=1,
            first_k_dense_replace=1, **LATENT,
        ),
        "sdpa",
        ["q_a_proj", "kv_b_proj", "o_proj"],
    ),
    "opt": (OPTConfig(**OPT, word_embed_proj_dim=16, pad_token_id=0), "sdpa", ["fc1", "fc2"]),
    "opt, norms after": (
        OPTConfig(**OPT, word_embed_proj_dim=8, do_layer_norm_before=False, pad_token_id=1), "sdpa", ["fc1", "project_in"],
    ),
    "gpt2": (GPT2Config(**GPT), "sdpa", ["c_attn", "c_fc", "c_proj"]),
    "falcon": (FalconConfig(**{k: v for k, v in OPT.items() if k != "ffn_dim"}), "sdpa", ["query_key_value", "dense_4h_to_h"]),
    "gemma2": (Gemma2Config(**SHAPE, num_key_value_heads=2, head_dim=8), "eager", ["up_proj", "down_proj"]),
    "gemma3": (Gemma3TextConfig(**SHAPE, num_key_value_heads=2, head_dim=8), "sdpa", ["up_proj", "down_proj"]),
    "mpt": (MptConfig(vocab_size=97, d_model=16, n_heads=4, n_layers=2, max_seq_len=64, expansion_ratio=2), "eager", ["Wqkv", "up_proj"]),
    "gpt-j": (GPTJConfig(**GPT, rotary_dim=4), "eager", ["fc_in", "fc_out"]),
    "bloom": (BloomConfig(vocab_size=97, hidden_size=16, n_layer=2, n_head=4), "eager", ["query_key_value", "dense_4h_to_h"]),
    "gpt-oss": (GptOssConfig(**MOE, num_local_experts=4, head_dim=8, sliding_window=8), "eager", ["q_proj", "o_proj"]),
    "llama": (LlamaConfig(**SHAPE, num_key_value_heads=2), "sdpa", ["up_proj", "down_proj"]),
    "qwen2": (Qwen2Config(**SHAPE, num_key_value_heads=2), "sdpa", ["up_proj", "down_proj"]),
    "qwen3": (Qwen3Config(**SHAPE, num_key_value_heads=2, head_dim=8), "sdpa", ["up_proj", "down_proj"]),
    "gemma": (GemmaConfig(**SHAPE, num_key_value_heads=1, head_dim=8), "sdpa", ["up_proj", "down_proj"]),
    "gpt-neox": (GPTNeoXConfig(**SHAPE), "sdpa", ["query_key_value", "dense_4h_to_h"]),
    "llama, tied": (LlamaConfig(**SHAPE, tie_word_embeddings=True, pad_token_id=3), "sdpa", ["up_proj", "down_proj"]),
}  # fmt: skip
# These compute a norm, a gate or a softmax in float32 whatever the type of the model, and so depend on the padding by that much.
FLOAT32 = ("bloom", "gemma", "gemma2", "gemma3", "gpt-j", "mpt", "deepseek-v3")
LENGTHS = [(6, 3), (4, 8), (3, 2), (9, 11), (12, 5)]
NO_SINKS = r"^(?!.*sinks)"  # the one kind of weight of gpt-oss that the engine does not cover


def base_model(kind: str, dtype: torch.dtype = torch.float64) -> torch.nn.Module:
    torch.manual_seed(0)
    config, attention, _ = MODELS[kind]
    model = AutoModelForCausalLM.from_config(config, attn_implementation=attention).to(dtype).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))  # also where norms and biases begin with ones and zeros
    return model.requires_grad_(False)


def adapted_model(kind: str, targets: list[str] | None = None, dtype: torch.dtype = torch.float64) -> torch.nn.Module:
    model = add_lora(base_model(kind, dtype), Lora(rank=4, alpha=16, targets=targets or MODELS[kind][2]), seed=3).to(dtype)
    for name, weight in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(weight, std=0.1)
    return model.eval()


def whole_model(kind: str, dtype: torch.dtype = torch.float64) -> torch.nn.Module:
    model = base_model(kind, dtype)
    select_weights(model, "full", NO_SINKS)
    return model


def some_tokens(lengths: list[tuple[int, int]] = LENGTHS, seed: int = 0) -> list[Tokens]:
    rng = np.random.default_rng(seed)
    return [Tokens(rng.integers(1, 97, prompt + completion).tolist(), prompt) for prompt, completion in lengths]


def plain_gradients(model: torch.nn.Module, tokens: list[Tokens]) -> dict[str, torch.Tensor]:
    """Each weight's gradients, (examples, size), from one example after the other."""
    if getattr(model.config, "_experts_implementation", None) == "grouped_mm":
        model.set_experts_implementation("eager")  # a grouped product there is not in float64
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    rows = []
    for t in tokens:
        logits = model(input_ids=torch.tensor([t.ids[:-1]])).logits[0, t.prompt_length - 1 :]
        loss = torch.nn.functional.cross_entropy(logits, torch.tensor(t.ids[t.prompt_length :]), reduction="sum")
        rows.append(torch.autograd.grad(loss, list(named.values()), allow_unused=True, materialize_grads=True))
    return {name: torch.stack([row[i].flatten() for row in rows]) for i, name in enumerate(named)}


def gram_of(gradients: dict[str, torch.Tensor]) -> np.ndarray:
    return sum(g.double() @ g.double().T for g in gradients.values()).numpy()


def engine(model: torch.nn.Module, tokens: list[Tokens], **changed: object) -> PanelGradients:
    return panel_gradients(model, tokens, PAD, Gradients.model_validate({"batch_size": 4, "memory_gb": 64, **changed}))


def off(found: np.ndarray, expected: np.ndarray) -> float:
    norms = np.sqrt(np.diagonal(expected))
    return float(np.max(np.abs(found - expected) / np.outer(norms, norms)))


def dots(found: PanelGradients) -> np.ndarray:
    return found.vectors @ found.vectors.T


def assert_as_plain(model: torch.nn.Module, kind: str, scope: str, tokens: list[Tokens] | None = None) -> None:
    tokens = tokens or some_tokens()
    gradients = plain_gradients(model, tokens)
    expected = gram_of(gradients)
    alone = engine(model, tokens, scope=scope, batch_size=1)
    batched = engine(model, tokens, scope=scope, representation="exact")
    assert off(dots(alone), expected) < 1e-9
    assert off(dots(batched), expected) < (1e-6 if kind in FLOAT32 else 1e-9)
    assert np.allclose(batched.norms_sq, np.diagonal(expected), rtol=1e-6)
    whole = torch.cat(list(gradients.values()), dim=1).numpy()
    scale = np.sqrt(np.diagonal(expected))[:, None]
    assert np.max(np.abs(batched.vectors - whole) / scale) < 1e-6  # each number in its place
    for name, products in alone.by_weight.items():
        weight = gradients[name]
        assert np.allclose(products, (weight @ weight.T).numpy(), rtol=1e-9, atol=1e-12 * expected.max()), name
    left_out = set(gradients) - set(alone.by_weight)
    assert all(not gradients[name].any() for name in left_out)


@pytest.mark.parametrize("kind", MODELS)
def test_an_adapters_inner_products_are_plain_autograds(kind: str) -> None:
    assert_as_plain(adapted_model(kind), kind, "lora")


@pytest.mark.parametrize("kind", MODELS)
def test_all_weights_inner_products_are_plain_autograds(kind: str) -> None:
    assert_as_plain(whole_model(kind), kind, "full")


@pytest.mark.parametrize(
    ("kind", "targets"),
    [
        ("llama", ["embed_tokens"]),
        ("llama", ["embed_tokens", "lm_head", "q_proj"]),
        ("llama, tied", ["embed_tokens", "up_proj"]),  # with a padding row, which has no gradient of A
        ("gemma2", ["embed_tokens", "up_proj"]),  # which scales its embedding
        ("gpt2", ["wte", "wpe", "c_attn"]),
        ("bloom", ["word_embeddings"]),
        ("qwen2-moe", ["shared_expert_gate", "up_proj"]),
        ("mixtral", ["w1", "w2", "w3"]),  # experts, by the names of their parts
        ("mixtral", ["gate", "q_proj"]),  # the router
        ("qwen3-moe", ["gate_proj", "up_proj", "down_proj", "o_proj"]),
        ("deepseek-v3", ["gate_proj", "up_proj", "down_proj"]),
    ],
)
def test_adapters_on_embeddings_experts_and_routers(kind: str, targets: list[str]) -> None:
    tokens = some_tokens()
    tokens[1].ids[2] = tokens[3].ids[4] = 3  # the padding row's id
    assert_as_plain(adapted_model(kind, targets), kind, "lora", tokens)


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("scope", ["lora", "full"])
def test_the_certificate_passes_and_names_attention_and_reference(kind: str, scope: str) -> None:
    model = adapted_model(kind, dtype=torch.float32) if scope == "lora" else whole_model(kind, torch.float32)
    tokens = some_tokens()
    examples = [type("Named", (), {"example_id": str(i)})() for i in range(len(tokens))]
    found = certify(certificate(model, engine(model, tokens, scope=scope), tokens, examples, PAD, 3), Gradients(tolerance=1e-4))
    assert found["passed"]
    assert found["reference"] == "float64"
    assert found["attention"] == ("eager" if MODELS[kind][1] == "eager" else "sdpa, math kernel")


def test_the_certificate_says_where_there_is_no_float64() -> None:
    model, tokens = adapted_model("llama", dtype=torch.float32), some_tokens()

    def only_float32(module: torch.nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        if args[0].dtype == torch.float64:
            raise RuntimeError("Expected mat_a to be Float32, BFloat16 or Float16 matrix, got Double")

    model.get_submodule("base_model.model.model.layers.1.mlp.up_proj").register_forward_pre_hook(only_float32)
    examples = [type("Named", (), {"example_id": str(i)})() for i in range(len(tokens))]
    found = certificate(model, engine(model, tokens), tokens, examples, PAD, 3)
    assert found["reference"] == "float32"
    assert certify(found, Gradients())["passed"]


@pytest.mark.parametrize("kind", ["gpt2", "opt", "mixtral", "bloom"])
def test_layers_in_groups_give_the_same_numbers(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokens = whole_model(kind), some_tokens()
    at_once = engine(model, tokens, scope="full")
    weights = trainable_weights(model)
    need = needs(model, weights, calls(model, weights, tokens[0], PAD), tokens, [[3, 4, 1, 0], [2]], "gram")
    everything = sum(n.own + sum(n.inputs.values()) for n in need.values()) / 1e9
    monkeypatch.setattr("swift_study.gradients.stages.fixed_bytes", lambda *given: 0.0)
    groups = set()
    for share in (1.0, 0.9, 0.8, 0.7, 0.6):
        done: list[int] = []
        settings = Gradients(scope="full", batch_size=4, memory_gb=share * everything)
        try:
            found = panel_gradients(model, tokens, PAD, settings, progress=done.append)
        except UserError:
            break
        groups.add(done[-1] // len(tokens))
        assert np.array_equal(found.vectors, at_once.vectors)
    assert max(groups) > 1


@pytest.mark.parametrize(
    ("kind", "targets"),
    [("gpt2", []), ("falcon", []), ("qwen2-moe", []), ("llama", ["embed_tokens", "up_proj"]), ("mixtral", ["w1", "w2", "w3"])],
)
def test_norms_of_sketches_are_exact_and_their_products_about_right(kind: str, targets: list[str]) -> None:
    model, tokens = adapted_model(kind, targets) if targets else whole_model(kind), some_tokens()
    expected = gram_of(plain_gradients(model, tokens))
    found = engine(model, tokens, representation="sketch", sketch_dimensions=16384, scope="lora" if targets else "full")
    assert np.allclose(found.norms_sq, np.diagonal(expected), rtol=1e-9)
    assert off(dots(found), expected) < 0.2


def test_adams_inner_products_over_an_embeddings_adapter() -> None:
    model, tokens = adapted_model("llama", ["embed_tokens", "down_proj"]), some_tokens()
    gradients = plain_gradients(model, tokens)
    moments = {name: torch.rand_like(p) * 1e-4 for name, p in model.named_parameters() if p.requires_grad}
    scales = adam_preconditioner(moments, 10, (0.9, 0.999), 1e-8)
    expected = sum((g * scales[name].flatten()) @ g.T for name, g in gradients.items()).numpy()
    found = panel_gradients(model, tokens, PAD, Gradients(batch_size=4, memory_gb=64), scales)
    assert found.adam_vectors is not None
    assert off(found.adam_vectors @ found.adam_vectors.T, expected) < 1e-9


# ---- layers whose input has another order ----


class TokensFirst(torch.nn.Module):
    """An MLP whose layers see (tokens, examples, width)."""

    def __init__(self, mlp: torch.nn.Module) -> None:
        super().__init__()
        self.mlp = mlp

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.mlp(x.transpose(0, 1).contiguous()).transpose(0, 1)


class Routed(torch.nn.Module):
    """Two linear experts, each of which sees the tokens that go to it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.experts = torch.nn.ModuleList(torch.nn.Linear(width, width) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        flat, out = x.flatten(0, 1), torch.zeros_like(x.flatten(0, 1))
        to = (flat[:, 0] > 0).long()
        for number, expert in enumerate(self.experts):
            rows = (to == number).nonzero()[:, 0]
            if len(rows):
                out = out.index_add(0, rows, expert(flat[rows]))
        return out.view_as(x)


@pytest.mark.parametrize("representation", ["gram", "exact", "sketch"])
def test_tokens_before_examples(representation: str) -> None:
    model = base_model("llama")
    for layer in model.model.layers:
        layer.mlp = TokensFirst(layer.mlp)
    select_weights(model, "full", "mlp|embed")
    tokens = some_tokens([(2, 3)] * 4)  # as many examples as positions
    expected = gram_of(plain_gradients(model, tokens))
    found = engine(model, tokens, scope="full", representation=representation, sketch_dimensions=16384)
    assert np.allclose(found.norms_sq, np.diagonal(expected), rtol=1e-9)
    assert off(dots(found), expected) < (0.2 if representation == "sketch" else 1e-9)


@pytest.mark.parametrize("representation", ["gram", "exact", "sketch"])
def test_experts_that_see_some_tokens_only(representation: str) -> None:
    """An expert that none of an example's tokens go to has no gradient for it."""
    model = base_model("llama")
    torch.manual_seed(1)
    model.model.layers[1].mlp = Routed(16).double().requires_grad_(False)
    select_weights(model, "full", "experts")
    tokens = some_tokens([(1, 1), (1, 2), (2, 1), (5, 4), (1, 1), (7, 2)])
    gradients = plain_gradients(model, tokens)
    assert not all(bool(row.any()) for g in gradients.values() for row in g)  # some example does without some expert
    expected = gram_of(gradients)
    found = engine(model, tokens, scope="full", representation=representation, sketch_dimensions=16384)
    assert np.allclose(found.norms_sq, np.diagonal(expected), rtol=1e-9)
    assert off(dots(found), expected) < (0.2 if representation == "sketch" else 1e-9)


# ---- refusals ----


@pytest.mark.parametrize(
    ("kind", "targets", "said"),
    [
        ("phi3", ["up_proj", "down_proj"], r"no module of this model is named 'up_proj'. Did you mean gate_up_proj\? .* qkv_proj"),
        ("phi3", ["q_proj", "v_proj"], r"is named 'q_proj' or 'v_proj'. Did you mean qkv_proj"),
        ("llama", ["up_proj", "down_porj"], r"is named 'down_porj'. Did you mean down_proj\?"),
        ("llama", ["nothing"], "is named 'nothing'. Its layers that can have an adapter are named down_proj, embed_tokens, gate_proj"),
        ("llama", ["proj"], "is named 'proj'"),  # peft takes whole names only
        ("gpt2", ["c_attn", "up_proj"], "is named 'up_proj'"),
        ("mixtral", ["q_proj", "gate_up_proj", "down_proj"], "is named 'down_proj' or 'gate_up_proj'"),
        ("mixtral", ["up_proj", "down_proj"], "is named 'up_proj' or 'down_proj'"),
        ("mixtral", ["w1", "w2"], "do not fit this model: .*w1 without also targeting w3"),
        ("gpt-oss", ["q_proj", "gate_up_proj"], "is named 'gate_up_proj'"),
        ("llama", ["mlp"], "do not fit this model: .* named down_proj, embed_tokens"),
    ],
)
def test_a_target_that_is_no_modules_name_is_refused_with_the_names_that_there_are(kind: str, targets: list[str], said: str) -> None:
    with pytest.raises(UserError, match=rf"runs\.\*\.lora\.targets.*{said}"):
        add_lora(base_model(kind), Lora(targets=targets), 1)


@pytest.mark.parametrize("target", ["up_proj", "mlp.up_proj", "layers.0.mlp.up_proj", "model.layers.1.mlp.up_proj"])
def test_a_target_may_be_any_end_of_a_modules_name(target: str) -> None:
    model = add_lora(base_model("llama"), Lora(rank=2, targets=[target]), 1)
    assert any("lora_A" in name for name, _ in model.named_parameters())


def test_a_weight_that_no_called_module_uses_is_refused() -> None:
    class Hidden(torch.nn.Module):
        """Reads a layer's weight without calling it."""

        def __init__(self, mlp: torch.nn.Module) -> None:
            super().__init__()
            self.mlp, self.bypassed = mlp, torch.nn.Linear(16, 16)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.mlp(x) + x @ self.bypassed.weight

    model = base_model("llama")
    model.model.layers[1].mlp = Hidden(model.model.layers[1].mlp).double()
    model.requires_grad_(False)
    select_weights(model, "full", "layers.1")
    said = "does not see how the model uses model.layers.1.mlp.bypassed.weight, which is trained"
    with pytest.raises(UserError, match=said):
        engine(model, some_tokens(), scope="full")
    with pytest.raises(UserError, match=said):
        train_weights(model.requires_grad_(False), Run(method="full"), Gradients(scope="full"))
    train_weights(model.requires_grad_(False), Run(method="full"), Gradients(scope="full", modules="self_attn"))


def test_weights_of_which_the_model_uses_none_are_told() -> None:
    model = base_model("llama")
    model.model.unused = torch.nn.Linear(3, 3).double()
    select_weights(model, "full", "unused")
    with pytest.raises(UserError, match="uses none of the weights whose gradients are asked for"):
        engine(model, some_tokens(), scope="full")


def test_a_layer_that_some_examples_do_without_is_told() -> None:
    class Seldom(torch.nn.Module):
        def __init__(self, mlp: torch.nn.Module) -> None:
            super().__init__()
            self.mlp, self.long_only = mlp, torch.nn.Linear(16, 16)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.mlp(x) + (self.long_only(x) if x.shape[1] > 15 else 0)

    model = base_model("llama")
    model.model.layers[1].mlp = Seldom(model.model.layers[1].mlp).double().requires_grad_(False)
    select_weights(model, "full", "layers.1")
    with pytest.raises(UserError, match=r"only some go through model.layers.1.mlp.long_only"):
        engine(model, some_tokens(), scope="full")


def test_a_run_is_refused_before_training_where_its_gradients_cannot_be_computed() -> None:
    said = "model.layers.0.self_attn.sinks belongs to a GptOssAttention. Leave it out with gradients.modules"
    adapter = Lora(rank=2, targets=["q_proj"])
    for run in (Run(method="full"), Run(lora=adapter)):
        for pass_through in (True, False):
            with pytest.raises(UserError, match=said):
                train_weights(base_model("gpt-oss"), run, Gradients(scope="full"), pass_through)
        train_weights(base_model("gpt-oss"), run, Gradients(scope="full", modules=NO_SINKS))
        train_weights(base_model("gpt-oss"), run, None)
    model = train_weights(base_model("gpt-oss"), Run(lora=adapter), Gradients(modules="layers.0"))
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained == {name for name, _ in model.named_parameters() if "lora_" in name}  # also what the gradients leave out
    model = train_weights(base_model("gpt-oss"), Run(method="full"), Gradients(scope="full", modules="q_proj"))
    assert all(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("kind", MODELS)
def test_what_is_covered_is_found_without_the_weights_values(kind: str) -> None:
    config, attention, targets = MODELS[kind]
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, attn_implementation=attention).requires_grad_(False)
    check_captured(model, Gradients(scope="full", modules=NO_SINKS), pass_through=False)
    adapted = train_weights(model, Run(lora=Lora(targets=targets)), Gradients(), pass_through=False)
    assert {w.name for w in trainable_weights(adapted)} == {name for name, _ in adapted.named_parameters() if "lora_" in name}
