"""The gradient engine: per-example gradients of a panel at a checkpoint, and their exact inner products.

An example's gradient is that of the sum of its completion tokens' losses, over the trainable weights: an adapter's, or all of a model's.
Hooks keep each layer's input and the gradient of its output, from which its per-example gradients or their inner products are made
(capture.py, gram.py). Every example has rows of its own in these, so a batch gives the same numbers as one example after the other
(Numerics 1-3).

Where what is kept does not fit the memory budget, the layers are taken in groups (stages.py). The numbers do not depend on these.
"""

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from swift_study.config import Gradients
from swift_study.examples import Example
from swift_study.gradients.capture import watching, wide
from swift_study.gradients.gram import Factors, dense_blocks, products_of_factors, products_of_vectors
from swift_study.gradients.memory import PASS_TOKENS, needs
from swift_study.gradients.sketch import sketch_gradients
from swift_study.gradients.stages import Passes, make_stages
from swift_study.models.batches import batches, collate
from swift_study.models.loading import exact_numerics
from swift_study.models.tokens import Tokens
from swift_study.models.weights import Use, Weight, calls, idle_modules, trainable_weights

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PanelGradients:
    """Of N examples: ``losses`` (N,) float64, ``norms_sq`` (N,) float64, ``vectors`` (N, D).

    Inner products of the rows of ``vectors`` are those of the gradients: D = N, float64 for the `gram` representation; D = number of
    weights, float32 for `exact`. Rows whose gradient is not finite are NaN. ``by_weight`` has each weight's own inner products, (N, N)
    float64, by its name. ``adam_vectors`` and ``adam_norms_sq`` are as the first two, for gradients divided by the root of Adam's
    second moments; None without these. ``sketched``: the inner products of ``vectors`` are those of the gradients in expectation only
    (sketch.py).
    """

    losses: np.ndarray
    norms_sq: np.ndarray
    vectors: np.ndarray
    by_weight: dict[str, np.ndarray] = field(default_factory=dict)
    adam_norms_sq: np.ndarray | None = None
    adam_vectors: np.ndarray | None = None
    sketched: bool = False


