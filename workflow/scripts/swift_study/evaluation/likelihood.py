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
    """The items with the log-probabilities of the completions that the scorer asks for, and of what else it needs. UserError where one is
    not a finite number.

    With `overlong: skip` an item that is longer than the model's ``max_length`` says so in place of candidates.
    """
    needs, texts = scorer.declared.needs, [scorer.candidates(item) for item in items]
    tokens: list[list[Tokens]] = []
    reasons: list[str | None] = []
    for item, of_item in zip(items, texts, strict=True):
        try:
            values = [_has_values(item.example, text) and "values" in needs for text in of_item]
            tokens.append([prompts.tokens(item.example, text, of_text) for text, of_text in zip(of_item, values, strict=True)])
            reasons.append(None)
        except Overlong:
            if prompts.renderer.settings.overlong != "skip":
                raise
            tokens.append([])
            reasons.append(f"longer than model.max_length = {prompts.renderer.settings.max_length} tokens")
    prompt = "prompt" in needs
    flat = [_scored(t, prompt) for of_item in tokens for t in of_item]
    found = log_likelihoods(model, flat, prompts.renderer.pad_id, batch_size, lambda done: progress(done, len(flat)))
    rest = iter(found)
    scored = []
    for item, of_item, own, reason in zip(items, texts, tokens, reasons, strict=True):
        candidates = tuple(_candidate(text, t, next(rest), prompt) for text, t in zip(of_item, own, strict=False))
        scored.append(replace(item, candidates=candidates, too_long=reason))
    wrong = [item.example.example_id for item in scored if not all(_is_finite(c) for c in item.candidates)]
    if wrong:
        raise UserError(
            f"the likelihood of the completions of {len(wrong)} of {len(items)} queries is not a finite number (the first: example "
            f"{wrong[0]}). The run has probably diverged: see its loss, and lower its learning_rate."
        )
    return scored


@torch.inference_mode()
def log_likelihoods(
    model: Any, tokens: Sequence[Tokens], pad_id: int, batch_size: int, progress: Callable[[int], None] = lambda done: None
) -> list[np.ndarray]:
    """Of each example the log-probabilities of the tokens that the loss is on, given what stands before them: nats, float64.

    Batches hold examples of similar length; the numbers do not depend on them.
    """
    found, done = [np.empty(0)] * len(tokens), 0
    with exact_numerics():
        for rows in batches([len(t.ids) for t in tokens], batch_size):
            batch = collate([tokens[i] for i in rows], pad_id, model.device)
            log_p, there = (of.cpu().numpy() for of in _log_likelihoods(model, batch))
            for row, i in enumerate(rows):
                found[i] = log_p[row, there[row]]
            done += len(rows)
            progress(done)
    return found


def _log_likelihoods(model: Any, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probabilities of the labels, computed in float32, as float64, and where there is a label; shape (examples, tokens) both."""
    logits = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, logits_to_keep=batch.keep, use_cache=False).logits
    logits = logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits
    labels = batch.labels[:, -batch.keep :]
    losses = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="none")
    return -losses.view(labels.shape).double(), labels != IGNORED


def _has_values(example: Example, text: str) -> bool:
    """Whether a design has said which parts of this text carry the answer."""
    return bool(example.value_spans) and text == example.completion


def _scored(tokens: Tokens, prompt: bool) -> Tokens:
    """The tokens with the loss on the whole completion, and on the prompt behind its first token."""
    return replace(tokens, loss_spans=((1 if prompt else tokens.prompt_length, len(tokens.ids)),))


def _candidate(text: str, tokens: Tokens, log_p: np.ndarray, prompt: bool) -> Candidate:
    """A completion with its log-probabilities. ``log_p`` is of the last tokens; the loss of ``tokens`` is on the values, if they are asked
    for."""
    first = len(tokens.ids) - len(log_p)

    def nats(start: int, end: int) -> float:
        return float(log_p[start - first : end - first].sum())

    found = Candidate(text, nats(tokens.prompt_length, len(tokens.ids)), tokens.n_completion)
    if prompt:
        found = replace(found, prompt_nats=nats(1, tokens.prompt_length), prompt_tokens=tokens.prompt_length - 1)
    if tokens.loss_spans:
        found = replace(found, value_nats=sum(nats(*span) for span in tokens.loss_spans), value_tokens=tokens.n_labels)
    return found


def _is_finite(candidate: Candidate) -> bool:
    return all(np.isfinite(nats) for nats in (candidate.nats, candidate.prompt_nats) if nats is not None)
