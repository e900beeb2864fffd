"""What the gradient engine keeps of a panel, and how its layers are grouped so that it fits a stated amount of memory."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from swift_study.config import Gradients
from swift_study.errors import UserError
from swift_study.gram import BLOCK
from swift_study.tokens import Tokens
from swift_study.weights import Call, Use, Weight

GB = 1e9
LIBRARY_BYTES = 1e9  # of Python and the libraries: 0.4 GB seen once they are loaded, and room for what their kernels take


@dataclass(frozen=True)
class Need:
    """What a weight needs until its inner products are made: bytes of its own, and by the name of their first layer bytes of inputs, which
    layers share. ``factored``: layer inputs and output gradients are kept, not whole gradients, since they are smaller."""

    own: float
    inputs: dict[str, float]
    factored: bool


def needs(
    model: Any, weights: Sequence[Weight], called: Mapping[str, Call], tokens: Sequence[Tokens], batches: Sequence[Sequence[int]]
) -> dict[str, Need]:
    """Of every weight, by its name."""
    item = next(model.parameters()).element_size()
    every, last = _positions(tokens, batches)

    def seen(use: Use) -> int:
        return last if model.get_output_embeddings() is model.get_submodule(use.module) else every

    found = {}
    for weight in weights:
        gradients = float(len(tokens) * weight.size * max(item, 4))
        uses = [use for use in weight.uses if use.module in called]
        if all(use.kind in ("linear", "embedding") for use in uses):
            rows, columns = weight.shape
            own = sum(seen(use) * (rows if use.kind == "linear" else columns + 2) * item for use in uses)
            inputs = {called[use.module].same_input: float(seen(use) * columns * item) for use in uses if use.kind == "linear"}
            if own + sum(inputs.values()) < gradients:
                found[weight.name] = Need(own, inputs, True)
                continue
        found[weight.name] = Need(gradients, {}, False)
    return found


def _positions(tokens: Sequence[Tokens], batches: Sequence[Sequence[int]]) -> tuple[int, int]:
    """Positions of all batches, padding included: of most layers, and of the output layer, which sees the last ones only."""
    every = last = 0
    for batch in batches:
        width = max(len(tokens[i].ids) for i in batch) - 1
        every += len(batch) * width
        last += len(batch) * (width - min(tokens[i].prompt_length for i in batch) + 1)
    return every, last


def group(
    model: Any,
    weights: Sequence[Weight],
    called: Mapping[str, Call],
    need: Mapping[str, Need],
    tokens: Sequence[Tokens],
    batches: Sequence[Sequence[int]],
    settings: Gradients,
) -> list[list[Weight]]:
    """The weights in groups that fit the budget, from the bottom of the model up. UserError if one weight alone does not fit."""
    device = next(model.parameters()).device
    item = max(next(model.parameters()).element_size(), 4)
    passing = pass_bytes(model, tokens, batches)
    # Blocks of gradients that are formed and multiplied; of a weight that is whole already, a scaled copy.
    working = 4.0 * BLOCK[device.type] * item
    results = float(len(tokens) ** 2 * 8 * (len(weights) + 8))
    if settings.representation == "exact":
        results += 2.0 * len(tokens) * sum(w.size for w in weights) * item
    taken = used_bytes(model) + passing + working + results
    free = settings.memory_gb * GB - taken
    if free <= 0:
        raise UserError(
            f"gradients.memory_gb = {settings.memory_gb:g} is too little: the loaded model, a pass over {settings.batch_size} examples "
            f"and the results take about {taken / GB:.1f} GB before anything is kept for the inner products. Set it to "
            f"{1.5 * taken / GB:.1f} or more, or lower gradients.batch_size."
        )
    room = settings.host_memory_gb * GB if settings.host_memory_gb else free
    groups: list[list[Weight]] = []
    held, inputs = 0.0, set[str]()
    for weight in sorted(weights, key=lambda w: min(called[use.module].order for use in w.uses if use.module in called)):
        own = need[weight.name].own
        extra = own + sum(size for name, size in need[weight.name].inputs.items() if name not in inputs)
        if not groups or held + extra > room:
            groups.append([])
            held, inputs = 0.0, set()
            extra = own + sum(need[weight.name].inputs.values())
        if extra > room:
            key = "gradients.host_memory_gb" if settings.host_memory_gb else "gradients.memory_gb"
            least = (extra if settings.host_memory_gb else extra + taken) / GB
            raise UserError(
                f"{key} is too little for {len(tokens)} examples: what is kept for {weight.name} takes {extra / GB:.2f} GB, and "
                f"{room / GB:.2f} are left. Set it to {1.1 * least:.1f} or more, or leave the weight out with gradients.modules."
            )
        groups[-1].append(weight)
        held += extra
        inputs |= set(need[weight.name].inputs)
    return groups


def pass_bytes(model: Any, tokens: Sequence[Tokens], batches: Sequence[Sequence[int]]) -> float:
    """About what one forward and backward pass keeps for the largest batch: activations, attention's scores, logits.

    34 bytes a token, hidden unit and layer in 16 bits (Korthikanti et al. 2022, without attention), scores twice a layer, and three logits.
    """
    config = model.config.get_text_config()
    item = next(model.parameters()).element_size()
    hidden, layers, heads = config.hidden_size, config.num_hidden_layers, config.num_attention_heads
    largest = 0.0
    for batch in batches:
        width = max(len(tokens[i].ids) for i in batch) - 1
        last = width - min(tokens[i].prompt_length for i in batch) + 1
        activations = len(batch) * width * hidden * layers * 17 * item
        scores = len(batch) * heads * width * width * layers * 2 * max(item, 4)
        largest = max(largest, activations + scores + len(batch) * last * config.vocab_size * 3 * max(item, 4))
    return float(largest)


def used_bytes(model: Any) -> float:
    """What is in use before a pass: on a GPU by its allocator, else of the model and about what Python and the libraries take.

    Not the resident size: that still holds what an earlier checkpoint has freed, and there would be more groups for nothing.
    """
    device = next(model.parameters()).device
    if device.type == "cuda":
        return float(torch.cuda.memory_allocated(device))
    return float(LIBRARY_BYTES + sum(t.numel() * t.element_size() for t in [*model.parameters(), *model.buffers()]))
