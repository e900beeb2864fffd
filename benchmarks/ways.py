"""Ways to all inner products of per-example gradients: our engine, a loop over single examples, and three public libraries.

``WAYS[name](model, pad_id, batch_size, queries)`` prepares the model, whose wanted linear weights are trainable and all others frozen,
and returns the function that turns examples into their inner products, (N, N). An example's loss is summed over its completion tokens.
Every library runs as its documentation has it, in float32, without gradients of weights that it does not need; where it takes a loss
function, it gets ours, which puts only the supervised positions through the output layer.
"""

import logging
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from swift_study.config import Gradients
from swift_study.gradients.engine import PanelGradients, panel_gradients
from swift_study.models.batches import IGNORED, Batch, collate, sum_losses
from swift_study.models.tokens import Tokens

Way = Callable[[Sequence[Tokens]], np.ndarray]


def our_engine(
    model: Any, tokens: Sequence[Tokens], pad_id: int, batch_size: int, representation: str, memory_gb: float = 0
) -> PanelGradients:
    """The only place that calls our engine."""
    budget = memory_gb or Gradients().memory_gb
    return panel_gradients(model, tokens, pad_id, Gradients(batch_size=batch_size, representation=representation, memory_gb=budget))


def ours(model: Any, pad_id: int, batch_size: int, memory_gb: int) -> Way:
    def gram(tokens: Sequence[Tokens]) -> np.ndarray:
        vectors = our_engine(model, tokens, pad_id, batch_size, "gram", memory_gb).vectors
        return vectors @ vectors.T

    return gram


def loop(model: Any, pad_id: int, batch_size: int, queries: int) -> Way:
    """A backward pass for each example as in LESS; all gradients are kept, then multiplied, in float32."""
    return partial(one_by_one, model, pad_id, torch.float32)


def autograd(model: Any, pad_id: int, batch_size: int, queries: int) -> Way:
    """The same, multiplied in float64: what the others are held against. Float32 sums over a weight's many elements are less exact."""
    return partial(one_by_one, model, pad_id, torch.float64)


def one_by_one(model: Any, pad_id: int, products: torch.dtype, tokens: Sequence[Tokens]) -> np.ndarray:
    weights = [p for p in model.parameters() if p.requires_grad]
    kept = [torch.empty((len(tokens), p.numel()), device=p.device) for p in weights]
    for row, example in enumerate(tokens):
        loss = sum_losses(model, collate([example], pad_id, model.device)).sum()
        for rows, gradient in zip(kept, torch.autograd.grad(loss, weights), strict=True):
            rows[row] = gradient.flatten()
    total = torch.zeros((len(tokens), len(tokens)), dtype=torch.float64, device=model.device)
    for rows in kept:
        wide = rows.to(products)
        total += wide @ wide.T
    return total.cpu().numpy()


def dattri_llm(model: Any, pad_id: int, batch_size: int, queries: int) -> Way:
    """``attribute``, its workflow on the fly: the model sees all examples twice, as train and as test side."""

    def gram(tokens: Sequence[Tokens]) -> np.ndarray:
        rows = padded_rows(tokens, pad_id)
        with dattri_attributor(model, names, tokens, pad_id, batch_size, queries) as (attributor, config):
            return attributor.attribute(rows, rows, hook_config=config).agnostic_matrix()[1].double().numpy()

    names = wanted(model)
    only_inputs(model)
    return gram


def dattri_llm_once(model: Any, pad_id: int, batch_size: int, queries: int) -> Way:
    """Gradients collected once, into a store in memory that is both sides: faster, of its public parts but not of its documentation."""

    def gram(tokens: Sequence[Tokens]) -> np.ndarray:
        from dattri_llm import GradientStorageManager

        with (
            dattri_attributor(model, names, tokens, pad_id, batch_size, queries) as (attributor, config),
            tempfile.TemporaryDirectory() as folder,
            GradientStorageManager(folder, residency="memory") as store,
        ):
            rows = padded_rows(tokens, pad_id)
            attributor.collect_gradients(attributor.generate_train_rep(rows, hook_config=config), store)
            return attributor.attribute_from_cache(store, store).agnostic_matrix()[1].double().numpy()

    names = wanted(model)
    only_inputs(model)
    return gram


