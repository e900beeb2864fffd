"""Baselines: three cheaper ways of guessing what a probe does to a target, to hold RelInf against.

- `bm25`: how well the probe's words match the target's;
- `similarity`: the cosine of the two examples' hidden states (mean over the tokens, last layer);
- `loss_change`: by how much one step on the probe lowers the target's loss; positive: the probe helps.

Losses are averaged over completion tokens, not summed.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import polars as pl
import torch

from swift_study.examples import fold
from swift_study.gradients.panel import Member
from swift_study.models.batches import batches, collate, sum_losses
from swift_study.models.loading import exact_numerics
from swift_study.models.tokens import Tokens

STEP = 0.01  # length of the step on a probe, relative to the norm of the trainable weights


def bm25(queries: Sequence[str], documents: Sequence[str], k1: float = 1.2, b: float = 0.75) -> np.ndarray:
    """BM25 of all queries on all documents, words being folded runs of letters and digits; (queries, documents).

    Robertson and Zaragoza, The Probabilistic Relevance Framework: BM25 and Beyond, 2009, eq. 3.15, with a weight of rare words that is
    never negative, ln(1 + (N - n + ½) / (n + ½)). A word counts as often as the query has it.
    """
    counts = [Counter(_words(d)) for d in documents]
    lengths = np.array([c.total() for c in counts])
    scale = k1 * (1 - b + b * lengths / max(lengths.mean(), 1))
    scores = np.zeros((len(queries), len(documents)))
    for row, query in enumerate(queries):
        for word, times in Counter(_words(query)).items():
            found = np.array([c[word] for c in counts])
            n = int((found > 0).sum())
            scores[row] += times * math.log(1 + (len(documents) - n + 0.5) / (n + 0.5)) * found * (k1 + 1) / (found + scale)
    return scores


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", fold(text))


@torch.inference_mode()
def embeddings(model: torch.nn.Module, tokens: Sequence[Tokens], pad_id: int, batch_size: int) -> np.ndarray:
    """Mean over all tokens of the last hidden states; (examples, hidden) float64."""
    found: dict[int, np.ndarray] = {}
    # With one token more, since the last is never an input.
    whole = [Tokens([*t.ids, pad_id], t.prompt_length) for t in tokens]
    device = next(model.parameters()).device
    with exact_numerics():
        for rows in batches([len(t.ids) for t in tokens], batch_size):
            batch = collate([whole[i] for i in rows], pad_id, device)
            output = model(
                input_ids=batch.input_ids, attention_mask=batch.attention_mask, logits_to_keep=1, use_cache=False, output_hidden_states=True
            )
            mask = batch.attention_mask.double()[:, :, None]
            means = (output.hidden_states[-1].double() * mask).sum(dim=1) / mask.sum(dim=1)
            found |= dict(zip(rows, means.cpu().numpy(), strict=True))
    return np.stack([found[i] for i in range(len(tokens))])


def cosines(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Of all rows with all rows; (left, right)."""
    unit_left, unit_right = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (left, right))
    products: np.ndarray = unit_left @ unit_right.T
    return products


@torch.no_grad()
def mean_losses(model: torch.nn.Module, tokens: Sequence[Tokens], pad_id: int, batch_size: int) -> np.ndarray:
    """Loss of each example, averaged over its tokens that the loss is on; (examples,) float64."""
    losses = np.empty(len(tokens))
    device = next(model.parameters()).device
    with exact_numerics():
        for rows in batches([len(t.ids) for t in tokens], batch_size):
            losses[rows] = sum_losses(model, collate([tokens[i] for i in rows], pad_id, device)).double().cpu().numpy()
    return losses / [t.n_labels for t in tokens]


def losses_after(
    model: torch.nn.Module, probe: Tokens, targets: Sequence[Tokens], pad_id: int, batch_size: int, step: float = STEP
) -> np.ndarray:
    """Mean losses of the targets after θ ← θ - step ‖θ‖ g / ‖g‖, g the gradient of the probe's mean loss; (targets,) float64.

    θ are the trainable weights; they are put back as they were, bit by bit. NaN where g is zero or not finite.
    """
    weights = [p for p in model.parameters() if p.requires_grad]
    with exact_numerics():
        loss = sum_losses(model, collate([probe], pad_id, weights[0].device)).sum() / probe.n_labels
        gradients = torch.autograd.grad(loss, weights)
    length, norm = _norm(gradients), _norm(weights)
    if not 0 < length < float("inf"):
        return np.full(len(targets), np.nan)
    before = [w.detach().clone() for w in weights]
    try:
        with torch.no_grad():
            for w, g in zip(weights, gradients, strict=True):
                w.sub_(g, alpha=step * norm / length)
        return mean_losses(model, targets, pad_id, batch_size)
    finally:
        with torch.no_grad():
            for w, old in zip(weights, before, strict=True):
                w.copy_(old)


