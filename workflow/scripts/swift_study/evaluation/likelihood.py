"""Likelihood: how probable a model finds completions of queries, such as the golden answers."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from swift_study.errors import UserError
from swift_study.evaluation.prompts import Prompts
from swift_study.evaluation.scorers import Candidate, Item, ScorerFile
from swift_study.examples import Example
from swift_study.models.batches import IGNORED, Batch, batches, collate
from swift_study.models.loading import exact_numerics
from swift_study.models.rendering import Overlong
from swift_study.models.tokens import Tokens


def golden_example(example: Example) -> Example:
    """The example with its golden answer as the completion, where it has one."""
    return example.derive("golden", example.query, example.golden or example.completion)


def with_candidates(
    scorer: ScorerFile,
    items: Sequence[Item],
    model: Any,
    prompts: Prompts,
    batch_size: int,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> list[Item]:
    """The items with the log-probabilities of the completions that the scorer asks for. UserError where one is not a finite number.

    With `overlong: skip` an item that is longer than the model's ``max_length`` says so in place of candidates.
    """
    texts = [scorer.candidates(item) for item in items]
    tokens: list[list[Tokens]] = []
    reasons: list[str | None] = []
    for item, of_item in zip(items, texts, strict=True):
        try:
            tokens.append([prompts.tokens(item.example, text) for text in of_item])
            reasons.append(None)
        except Overlong:
            if prompts.renderer.settings.overlong != "skip":
                raise
            tokens.append([])
            reasons.append(f"longer than model.max_length = {prompts.renderer.settings.max_length} tokens")
    flat = [t for of_item in tokens for t in of_item]
    found = log_likelihoods(model, flat, prompts.renderer.pad_id, batch_size, lambda done: progress(done, len(flat)))
    rest = iter(found.tolist())
    scored = []
    for item, of_item, own, reason in zip(items, texts, tokens, reasons, strict=True):
        candidates = tuple(Candidate(text, next(rest), t.n_completion) for text, t in zip(of_item, own, strict=False))
        scored.append(replace(item, candidates=candidates, too_long=reason))
    wrong = [item.example.example_id for item in scored if not all(abs(c.nats) < float("inf") for c in item.candidates)]
    if wrong:
        raise UserError(
            f"the likelihood of the completions of {len(wrong)} of {len(items)} queries is not a finite number (the first: example "
            f"{wrong[0]}). The run has probably diverged: see its loss, and lower its learning_rate."
        )
    return scored


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