@contextmanager
def dattri_attributor(
    model: Any, names: list[str], tokens: Sequence[Tokens], pad_id: int, batch_size: int, queries: int
) -> Iterator[tuple[Any, Any]]:
    from dattri_llm import AttributionArguments, AttributionTask, HookManagerConfig, TracInAttributor
    from dattri_llm.gradient import ops

    ops.set_compute_dtype("float32")
    loss = batch_loss(tokens, pad_id)
    with tempfile.TemporaryDirectory() as folder:
        arguments = AttributionArguments(
            output_dir=folder,
            per_device_train_batch_size=batch_size,
            per_device_eval_batch_size=batch_size,
            use_cpu=model.device.type == "cpu",
            dataloader_pin_memory=model.device.type == "cuda",
        )
        config = HookManagerConfig(hook_types=dict.fromkeys(names, "linear_io"), capture_style="auto", include_frozen=True)
        yield TracInAttributor(arguments, task=AttributionTask(lambda m, b: loss(b, m), model)), config


def padded_rows(tokens: Sequence[Tokens], pad_id: int) -> list[dict[str, torch.Tensor]]:
    """The examples as dictionaries of tensors, padded to the longest of all."""
    batch = collate(tokens, pad_id)
    return [
        {"input_ids": ids, "attention_mask": mask, "labels": labels}
        for ids, mask, labels in zip(batch.input_ids, batch.attention_mask, batch.labels, strict=True)
    ]


def bergson(model: Any, pad_id: int, batch_size: int, queries: int) -> Way:
    """The collector in memory: all gradients are kept, then multiplied here, in float32. Weights are frozen as its workers do it."""
    names = set(wanted(model))
    base = model.base_model
    prefix = "base_model." if hasattr(model, "peft_config") else "model."
    model.requires_grad_(False)
    model.get_input_embeddings().requires_grad_(True)

    def gram(tokens: Sequence[Tokens]) -> np.ndarray:
        from bergson import CollectorComputer, GradientProcessor, IndexConfig, InMemoryCollector
        from datasets import Dataset

        rows = Dataset.from_dict(
            {
                "input_ids": [t.ids for t in tokens],
                "labels": [[IGNORED] * t.prompt_length + t.ids[t.prompt_length :] for t in tokens],
                "length": [len(t.ids) for t in tokens],
            }
        )
        with tempfile.TemporaryDirectory() as folder:
            config = IndexConfig(run_path=f"{folder}/index", precision="fp32", loss_reduction="sum")
            config.partial_run_path.mkdir(parents=True)
            collector = InMemoryCollector(
                model=base,
                data=rows,
                cfg=config,
                processor=GradientProcessor(projection_dim=None),
                target_modules={name.removeprefix(prefix) for name in names},
            )
            order = range(len(tokens))
            batches = [list(order[start : start + batch_size]) for start in range(0, len(tokens), batch_size)]
            CollectorComputer(model, rows, collector=collector, cfg=config, batches=batches).run_with_collector_hooks()
            if len(collector.gradients) != len(names):
                raise RuntimeError(f"bergson collected {len(collector.gradients)} of {len(names)} modules")
            total = torch.zeros((len(tokens), len(tokens)), dtype=torch.float64)
            for gradients in collector.gradients.values():
                moved = gradients.float().to(model.device)
                total += (moved @ moved.T).cpu()
        return total.numpy()

    return gram


