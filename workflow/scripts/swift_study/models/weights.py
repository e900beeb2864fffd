"""Which weights a gradient is over, where the model uses them, and in which order.

A weight is one trainable tensor, counted once however many modules share it (an embedding tied to the output layer is one weight with
two uses). What is trainable is said by `requires_grad`.
"""

import inspect
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._pytree import tree_leaves

from swift_study.config import Gradients, Run
from swift_study.errors import UserError
from swift_study.models.batches import collate, sum_losses
from swift_study.models.loading import add_lora, exact_numerics
from swift_study.models.tokens import Tokens
from swift_study.patterns import search

# Uses whose gradients are sums over tokens of products of two vectors.
FACTORED = ("linear", "transposed", "embedding", "lora_embedding_A", "lora_embedding_B")


@dataclass(frozen=True)
class Use:
    """A module's use of a weight: as a `linear` layer's matrix (`transposed`: it is kept as inputs × outputs) or `bias`, as an `embedding`,
    as a matrix of an embedding's adapter (`lora_embedding_A`, `lora_embedding_B`), or in another way (`other`: norms, routers, experts)."""

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
    def turned(self) -> bool:
        """Whether the two sides of its gradient are those of its transpose: A of an embedding's adapter has a column for each token."""
        return any(use.kind == "lora_embedding_A" for use in self.uses)

    @property
    def matrix(self) -> tuple[int, ...]:
        """Its shape, turned where the two sides of its gradient are."""
        return self.shape[::-1] if self.turned else self.shape

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


def train_weights(model: Any, run: Run, gradients: Gradients | None, pass_through: bool = True) -> Any:
    """The model, frozen as it is loaded, with what the run trains asking for gradients: its adapter's weights, which are new, or all.

    Where the run's gradients are going to be computed, as ``gradients`` says, it is refused here, before it is trained, if the engine
    cannot compute them: UserError, as for targets that fit no module. Without ``pass_through``, as for a model without values, only
    those reasons are found that the modules' kinds give.
    """
    if gradients is not None and gradients.scope == "full":
        check_captured(model, gradients, pass_through)
    model = add_lora(model, run.lora, run.seed) if run.method == "lora" else model.requires_grad_(True)
    if gradients is not None and gradients.scope == "lora":
        check_captured(model, gradients, pass_through)
    return model


def check_captured(model: Any, gradients: Gradients, pass_through: bool) -> None:
    """UserError if the gradient engine does not cover all weights that ``gradients`` names; leaves the model as it is."""
    before = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    try:
        select_weights(model, gradients.scope, gradients.modules)
        weights = trainable_weights(model)
        if pass_through:
            calls(model, weights, Tokens([1, 2, 3, 4, 5], 1), 0)
    finally:
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(before[name])


