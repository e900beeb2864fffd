"""The numerics certificate: sampled examples computed again alone, and in float64, by autograd's own weight gradients (Numerics 6)."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from swift_study.config import Gradients
from swift_study.errors import UserError
from swift_study.examples import Example
from swift_study.gradients.engine import PanelGradients
from swift_study.gradients.sketch import half_width, sketched_products
from swift_study.models.batches import collate, sum_losses
from swift_study.models.loading import exact_numerics
from swift_study.models.tokens import Tokens

ATTENTION = {"sdpa": "sdpa, math kernel", "eager": "eager"}
CHUNK_BYTES = 2e9  # of weight gradients that are held at once


def reference_gram(
    model: Any, tokens: Sequence[Tokens], pad_id: int, scales: Mapping[str, torch.Tensor] | None = None
) -> tuple[np.ndarray, np.ndarray | None]:
    """All inner products over the trainable weights, one example at a time through autograd, summed in float64; (examples, examples).

    With ``scales``, also those with each weight's scale between the two sides. The weights are taken some at a time, with passes for each.
    """
    n = len(tokens)
    gram, scaled = np.zeros((n, n)), np.zeros((n, n)) if scales is not None else None
    for names, gradients in weight_gradients(model, tokens, pad_id):
        for position, name in enumerate(names):
            rows = [g[position].flatten().double() for g in gradients]
            scale = None if scales is None else scales[name].flatten().to(gradients[0][position].device).double()
            for i in range(n):
                for j in range(i, n):
                    gram[i, j] += float((rows[i] @ rows[j]).cpu())
                    if scaled is not None and scale is not None:
                        scaled[i, j] += float((rows[i] @ (scale * rows[j])).cpu())
    lower = np.tril_indices(n, -1)
    for matrix in (gram, scaled):
        if matrix is not None:
            matrix[lower] = matrix.T[lower]
    return gram, scaled


def weight_gradients(model: Any, tokens: Sequence[Tokens], pad_id: int) -> Iterator[tuple[list[str], list[list[torch.Tensor]]]]:
    """Some weights' names, and every example's gradients over them, in the model's type; until all trainable weights had their turn."""
    trainable = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    chunks: list[list[tuple[str, torch.nn.Parameter]]] = [[]]
    held = 0
    for name, parameter in trainable:
        size = len(tokens) * parameter.numel() * parameter.element_size()
        if chunks[-1] and held + size > CHUNK_BYTES:
            chunks.append([])
            held = 0
        chunks[-1].append((name, parameter))
        held += size
    for chunk in chunks:
        parameters = [p for _, p in chunk]
        found = []
        with exact_numerics(model):
            for t in tokens:
                loss = sum_losses(model, collate([t], pad_id, parameters[0].device)).sum()
                gradients = torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)
                found.append([g.detach() for g in gradients])
        yield [name for name, _ in chunk], found


def relative_error(measured: np.ndarray, reference: np.ndarray) -> float:
    """Largest error of an inner product relative to the product of the two norms, by the reference."""
    norms = np.sqrt(np.diagonal(reference))
    return float(np.max(np.abs(measured - reference) / np.maximum(np.outer(norms, norms), np.finfo(float).tiny)))