def panel_gradients(
    model: Any,
    tokens: Sequence[Tokens],
    pad_id: int,
    settings: Gradients,
    preconditioner: Mapping[str, torch.Tensor] | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> PanelGradients:
    """Gradients of the examples at the model's present weights, over its trainable weights.

    Batches hold examples of similar length; the numbers do not depend on them. ``preconditioner`` has for each weight by its name a tensor
    of its shape: Adam's inner products are those of gradients times the root of it (`adam_preconditioner`). ``progress`` gets the examples
    done so far, of N times the number of groups. UserError where the memory budget is too small, with one that is not.
    """
    if settings.representation == "sketch":
        return PanelGradients(*sketch_gradients(model, tokens, pad_id, settings, progress), sketched=True)
    weights = trainable_weights(model)
    n = len(tokens)
    device = next(model.parameters()).device
    exact = settings.representation == "exact"
    with exact_numerics(model):
        called = calls(model, weights, min(tokens, key=lambda t: len(t.ids)), pad_id)
        idle = idle_modules(weights, called)
        weights = [w for w in weights if any(use.module in called for use in w.uses)]  # others have no gradient
        size = settings.batch_size if all(call.split for call in called.values()) else 1
        rows_of = batches([len(t.ids) for t in tokens], size, PASS_TOKENS[device.type])
        need = needs(model, weights, called, tokens, rows_of, settings.representation)
        stages = make_stages(model, weights, called, need, tokens, rows_of, settings)
        place = torch.device("cpu") if settings.host_memory_gb else device
        passes = Passes(model, called, stages, place)
        store = _Store(model, {name for name, its in need.items() if its.factored}, rows_of, place)
        whole = store.make_room(weights) if exact else None
        losses = torch.empty(n, dtype=torch.float64)
        by_weight: dict[str, torch.Tensor] = {}
        adam = torch.zeros((n, n), dtype=torch.float64) if preconditioner is not None else None
        for group, stage in enumerate(stages):
            passes.forget(stage)
            with watching(model, stage.uses, store.receive, idle) as watch:
                done = group * n
                for number, rows in enumerate(rows_of):
                    store.begin(rows)
                    watch.examples = len(rows)
                    found = passes.backward(stage, number, collate([tokens[i] for i in rows], pad_id, device))
                    store.end(stage.uses)
                    if found is not None:
                        losses[rows] = found.double().cpu()
                    done += len(rows)
                    progress(done)
            for weight in stage.weights:
                if settings.by_module or not exact or preconditioner is not None:
                    plain, scaled = store.products(weight, None if preconditioner is None else preconditioner[weight.name])
                    by_weight[weight.name] = plain.cpu()
                    if adam is not None and scaled is not None:
                        adam += scaled.cpu()
                store.close(weight)
    matrices = {w.name: by_weight[w.name].numpy() for w in weights if w.name in by_weight}
    if whole is not None:
        vectors = whole.numpy()
        norms_sq = sums_of_squares(whole).numpy()
        spoilt = ~np.isfinite(norms_sq)
        vectors[spoilt] = np.nan
        norms_sq[spoilt] = np.nan
    else:
        total = np.zeros((n, n))
        for products in matrices.values():
            total += products
        spoilt = ~np.isfinite(np.diagonal(total))
        vectors, norms_sq = isometric_embedding(_spoil(total, spoilt)), np.where(spoilt, np.nan, np.diagonal(total))
    adam_vectors = adam_norms = None
    if adam is not None:
        adam_total = _spoil(adam.numpy(), spoilt)
        adam_vectors, adam_norms = isometric_embedding(adam_total), np.diagonal(adam_total).copy()
    return PanelGradients(losses.numpy(), norms_sq, vectors, matrices, adam_norms, adam_vectors)


class _Store:
    """What the hooks captured of a panel: whole gradients where these are small, else their factors, in the order of the batches."""

    def __init__(self, model: Any, factored: Collection[str], batches: Sequence[Sequence[int]], place: torch.device) -> None:
        self.model, self.place = model, place
        self.n = sum(map(len, batches))
        self.device = next(model.parameters()).device
        order = torch.tensor(list(chain.from_iterable(batches)))
        self.position = torch.empty_like(order)  # from the order of the batches back to the examples'
        self.position[order] = torch.arange(self.n)
        self.factors: dict[str, dict[Use, Factors]] = {name: {} for name in factored}
        self.vectors: dict[str, torch.Tensor] = {}
        self.begin([])

    def begin(self, rows: Sequence[int]) -> None:
        """What comes next is of these examples."""
        self.rows = rows
        self.moved: dict[tuple[int, torch.Size], tuple[torch.Tensor, torch.Tensor]] = {}
        self.received: set[Use] = set()

    def end(self, uses: Sequence[tuple[Weight, Use]]) -> None:
        """A layer that these examples did not go through has no gradient for them."""
        item = next(self.model.parameters()).dtype
        for weight, use in uses:
            if weight.name in self.factors and use not in self.received:
                left, right = (torch.zeros((len(self.rows), 1, width), dtype=item, device=self.place) for width in weight.matrix)
                ids = use.kind in ("embedding", "lora_embedding_A")
                self.factors[weight.name].setdefault(use, Factors()).batches.append((left[..., 0].long() if ids else left, right))

    def make_room(self, weights: Sequence[Weight]) -> torch.Tensor:
        """For all gradients side by side, (N, all weights), in the machine's memory; what is received goes there at once."""
        kind = wide(next(self.model.parameters()).dtype)
        # NumPy's zeros take no memory until they are written to.
        whole = torch.from_numpy(np.zeros((self.n, sum(w.size for w in weights)), np.float64 if kind == torch.float64 else np.float32))
        first = 0
        for weight in weights:
            self.vectors[weight.name] = whole[:, first : first + weight.size]
            first += weight.size
        return whole

    def receive(self, weight: Weight, use: Use, left: torch.Tensor | None, right: torch.Tensor) -> None:
        self.received.add(use)
        if left is not None and weight.name in self.factors:
            factors = self.factors[weight.name].setdefault(use, Factors())
            factors.batches.append((self._move(left, use.kind == "transposed"), self._move(right, use.kind == "linear")))
            return
        kind = wide(right.dtype)
        if weight.name not in self.vectors:
            self.vectors[weight.name] = torch.zeros((self.n, weight.size), dtype=kind, device=self.place)
        vectors = self.vectors[weight.name]
        if left is None:
            gradient = right
        elif left.dim() == 2:
            gradient = right.new_zeros((len(left), *weight.matrix), dtype=kind)
            gradient.scatter_add_(1, left[..., None].expand(right.shape), right.to(kind))
            gradient = (gradient.transpose(1, 2) if weight.turned else gradient).flatten(1)
        elif vectors.device == right.device:
            # Straight to where it is kept: memory that is used for the first time is dear.
            for row, one_left, one_right in zip(self.rows, left.to(kind), right.to(kind), strict=True):
                vectors[row].view(weight.shape).addmm_(one_left.T, one_right)
            return
        else:
            gradient = torch.bmm(left.to(kind).transpose(1, 2), right.to(kind)).flatten(1)
        for row, one in zip(self.rows, gradient.to(vectors.device), strict=True):
            vectors[row] += one

    def _move(self, tensor: torch.Tensor, is_input: bool) -> torch.Tensor:
        """To where it is kept; an input that layers share is moved, and kept, once."""
        if tensor.device == self.place:
            return tensor
        if not is_input:
            return tensor.to(self.place)
        key = (tensor.data_ptr(), tensor.shape)
        if key not in self.moved:  # with the input itself, so that its address is not used again
            self.moved[key] = (tensor, tensor.to(self.place))
        return self.moved[key][1]

    def products(self, weight: Weight, scale: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The weight's inner products, (N, N) float64; and with ``scale``, of the weight's shape, between the two sides."""
        side = None if scale is None else scale.sqrt()
        if weight.name in self.factors:
            turned = side.T if side is not None and weight.turned else side
            both = products_of_factors(list(self.factors[weight.name].values()), weight.matrix, turned, self.device)
            plain, scaled = (None if m is None else m.cpu()[self.position][:, self.position] for m in both)
            assert plain is not None
            return plain, scaled
        vectors = self.vectors[weight.name].to(self.device)
        return products_of_vectors(vectors, None), None if side is None else products_of_vectors(vectors, side.flatten())

    def close(self, weight: Weight) -> None:
        """Let go of a weight, whose factors give its part of the whole gradients first where these are kept."""
        vectors = self.vectors.pop(weight.name, None)
        uses = list(self.factors.pop(weight.name, {}).values())
        if uses and vectors is not None:
            whole = vectors.view(self.n, *weight.shape)
            for rows, block in dense_blocks(uses, weight.matrix, self.n, self.device):
                (whole.transpose(1, 2) if weight.turned else whole)[:, rows] = block.cpu()[self.position]


def _spoil(matrix: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The matrix with these rows and columns NaN."""
    matrix = matrix.copy()
    matrix[rows] = np.nan
    matrix[:, rows] = np.nan
    return matrix


def adam_preconditioner(
    moments: Mapping[str, torch.Tensor], step: int, betas: tuple[float, float], epsilon: float
) -> dict[str, torch.Tensor]:
    """1 / (√v̂ + ε) of each weight, v̂ the second moments after ``step`` steps with Adam's bias taken out, in float64.

    A step of Adam on a probe alone goes along the gradient times this, up to the first moment, which is the same for all probes (LESS, Xia
    et al. 2024, §3.1, in which the probe's own share of the second moment, 1 - β₂, is kept; here it is left out, so that the product stays
    symmetric).
    """
    correction = 1 - betas[1] ** step
    return {name: 1 / ((v.double() / correction).sqrt() + epsilon) for name, v in moments.items()}


def sums_of_squares(vectors: torch.Tensor) -> torch.Tensor:
    """Of the rows of ``vectors`` (N, P), summed in float64, a piece at a time that fits a cache; (N,) float64."""
    total = torch.zeros(len(vectors), dtype=torch.float64)
    for part in torch.split(vectors, 8192, dim=1):
        total += part.double().square().sum(dim=1)
    return total


def isometric_embedding(gram: np.ndarray) -> np.ndarray:
    """Vectors with these inner products, shape (N, N) float64; rows that are NaN on the diagonal stay NaN."""
    n = len(gram)
    finite = ~np.isnan(np.diagonal(gram))
    vectors = np.full((n, n), np.nan)
    values, directions = np.linalg.eigh(gram[np.ix_(finite, finite)])
    vectors[finite] = 0.0
    vectors[np.ix_(finite, np.arange(len(values)))] = directions * np.sqrt(np.clip(values, 0, None))
    return vectors


# ---- the table ----


def gradient_table(
    step: int, dataset: Sequence[str], examples: Sequence[Example], tokens: Sequence[Tokens], gradients: PanelGradients
) -> pa.Table:
    """One row for each example at a checkpoint, as in the artifact contract; with Adam's columns where there are such vectors."""
    columns = {
        "step": pa.array([step] * len(examples), pa.int64()),
        "dataset": pa.array(list(dataset)),
        "example_id": pa.array([e.example_id for e in examples]),
        "task": pa.array([e.task for e in examples]),
        "loss": pa.array(gradients.losses),
        "n_tokens": pa.array([t.n_labels for t in tokens], pa.int64()),
        "norm_sq": pa.array(gradients.norms_sq),
        "gradient": _lists(gradients.vectors),
    }
    if gradients.adam_vectors is not None:
        columns |= {"norm_sq_adam": pa.array(gradients.adam_norms_sq), "gradient_adam": _lists(gradients.adam_vectors)}
    return pa.table(columns)


def _lists(vectors: np.ndarray) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), vectors.shape[1])


def module_table(step: int, weights: Sequence[Weight], by_weight: Mapping[str, np.ndarray]) -> pa.Table:
    """One row for each weight at a checkpoint: ``inner_products`` is the upper triangle of its (N, N) inner products, row by row, with the
    diagonal, the examples in the order of the gradient table."""
    named = [w for w in weights if w.name in by_weight]
    return pa.table(
        {
            "step": [step] * len(named),
            "module": [w.name for w in named],
            "layer": pa.array([w.layer for w in named], pa.int32()),
            "family": [w.family for w in named],
            "inner_products": [by_weight[w.name][np.triu_indices(len(by_weight[w.name]))] for w in named],
        },
        schema=MODULE_COLUMNS,
    )


MODULE_COLUMNS = pa.schema(
    [
        ("step", pa.int64()),
        ("module", pa.string()),
        ("layer", pa.int32()),
        ("family", pa.string()),
        ("inner_products", pa.list_(pa.float64())),
    ]
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