def _norm(tensors: Sequence[torch.Tensor]) -> float:
    return float(sum(t.detach().double().square().sum().cpu() for t in tensors) ** 0.5)


def baselines_at_checkpoint(
    model: torch.nn.Module,
    members: Sequence[Member],
    grids: Sequence[tuple[Mapping[str, str], Mapping[str, str]]],
    pad_id: int,
    batch_size: int,
    changed: Mapping[str, Sequence[float]] | None = None,
    progress: Callable[[int, str, list[float]], None] = lambda done, probe_id, after: None,
) -> pl.DataFrame:
    """Every probe × target of each grid of probe and target sets: the columns of the baselines table that depend on them.

    For BM25 a target is the query, and the documents are all the probes. The change of loss is that of the first grid, null in the others:
    a step is dear, and it is made once for each probe, however many sets it is in. ``changed`` holds the targets' losses after the
    steps of an earlier call, by the probe's id; ``progress`` gets the probes done, and what to put there. Numbers that are not finite are
    null.
    """
    of_probes = _distinct(members, {d for probes, _ in grids for d in probes.values()})
    of_targets = _distinct(members, {d for _, targets in grids for d in targets.values()})
    tokens = [[m.tokens for m in side.values()] for side in (of_probes, of_targets)]
    texts = [[f"{m.example.query}\n{m.example.completion}" for m in side.values()] for side in (of_probes, of_targets)]
    stepped = _distinct(members, set(grids[0][0].values()))
    before = mean_losses(model, tokens[1], pad_id, batch_size)
    change = np.full((len(of_probes), len(of_targets)), np.nan)
    rows = {probe_id: row for row, probe_id in enumerate(of_probes)}
    for done, (probe_id, probe) in enumerate(stepped.items(), start=1):
        after = (changed or {}).get(probe_id)
        if after is None:
            after = losses_after(model, probe.tokens, tokens[1], pad_id, batch_size).tolist()
            progress(done, probe_id, list(after))
        change[rows[probe_id]] = before - np.asarray(after)
    scores = {
        "bm25": bm25(texts[1], texts[0]).T,
        "similarity": cosines(*(embeddings(model, t, pad_id, batch_size) for t in tokens)),
        "loss_change": change,
    }
    pairs = []
    for number, (probes, targets) in enumerate(grids):
        known = scores if number == 0 else scores | {"loss_change": np.full_like(change, np.nan)}
        pairs += _pair_rows(members, probes, targets, list(of_probes), list(of_targets), known)
    return pl.DataFrame(pairs, schema_overrides=dict.fromkeys(scores, pl.Float64))


def _pair_rows(
    members: Sequence[Member],
    probes: Mapping[str, str],
    targets: Mapping[str, str],
    probe_ids: Sequence[str],
    target_ids: Sequence[str],
    scores: Mapping[str, np.ndarray],
) -> list[dict[str, object]]:
    """A row for every probe × target × (probe set, target set); ``scores`` of shape (probe_ids, target_ids), null where not finite."""
    row, column = ({k: n for n, k in enumerate(ids)} for ids in (probe_ids, target_ids))
    return [
        {
            "probe_set": probe_set,
            "target_set": target_set,
            "probe_id": p.example_id,
            "target_id": t.example_id,
            "probe_task": p.task,
            "target_task": t.task,
            "context": "in-task" if p.task == t.task else "cross-task",
            **{name: _finite(values[row[p.example_id], column[t.example_id]]) for name, values in scores.items()},
        }
        for probe_set, probe_dataset in probes.items()
        for target_set, target_dataset in targets.items()
        for p in (m.example for m in members if m.dataset == probe_dataset)
        for t in (m.example for m in members if m.dataset == target_dataset)
    ]


def _distinct(members: Sequence[Member], datasets: set[str]) -> dict[str, Member]:
    """The members of these datasets by id: the same content has the same id, also in two datasets."""
    return {m.example.example_id: m for m in members if m.dataset in datasets}


def _finite(number: float) -> float | None:
    return float(number) if np.isfinite(number) else None
