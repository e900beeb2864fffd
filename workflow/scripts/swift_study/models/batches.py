"""Batches of tokens, and the loss on them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from swift_study.models.tokens import Tokens

IGNORED = -100


def batches(lengths: Sequence[int], batch_size: int, most_tokens: int | None = None) -> list[list[int]]:
    """Positions in batches of similar length, the longest first: what does not fit into memory fails at once.

    A batch has at most ``batch_size`` examples, and at most ``most_tokens`` tokens with padding, but always one example.
    """
    found: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        last = found[-1] if found else []
        if not last or len(last) == batch_size or (most_tokens is not None and (len(last) + 1) * lengths[last[0]] > most_tokens):
            found.append([])
        found[-1].append(i)
    return found


@dataclass(frozen=True)
class Batch:
    """Right-padded: ``input_ids``, ``attention_mask`` and ``labels`` are int64 of shape (examples, tokens).

    ``labels`` hold the token that is to be predicted *at* that position, so that logits and labels align without a shift.
    ``keep`` is how many of the last positions carry a label anywhere: logits before them are not needed.
    """

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    labels: torch.Tensor
    keep: int


def collate(batch: Sequence[Tokens], pad_id: int, device: torch.device | str = "cpu") -> Batch:
    """Pad to the longest. The last token is only predicted, never an input."""
    width = max(len(t.ids) for t in batch) - 1
    input_ids = torch.full((len(batch), width), pad_id, dtype=torch.int64)
    attention_mask = torch.zeros((len(batch), width), dtype=torch.int64)
    labels = torch.full((len(batch), width), IGNORED, dtype=torch.int64)
    for row, tokens in enumerate(batch):
        ids = torch.tensor(tokens.ids)
        n = len(ids) - 1
        input_ids[row, :n] = ids[:-1]
        attention_mask[row, :n] = 1
        for start, end in tokens.spans:
            labels[row, start - 1 : end - 1] = ids[start:end]
    keep = width - (min(t.first_label for t in batch) - 1)
    return Batch(input_ids.to(device), attention_mask.to(device), labels.to(device), keep)


def sum_losses(model: Any, batch: Batch) -> torch.Tensor:
    """Cross-entropy summed over each example's tokens that the loss is on, float32 (float64 for a float64 model); shape (examples,).

    The paper's loss of an example (SPEC §4, ambiguity 2). Only the last ``keep`` positions go through the output layer.
    """
    logits = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, logits_to_keep=batch.keep, use_cache=False).logits
    logits = logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits
    labels = batch.labels[:, -batch.keep :]
    losses = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="none")
    return losses.view(labels.shape).sum(dim=1)
