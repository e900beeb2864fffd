"""What a run of the workflow costs, told from its jobs, its data and its model's size. Formulas and sources: docs/plan.md.

Units: bytes, tokens, floating-point operations, US dollars; GB are 10^9 bytes. P is the number of the model's weights.
"""

import json
import math
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from swift_study.config import Gradients, Lora, Plan, Run
from swift_study.errors import UserError

BYTES = {"float32": 4, "bfloat16": 2}
GB = 1e9
# Bytes of activations a token, a layer and a unit of the hidden size in 16 bits, attention's scores aside, which are not kept
# (Korthikanti et al. 2022, "Reducing Activation Recomputation in Large Transformer Models", section 4).
ACTIVATION_BYTES = 34
# Logits in float32: as they are, as log-probabilities for the backward pass, and their gradient.
LOGIT_COPIES = 3
LIVE_PARAMETERS = 10**9  # so many weights are gathered at once at ZeRO stage 3: stage3_max_live_parameters of deepspeed/zero-3.json
BATCH = 8  # examples in one pass of score_with_model.py and compute_baselines.py
# A gradients file in bytes, as measured on small panels: Parquet's share on top of a value, the other columns of a row, and the rest.
GRADIENT_VALUE, GRADIENT_ROW, GRADIENT_FILE = 1.15, 48, 4050
MODULE_VALUE, MODULE_FILE = 0.83, 2850  # the same of the file beside it, of each matrix's inner products
DATA_ROW, DATA_FILE = 300, 8000  # bytes in a file of examples or responses, roughly
CERTIFICATE_BYTES = 2e9  # of gradients that a certificate holds at once: CHUNK_BYTES of certificate.py
REST = 10e6  # bytes of figures, tables, pages, report and logs, roughly
ATTENTION, MLP = ("q_proj", "k_proj", "v_proj", "o_proj"), ("gate_proj", "up_proj", "down_proj")


# ---- the jobs ----


@dataclass(frozen=True)
class Job:
    rule: str
    wildcards: Mapping[str, str]


def read_jobs(dry_run: str) -> list[Job]:
    """The jobs that Snakemake's dry run lists, in an order of their own: the list's changes from time to time."""
    blocks = re.findall(r"^(?:local)?(?:rule|checkpoint) (\w+):\n((?:    .*\n)*)", dry_run, re.MULTILINE)
    jobs = []
    for rule, body in blocks:
        found = re.search(r"^    wildcards: (.*)$", body, re.MULTILINE)
        pairs = [part.split("=", 1) for part in found.group(1).split(", ")] if found else []
        jobs.append(Job(rule, dict(pairs)))
    return sorted(jobs, key=lambda job: (job.rule, *job.wildcards.values()))


# ---- the model ----


@dataclass(frozen=True)
class Size:
    """A model's size. ``linear`` holds for each kind of linear layer the sum of inputs and outputs over all layers."""

    parameters: float
    hidden_size: int
    layers: int
    vocabulary: int
    key_value_size: int
    linear: Mapping[str, int]
    tokenizer_bytes: int = 0

    def lora(self, settings: Lora) -> float:
        """Weights of an adapter: rank × (inputs + outputs) of every linear layer that has one."""
        missing = [t for t in settings.targets if t.split(".")[-1] not in self.linear]
        if missing:
            raise UserError(f"lora.targets names {missing[0]!r}, but the model has the linear layers {', '.join(self.linear)}.")
        return settings.rank * sum(self.linear[t.split(".")[-1]] for t in settings.targets)


