"""A model's layers in groups, so that what the gradient engine keeps of a panel fits a memory budget.

The groups are taken from the loss down. The first one's pass is a usual one that is cut below its lowest layer; what enters each lower
group is kept on the way, and then the gradient of what entered this one. A lower group is computed again from what entered it, and its
backward pass begins with the gradient that the group above has left. However many there are, they cost at most one forward pass more than
all layers at once would (where one layer has several groups, its pass is made for each). The numbers are the same, bit by bit.
"""

import contextlib
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from swift_study.config import Gradients
from swift_study.errors import UserError
from swift_study.gradients.memory import GB, Need, fixed_bytes, positions
from swift_study.models.batches import Batch, sum_losses
from swift_study.models.tokens import Tokens
from swift_study.models.weights import Call, Use, Weight, block_of, decoder_layers

BELOW = -1  # the place of what comes before the decoder's layers; they have their numbers, and what comes after them has the next one


@dataclass(frozen=True)
class Stage:
    """The ``weights`` whose inner products are made after it, and the ``uses`` to watch in it: those of its weights, and those within its
    places, ``first`` to ``last``, of weights that are used again further down."""

    weights: list[Weight]
    uses: list[tuple[Weight, Use]]
    first: int
    last: int


def make_stages(
    model: Any,
    weights: Sequence[Weight],
    called: Mapping[str, Call],
    need: Mapping[str, Need],
    tokens: Sequence[Tokens],
    batches: Sequence[Sequence[int]],
    settings: Gradients,
) -> list[Stage]:
    """From the loss down, each within the budget. UserError if one weight alone does not fit."""
    layers = decoder_layers(model)
    place_of = _places(model, layers, called)
    used = _used(weights, called)
    lowest = _lowest(used, place_of)
    spread = {w.name for w in weights if len({place_of(use) for use in used[w.name]}) > 1}
    fixed = fixed_bytes(model, weights, tokens, batches, settings)
    room = settings.host_memory_gb * GB or settings.memory_gb * GB - fixed
    held = sum(need[name].own for name in spread)  # from the first stage to the last
    # What enters a group, for each, and two gradients of that: the one it starts with, and the one it leaves.
    item, width = next(model.parameters()).element_size(), model.config.get_text_config().hidden_size
    entering = float(positions(tokens, batches)[0] * width * item)
    masks = float(sum(len(batch) * max(len(tokens[i].ids) for i in batch) ** 2 for batch in batches) * item)

    def size(members: Sequence[Weight], without: Collection[str] = ()) -> float:
        inputs = {name: size for w in members for name, size in need[w.name].inputs.items()}
        return sum(need[w.name].own for w in members if w.name not in without) + sum(inputs.values())

    def fill(room: float) -> list[list[Weight]] | None:
        groups: list[list[Weight]] = [[]]
        for place in sorted(set(lowest.values()), reverse=True):
            members = [w for w in weights if lowest[w.name] == place]
            if size(groups[-1] + members, spread) <= room:
                groups[-1] += members
                continue
            if size(members, spread) <= room:
                groups.append(members)
                continue
            groups.append([])
            for weight in members:  # one layer in several groups
                if size([weight], spread) > room:
                    return None
                if size([*groups[-1], weight], spread) > room:
                    groups.append([])
                groups[-1].append(weight)
            groups.append([])
        return [g for g in groups if g]

    def within(room: float) -> list[list[Weight]] | None:
        if size(weights) <= room:
            return [list(weights)]
        if not layers:
            return None
        count = 2
        while (groups := fill(room - held - masks - (count + 1) * entering)) is not None and len(groups) > count:
            count = len(groups)  # more groups keep more of what enters them
        return groups

    groups = within(room)
    if groups is None:
        key, given = ("host_memory_gb", settings.host_memory_gb) if settings.host_memory_gb else ("memory_gb", settings.memory_gb)
        enough = given
        while within(room + (enough - given) * GB) is None:
            enough *= 1.1
        most = max(weights, key=lambda w: size([w]))
        raise UserError(
            f"gradients.{key} is too little for {len(tokens)} examples: {room / GB:.2f} GB are left for what is kept of their layers, and "
            f"for {most.name} alone that is {size([most]) / GB:.2f} GB. Set it to {math.ceil(10 * enough) / 10} or more, or leave weights "
            "out with gradients.modules."
        )
    return _stages(groups, weights, used, place_of, len(layers))