def kronfluence(model: Any, pad_id: int, batch_size: int, queries: int) -> Way:
    """Pairwise scores without preconditioning: it holds the gradients of so many ``queries``, then sees all examples, and so on."""
    from kronfluence.analyzer import Analyzer, prepare_model
    from kronfluence.arguments import FactorArguments
    from kronfluence.task import Task
    from torch.utils.data import Dataset

    logging.getLogger("kronfluence").setLevel(logging.ERROR)
    names = wanted(model)
    loss: dict[str, Callable[[Any, Any], torch.Tensor]] = {}

    class Completions(Task):
        def compute_train_loss(self, batch: Any, model: Any, sample: bool = False) -> torch.Tensor:
            return loss["now"](batch, model)

        def compute_measurement(self, batch: Any, model: Any) -> torch.Tensor:
            return loss["now"](batch, model)

        def get_influence_tracked_modules(self) -> list[str]:
            return names

        def get_attention_mask(self, batch: Any) -> torch.Tensor:
            return batch["attention_mask"]

    class Rows(Dataset):
        def __init__(self, rows: list[dict[str, torch.Tensor]]) -> None:
            self.rows = rows

        def __len__(self) -> int:
            return len(self.rows)

        def __getitem__(self, i: int) -> dict[str, torch.Tensor]:
            return self.rows[i]

    task = Completions()
    prepared = prepare_model(model, task)

    def gram(tokens: Sequence[Tokens]) -> np.ndarray:
        loss["now"] = batch_loss(tokens, pad_id)
        rows = Rows(padded_rows(tokens, pad_id))
        with tempfile.TemporaryDirectory() as folder:
            analyzer = Analyzer(
                "peers", model=prepared, task=task, cpu=model.device.type == "cpu", output_dir=folder, disable_tqdm=True, log_level=40
            )
            analyzer.fit_all_factors("identity", dataset=rows, factor_args=FactorArguments(strategy="identity"))
            analyzer.compute_pairwise_scores(
                "scores",
                factors_name="identity",
                query_dataset=rows,
                train_dataset=rows,
                per_device_query_batch_size=min(queries or batch_size, len(tokens)),
                per_device_train_batch_size=batch_size,
            )
            return analyzer.load_pairwise_scores("scores")["all_modules"].double().cpu().numpy()

    return gram


def wanted(model: Any) -> list[str]:
    """The linear layers whose weight is trainable, by name."""
    return [name for name, m in model.named_modules() if isinstance(m, torch.nn.Linear) and m.weight.requires_grad]


def only_inputs(model: Any) -> None:
    """Freeze the weights; gradients flow from the embedding's output, so that a backward pass makes those of layer inputs only."""
    model.requires_grad_(False)
    model.enable_input_require_grads()


def batch_loss(tokens: Sequence[Tokens], pad_id: int) -> Callable[[Any, Any], torch.Tensor]:
    """The summed loss of a batch of `padded_rows` of these examples."""
    keep = collate(tokens, pad_id).keep

    def loss(batch: Any, model: Any) -> torch.Tensor:
        return sum_losses(model, Batch(batch["input_ids"], batch["attention_mask"], batch["labels"], keep)).sum()

    return loss


WAYS: dict[str, Callable[[Any, int, int, int], Way]] = {
    "ours": ours,
    "autograd": autograd,
    "loop": loop,
    "dattri-llm": dattri_llm,
    "dattri-llm-once": dattri_llm_once,
    "bergson": bergson,
    "kronfluence": kronfluence,
}


# ---- model and examples ----


def make_model(scope: str, folder: Path, device: str) -> Any:
    """The model with its wanted weights trainable: a LoRA adapter with B other than zero, or all linear layers of the decoder."""
    from swift_study.config import Lora, Model
    from swift_study.models.loading import add_lora, load_model

    model = load_model(folder, Model()).to(device)
    if scope == "lora":
        model = add_lora(model, Lora(), seed=1).eval()
        torch.manual_seed(2)
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weight, std=1e-2)
    else:
        full_scope(model)
    return model


def full_scope(model: Any) -> None:
    """Make the linear layers of the decoder trainable, and nothing else."""
    model.requires_grad_(False)
    for module in model.modules():
        if isinstance(module, torch.nn.Linear) and module is not model.get_output_embeddings():
            module.weight.requires_grad_(True)


def make_tokens(tokenizer: Any, count: int, length: int, seed: int = 1, shorter: int = 0) -> list[Tokens]:
    """Text of the built-in tasks, cut into pieces, each ``shorter`` than the one before; the second half is the completion."""
    from swift_study.data.generator import FAMILIES, generate

    each = 1 + count * length // (16 * len(FAMILIES))
    text = "\n\n".join(m.content for family in FAMILIES for e in generate(family, each, seed) for m in e.messages)
    ids = tokenizer.encode(text, add_special_tokens=False)
    if len(ids) < count * length:
        raise RuntimeError(f"The text has {len(ids)} tokens; {count} × {length} are needed")
    pieces = [ids[i * length : (i + 1) * length - i * shorter] for i in range(count)]
    return [Tokens(piece, len(piece) // 2) for piece in pieces]


def disagreement(gram: np.ndarray, reference: np.ndarray) -> float:
    """The largest difference of two matrices of inner products, relative to the norms that the second one has."""
    norms = np.sqrt(np.diagonal(reference))
    return float(np.max(np.abs(gram - reference) / np.outer(norms, norms)))