def read_size(folder: Path) -> Size:
    """From a model's config.json and the headers of its safetensors files, which name every weight's shape."""
    config = json.loads((folder / "config.json").read_text())
    shapes: dict[str, list[int]] = {}
    for file in sorted(folder.glob("*.safetensors")):
        with file.open("rb") as opened:
            (length,) = struct.unpack("<Q", opened.read(8))
            header = json.loads(opened.read(length))
        shapes |= {name: entry["shape"] for name, entry in header.items() if name != "__metadata__"}
    if not shapes:
        raise UserError(f"{folder}: there are no *.safetensors files to tell the model's size from.")
    linear: dict[str, int] = {}
    parameters = 0
    for name, shape in shapes.items():
        parameters += math.prod(shape)
        kind = name.split(".")[-2] if name.endswith(".weight") and len(shape) == 2 and ".layers." in name else None
        if kind is not None:
            linear[kind] = linear.get(kind, 0) + sum(shape)
    heads = config.get("num_attention_heads", 1)
    head = config.get("head_dim") or config["hidden_size"] // heads
    tokenizer = [f for pattern in ("token*", "special_tokens*", "vocab*", "merges*", "*.jinja") for f in folder.glob(pattern)]
    return Size(
        parameters=parameters,
        hidden_size=config["hidden_size"],
        layers=config["num_hidden_layers"],
        vocabulary=config["vocab_size"],
        key_value_size=head * config.get("num_key_value_heads", heads),
        linear=linear,
        tokenizer_bytes=sum(f.stat().st_size for f in tokenizer),
    )


def configured_size(plan: Plan, model: str) -> Size:
    """From the keys of the section ``plan``, with the linear layers of a Llama; UserError names those that are missing."""
    keys = ("parameters", "hidden_size", "intermediate_size", "layers", "vocabulary")
    missing = [f"plan.{key}" for key in keys if getattr(plan, key) is None]
    if missing:
        raise UserError(
            f"The model {model!r} is not on this machine, so its size is not known. Set {', '.join(missing)} "
            "(they stand in the model's config.json on the hub), or fetch the model first."
        )
    assert plan.parameters is not None and plan.hidden_size is not None and plan.intermediate_size is not None  # noqa: PT018
    assert plan.layers is not None and plan.vocabulary is not None  # noqa: PT018
    keys_wide = plan.key_value_size or plan.hidden_size
    sides = {
        **{kind: plan.hidden_size + (keys_wide if kind in ("k_proj", "v_proj") else plan.hidden_size) for kind in ATTENTION},
        **dict.fromkeys(MLP, plan.hidden_size + plan.intermediate_size),
    }
    linear = {kind: plan.layers * side for kind, side in sides.items()}
    return Size(plan.parameters, plan.hidden_size, plan.layers, plan.vocabulary, keys_wide, linear)


# ---- operations ----


def training_flops(run: Run, size: Size, tokens: float) -> float:
    """6 P a token: 2 P forward, 4 P backward (Kaplan et al. 2020), 2 P more to compute activations again; with frozen weights the
    backward pass has only 2 P, and the adapter's own 6 P are added. Padding and attention's quadratic part are left out.
    """
    again = 2 * run.activation_checkpointing
    if run.method == "full":
        return (6 + again) * size.parameters * tokens
    return ((4 + again) * size.parameters + 6 * size.lora(run.lora)) * tokens


def gradient_flops(run: Run, size: Size, tokens: float, scope: str = "lora", panel: int = 0) -> float:
    """Forward and backward through frozen weights; an adapter's own weights too, or at full scope all inner products, formed densely."""
    if scope == "full":
        return (4 * size.parameters + (2 * size.parameters)) * tokens + 2 * panel**2 * size.parameters
    return (4 * size.parameters + 6 * size.lora(run.lora)) * tokens


def forward_flops(size: Size, tokens: float) -> float:
    return 2 * size.parameters * tokens


def gpu_hours(flops: float, plan: Plan, dtype: str, generating: bool = False) -> float:
    peak = plan.teraflops if dtype == "bfloat16" else plan.teraflops_float32
    return flops / (peak * 1e12 * (plan.generation_utilisation if generating else plan.utilisation)) / 3600


# ---- memory ----


@dataclass(frozen=True)
class Memory:
    """Bytes on one GPU at the peak, and of the host's memory for one process."""

    weights: float
    gradients: float = 0.0
    optimizer: float = 0.0
    activations: float = 0.0
    host: float = 0.0

    @property
    def gpu(self) -> float:
        return self.weights + self.gradients + self.optimizer + self.activations


