"""Layer inputs and output gradients of a batch, by hooks: all that per-example gradients are made of.

For y = W a, the gradient of example i over W is the sum over its tokens of b aᵀ, with b the gradient of y. No weight gradient is ever
formed by autograd: weights are frozen, and the backward pass computes input gradients only, down to the lowest layer that is watched.
"""

import copy
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.func import functional_call, vjp, vmap

from swift_study.errors import UserError
from swift_study.weights import Use, Weight

Receive = Callable[[Weight, Use, torch.Tensor, torch.Tensor], None]


@contextmanager
def watching(model: Any, uses: Iterable[tuple[Weight, Use]], receive: Receive) -> Iterator[None]:
    """While open, a backward pass calls ``receive(weight, use, a, b)`` for each of these uses in it.

    ``a`` (examples, tokens, …) is the module's input, token ids for an embedding; ``b`` (examples, tokens, …) is its output's gradient.
    All weights are frozen meanwhile: where gradients are to begin, something has to ask for them (stages.py).
    """
    by_module: dict[str, list[tuple[Weight, Use]]] = {}
    for weight, use in uses:
        by_module.setdefault(use.module, []).append((weight, use))

    def watch(name: str) -> Callable[[Any, tuple[torch.Tensor, ...], torch.Tensor], None]:
        def forward(module: Any, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
            a = args[0].detach()

            def backward(gradient: torch.Tensor) -> None:
                if gradient.shape[0] != a.shape[0]:
                    raise UserError(
                        f"The gradient engine cannot tell examples apart in {name}, whose input and output have other shapes: "
                        f"{tuple(a.shape)} and {tuple(gradient.shape)}. Leave it out with gradients.modules, a pattern on names."
                    )
                for weight, use in by_module[name]:
                    receive(weight, use, a, gradient.detach())

            output.register_hook(backward)  # type: ignore[no-untyped-call]

        return forward

    trainable = [p for p in model.parameters() if p.requires_grad]
    handles = [model.get_submodule(name).register_forward_hook(watch(name)) for name in by_module]
    try:
        for parameter in trainable:
            parameter.requires_grad_(False)
        yield
    finally:
        for handle in handles:
            handle.remove()
        for parameter in trainable:
            parameter.requires_grad_(True)


def small_gradient(module: torch.nn.Module, use: Use, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Per-example gradients of a bias or of a norm's weight, from the module's input and output gradient; (examples, size)."""
    if use.kind == "bias":
        return b.flatten(1, -2).sum(dim=1, dtype=wide(b.dtype))
    parameters = {use.parameter: module.get_parameter(use.parameter).detach()}
    module = copy.copy(module)
    module._forward_hooks, module._forward_pre_hooks = OrderedDict(), OrderedDict()  # ours among them

    def one(x: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        pull = vjp(lambda p: functional_call(module, p, (x,)), parameters)[1]
        found: torch.Tensor = pull(gradient)[0][use.parameter]
        return found

    return vmap(one)(a, b).flatten(1)


def embedding_gradient(module: Any, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """The gradient of the rows that were looked up, from that of the module's output: some models scale it; a padding row has none."""
    scale = getattr(module, "embed_scale", None)
    rows = b if scale is None else b * scale
    return rows if module.padding_idx is None else rows.masked_fill((a == module.padding_idx)[..., None], 0)


def wide(dtype: torch.dtype) -> torch.dtype:
    """The type that sums are made in: float32, or float64 for a float64 model."""
    return torch.float64 if dtype == torch.float64 else torch.float32