def trainable_weights(model: Any) -> list[Weight]:
    """The model's trainable weights, in its own order. UserError for one whose gradient the engine cannot split by example."""
    names: dict[int, str] = {}
    uses: dict[int, list[Use]] = {}
    shapes: dict[int, tuple[int, ...]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            names[id(parameter)], uses[id(parameter)], shapes[id(parameter)] = name, [], tuple(parameter.shape)
    modules = dict(model.named_modules())
    for module_name, module in modules.items():
        for parameter_name, parameter in module.named_parameters(recurse=False):
            if id(parameter) in names:
                uses[id(parameter)].append(_use(modules, module_name, parameter_name))
    return [Weight(names[i], shapes[i], tuple(uses[i])) for i in names]


def _use(modules: Mapping[str, Any], name: str, parameter: str) -> Use:
    from peft.tuners.lora import Embedding, ParamWrapper
    from transformers.pytorch_utils import Conv1D

    module: Any = modules[name]
    owner, _, attribute = name.rpartition(".")
    wrapper = next(
        (name[: dot.start()] for dot in re.finditer(r"\.", name) if isinstance(modules[name[: dot.start()]], ParamWrapper)), None
    )
    if wrapper is not None:  # an adapter on experts or a router: peft wraps the module and calls it as a whole
        return Use(wrapper, f"{name}.{parameter}".removeprefix(f"{wrapper}."), "other")
    if isinstance(module, torch.nn.ParameterDict) and isinstance(modules[owner], Embedding):
        _check_embedding(modules[owner].get_base_layer(), owner)
        return Use(owner, f"{attribute}.{parameter}", attribute)
    if type(module) is torch.nn.Linear:
        return Use(name, parameter, "linear" if parameter == "weight" else "bias")
    if type(module) is Conv1D:
        return Use(name, parameter, "transposed" if parameter == "weight" else "bias")
    if isinstance(module, torch.nn.Embedding):
        _check_embedding(module, name)
        return Use(name, parameter, "embedding" if len(inspect.signature(module.forward).parameters) == 1 else "other")
    parts = any(True for child in module.children() for _ in child.parameters())
    if parts or isinstance(module, torch.nn.ParameterDict | torch.nn.ParameterList):
        raise UserError(
            f"The gradient engine covers weights of linear layers, embeddings, norms and other modules without parts, but "
            f"{name}.{parameter} belongs to a {type(module).__name__}. Leave it out with gradients.modules, a pattern on names."
        )
    return Use(name, parameter, "other")


def _check_embedding(module: Any, name: str) -> None:
    if module.max_norm is not None or module.scale_grad_by_freq or module.sparse:
        raise UserError(f"The gradient engine cannot take the embedding {name}, which changes its weights or gradients as it is used.")


@dataclass(frozen=True)
class Call:
    """A module's turn in a forward pass: its place in the order, the first module that gets the very same input, and whether examples in
    one batch can be told apart in that input: ``split``."""

    order: int
    same_input: str
    split: bool


def calls(model: Any, weights: Sequence[Weight], example: Tokens, pad_id: int) -> dict[str, Call]:
    """The modules that use the weights, and the decoder's first layer, as forward passes on a few tokens call them.

    UserError for a module that is called more than once, for a weight that has a gradient but no module that is seen to use it (no weight
    is left out without a word), and if there is no gradient at all. Call it while the weights ask for gradients.
    """
    device = next(model.parameters()).device
    names = {use.module for weight in weights for use in weight.uses}
    layers = decoder_layers(model)
    rows = len(model.get_input_embeddings().weight)
    few = [Tokens([(i + example.ids[t % len(example.ids)] + t) % rows for t in range(5)], 1) for i in range(PROBES)]
    with torch.no_grad(), exact_numerics(model):
        called, together = _inputs(model, names, layers, collate(few, pad_id, device))
        alone = [_inputs(model, names, [], collate([one], pad_id, device))[1] for one in few]
    idle = [weight for weight in weights if not any(use.module in called for use in weight.uses)]
    if idle:
        parameters = dict(model.named_parameters())
        with exact_numerics(model):
            loss = sum_losses(model, collate(few, pad_id, device)).sum()
            asked = [parameters[w.name] for w in idle]
            gradients = torch.autograd.grad(loss, asked, allow_unused=True) if loss.requires_grad else [None] * len(idle)
        for weight, gradient in zip(idle, gradients, strict=True):
            if gradient is not None:
                raise UserError(
                    f"The gradient engine does not see how the model uses {weight.name}, which is trained: the module it belongs to is not "
                    "called. Leave it out with gradients.modules, a pattern on names."
                )
    if len(idle) == len(weights):
        raise UserError(f"The model uses none of the weights whose gradients are asked for ({idle[0].name}, …). Change gradients.modules.")
    return {
        name: Call(call[0], call[1], name in layers or _is_split(together[name], [one.get(name) for one in alone]))
        for name, call in called.items()
    }


def idle_modules(weights: Sequence[Weight], called: Mapping[str, Call]) -> list[str]:
    """The modules that use one of the weights and were not called."""
    return sorted({use.module for weight in weights for use in weight.uses if use.module not in called})


PROBES = 3  # examples of four tokens: another number, so that the two are not taken for each other


def _inputs(model: Any, names: set[str], layers: Sequence[str], batch: Any) -> tuple[dict[str, tuple[int, str]], dict[str, torch.Tensor]]:
    """Of the modules that a pass calls: place in the order and first module with the same input; and their inputs, by name."""
    found: dict[str, tuple[int, str]] = {}
    inputs: dict[str, torch.Tensor] = {}  # kept, so that no address is used twice

    def watch(name: str) -> Any:
        def forward(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            if name in found:
                raise UserError(f"The gradient engine needs layers that are used once in a pass, but {name} is used again.")
            given = first_tensor(args, kwargs)
            first = next((n for n, a in inputs.items() if _same(a, given)), name)
            inputs[name] = given
            found[name] = (len(found), first)

        return forward

    def enter(module: Any, args: tuple[Any, ...]) -> None:
        found[layers[0]] = (len(found), layers[0])

    handles = [model.get_submodule(name).register_forward_hook(watch(name), with_kwargs=True) for name in names]
    handles += [model.get_submodule(name).register_forward_pre_hook(enter) for name in layers[:1]]
    try:
        sum_losses(model, batch)
    finally:
        for handle in handles:
            handle.remove()
    return found, inputs


def _is_split(together: torch.Tensor, alone: Sequence[torch.Tensor | None]) -> bool:
    """Whether a batch's input has each example's own rows in the order of the examples, or one row that all of them share.

    They need not be equal, since sums of a batch are made in another order, but far nearer to the example's own than to another's.
    """
    n = len(alone)
    if any(one is None or one.shape[1:] != together.shape[1:] for one in alone):
        return False
    own = [one.float() for one in alone if one is not None]
    if len(together) == 1 and all(torch.equal(one, together.float()) for one in own):
        return True
    if any(n * len(one) != len(together) for one in own):
        return False
    parts = together.float().chunk(n)
    off = max(float((part - one).norm()) for part, one in zip(parts, own, strict=True))
    apart = min(float((a - b).norm()) for i, a in enumerate(own) for b in own[:i])
    return off <= apart / 4


def first_tensor(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> torch.Tensor:
    """A module's input: the first tensor that it is called with."""
    return next(t for t in tree_leaves((args, kwargs)) if torch.is_tensor(t))


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