def activations(size: Size, examples: int, tokens: int, dtype: str, kept: bool, again: bool = False) -> float:
    """Bytes of the activations and logits of ``examples`` × ``tokens``.

    ``kept`` for the backward pass: all layers', with ``again`` (activation checkpointing) one layer's and the input of every other
    one. Else, in a forward pass alone, one layer's.
    """
    unit = examples * tokens * size.hidden_size
    layer = unit * ACTIVATION_BYTES * BYTES[dtype] / 2
    layers = layer * size.layers if kept and not again else layer + (unit * BYTES[dtype] * size.layers if kept else 0)
    logits = examples * tokens * size.vocabulary * 4 * (LOGIT_COPIES if kept else LOGIT_COPIES - 1)
    return layers + logits


def training_memory(run: Run, size: Size, dtype: str, longest: int) -> Memory:
    """Of one process of a training whose longest example has ``longest`` tokens; ``dtype`` is that of its weights.

    Adapters are float32 beside frozen weights. Gradients are summed in float32. AdamW has two float32 moments, Lion one; from stage 1 on
    DeepSpeed keeps a float32 copy of what is trained. ZeRO (Rajbhandari et al. 2020) divides among the processes the optimizer's
    state at stage 1, the gradients as well at stage 2, and at stage 3 the weights, of which some are gathered while they are used.
    """
    n, stage = run.processes, run.zero_stage
    trained = size.parameters if run.method == "full" else size.lora(run.lora)
    weights = size.parameters * BYTES[dtype] + (0 if run.method == "full" else trained * 4)
    gradients = trained * 4 / (n if stage >= 2 else 1)
    optimizer = trained * 4 * (moments(run) + (stage >= 1)) / (n if stage >= 1 else 1)
    gathered = min(size.parameters, LIVE_PARAMETERS) * BYTES[dtype] if stage == 3 else 0
    weights = weights / (n if stage == 3 else 1)
    host = (optimizer if run.offload != "none" else 0) + (weights if run.offload == "parameters" else 0)
    return Memory(
        weights=gathered + (0 if run.offload == "parameters" else weights),
        gradients=gradients,
        optimizer=0 if run.offload != "none" else optimizer,
        activations=activations(size, run.micro_batch_size, longest, dtype, kept=True, again=run.activation_checkpointing),
        host=host,
    )


def moments(run: Run) -> int:
    """Numbers that the optimizer keeps for each weight."""
    return 2 if run.optimizer == "adamw" else 1


def gradient_memory(run: Run, size: Size, dtype: str, batch: int, longest: int, panel: int, budget: float = float("inf")) -> Memory:
    """Of a study's gradients over an adapter: every example's own are kept in float32, in layer groups where the budget is less."""
    adapter = size.lora(run.lora) * 4
    weights = size.parameters * BYTES[dtype] + adapter
    passing = activations(size, batch, longest, dtype, kept=True)
    return Memory(weights=weights, gradients=min(panel * adapter, max(budget - weights - passing, 0)), activations=passing)


def full_gradient_memory(size: Size, dtype: str, batch: int, longest: int, budget: float) -> Memory:
    """At full scope the rest of the budget is filled with layer inputs and output gradients."""
    weights, passing = size.parameters * BYTES[dtype], activations(size, batch, longest, dtype, kept=True)
    return Memory(weights=weights, gradients=max(budget - weights - passing, 0), activations=passing)


def certificate_memory(trained: float, size: Size, longest: int, sampled: int) -> Memory:
    """Of a study's numerics certificate: the whole model in float64, and up to CERTIFICATE_BYTES of the sampled examples' gradients."""
    one = activations(size, 1, longest, "float32", kept=True) * 2
    extra = 0 if trained == size.parameters else trained * 8
    return Memory(weights=size.parameters * 8 + extra, gradients=min(sampled * trained * 8, CERTIFICATE_BYTES), activations=one)


def generation_memory(size: Size, dtype: str, batch: int, tokens: int, adapter: float) -> Memory:
    """Of responses: weights, and the keys and values of ``batch`` × ``tokens``, prompt and response."""
    cache = 2 * batch * tokens * size.key_value_size * size.layers * BYTES[dtype]
    one_layer = batch * tokens * size.hidden_size * ACTIVATION_BYTES * BYTES[dtype] / 2
    return Memory(weights=size.parameters * BYTES[dtype] + adapter * 4, activations=cache + one_layer + 2 * batch * size.vocabulary * 4)


