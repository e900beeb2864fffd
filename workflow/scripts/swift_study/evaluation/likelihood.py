"""Likelihood: how probable a model finds the golden answers, a finer measure of learning than right or wrong responses."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import polars as pl
import torch

from swift_study.examples import Example
from swift_study.models.loading import exact_numerics
from swift_study.models.tokens import IGNORED, Batch, Tokens, batches, collate


def golden_example(example: Example) -> Example:
    """The example with its golden answer as the completion, where it has one."""
    return example.derive("golden", example.query, example.golden or example.completion)


@torch.inference_mode()
def log_likelihoods(
    model: Any, tokens: Sequence[Tokens], pad_id: int, batch_size: int, progress: Callable[[int], None] = lambda done: None
) -> np.ndarray:
    """Log-probability of each completion with its end token, given what stands before it: nats, shape (examples,) float64.

    Batches hold examples of similar length; the numbers do not depend on them.
    """
    found, done = np.empty(len(tokens)), 0
    with exact_numerics():
        for rows in batches([len(t.ids) for t in tokens], batch_size):
            batch = collate([tokens[i] for i in rows], pad_id, model.device)
            found[rows] = _log_likelihoods(model, batch).cpu().numpy()
            done += len(rows)
            progress(done)
    return found


def _log_likelihoods(model: Any, batch: Batch) -> torch.Tensor:
    """Float32 log-probabilities of the labels, summed in float64; shape (examples,)."""
    logits = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, logits_to_keep=batch.keep, use_cache=False).logits
    logits = logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits
    labels = batch.labels[:, -batch.keep :]
    losses = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="none")
    return -losses.view(labels.shape).double().sum(dim=1)


def likelihood_frame(examples: Sequence[Example], tokens: Sequence[Tokens], found: np.ndarray) -> pl.DataFrame:
    """One row for each query; ``tokens`` are those of its golden answer."""
    return pl.DataFrame(
        {
            "query_id": [e.example_id for e in examples],
            "log_likelihood": found,
            "n_tokens": [t.n_completion for t in tokens],
        }
    )
