"""Responses: greedy generation from a run's checkpoint, and the choice of negatives and positives among them."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from swift_study.errors import UserError
from swift_study.examples import Example
from swift_study.models import exact_numerics
from swift_study.tokens import prompt_ids


@dataclass(frozen=True)
class Response:
    query_id: str
    response: str
    finish_reason: str  # "stop" at an end token, "length" at the limit
    n_tokens: int
    seed: int | None = None


@torch.inference_mode()
def respond(
    model: Any,
    tokenizer: Any,
    examples: Sequence[Example],
    max_new_tokens: int,
    batch_size: int,
    progress: Callable[[int], None] = lambda done: None,
) -> list[Response]:
    """Greedy responses to the examples' queries, in their order. Left-padded batches of similar length."""
    prompts = [prompt_ids(example, tokenizer) for example in examples]
    order = sorted(range(len(prompts)), key=lambda i: (-len(prompts[i]), i))
    end_ids = _end_ids(model, tokenizer)
    responses: dict[int, Response] = {}
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        width = max(len(prompts[i]) for i in rows)
        ids = torch.full((len(rows), width), tokenizer.pad_token_id)
        mask = torch.zeros((len(rows), width), dtype=torch.int64)
        for k, i in enumerate(rows):
            ids[k, width - len(prompts[i]) :] = torch.tensor(prompts[i])
            mask[k, width - len(prompts[i]) :] = 1
        with exact_numerics():
            output = model.generate(
                input_ids=ids.to(model.device),
                attention_mask=mask.to(model.device),
                do_sample=False,
                num_beams=1,
                max_new_tokens=max_new_tokens,
                eos_token_id=end_ids,
                pad_token_id=tokenizer.pad_token_id,
                temperature=None,
                top_p=None,
                top_k=None,
            )
        for k, i in enumerate(rows):
            new = output[k, width:].tolist()
            stop = next((n for n, token in enumerate(new) if token in end_ids), None)
            kept = new if stop is None else new[:stop]
            text = tokenizer.decode(kept, skip_special_tokens=True).strip()
            reason = "length" if stop is None else "stop"
            responses[i] = Response(examples[i].example_id, text, reason, len(kept) + (stop is not None))
        progress(start + len(rows))
    return [responses[i] for i in range(len(examples))]


def _end_ids(model: Any, tokenizer: Any) -> list[int]:
    configured = model.generation_config.eos_token_id
    ids = configured if isinstance(configured, list) else [] if configured is None else [configured]
    return sorted({*ids, tokenizer.eos_token_id})


@dataclass(frozen=True)
class Judged:
    """An example whose query was answered by the base model, and how the answer was judged (None: it could not be)."""

    example: Example
    response: str
    label: int | None


@dataclass(frozen=True)
class Chain:
    """A candidate and its analogue, each with its original query answered, its clarification, and its revised query answered."""

    original: Judged
    revised: Judged
    clarification: Example
    similar_original: Judged
    similar_revised: Judged

    def is_negative(self) -> bool:
        """Both original queries have an unsatisfactory response."""
        return all(j.label == 0 and j.response for j in (self.original, self.similar_original))

    def is_positive(self, positive_response: str) -> bool:
        """Both revised queries have a satisfactory one; a golden answer always is."""
        return positive_response == "golden" or all(j.label == 1 and j.response for j in (self.revised, self.similar_revised))


def select(chains: Sequence[Chain], tasks: int, positive_response: str) -> dict[str, list[Example]]:
    """Z_neg, Z_pos, Z′_neg, Z′_pos and Z_clarify: for each of ``tasks`` tasks the first chain that is negative and positive.

    (SPEC §4, Regime A; ambiguities 4 and 5.) UserError with the counts if there are too few.
    """
    by_task: dict[str, list[Chain]] = defaultdict(list)
    for chain in chains:
        by_task[chain.original.example.task].append(chain)
    chosen = []
    for members in by_task.values():
        fit = [c for c in members if c.is_negative() and c.is_positive(positive_response)]
        chosen += fit[:1]
    if len(chosen) < tasks:
        negative = sum(any(c.is_negative() for c in members) for members in by_task.values())
        positive = sum(any(c.is_positive(positive_response) for c in members) for members in by_task.values())
        raise UserError(
            f"Too few negatives or positives: {tasks} tasks are asked for (selection.tasks), but of the {len(by_task)} candidate tasks "
            f"{negative} have a query and an analogue that the base model answers unsatisfactorily, {positive} have revised queries "
            f"with satisfactory responses (selection.positive_response: {positive_response}), and {len(chosen)} have both. Add "
            "candidates (data.candidates.sources, data.candidates.per_task), lower selection.tasks, or take golden answers "
            "(selection.positive_response: golden)."
        )
    chosen = chosen[:tasks]

    def responded(j: Judged, strategy: str) -> Example:
        return j.example.derive(strategy, j.example.query, j.response)

    def satisfied(j: Judged) -> Example:
        # The completion of a revised query is the golden answer (see revise).
        return j.example.derive("positive", j.example.query, j.example.completion if positive_response == "golden" else j.response)

    return {
        "negative": [responded(c.original, "negative") for c in chosen],
        "negative.similar": [responded(c.similar_original, "negative") for c in chosen],
        "positive": [satisfied(c.revised) for c in chosen],
        "positive.similar": [satisfied(c.similar_revised) for c in chosen],
        "negative.clarify": [c.clarification for c in chosen],
    }


def revise(clarifications: Sequence[Example], originals: Mapping[str, Example]) -> list[Example]:
    """The revised queries with the golden answers: what a clarification answers becomes the query."""
    revised = []
    for clarification in clarifications:
        original = originals[clarification.parent_id or ""]
        revised.append(original.derive("revised", clarification.completion, original.golden or original.completion))
    return revised