def all_at_once(model: Any, weights: Sequence[Weight], called: Mapping[str, Call]) -> Stage:
    """One stage of everything."""
    layers = decoder_layers(model)
    (stage,) = _stages([list(weights)], weights, _used(weights, called), _places(model, layers, called), len(layers))
    return stage


def _stages(
    groups: Sequence[list[Weight]],
    weights: Sequence[Weight],
    used: Mapping[str, Sequence[Use]],
    place_of: Callable[[Use], int],
    layers: int,
) -> list[Stage]:
    lowest = _lowest(used, place_of)
    stages: list[Stage] = []
    last = layers
    for members in groups:
        first = min(lowest[w.name] for w in members)
        again = bool(stages) and first == stages[-1].first  # another part of the same layer
        if stages and not again:
            last = stages[-1].first - 1
        names = {w.name for w in members}
        uses = [
            (w, use)
            for w in weights
            for use in used[w.name]
            if first <= place_of(use) <= last and (w.name in names or (lowest[w.name] < first and not again))
        ]
        stages.append(Stage(members, uses, first, last))
    return stages


def _used(weights: Sequence[Weight], called: Mapping[str, Call]) -> dict[str, list[Use]]:
    """Each weight's uses in modules that are called, by its name."""
    return {w.name: [use for use in w.uses if use.module in called] for w in weights}


def _lowest(used: Mapping[str, Sequence[Use]], place_of: Callable[[Use], int]) -> dict[str, int]:
    """The place of each weight's lowest use, by its name."""
    return {name: min(map(place_of, uses)) for name, uses in used.items()}


def _places(model: Any, layers: Sequence[str], called: Mapping[str, Call]) -> Callable[[Use], int]:
    number = {name: i for i, name in enumerate(layers)}

    def place(use: Use) -> int:
        block = block_of(model, use.module)
        if block in number:
            return number[block]
        return BELOW if not layers or called[use.module].order < called[layers[0]].order else len(layers)

    return place


