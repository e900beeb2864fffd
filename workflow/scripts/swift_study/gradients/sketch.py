"""Random projections of per-example gradients, for pools too large for exact inner products, with an error bar.

The gradient G (D, K) of a weight is projected from both sides, Pᵀ G Q, without being formed: Σ_t (Pᵀ b_t)(Qᵀ a_t)ᵀ. The entries of P and Q
are ±1 by chance, from the recorded seed and the weight's name, and all weights' projections are summed. Inner products of sketches are
those of the gradients in expectation. A sketch has REPLICATES independent parts; how far the inner products of the parts lie apart is the
error bar of their mean. Two-sided projections as in LoGra (Choe et al. 2024, §3.1) and TRAK's ±1 (Park et al. 2023, §3).
"""

import functools
import hashlib
import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from scipy import stats

from swift_study.config import Gradients
from swift_study.gradients.capture import watching, wide
from swift_study.gradients.memory import PASS_TOKENS
from swift_study.gradients.stages import Passes, all_at_once
from swift_study.models.batches import batches, collate
from swift_study.models.loading import exact_numerics
from swift_study.models.tokens import Tokens
from swift_study.models.weights import Use, Weight, calls, idle_modules, trainable_weights

REPLICATES = 16


def sides(dimensions: int) -> tuple[int, int]:
    """How the dimensions of one replicate are split between a weight's two sides, as evenly as powers of two can."""
    each = dimensions // REPLICATES
    left = 2 ** (int(math.log2(each)) // 2)
    return left, each // left


@functools.cache  # every shard and checkpoint of a job projects by the same
def signs(seed: int, name: str, rows: int, columns: int, device: torch.device) -> torch.Tensor:
    """±1 by chance, (rows, columns) float32, the same on every machine."""
    digest = hashlib.sha256(f"{seed} {name}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
    bits = torch.randint(0, 2, (rows, columns), generator=generator, dtype=torch.int8)
    return bits.to(device).float().mul_(2).sub_(1)


class Projection:
    """The projections of every weight, made once and kept."""

    def __init__(self, weights: Sequence[Weight], settings: Gradients, device: torch.device) -> None:
        self.left, self.right = sides(settings.sketch_dimensions)
        self.size = REPLICATES * self.left * self.right
        self.pairs: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
        seed = settings.sketch_seed
        for weight in weights:
            if len(weight.shape) >= 2:
                columns = weight.matrix[-1]
                p = signs(seed, f"{weight.name} left", weight.size // columns, REPLICATES * self.left, device)
                q = signs(seed, f"{weight.name} right", columns, REPLICATES * self.right, device)
            else:
                p = signs(seed, weight.name, weight.size, self.size, device)
                q = torch.empty(0)
            self.pairs[weight.name] = (p, q)

    def of_factors(self, weight: Weight, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        """Of gradients Σ_t left_t right_tᵀ; ``left`` (examples, tokens, D) or ids (examples, tokens); (examples, size)."""
        p, q = self.pairs[weight.name]
        n, width = right.shape[:2]
        kind = wide(right.dtype)
        x = p.to(kind)[left] if left.dim() == 2 else left.to(kind) @ p.to(kind)
        y = right.to(kind) @ q.to(kind)
        x = x.view(n, width, REPLICATES, self.left).permute(0, 2, 3, 1)
        y = y.view(n, width, REPLICATES, self.right).permute(0, 2, 1, 3)
        return (x @ y).reshape(n, self.size) * self.factor

    def of_gradients(self, weight: Weight, gradients: torch.Tensor) -> torch.Tensor:
        """Of whole gradients (examples, weights): of biases, norms and other modules; (examples, size)."""
        p, q = (side.to(gradients.dtype) for side in self.pairs[weight.name])
        if len(weight.shape) < 2:
            return gradients @ p * self.factor
        n = len(gradients)
        x = (gradients.view(n, len(p), len(q)).transpose(1, 2) @ p).view(n, len(q), REPLICATES, self.left).permute(0, 2, 3, 1)
        return (x @ q.view(len(q), REPLICATES, self.right).transpose(0, 1)).reshape(n, self.size) * self.factor

    @property
    def factor(self) -> float:
        return 1 / math.sqrt(self.size)


def sketch_gradients(
    model: Any,
    tokens: Sequence[Tokens],
    pad_id: int,
    settings: Gradients,
    progress: Callable[[int], None] = lambda done: None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Losses (N,) float64, exact squared norms (N,) float64, and sketches (N, D) float32 (float64 for a float64 model).

    One forward and one backward pass; nothing of the size of a gradient over a matrix is kept. Rows that are not finite are NaN.
    """
    weights = trainable_weights(model)
    device = next(model.parameters()).device
    n = len(tokens)
    losses, norms_sq = np.empty(n), np.zeros(n)
    vectors: np.ndarray | None = None
    with exact_numerics(model):
        called = calls(model, weights, min(tokens, key=lambda t: len(t.ids)), pad_id)
        size = settings.batch_size if all(call.split for call in called.values()) else 1
        rows_of = batches([len(t.ids) for t in tokens], size, PASS_TOKENS[device.type])
        idle = idle_modules(weights, called)
        weights = [w for w in weights if any(use.module in called for use in w.uses)]
        projection = Projection(weights, settings, device)
        batch_sketch: list[torch.Tensor] = []
        batch_norms: list[torch.Tensor] = []
        seen: dict[str, list[tuple[torch.Tensor, torch.Tensor]]] = {}

        def receive(weight: Weight, use: Use, left: torch.Tensor | None, right: torch.Tensor) -> None:
            if left is not None:
                batch_sketch.append(projection.of_factors(weight, left, right))
                used = seen.setdefault(weight.name, [])
                used.append((left, right))
                if len(used) == sum(u.module in called for u in weight.uses):
                    batch_norms.append(_norms_sq(seen.pop(weight.name), weight))
            else:
                batch_sketch.append(projection.of_gradients(weight, right))
                batch_norms.append(right.double().square().sum(dim=1))

        stage = all_at_once(model, weights, called)
        passes = Passes(model, called, [stage], device)
        by_name = {weight.name: weight for weight in weights}
        with watching(model, stage.uses, receive, idle) as watch:
            done = 0
            for number, rows in enumerate(rows_of):
                watch.examples = len(rows)
                batch_losses = passes.backward(stage, number, collate([tokens[i] for i in rows], pad_id, device))
                assert batch_losses is not None
                for name in list(seen):  # some of their uses are in layers that these examples did not go through
                    batch_norms.append(_norms_sq(seen.pop(name), by_name[name]))
                losses[rows] = batch_losses.double().cpu().numpy()
                norms_sq[rows] = torch.stack(batch_norms).sum(dim=0).cpu().numpy()
                found = torch.stack(batch_sketch).sum(dim=0).cpu().numpy()
                if vectors is None:
                    vectors = np.empty((n, projection.size), dtype=found.dtype)
                vectors[rows] = found
                batch_sketch.clear()
                batch_norms.clear()
                done += len(rows)
                progress(done)
    assert vectors is not None
    spoilt = ~np.isfinite(norms_sq)
    norms_sq[spoilt], vectors[spoilt] = np.nan, np.nan
    return losses, norms_sq, vectors


def _norms_sq(uses: Sequence[tuple[torch.Tensor, torch.Tensor]], weight: Weight) -> torch.Tensor:
    """‖Σ over uses and tokens of left rightᵀ‖² of each example, (examples,) float64: by whole gradients or by tokens, as is cheaper."""
    kind = wide(uses[0][1].dtype)
    tokens = sum(right.shape[1] for _, right in uses)
    rows, columns = weight.matrix
    if all(left.dim() == 3 for left, _ in uses) and rows * columns < tokens * (rows + columns):
        total = sum(torch.bmm(left.to(kind).transpose(1, 2), right.to(kind)) for left, right in uses)
        assert isinstance(total, torch.Tensor)
        return total.double().square().sum(dim=(1, 2))
    found = torch.zeros(len(uses[0][1]), dtype=torch.float64, device=uses[0][1].device)
    for left, right in uses:
        for other_left, other_right in uses:
            products = torch.bmm(right.to(kind), other_right.to(kind).transpose(1, 2))
            found += (products * _left_products(left, other_left, kind)).double().sum(dim=(1, 2))
    return found


def _left_products(left: torch.Tensor, other: torch.Tensor, kind: torch.dtype) -> torch.Tensor:
    """⟨left_t, other_s⟩ for all pairs of an example's tokens, (examples, tokens, tokens); ids stand for unit vectors."""
    if left.dim() == 2 and other.dim() == 2:
        return (left[:, :, None] == other[:, None, :]).to(kind)
    if left.dim() == 2:
        return _left_products(other, left, kind).transpose(1, 2)
    if other.dim() == 2:
        return left.to(kind).gather(2, other[:, None, :].expand(-1, left.shape[1], -1))
    return torch.bmm(left.to(kind), other.to(kind).transpose(1, 2))


def sketched_products(left: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Inner products of sketches (n, D) and (m, D), and their standard errors from the replicates; both (n, m), in the sketches' type."""
    width = left.shape[1] // REPLICATES
    with warnings.catch_warnings():  # a file's numbers may not be written to; they are only read
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        ours, theirs = torch.from_numpy(left), torch.from_numpy(right)
    total = ours.new_zeros(len(left), len(right))
    squares, part = torch.zeros_like(total), torch.empty_like(total)
    for start in range(0, left.shape[1], width):
        torch.mm(ours[:, start : start + width], theirs[:, start : start + width].T, out=part)
        total += part
        squares.addcmul_(part, part)
    # The whole is the sum of the parts; REPLICATES times a part estimates the same inner product as the whole does.
    squares.addcmul_(total, total, value=-1 / REPLICATES)
    errors = squares.clamp_(min=0).mul_(REPLICATES / (REPLICATES - 1)).sqrt_()
    return total.numpy(), errors.numpy()


def half_width(errors: np.ndarray, confidence: float) -> np.ndarray:
    """Of the intervals around inner products: their errors times Student's t for REPLICATES parts."""
    return np.asarray(errors * float(stats.t.ppf((1 + confidence) / 2, REPLICATES - 1)))


def about_projection(settings: Gradients) -> dict[str, str]:
    """What a table's metadata say of the projection: sketches can be multiplied only if it is the same."""
    seed = f"{settings.sketch_seed}, {settings.sketch_dimensions} dimensions" if settings.representation == "sketch" else "none"
    return {"projection_seed": seed}
