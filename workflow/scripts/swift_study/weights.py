"""Which weights a gradient is over, where the model uses them, and in which order.

A weight is one trainable tensor, counted once however many modules share it (an embedding tied to the output layer is one weight with
two uses). What is trainable is said by `requires_grad`.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from swift_study.errors import UserError
from swift_study.patterns import search
from swift_study.tokens import Tokens, collate, sum_losses


@dataclass(frozen=True)
class Use:
    """A module's use of a weight: as a `linear` layer's matrix or `bias`, as an `embedding`, or in another way (norms)."""

    module: str
    parameter: str  # its name within the module
    kind: str


@dataclass(frozen=True)
class Weight:
    name: str
    shape: tuple[int, ...]
    uses: tuple[Use, ...]

    @property
    def size(self) -> int:
        return int(torch.Size(self.shape).numel())

    @property
    def layer(self) -> int | None:
        """The number in its name, as in `layers.7.`; None outside the layers."""
        found = re.search(r"\.(\d+)\.", self.name)
        return int(found[1]) if found else None

    @property
    def family(self) -> str:
        """What it is in every layer: `mlp.up_proj.lora_A`, `self_attn.q_proj`, `input_layernorm`, `embed_tokens`."""
        rest = self.name.removesuffix(".weight").removesuffix(".default")
        within = re.split(r"\.\d+\.", rest, maxsplit=1)[-1]
        return within if self.layer is not None else within.rsplit(".", 1)[-1]


def select_weights(model: Any, scope: str, pattern: str | None) -> None:
    """Make trainable what the scope names: an adapter's weights (`lora`) or all (`full`), and of these what the pattern is found in.

    UserError if that leaves none.
    """
    known = []
    for name, parameter in model.named_parameters():
        within = (scope == "full" or "lora_" in name) and parameter.is_floating_point()
        known += [name] if within else []
        parameter.requires_grad_(within and (pattern is None or search(pattern, name, where="gradients.modules") is not None))
    if not any(p.requires_grad for p in model.parameters()):
        some = ", ".join(known[:3]) or "none"
        raise UserError(f"gradients.modules {pattern!r} is found in no weight of the scope '{scope}'; its weights are named {some}, …")


def trainable_weights(model: Any) -> list[Weight]:
    """The model's trainable weights, in its own order. UserError for one whose gradient the engine cannot split by example."""
    names: dict[int, str] = {}
    uses: dict[int, list[Use]] = {}
    shapes: dict[int, tuple[int, ...]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            names[id(parameter)], uses[id(parameter)], shapes[id(parameter)] = name, [], tuple(parameter.shape)
    for module_name, module in model.named_modules():
        for parameter_name, parameter in module.named_parameters(recurse=False):
            if id(parameter) in names:
                uses[id(parameter)].append(Use(module_name, parameter_name, _kind(module, module_name, parameter_name)))
    return [Weight(names[i], shapes[i], tuple(uses[i])) for i in names]


def _kind(module: torch.nn.Module, name: str, parameter: str) -> str:
    if type(module) is torch.nn.Linear:
        return "linear" if parameter == "weight" else "bias"
    if isinstance(module, torch.nn.Embedding):
        if module.max_norm is not None or module.scale_grad_by_freq or module.sparse:
            raise UserError(f"The gradient engine cannot take the embedding {name}, which changes its weights or gradients as it is used.")
        return "embedding"
    if any(True for _ in module.children()):
        raise UserError(
            f"The gradient engine covers weights of linear layers, embeddings, norms and other modules without parts, but "
            f"{name}.{parameter} belongs to a {type(module).__name__}. Leave it out with gradients.modules, a pattern on names."
        )
    return "other"


@dataclass(frozen=True)
class Call:
    """A module's turn in a forward pass: its place in the order, and the first module that gets the very same input."""

    order: int
    same_input: str


def calls(model: Any, weights: Sequence[Weight], example: Tokens, pad_id: int) -> dict[str, Call]:
    """The modules that use the weights, and the decoder's first layer, as a forward pass on the example's first tokens calls them.

    UserError for one that is called more than once.
    """
    found: dict[str, Call] = {}
    inputs: list[tuple[torch.Tensor, str]] = []  # kept, so that no address is used twice

    def watch(name: str) -> Any:
        def forward(module: Any, args: tuple[Any, ...], output: Any) -> None:
            if name in found:
                raise UserError(f"The gradient engine needs layers that are used once in a pass, but {name} is used again.")
            first = next((n for a, n in inputs if _same(a, args[0])), name)
            inputs.append((args[0], name))
            found[name] = Call(len(found), first)

        return forward

    def enter(module: Any, args: tuple[Any, ...]) -> None:
        found[layers[0]] = Call(len(found), layers[0])

    modules = {use.module for weight in weights for use in weight.uses}
    handles = [model.get_submodule(name).register_forward_hook(watch(name)) for name in modules]
    layers = decoder_layers(model)
    handles += [model.get_submodule(name).register_forward_pre_hook(enter) for name in layers[:1]]
    try:
        with torch.no_grad():  # a few tokens tell which modules are called, and in which order
            sum_losses(model, collate([Tokens(example.ids[:4], 1)], pad_id, next(model.parameters()).device))
    finally:
        for handle in handles:
            handle.remove()
    return found


def _same(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.data_ptr() == b.data_ptr() and a.shape == b.shape and a.stride() == b.stride() and a.dtype == b.dtype


def block_of(model: Any, module: str) -> str | None:
    """The decoder layer that a module is in, by name: the first part of its name that stands in a list of modules; None outside them."""
    parts = module.split(".")
    for end in range(1, len(parts)):
        if isinstance(model.get_submodule(".".join(parts[:end])), torch.nn.ModuleList):
            return ".".join(parts[: end + 1])
    return None


def decoder_layers(model: Any) -> list[str]:
    """The names of the decoder's layers in their order; none if the model does not have them in one list."""
    count = model.config.get_text_config().num_hidden_layers
    lists = [n for n, m in model.named_modules() if isinstance(m, torch.nn.ModuleList) and len(m) == count and block_of(model, n) is None]
    return [f"{lists[0]}.{i}" for i in range(count)] if len(lists) == 1 else []