class Passes:
    """Forward and backward passes over the batches of a panel, a stage at a time, and what these leave for the stages below."""

    def __init__(self, model: Any, called: Mapping[str, Call], stages: Sequence[Stage], place: torch.device) -> None:
        self.model, self.called, self.stages, self.place = model, called, stages, place
        self.layers = [model.get_submodule(name) for name in decoder_layers(model)]
        self.entered: dict[tuple[int, int], tuple[torch.Tensor | None, tuple[Any, ...], dict[str, Any]]] = {}  # by layer and batch
        self.left: dict[tuple[int, int], torch.Tensor] = {}

    def backward(self, stage: Stage, number: int, batch: Batch) -> torch.Tensor | None:
        """One batch. The losses, (examples,), where the stage starts with them."""
        cuts: list[torch.Tensor] = []
        losses = None
        if stage.last == len(self.layers):
            recorded = self._recorded(number) if stage is self.stages[0] else contextlib.nullcontext()
            with recorded, self._cut(stage.first, cuts), _whole_product(self.model.get_output_embeddings()):
                losses = sum_losses(self.model, batch)
            torch.autograd.backward(losses.sum())
        else:
            upstream = self.left[stage.last + 1, number].to(batch.input_ids.device)
            if stage.first == BELOW:
                with self._cut(stage.first, cuts):
                    hidden = self._until(stage.last, batch)
            else:
                hidden = self._again(stage, number, batch.input_ids.device, cuts)
            torch.autograd.backward(hidden, upstream)
        if stage is not self.stages[-1] and cuts:
            gradient = cuts[0].grad
            assert gradient is not None
            self.left[stage.first, number] = gradient.to(self.place)
        return None if losses is None else losses.detach()

    def forget(self, stage: Stage) -> None:
        """What only stages before this one need."""
        self.entered = {key: value for key, value in self.entered.items() if key[0] <= stage.last}
        self.left = {key: value for key, value in self.left.items() if key[0] == stage.last + 1}

    def _again(self, stage: Stage, number: int, device: torch.device, cuts: list[torch.Tensor]) -> torch.Tensor:
        start = self.entered[stage.first, number][0]
        assert start is not None
        hidden = start.to(device).detach().requires_grad_(True)
        cuts.append(hidden)
        for i in range(stage.first, stage.last + 1):
            _, args, kwargs = self.entered[i, number]
            output = self.layers[i](hidden, *args, **kwargs)
            hidden = output if torch.is_tensor(output) else output[0]
        return hidden

    def _until(self, last: int, batch: Batch) -> torch.Tensor:
        """From the model's beginning to the output of a layer, or of what comes before the first."""

        def after(module: Any, args: Any, output: Any) -> None:
            raise _Reached(output if torch.is_tensor(output) else output[0])

        def before(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            raise _Reached(_hidden(args, kwargs))

        if last == BELOW:
            handle = self.layers[0].register_forward_pre_hook(before, with_kwargs=True)
        else:
            handle = self.layers[last].register_forward_hook(after)
        try:
            sum_losses(self.model, batch)
        except _Reached as reached:
            return reached.hidden
        finally:
            handle.remove()
        raise AssertionError("the layer was not reached")

    @contextlib.contextmanager
    def _cut(self, first: int, cuts: list[torch.Tensor]) -> Iterator[None]:
        """Let gradients flow from this place, and not further down."""

        def cut(tensor: torch.Tensor) -> torch.Tensor:
            cuts.append(tensor.detach().requires_grad_(True))
            return cuts[0]

        def before(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
            if args:
                return (cut(args[0]), *args[1:]), kwargs
            return args, kwargs | {"hidden_states": cut(kwargs["hidden_states"])}

        def after(module: Any, args: Any, output: Any) -> Any:
            return cut(output) if torch.is_tensor(output) else (cut(output[0]), *output[1:])

        if first == len(self.layers) and self.layers:
            handle = self.layers[-1].register_forward_hook(after)
        elif first >= 0 and self.layers:
            handle = self.layers[first].register_forward_pre_hook(before, with_kwargs=True)
        else:  # the lowest layers that are watched ask for gradients themselves (capture.py)
            yield
            return
        try:
            yield
        finally:
            handle.remove()

    @contextlib.contextmanager
    def _recorded(self, number: int) -> Iterator[None]:
        """Keep what the stages below need: what enters their lowest layers, and how all of their layers are called."""
        again = [stage for stage in self.stages if BELOW < stage.first <= stage.last < len(self.layers)]
        starts = {stage.first for stage in again}
        handles = []
        outputs: list[torch.Tensor] = []

        def watch(i: int, keep: bool) -> None:
            def before(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
                hidden = _hidden(args, kwargs)
                if outputs and hidden.data_ptr() != outputs[-1].data_ptr():
                    raise UserError(
                        "This model does more between its decoder layers than hand on their output, so that they cannot be taken in "
                        "groups. Raise gradients.memory_gb until there is one."
                    )
                if keep:
                    rest = {k: v for k, v in kwargs.items() if args or k != "hidden_states"}
                    self.entered[i, number] = (hidden.detach().to(self.place) if i in starts else None, args[1:], rest)

            def after(module: Any, args: Any, output: Any) -> None:
                outputs[:] = [(output if torch.is_tensor(output) else output[0]).detach()]

            handles.append(self.layers[i].register_forward_pre_hook(before, with_kwargs=True))
            handles.append(self.layers[i].register_forward_hook(after))

        kept = {i for stage in again for i in range(stage.first, stage.last + 1)}
        for i in range(min(self.stages[0].first + 1, len(self.layers))) if len(self.stages) > 1 else ():
            watch(i, i in kept)
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


@contextlib.contextmanager
def _whole_product(linear: torch.nn.Module) -> Iterator[None]:
    """Let the output layer's product be one of matrices: of the last positions, which lie apart in memory, PyTorch makes one an example."""
    handle = linear.register_forward_pre_hook(lambda module, args: (args[0].contiguous(),))
    try:
        yield
    finally:
        handle.remove()


def _hidden(args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Tensor:
    hidden: torch.Tensor = args[0] if args else kwargs["hidden_states"]
    return hidden


class _Reached(Exception):
    """The layer at which a forward pass is to end."""

    def __init__(self, hidden: torch.Tensor) -> None:
        super().__init__()
        self.hidden = hidden