def certificate(
    model: Any,
    gradients: PanelGradients,
    tokens: Sequence[Tokens],
    examples: Sequence[Example],
    pad_id: int,
    sampled: int,
    preconditioner: Mapping[str, torch.Tensor] | None = None,
) -> dict[str, Any]:
    """The certificate as JSON has it. The examples are spread evenly over the panel's lengths. Turns the model to float64: call it last.

    ``reference`` is the type of `against_float64`: float32 where the model has an operation that there is not in float64.
    Of sketches the exact norms are compared, and the share of inner products that lie within the error bar of their own.
    """
    order = sorted(range(len(tokens)), key=lambda i: len(tokens[i].ids))
    picks = [order[round(k * (len(order) - 1) / (sampled - 1))] for k in range(sampled)]
    chosen = [tokens[i] for i in picks]
    attention = model.config.get_text_config()._attn_implementation
    dtype = str(next(model.parameters()).dtype).removeprefix("torch.")
    alone, _ = reference_gram(model, chosen, pad_id)
    try:
        double, adam_double = reference_gram(model.double(), chosen, pad_id, preconditioner)
        reference = "float64"
    except (NotImplementedError, RuntimeError) as error:
        if not re.search("[Dd]ouble|[Ff]loat64", str(error)):
            raise
        double, adam_double = reference_gram(model.float(), chosen, pad_id, preconditioner)  # the most exact there is
        reference = "float32"
    products = None if gradients.sketched else gradients.vectors
    found = {
        "dtype": dtype,
        "attention": ATTENTION[attention],
        "tf32": False,
        "device": str(next(model.parameters()).device.type),
        "examples_checked": [examples[i].example_id for i in picks],
        "alone_vs_batched": _error(products, gradients.norms_sq, picks, alone),
        "against_float64": _error(products, gradients.norms_sq, picks, double),
        "reference": reference,
        "adam_against_float64": None,
        "sketch_coverage": sketch_coverage(gradients.vectors[picks], double) if gradients.sketched else None,
        "not_finite": int(np.isnan(gradients.norms_sq).sum()),
        "duplicates": [[examples[i].example_id, examples[j].example_id] for i, j in duplicates(gradients)],
    }
    if gradients.adam_vectors is not None and gradients.adam_norms_sq is not None and adam_double is not None:
        found["adam_against_float64"] = _error(gradients.adam_vectors, gradients.adam_norms_sq, picks, adam_double)
    return found


def _error(vectors: np.ndarray | None, norms_sq: np.ndarray, picks: Sequence[int], reference: np.ndarray) -> float:
    ours, theirs = norms_sq[picks], np.diagonal(reference)
    ratios = np.divide(ours, theirs, out=np.ones_like(theirs), where=(ours != 0) | (theirs != 0))  # an example may have no gradient
    norms = float(np.max(np.abs(ratios - 1)))
    if vectors is None:
        return norms
    rows = vectors[picks].astype(np.float64)
    return max(norms, relative_error(rows @ rows.T, reference))


def sketch_coverage(vectors: np.ndarray, reference: np.ndarray) -> float:
    """Share of the pairs of different examples whose 95% interval, by the sketches' own error bar, covers the float64 inner product."""
    products, errors = sketched_products(vectors, vectors)
    pairs = np.triu_indices(len(vectors), 1)
    return float(np.mean(np.abs(products - reference)[pairs] <= half_width(errors, 0.95)[pairs]))


def duplicates(gradients: PanelGradients) -> list[list[int]]:
    """Pairs of examples whose gradients point the same way."""
    products = (gradients.vectors @ gradients.vectors.T).astype(np.float64)
    norms = np.sqrt(gradients.norms_sq)
    return [[int(i), int(j)] for i, j in np.argwhere(np.triu(products > (1 - 1e-5) * np.outer(norms, norms), k=1))]


def certify(found: Mapping[str, Any], settings: Gradients) -> dict[str, Any]:
    """The certificate with its judgement. UserError if it does not pass, with what to change."""
    errors = {k: found[k] for k in ("alone_vs_batched", "against_float64", "adam_against_float64") if found[k] is not None}
    name, worst = max(errors.items(), key=lambda item: item[1])
    if not worst <= settings.tolerance:
        raise UserError(
            f"The numerics certificate failed: inner products are off by {worst:.1e} of the norms ({name}), more than gradients.tolerance "
            f"= {settings.tolerance:.1e}. Use model.dtype: float32, or raise gradients.tolerance if your effects are far larger."
        )
    return {**found, "tolerance": settings.tolerance, "passed": True}