def warning(what: str, memory: Memory, plan: Plan, change: str) -> str | None:
    """A sentence where it does not fit on the GPU."""
    needed = memory.gpu / GB + plan.overhead_gb
    if needed <= plan.gpu_memory_gb:
        return None
    return f"WARNING: {what} needs about {needed:.0f} GB on a GPU of {plan.gpu_memory_gb:g} GB (plan.gpu_memory_gb). {change}"


def what_to_change(name: str, run: Run, memory: Memory) -> str:
    """Which keys of a run to change where its training does not fit, those that save the most first."""
    n = run.processes
    states = memory.weights + memory.gradients + memory.optimizer
    if states >= memory.activations:
        keys = [f"zero_stage (now {run.zero_stage})"] * (run.zero_stage < 3) + [f"processes (now {n})"]
        text = f"raise {' and '.join(keys)}" + (", or set offload" if run.offload != "parameters" else "")
        small = (
            f"; micro_batch_size (now {run.micro_batch_size}) and activation_checkpointing save the {memory.activations / GB:.0f} GB of "
        )
        return f"In runs.{name}, {text}{small}activations."
    text = f"lower micro_batch_size (now {run.micro_batch_size}; batch_size may stay)" if run.micro_batch_size > 1 else "lower max_length"
    return f"In runs.{name}, {text}" + ("." if run.activation_checkpointing else ", or set activation_checkpointing.")


# ---- disk ----


def checkpoint_bytes(run: Run, size: Size, dtype: str) -> float:
    """An adapter in float32, or all weights in their type; the tokenizer's files; where asked for, second moments."""
    trained = size.parameters if run.method == "full" else size.lora(run.lora)
    weights = trained * (BYTES[dtype] if run.method == "full" else 4)
    return weights + size.tokenizer_bytes + (trained * 4 if run.export_second_moments else 0)


def state_bytes(run: Run, size: Size, dtype: str) -> float:
    """The state from which a run goes on, over all processes; twice at its peak, since the old one goes when the new one is whole."""
    trained = size.parameters if run.method == "full" else size.lora(run.lora)
    weights = 0 if run.zero_stage == 3 else trained * (BYTES[dtype] if run.method == "full" else 4)
    return 2 * (weights + trained * 4 * (moments(run) + (run.zero_stage >= 1)))


def gradient_file_bytes(panel: int, settings: Gradients, weights: float, matrices: int, adam: bool) -> float:
    """One checkpoint's two files: numbers of every pair of examples, of an example's whole gradient or of its sketch; and for each of the
    matrices the inner products of every pair."""
    pairs = panel * panel * 8
    vectors = {"gram": pairs, "exact": panel * weights * 4, "sketch": panel * settings.sketch_dimensions * 4}[settings.representation]
    exact = settings.representation != "sketch"
    modules = matrices * panel * (panel + 1) / 2 * 8 if exact and settings.by_module else 0
    own = (vectors + (pairs if exact and adam else 0)) * GRADIENT_VALUE + panel * GRADIENT_ROW + GRADIENT_FILE
    return own + modules * MODULE_VALUE + MODULE_FILE


# ---- money ----


def cost(prompt: float, completion: float, usd_per_million_prompt: float, usd_per_million_completion: float) -> float:
    """US dollars for so many tokens."""
    return (prompt * usd_per_million_prompt + completion * usd_per_million_completion) / 1e6


# ---- a run's tokens ----


def training_tokens(run: Run, sizes: Mapping[str, tuple[int, float]]) -> float:
    """Tokens of a training from each dataset's number of examples and mean tokens. Of a sample of a dataset the mean is taken."""
    an_epoch = 0.0
    for phase in run.schedule:
        for name, part in phase.items():
            examples, mean = sizes[name]
            an_epoch += round((part.examples or examples) * part.weight) * mean
    return run.epochs * an_epoch


def too_few(run: Run, sizes: Mapping[str, tuple[int, float]]) -> list[str]:
    """Datasets of which the schedule asks more than there are."""
    asked = [(d, part.examples) for phase in run.schedule for d, part in phase.items() if part.examples]
    return [f"{d} has {sizes[d][0]} examples, {n} are asked for" for d, n in asked if n > sizes[d][0]]
