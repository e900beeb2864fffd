"""What the gradient engine keeps of a panel, and what else takes memory, in bytes."""

import ctypes
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from swift_study.config import Gradients
from swift_study.errors import UserError
from swift_study.gradients.gram import BLOCK
from swift_study.models.tokens import Tokens
from swift_study.models.weights import FACTORED, Call, Use, Weight

GB = 1e9
PASS_TOKENS = {"cpu": 1024, "cuda": None}  # on a CPU a pass over more is no faster a token, only larger (benchmarks/RESULTS.md)
LIBRARY_BYTES = 1e9  # of Python and the libraries: 0.4 GB seen once they are loaded, and room for what their kernels take
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of <malloc.h>


@dataclass(frozen=True)
class Need:
    """What a weight needs until its inner products are made: bytes of its own, and by the name of their first layer bytes of inputs, which
    layers share. ``factored``: layer inputs and output gradients are kept, not whole gradients, since they are smaller."""

    own: float
    inputs: dict[str, float]
    factored: bool


def needs(
    model: Any,
    weights: Sequence[Weight],
    called: Mapping[str, Call],
    tokens: Sequence[Tokens],
    batches: Sequence[Sequence[int]],
    representation: str,
) -> dict[str, Need]:
    """Of every weight, by its name. Whole gradients of the representation `exact` are kept in the result, which is counted apart."""
    item = next(model.parameters()).element_size()
    every, last = positions(tokens, batches)

    def seen(use: Use) -> int:
        return last if model.get_output_embeddings() is model.get_submodule(use.module) else every

    found = {}
    for weight in weights:
        gradients = float(len(tokens) * weight.size * max(item, 4))
        uses = [use for use in weight.uses if use.module in called]
        if all(use.kind in FACTORED for use in uses):
            rows, columns = weight.matrix
            # An embedding's ids have 8 bytes, twice as many as the smallest number that is kept.
            own_width = {"linear": rows, "transposed": columns, "lora_embedding_B": rows + columns}
            own = sum(seen(use) * own_width.get(use.kind, columns + 2) * item for use in uses)
            shared = {"linear": columns, "transposed": rows}
            inputs = {called[use.module].same_input: float(seen(use) * shared[use.kind] * item) for use in uses if use.kind in shared}
            if own + sum(inputs.values()) < gradients:
                found[weight.name] = Need(own, inputs, True)
                continue
        found[weight.name] = Need(0.0 if representation == "exact" else gradients, {}, False)
    return found


def positions(tokens: Sequence[Tokens], batches: Sequence[Sequence[int]]) -> tuple[int, int]:
    """Positions of all batches, padding included: of most layers, and of the output layer, which sees the last ones only."""
    every = last = 0
    for batch in batches:
        width = max(len(tokens[i].ids) for i in batch) - 1
        every += len(batch) * width
        last += len(batch) * (width - min(tokens[i].first_label for i in batch) + 1)
    return every, last


def fixed_bytes(
    model: Any, weights: Sequence[Weight], tokens: Sequence[Tokens], batches: Sequence[Sequence[int]], settings: Gradients
) -> float:
    """Of the budget, what is taken whatever is kept: the model, a pass, blocks that are worked on, and results. UserError if all of it."""
    device = next(model.parameters()).device
    item = max(next(model.parameters()).element_size(), 4)
    # Blocks of gradients that are formed and multiplied; of a weight that is whole already, a scaled copy.
    working = 4.0 * BLOCK[device.type] * item
    results = float(len(tokens) ** 2 * 8 * (len(weights) + 8))
    if settings.representation == "exact":
        results += float(len(tokens) * sum(w.size for w in weights) * item)
    taken: float = used_bytes(model) + pass_bytes(model, tokens, batches) + working + results
    if taken >= settings.memory_gb * GB:
        largest = max(map(len, batches))
        raise UserError(
            f"gradients.memory_gb = {settings.memory_gb:g} is too little: the loaded model, a pass over {largest} examples "
            f"and the results take about {taken / GB:.1f} GB before anything is kept for the inner products. Set it to "
            f"{1.5 * taken / GB:.1f} or more{f', or gradients.batch_size below {largest}' if largest > 1 else ''}."
        )
    return taken


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
        last = width - min(tokens[i].first_label for i in batch) + 1
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


def keep_freed_memory() -> None:
    """Let this process use freed memory again instead of handing it back: on a CPU much of a pass is the first touch of fresh memory.

    A setting of glibc's malloc, once for the process; other systems are left as they are.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, -1)
