"""What model.attention, a model's folder and an adapter's file have to be; what else ends in a sentence that names file, weight and key."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from scripts import run_script
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    Gemma2Config,
    GPTJConfig,
    GptOssConfig,
    LlamaConfig,
    MptConfig,
    Phi3Config,
    PretrainedConfig,
    Qwen3MoeConfig,
)

from swift_study.config import Gradients, Lora, Model, Run
from swift_study.errors import UserError
from swift_study.models.loading import add_lora, find_model, load_adapter, load_checkpoint, load_model, outline
from swift_study.training.trainer import _start

SHAPE = {
    "vocab_size": 97,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}
EAGER_ONLY = {
    "gemma2": Gemma2Config(**SHAPE, num_key_value_heads=2, head_dim=8),
    "mpt": MptConfig(vocab_size=97, d_model=16, n_heads=4, n_layers=2, max_seq_len=64, expansion_ratio=2),
    "gpt-j": GPTJConfig(vocab_size=97, n_embd=16, n_layer=2, n_head=4, n_positions=64, rotary_dim=4),
    "bloom": BloomConfig(vocab_size=97, hidden_size=16, n_layer=2, n_head=4),
    "gpt-oss": GptOssConfig(**SHAPE, num_key_value_heads=2, head_dim=8, num_local_experts=4, num_experts_per_tok=2),
}
ADAPTER = Lora(rank=2, targets=["up_proj", "down_proj"])


def save(config: PretrainedConfig, folder: Path, **settings: object) -> Path:
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config, attn_implementation="eager").save_pretrained(folder, **settings)
    return folder


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    return save(LlamaConfig(**SHAPE), tmp_path / "llama")


@pytest.mark.parametrize("kind", EAGER_ONLY)
def test_an_architecture_without_exact_math_attention_says_which_key_to_set(kind: str, tmp_path: Path) -> None:
    folder = save(EAGER_ONLY[kind], tmp_path / "model")
    for load in (load_model, outline):
        with pytest.raises(UserError, match=rf"{folder}: there is no exact math attention .*ForCausalLM\). Set model.attention: eager."):
            load(folder, Model())
        assert load(folder, Model(attention="eager")).config._attn_implementation == "eager"


def test_math_attention_is_the_default(llama: Path) -> None:
    assert load_model(llama, Model()).config._attn_implementation == "sdpa"
    assert load_model(llama, Model(attention="eager")).config._attn_implementation == "eager"


def without(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        weights = load_file(folder / "model.safetensors")
        del weights[name]
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

    return change


def cut(name: str, left: int) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / name).write_bytes((folder / name).read_bytes()[:left])

    return change


def resized(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"intermediate_size": 24}))


FAULTS = {
    "a weight is missing": (without("model.layers.1.mlp.up_proj.weight"), "lack 1 of the weights .* model.layers.1.mlp.up_proj.weight"),
    "a norm is missing": (without("model.norm.weight"), "lack 1 of the weights .* model.norm.weight"),
    "the output layer is missing": (without("lm_head.weight"), "lack 1 of the weights .* lm_head.weight"),
    "the embedding is missing": (without("model.embed_tokens.weight"), "lack 1 of the weights .* model.embed_tokens.weight"),
    "of another size": (resized, r"down_proj.weight has the shape \(16, 32\), but by config.json \(16, 24\)"),
    "weights cut in the middle": (cut("model.safetensors", -100), "model.safetensors: the file is not whole"),
    "weights cut in the header": (cut("model.safetensors", 20), "model.safetensors: the file is not whole"),
    "weights empty": (cut("model.safetensors", 0), "model.safetensors: the file is not whole"),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), r"there are no \*.safetensors files"),
    "config cut": (cut("config.json", 60), "config.json: the file is not whole JSON"),
    "config empty": (cut("config.json", 0), "config.json: the file is not whole JSON"),
    "config a list": (lambda folder: (folder / "config.json").write_text("[]"), "config.json: the file is not whole JSON"),
    "config not text": (lambda folder: (folder / "config.json").write_bytes(b"\xff\xfe\x00"), "config.json: the file is not whole JSON"),
    "no config": (lambda folder: (folder / "config.json").unlink(), "config.json: the file is missing"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_model_folder_that_is_not_whole_ends_in_a_sentence(fault: str, llama: Path) -> None:
    change, said = FAULTS[fault]
    change(llama)
    with pytest.raises(UserError, match=f"{llama}.*{said}"):
        load_model(llama, Model())


def test_a_sharded_model_that_lacks_a_file_or_a_weight_ends_in_a_sentence(tmp_path: Path) -> None:
    folder = save(LlamaConfig(**SHAPE), tmp_path / "model", max_shard_size="5KB")
    whole = load_model(folder, Model())
    first, second, *_ = sorted(folder.glob("*.safetensors"))
    weights = load_file(second)
    second.rename(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=f"{second}: the file is missing, but model.safetensors.index.json names it"):
        find_model(Model(name=str(folder)), tmp_path)
    lost, *kept = weights
    save_file({name: weights[name] for name in kept}, second, metadata={"format": "pt"})
    with pytest.raises(UserError, match=rf"lack 1 of the weights .* {lost}"):
        load_model(folder, Model())
    shutil.move(tmp_path / "elsewhere", second)
    assert all(torch.equal(p, q) for p, q in zip(load_model(folder, Model()).parameters(), whole.parameters(), strict=True))
    first.write_bytes(first.read_bytes()[:-1])
    with pytest.raises(UserError, match=f"{first}: the file is not whole"):
        load_model(folder, Model())


def test_a_tied_output_layer_is_not_missed(tmp_path: Path) -> None:
    folder = save(LlamaConfig(**SHAPE, tie_word_embeddings=True), tmp_path / "tied")
    assert "lm_head.weight" not in load_file(folder / "model.safetensors")
    model = load_model(folder, Model())
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight


def test_a_checkpoint_that_lacks_a_weight_is_refused(llama: Path, tmp_path: Path) -> None:
    checkpoint = tmp_path / "step-000004"
    shutil.copytree(llama, checkpoint)
    load_checkpoint(llama, Model(), checkpoint, ADAPTER)
    without("model.layers.0.self_attn.q_proj.weight")(checkpoint)
    with pytest.raises(UserError, match=f"{checkpoint}: the model is not whole.*model.layers.0.self_attn.q_proj.weight"):
        load_checkpoint(llama, Model(), checkpoint, ADAPTER)
    with pytest.raises(UserError, match=f"{checkpoint}: the model is not whole"):
        _start(Run(method="full"), llama, Model(), checkpoint)


@pytest.mark.parametrize(
    ("config", "targets"),
    [
        (LlamaConfig(**SHAPE), ["up_proj", "down_proj"]),
        (LlamaConfig(**SHAPE), ["embed_tokens", "q_proj"]),
        (
            Qwen3MoeConfig(**SHAPE, num_key_value_heads=2, head_dim=8, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=8),
            ["gate_proj", "up_proj", "down_proj", "q_proj"],
        ),
    ],
)
def test_an_adapter_is_read_back_whole_and_refused_where_it_is_not(config: PretrainedConfig, targets: list[str], tmp_path: Path) -> None:
    folder, checkpoint, lora = save(config, tmp_path / "model"), tmp_path / "step-000004", Lora(rank=2, targets=targets)
    trained = add_lora(load_model(folder, Model()), lora, 1)
    torch.manual_seed(1)
    for parameter in trained.parameters():
        if parameter.requires_grad:
            parameter.data.normal_()
    trained.save_pretrained(checkpoint, save_embedding_layers=False)  # as the trainer does
    found = dict(load_checkpoint(folder, Model(), checkpoint, lora).named_parameters())
    assert all(torch.equal(found[name], parameter) for name, parameter in trained.named_parameters())
    path = checkpoint / "adapter_model.safetensors"
    weights = load_file(path)
    adapters = [name for name in weights if "lora_" in name]
    for lost in ([adapters[0]], [adapters[-1]], adapters[1:], adapters):
        save_file({name: weight for name, weight in weights.items() if name not in lost}, path)
        said = rf"{path}: the adapter is not whole: it lacks {len(lost)} of the weights .* delete {checkpoint} and run snakemake again"
        with pytest.raises(UserError, match=said):
            load_adapter(trained, checkpoint)
        with pytest.raises(UserError, match=said):
            _start(Run(lora=lora), folder, Model(), checkpoint)


def test_a_run_starts_only_if_its_gradients_can_be_computed(tmp_path: Path) -> None:
    folder = save(EAGER_ONLY["gpt-oss"], tmp_path / "model")
    settings, run = Model(attention="eager"), Run(lora=Lora(rank=2, targets=["q_proj"]))
    with pytest.raises(UserError, match="sinks belongs to a GptOssAttention"):
        _start(run, folder, settings, None, Gradients(scope="full"))
    with pytest.raises(UserError, match="no module of this model is named 'up_proj' or 'down_proj'"):
        _start(Run(), folder, settings, None, None)
    for gradients in (None, Gradients()):
        model = _start(run, folder, settings, None, gradients)
        assert model.training
        assert {name for name, p in model.named_parameters() if p.requires_grad} == {n for n, _ in model.named_parameters() if "lora_" in n}


def test_runs_that_do_not_fit_are_told_when_the_model_is_found(packaged: Path, tmp_path: Path) -> None:
    folder = save(Phi3Config(**SHAPE | {"vocab_size": 49152}, pad_token_id=0), tmp_path / "phi3")
    for file in packaged.glob("*"):
        if file.name not in ("config.json", "generation_config.json", "model.safetensors"):
            shutil.copy(file, folder)
    runs = [[{"method": "lora", "lora": Lora().model_dump()}, {"scope": "lora", "modules": None}]]
    given = ["--settings", Model(name=str(folder)).model_dump_json(), "--cache", tmp_path, "--output", tmp_path / "main.json"]
    done = run_script("find_model.py", *given, "--runs", json.dumps(runs), code=1)
    assert "ERROR in find_model: runs.*.lora.targets: no module of this model is named 'up_proj'. Did you mean gate_up_proj?" in done.stdout
    assert not (tmp_path / "main.json").exists()
