"""A pool of real gradients from which panels without any effect are drawn: plain examples, and ones whose completions were shuffled.

The packaged model with a small LoRA adapter, after a few AdamW steps, so that B is not 0. The pool is divided into sub-pools
that share no example; a panel's strategy and control probes come from one sub-pool and are told apart by a coin alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from null_studies import Panel

from swift_study.config import Gradients, Lora, Model
from swift_study.data.generator import FAMILIES, generate
from swift_study.examples import Example
from swift_study.gradients.engine import panel_gradients
from swift_study.models.batches import collate, sum_losses
from swift_study.models.loading import add_lora, load_model, packaged_model
from swift_study.models.rendering import load_renderer

CHECKPOINT_STEPS = (8, 16)
LORA = Lora(rank=8, alpha=64)  # a rank of 64, the default, would need 20 GB for this pool; the scale of the update is the default's


@dataclass(frozen=True)
class Pool:
    """``grams`` (checkpoints, examples, examples); of each example its ``family`` and its ``number`` within family and kind.

    ``tokens`` (examples,): completion tokens; ``shuffled`` (examples,): whether its completion is another example's.
    """

    grams: np.ndarray
    family: np.ndarray
    number: np.ndarray
    shuffled: np.ndarray
    tokens: np.ndarray

    def members(self, shuffled: bool, subpool: int, subpools: int) -> np.ndarray:
        """Examples of one sub-pool, shape (families, so many of each family)."""
        chosen = (self.shuffled == shuffled) & (self.number % subpools == subpool)
        return np.array([np.flatnonzero(chosen & (self.family == f)) for f in np.unique(self.family)])


def make_pool(
    cache: Path, plain: int, shuffled: int, seed: int, families: Sequence[str] = tuple(FAMILIES), steps: Sequence[int] = CHECKPOINT_STEPS
) -> Pool:
    """Gradients of so many plain and shuffled examples of each of these families of the generator, after each of the ``steps``."""
    examples = [(family, k, False, e) for f, family in enumerate(families) for k, e in enumerate(generate(family, plain, seed + f))]
    donors = [(family, k, e) for f, family in enumerate(families) for k, e in enumerate(generate(family, shuffled, seed + 100 + f))]
    order = np.random.default_rng(seed).permutation(len(donors))
    for (family, k, e), other in zip(donors, order, strict=True):
        examples.append((family, k, True, e.derive("shuffled", e.query, donors[other][2].completion)))
    folder = packaged_model(cache)
    renderer = load_renderer(folder, Model())
    model = add_lora(load_model(folder, Model()), LORA, seed)
    weights = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=1e-4, weight_decay=0.0)
    training: list[Example] = [e for step in zip(*(generate(f, steps[-1], seed + 200) for f in FAMILIES), strict=True) for e in step]
    rng = np.random.default_rng(seed + 1)
    rng.shuffle(training)  # type: ignore[arg-type]
    tokens = [renderer.tokens(e) for *_, e in examples]
    grams = []
    for step in range(1, steps[-1] + 1):
        batch = [renderer.tokens(e) for e in training[8 * step - 8 : 8 * step]]
        sum_losses(model, collate(batch, renderer.pad_id)).sum().div(sum(t.n_completion for t in batch)).backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if step in steps:
            g = panel_gradients(model, tokens, renderer.pad_id, Gradients(batch_size=16))
            grams.append(g.vectors @ g.vectors.T)
    return Pool(
        np.array(grams),
        np.array([families.index(family) for family, *_ in examples]),
        np.array([k for _, k, *_ in examples]),
        np.array([s for *_, s, _ in examples]),
        np.array([t.n_completion for t in tokens]),
    )


def save(pool: Pool, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **vars(pool))


def load(path: Path) -> Pool:
    with np.load(path) as arrays:
        return Pool(**{name: arrays[name] for name in arrays.files})


def draw(pool: Pool, shuffled: bool, tasks: int, per_task: int, subpool: int, subpools: int, rng: np.random.Generator) -> Panel:
    """A random panel of one sub-pool: families, examples, and which probe is whose, all by chance. Targets are plain examples."""
    plain = pool.members(False, subpool, subpools)
    families = rng.choice(len(plain), tasks, replace=False)
    mixed = [rng.permutation(plain[f]) for f in families]
    targets = np.concatenate([m[:per_task] for m in mixed])
    if shuffled:
        other = pool.members(True, subpool, subpools)
        mixed = [np.concatenate([m[:per_task], rng.permutation(other[f])]) for m, f in zip(mixed, families, strict=True)]
    ours = np.concatenate([m[per_task : 2 * per_task] for m in mixed])
    theirs = np.concatenate([m[2 * per_task : 3 * per_task] for m in mixed])
    probes = np.concatenate([ours, theirs])
    squared = np.diagonal(pool.grams, axis1=1, axis2=2)
    dots = pool.grams[:, probes[:, None], targets[None, :]]
    return Panel(dots, squared[:, probes], squared[:, targets], pool.tokens[probes], pool.tokens[targets])
