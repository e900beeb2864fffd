"""The gradient engine: per-example gradients of a panel at a checkpoint, and their exact inner products.

An example's gradient is that of the sum of its completion tokens' losses, over the weights of the adapter. No weight gradient is
ever formed by autograd: hooks on each adapter layer (y = W a) keep the input a and receive the gradient b of the output, from which
the layer's per-example gradient is sum over tokens of b aᵀ. Every example has rows of its own in b, so a batch gives the same numbers
as one example after the other (Numerics 1-3).
"""

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from swift_study.errors import UserError
from swift_study.examples import Example
from swift_study.models import exact_numerics
from swift_study.tokens import Tokens, collate, sum_losses

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PanelGradients:
    """Of N examples: ``losses`` (N,) float64, ``norms_sq`` (N,) float64, ``vectors`` (N, D).

    Inner products of the rows of ``vectors`` are those of the gradients: D = N, float64 for the `gram` representation; D = number
    of weights, float32 for `exact`. Rows whose gradient is not finite are NaN.
    """

    losses: np.ndarray
    norms_sq: np.ndarray
    vectors: np.ndarray


def trainable_layers(model: Any) -> dict[str, torch.nn.Linear]:
    """The linear layers whose weight is trainable, by name. Raises UserError if another kind of weight is trainable."""
    layers = {name: module for name, module in model.named_modules() if isinstance(module, torch.nn.Linear) and module.weight.requires_grad}
    covered = {f"{name}.weight" for name in layers}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and name not in covered:
            raise UserError(f"The gradient engine covers linear layers without bias, but {name} is trainable as well.")
    return layers


@contextmanager
def _per_example_gradients(
    model: Any, layers: Mapping[str, torch.nn.Linear], receive: Callable[[str, torch.Tensor], None]
) -> Iterator[None]:
    """While open, a backward pass calls ``receive(layer, gradients)`` for each layer with shape (batch, out, in).

    Weights are frozen meanwhile; the embedding's output asks for a gradient so that input gradients flow through all layers.
    """
    inputs: dict[str, torch.Tensor] = {}

    def watch(name: str) -> Callable[[Any, Any, Any], None]:
        def forward(module: Any, args: tuple[torch.Tensor], output: torch.Tensor) -> None:
            inputs[name] = args[0].detach()
            output.register_hook(backward)  # type: ignore[no-untyped-call]

        def backward(grad: torch.Tensor) -> None:
            a = inputs.pop(name)
            receive(name, torch.bmm(grad.detach().to(a.dtype).transpose(1, 2), a))

        return forward

    handles = [layer.register_forward_hook(watch(name)) for name, layer in layers.items()]
    embedding = model.get_input_embeddings()
    handles.append(embedding.register_forward_hook(lambda m, args, output: output.requires_grad_(True)))
    weights = [layer.weight for layer in layers.values()]
    try:
        for weight in weights:
            weight.requires_grad_(False)
        yield
    finally:
        for handle in handles:
            handle.remove()
        for weight in weights:
            weight.requires_grad_(True)


def panel_gradients(
    model: Any,
    tokens: Sequence[Tokens],
    pad_id: int,
    batch_size: int,
    representation: str,
    progress: Callable[[int], None] = lambda done: None,
) -> PanelGradients:
    """Gradients of the examples at the model's present weights, over its trainable linear layers.

    Batches hold examples of similar length; the numbers do not depend on them. ``progress`` gets the examples done so far.
    """
    layers = trainable_layers(model)
    n = len(tokens)
    first = next(iter(layers.values())).weight
    stored = {name: torch.empty((n, layer.weight.numel()), dtype=first.dtype, device=first.device) for name, layer in layers.items()}
    losses = torch.empty(n, dtype=torch.float64)
    order = sorted(range(n), key=lambda i: (-len(tokens[i].ids), i))
    rows: list[int] = []

    def receive(name: str, gradients: torch.Tensor) -> None:
        stored[name][rows] = gradients.flatten(1)

    with exact_numerics(), _per_example_gradients(model, layers, receive):
        for start in range(0, n, batch_size):
            rows = order[start : start + batch_size]
            batch_losses = sum_losses(model, collate([tokens[i] for i in rows], pad_id, first.device))
            torch.autograd.backward(batch_losses.sum())
            losses[rows] = batch_losses.detach().double().cpu()
            progress(start + len(rows))
    finite = torch.ones(n, dtype=torch.bool)
    for gradients in stored.values():
        finite &= gradients.isfinite().all(dim=1).cpu()
    if representation == "exact":
        vectors = torch.cat([g.cpu() for g in stored.values()], dim=1).numpy()
        norms_sq = np.array([float(np.square(row, dtype=np.float64).sum()) for row in vectors])
        vectors[~finite.numpy()] = np.nan
    else:
        gram = gram_matrix(stored, finite)
        vectors, norms_sq = isometric_embedding(gram), np.diagonal(gram).copy()
    norms_sq[~finite.numpy()] = np.nan
    return PanelGradients(losses.numpy(), norms_sq, vectors)


