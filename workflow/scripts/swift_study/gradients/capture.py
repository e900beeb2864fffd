"""Layer inputs and output gradients of a batch, by hooks: all that per-example gradients are made of.

For y = W a, the gradient of example i over W is the sum over its tokens of b aᵀ, with b the gradient of y. No weight gradient is ever
formed by autograd: weights are frozen, and the backward pass computes input gradients only, down to the lowest layer that is watched.
"""

import copy
import functools
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.autograd.graph import register_multi_grad_hook
from torch.func import functional_call, vjp, vmap
from torch.utils._pytree import tree_leaves, tree_map_only

from swift_study.errors import UserError
from swift_study.models.weights import FACTORED, Use, Weight, first_tensor

Receive = Callable[[Weight, Use, torch.Tensor | None, torch.Tensor], None]


@dataclass
class Watch:
    """``examples``: how many the next pass is over; say so before it. A layer may see them flattened, as examples × tokens rows."""

    examples: int = 1


@contextmanager
def watching(model: Any, uses: Iterable[tuple[Weight, Use]], receive: Receive, idle: Iterable[str] = ()) -> Iterator[Watch]:
    """While open, a backward pass calls ``receive(weight, use, left, right)`` for each of these uses in it.

    An example's gradient is Σ_t left_t right_tᵀ, with ``left`` (examples, tokens, D), or token ids (examples, tokens) that stand for unit
    vectors, and ``right`` (examples, tokens, K); (D, K) is ``weight.matrix``. Where ``left`` is None, ``right`` (examples, size) is the
    gradient itself. All weights are frozen meanwhile. UserError if one of the modules ``idle`` is called.
    """
    watch = Watch()
    by_module: dict[str, list[tuple[Weight, Use]]] = {}
    for weight, use in uses:
        by_module.setdefault(use.module, []).append((weight, use))

    def observe(name: str) -> Callable[[Any, tuple[Any, ...], dict[str, Any], Any], Any]:
        def forward(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
            n = watch.examples
            outputs = [t for t in tree_leaves(output) if torch.is_tensor(t) and t.is_floating_point()]
            for tensor in outputs:
                if not tensor.requires_grad:  # the lowest layers: nothing below them asks for gradients
                    tensor.requires_grad_(True)
            if torch.is_tensor(output) and len(output) == 1 < n:  # computed once for all examples, as for positions
                output = output.expand(n, *output.shape[1:])
                outputs = [output]
            elif len(outputs) > 1:  # one may be made from another: what comes back to each is to be only what others made of it
                output = tree_map_only(torch.Tensor, lambda t: t.view_as(t) if t.is_floating_point() else t, output)
                outputs = [t for t in tree_leaves(output) if torch.is_tensor(t) and t.is_floating_point()]

            def backward(gradients: Sequence[torch.Tensor | None]) -> None:
                found = [None if g is None else g.detach() for g in gradients]
                for weight, use in by_module[name]:
                    receive(weight, use, *_parts(module, use, args, kwargs, found, n))

            if len(outputs) == 1:
                outputs[0].register_hook(lambda gradient: backward([gradient]))  # type: ignore[no-untyped-call]
            else:
                register_multi_grad_hook(outputs, backward)
            return output

        return forward

    def surprise(name: str) -> Callable[[Any, tuple[Any, ...]], None]:
        def before(module: Any, args: tuple[Any, ...]) -> None:
            raise UserError(
                f"The gradient engine needs layers that every example goes through, but only some go through {name}. Leave it out with "
                "gradients.modules, a pattern on names."
            )

        return before

    trainable = [p for p in model.parameters() if p.requires_grad]
    handles = [model.get_submodule(name).register_forward_hook(observe(name), with_kwargs=True) for name in by_module]
    handles += [model.get_submodule(name).register_forward_pre_hook(surprise(name)) for name in idle]
    try:
        for parameter in trainable:
            parameter.requires_grad_(False)
        yield watch
    finally:
        for handle in handles:
            handle.remove()
        for parameter in trainable:
            parameter.requires_grad_(True)


def _parts(
    module: Any, use: Use, args: tuple[Any, ...], kwargs: dict[str, Any], gradients: Sequence[torch.Tensor | None], n: int
) -> tuple[torch.Tensor | None, torch.Tensor]:
    """What `watching` hands on: (left, right) or (None, gradients) of the module's call with these inputs."""
    if use.kind not in FACTORED and use.kind != "bias":
        return None, small_gradient(module, use, args, kwargs, gradients, n)
    b = gradients[0]
    a = first_tensor(args, kwargs).detach()
    assert b is not None
    if len(b) % n or (len(a) % n and len(a) != 1):
        raise UserError(
            f"The gradient engine cannot tell examples apart in {use.module}, whose input and output have other shapes: "
            f"{tuple(a.shape)} and {tuple(b.shape)}. Leave it out with gradients.modules, a pattern on names."
        )
    right = _rows(b, n)
    if use.kind == "bias":
        return None, right.sum(dim=1, dtype=wide(b.dtype))
    if use.kind == "linear":
        return right, _rows(a, n)
    if use.kind == "transposed":
        return _rows(a, n), right
    ids = a.reshape(len(a) if len(a) == 1 else n, -1).expand(right.shape[:2]).contiguous()
    if use.kind == "embedding":
        return ids, embedding_gradient(module, ids, right)
    return _adapter_of_embedding(module, use, ids, right)


def _rows(tensor: torch.Tensor, n: int) -> torch.Tensor:
    """(examples, tokens, width) of what a layer may see flattened, as (examples × tokens, width)."""
    return tensor.reshape(n, -1, tensor.shape[-1])


def _adapter_of_embedding(module: Any, use: Use, ids: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Of an embedding's adapter, whose output for a token is scaling · B A[:, token]; of A the two sides of its transpose."""
    adapter = use.parameter.rpartition(".")[2]
    a_matrix, b_matrix = module.lora_embedding_A[adapter].detach(), module.lora_embedding_B[adapter].detach()
    scale = module._get_embed_scale()
    b = b.to(a_matrix.dtype) * module.scaling[adapter]
    b = b if scale is None else b * scale.to(b.dtype)
    if use.kind == "lora_embedding_B":
        return b, a_matrix.T[ids]
    padding = module.get_base_layer().padding_idx
    rows = b @ b_matrix
    return ids, rows if padding is None else rows.masked_fill((ids == padding)[..., None], 0)


def small_gradient(
    module: torch.nn.Module, use: Use, args: tuple[Any, ...], kwargs: dict[str, Any], gradients: Sequence[torch.Tensor | None], n: int
) -> torch.Tensor:
    """Per-example gradients of a norm's or another module's weight, from the module's inputs and its outputs' gradients; (n, size)."""
    parameters = {use.parameter: module.get_parameter(use.parameter).detach()}
    module = copy.copy(module)
    module._forward_hooks, module._forward_pre_hooks = OrderedDict(), OrderedDict()  # ours among them
    module._forward_hooks_with_kwargs = OrderedDict()
    b = gradients[0]
    if len(args) == 1 and not kwargs and torch.is_tensor(args[0]) and len(gradients) == 1 and b is not None and len(args[0]) == len(b):

        def one(x: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
            pull = vjp(lambda p: functional_call(module, p, (x,)), parameters)[1]
            found: torch.Tensor = pull(gradient)[0][use.parameter]
            return found

        return vmap(one)(_by_example(args[0].detach(), n), _by_example(b, n)).flatten(1)

    def of(i: int, tensor: torch.Tensor) -> torch.Tensor:
        """An example's rows, as a batch of one; what all examples share is left as it is."""
        tensor = tensor.detach()
        return tensor if tensor.dim() == 0 or len(tensor) % n else tensor[i * (len(tensor) // n) : (i + 1) * (len(tensor) // n)]

    found = []
    for i in range(n):
        weight = parameters[use.parameter].clone().requires_grad_(True)
        inputs, named = tree_map_only(torch.Tensor, functools.partial(of, i), (args, kwargs))
        with torch.enable_grad():
            output = functional_call(module, {use.parameter: weight}, inputs, named)
        outputs = [t for t in tree_leaves(output) if torch.is_tensor(t) and t.is_floating_point()]
        pairs = [(o, of(i, g).reshape(o.shape)) for o, g in zip(outputs, gradients, strict=True) if g is not None and o.requires_grad]
        (gradient,) = torch.autograd.grad([o for o, _ in pairs], [weight], [g for _, g in pairs], materialize_grads=True)
        found.append(gradient.flatten())
    return torch.stack(found)


def _by_example(tensor: torch.Tensor, n: int) -> torch.Tensor:
    return tensor if len(tensor) == n else tensor.reshape(n, -1, *tensor.shape[1:])


def embedding_gradient(module: Any, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """The gradient of the rows that were looked up, from that of the module's output: some models scale it; a padding row has none."""
    scale = getattr(module, "embed_scale", None)
    rows = b if scale is None else b * scale
    return rows if module.padding_idx is None else rows.masked_fill((a == module.padding_idx)[..., None], 0)


def wide(dtype: torch.dtype) -> torch.dtype:
    """The type that sums are made in: float32, or float64 for a float64 model."""
    return torch.float64 if dtype == torch.float64 else torch.float32