def gram_matrix(stored: Mapping[str, torch.Tensor], finite: torch.Tensor) -> np.ndarray:
    """All inner products, summed over layers in float64; shape (N, N). Rows and columns of gradients that are not finite are NaN."""
    n = len(finite)
    gram = torch.zeros((n, n), dtype=torch.float64)
    for gradients in stored.values():
        block = gradients.double()
        gram += (block @ block.T).cpu()
    result = gram.numpy()
    result[~finite.numpy()] = np.nan
    result[:, ~finite.numpy()] = np.nan
    return result


def isometric_embedding(gram: np.ndarray) -> np.ndarray:
    """Vectors with these inner products, shape (N, N) float64; rows that are NaN on the diagonal stay NaN."""
    n = len(gram)
    finite = ~np.isnan(np.diagonal(gram))
    vectors = np.full((n, n), np.nan)
    values, directions = np.linalg.eigh(gram[np.ix_(finite, finite)])
    vectors[finite] = 0.0
    vectors[np.ix_(finite, np.arange(len(values)))] = directions * np.sqrt(np.clip(values, 0, None))
    return vectors


# ---- the certificate ----


def autograd_gradients(model: Any, tokens: Sequence[Tokens], pad_id: int) -> list[list[torch.Tensor]]:
    """The plain way, one example at a time through autograd's own weight gradients: the reference for the certificate.

    Tensors keep the model's type; one list of weight gradients for each example.
    """
    weights = [layer.weight for layer in trainable_layers(model).values()]
    results = []
    with exact_numerics():
        for t in tokens:
            loss = sum_losses(model, collate([t], pad_id, weights[0].device)).sum()
            results.append([g.detach() for g in torch.autograd.grad(loss, weights)])
    return results


def reference_gram(gradients: list[list[torch.Tensor]]) -> np.ndarray:
    """Inner products of whole gradients in float64, shape (examples, examples)."""
    n = len(gradients)
    gram = np.empty((n, n))
    for i in range(n):
        for j in range(i, n):
            dots = [float((a.double().flatten() @ b.double().flatten()).cpu()) for a, b in zip(gradients[i], gradients[j], strict=True)]
            gram[i, j] = gram[j, i] = math.fsum(dots)
    return gram


def relative_error(measured: np.ndarray, reference: np.ndarray) -> float:
    """Largest error of an inner product relative to the product of the two norms, by the reference."""
    norms = np.sqrt(np.diagonal(reference))
    return float(np.max(np.abs(measured - reference) / np.maximum(np.outer(norms, norms), np.finfo(float).tiny)))


def certificate(
    model: Any, gradients: PanelGradients, tokens: Sequence[Tokens], examples: Sequence[Example], pad_id: int, sampled: int
) -> dict[str, Any]:
    """The numerics certificate: sampled examples computed again alone, and in float64 (Numerics 6).

    The examples are spread evenly over the panel's lengths. Turns the model to float64: call it last.
    """
    order = sorted(range(len(tokens)), key=lambda i: len(tokens[i].ids))
    picks = [order[round(k * (len(order) - 1) / (sampled - 1))] for k in range(sampled)]
    chosen = [tokens[i] for i in picks]
    vectors = gradients.vectors[picks].astype(np.float64)
    measured = vectors @ vectors.T
    dtype = str(next(model.parameters()).dtype).removeprefix("torch.")
    alone = relative_error(measured, reference_gram(autograd_gradients(model, chosen, pad_id)))
    double = relative_error(measured, reference_gram(autograd_gradients(model.double(), chosen, pad_id)))
    unit = gradients.vectors.astype(np.float64) / np.sqrt(gradients.norms_sq)[:, None]
    close = np.argwhere(np.triu(unit @ unit.T > 1 - 1e-6, k=1))
    return {
        "dtype": dtype,
        "attention": "sdpa, math kernel",
        "tf32": False,
        "device": str(next(model.parameters()).device.type),
        "examples_checked": [examples[i].example_id for i in picks],
        "alone_vs_batched": alone,
        "against_float64": double,
        "not_finite": int(np.isnan(gradients.norms_sq).sum()),
        "duplicates": [[examples[i].example_id, examples[j].example_id] for i, j in close.tolist()],
    }


# ---- the table ----


def gradient_table(
    step: int, dataset: Sequence[str], examples: Sequence[Example], tokens: Sequence[Tokens], gradients: PanelGradients
) -> pa.Table:
    """One row for each example at a checkpoint, as in the artifact contract."""
    n, width = gradients.vectors.shape
    flat = pa.array(gradients.vectors.reshape(-1))
    return pa.table(
        {
            "step": pa.array([step] * n, pa.int64()),
            "dataset": pa.array(list(dataset)),
            "example_id": pa.array([e.example_id for e in examples]),
            "task": pa.array([e.task for e in examples]),
            "loss": pa.array(gradients.losses),
            "n_tokens": pa.array([t.n_completion for t in tokens], pa.int64()),
            "norm_sq": pa.array(gradients.norms_sq),
            "gradient": pa.FixedSizeListArray.from_arrays(flat, width),
        }
    )


GRADIENT_COLUMNS = pa.schema(
    [
        ("step", pa.int64()),
        ("dataset", pa.string()),
        ("example_id", pa.string()),
        ("task", pa.string()),
        ("loss", pa.float64()),
        ("n_tokens", pa.int64()),
        ("norm_sq", pa.float64()),
    ]
)
