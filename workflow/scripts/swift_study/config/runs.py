"""Runs: what is trained on what, and how."""

import math
import re
from typing import Annotated, Any, Literal

from pydantic import Field, PlainSerializer, PlainValidator, ValidatorFunctionWrapHandler, WithJsonSchema, WrapValidator

from swift_study.config.base import CONTROL_CHARACTERS, MAIN, NAME, LossOn, Section, Seed
from swift_study.config.grid import Level
from swift_study.io.settings import CHANGES_NOTHING

# Columns of results, which a factor's column would hide.
COLUMNS = ("evaluation", "scorer", "run", "family", "study", "query_id", "task", "statistic", "value")
GRID = {"type": "object", "additionalProperties": {"type": ["array", "object"]}}


class Lora(Section):
    rank: int = Field(default=64, ge=1, le=65_536)
    """r of the adapter."""
    alpha: int = Field(default=512, ge=1)
    """The update is scaled by alpha / rank."""
    targets: list[Annotated[str, Field(min_length=1)]] = Field(default=["up_proj", "down_proj"], min_length=1)
    """Linear layers that get an adapter, by the end of their module name."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of the adapter's inputs set to zero in training. Masks are drawn from the seed, the step, the process and the micro-batch: a
    resumed run has the same ones, but weights then depend on `processes` and `micro_batch_size`."""

    def same_weights(self, other: "Lora") -> bool:
        """Whether an adapter of the other settings has the same weights, as one must that a run starts from; dropout has none."""
        return self.model_copy(update={"dropout": other.dropout}) == other


FACTOR = r"^\{[a-z][a-z0-9_]*\}$"


def _or_factor(value: Any, check: ValidatorFunctionWrapHandler) -> Any:
    """A number, or `{factor}`: the level at each point of a grid."""
    return value if isinstance(value, str) and re.match(FACTOR, value) else check(value)


def _as_is(value: Any) -> Any:
    return value


def _schema(number: dict[str, Any], *others: dict[str, Any]) -> WithJsonSchema:
    return WithJsonSchema({"anyOf": [number, {"type": "string", "pattern": FACTOR}, *others]})


WHOLE = _schema({"type": "integer", "minimum": 0}, {"type": "null"})
WEIGHT = _schema({"type": "number", "exclusiveMinimum": 0, "maximum": 10_000})


class Part(Section):
    """How much of a dataset a schedule takes."""

    examples: Annotated[int | None, Field(ge=0), WrapValidator(_or_factor), PlainSerializer(_as_is), WHOLE] = None
    """Number of its examples, drawn by `data_seed`; null takes all, 0 none."""
    weight: Annotated[float, Field(gt=0, le=10_000), WrapValidator(_or_factor), PlainSerializer(_as_is), WEIGHT] = 1.0
    """Times each of them is seen in an epoch; a fraction is made up by a draw, another one in each epoch."""


class EarlyStopping(Section):
    """When training ends before its schedule does: by the loss on a dataset that the run is not trained on."""

    dataset: str
    """Dataset that the loss is measured on: the mean over its completion tokens (with `loss_on: all`, over the prompts' as well)."""
    patience: int | None = Field(default=1, ge=1)
    """Training stops after this number of measurements in a row without a new lowest loss; null measures and never stops."""
    every: int = Field(default=50, ge=1)
    """Steps between measurements; the loss after the last step is measured as well."""


class Run(Section):
    model: str = MAIN
    """Which model it trains: `main`, the model under study, or one of `models`."""
    start: str = "model"
    """What it starts from: `model`, or the last checkpoint of another run of the same method and model. Of a run family it is the point
    with the same levels of the factors that both have; others stand in brackets, as in `other[n=0]`."""
    schedule: list[dict[str, Part]] = [{"base": Part()}]
    """What an epoch sees: phases one after the other (the paper's →), each a random mixture (+) of datasets. [] trains nothing: the run is
    what it starts from."""
    method: Literal["lora", "full"] = "lora"
    """Which parameters are trained: those of a LoRA adapter, or all."""
    lora: Lora = Lora()
    """The adapter."""
    dtype: Literal["float32", "bfloat16"] | None = None
    """Type of the weights in training, null: model.dtype; with `full`, DeepSpeed keeps float32 masters of bfloat16 weights."""
    epochs: int = Field(default=2, ge=1)
    """Times each example is seen."""
    batch_size: int = Field(default=8, ge=1)
    """Examples a step, over all processes; the last batch of an epoch may be smaller."""
    micro_batch_size: int = Field(default=8, ge=1)
    """Examples a process works on at once; the batch is accumulated from these."""
    loss_on: LossOn = "completion"
    """Tokens that the loss is on: the `completion` and its end token; `all`, the prompt's as well; or the `values`, which a design knows:
    those that carry the answer (docs/data.md)."""
    learning_rate: float = Field(default=1e-4, gt=0)
    """At the end of the warm-up."""
    decay: Literal["linear", "constant", "cosine", "inverse_sqrt"] = "linear"
    """Learning rate after the warm-up: down to `final_learning_rate` in a straight line or half a cosine wave, unchanged, or
    proportional to 1 / √step (`inverse_sqrt`; without a warm-up, as after one of 10,000 steps)."""
    final_learning_rate: float = Field(default=1e-6, ge=0)
    """With `linear` and `cosine`: the learning rate of the last step."""
    warmup_steps: int = Field(default=5, ge=0)
    """Steps of linear warm-up from zero."""
    checkpoint_every: int | None = Field(default=8, ge=1)
    """Steps between published checkpoints; the last state is published as well. null publishes that one only."""
    resume_every: int = Field(default=50, ge=1, json_schema_extra=CHANGES_NOTHING)
    """Steps between states from which a killed run goes on, where no checkpoint is published."""
    early_stopping: EarlyStopping | None = None
    """Measure the loss on a dataset during training and stop where it no longer falls; null: train to the end of the schedule."""
    publish: Literal["last", "best"] = "last"
    """Which state ends the run: the last, or the one of the lowest loss on the dataset of `early_stopping`."""
    optimizer: Literal["adamw", "lion"] = "adamw"
    """AdamW, or Lion, which keeps one moment and steps by its sign (use a third to a tenth of AdamW's learning rate)."""
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.999)
    """AdamW: decay rates of the two moments. Lion: of its moment, as used in the update and as kept; its authors take 0.9 and 0.99."""
    epsilon: float = Field(default=1e-8, gt=0)
    """AdamW: added to the root of the second moment. Lion has none."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Decoupled, for both optimizers: each step multiplies the weights by 1 − learning rate × weight_decay."""
    clip_norm: float = Field(default=1.0, ge=0)
    """Gradients are scaled down to this norm; 0 leaves them."""
    zero_stage: Literal[0, 1, 2, 3] = 0
    """DeepSpeed ZeRO stage; what else DeepSpeed is told stands in deepspeed/zero-STAGE.json."""
    offload: Literal["none", "optimizer", "parameters"] = "none"
    """What is kept in the host's memory: nothing, the optimizer's state (stage 1 and up), or the parameters as well (stage 3)."""
    activation_checkpointing: bool = False
    """Compute activations again in the backward pass instead of keeping them: less memory, a third more time."""
    processes: int = Field(default=1, ge=1, le=65_536)
    """Processes, each with one GPU where there are GPUs, else with gloo on the CPU."""
    nodes: int = Field(default=1, ge=1, le=65_536, json_schema_extra=CHANGES_NOTHING)
    """Machines over which the processes are spread evenly; more than one only in a Slurm job (profiles/slurm)."""
    export_second_moments: bool = False
    """Also publish AdamW's second moments, as exp_avg_sq.safetensors in each checkpoint; with them studies have Adam's influence too."""
    seed: Seed = 17
    """Of the adapter's initial values, of dropout and of the order of the examples."""


# By factor its levels: a list, or by level the keys that it sets.
Grid = dict[str, list[Level] | dict[str, dict[str, Any]]]


def _grid(value: Any) -> Grid:
    if not isinstance(value, dict):
        raise ValueError("a grid has for each factor its levels, such as n: [0, 500]")
    for factor, levels in value.items():
        if not NAME.fullmatch(factor):
            raise ValueError(f"the factor {factor!r}: use lower-case letters, digits and _, beginning with a letter, at most 64")
        if factor in COLUMNS:
            raise ValueError(f"the factor {factor!r} has the name of a column that results have already; take another")
        if not isinstance(levels, list | dict) or not levels:
            raise ValueError(
                f"the factor {factor!r} needs levels: a list such as [0, 500], or a mapping from level to the keys that it sets"
            )
        texts = [str(level) for level in levels]
        if any(not isinstance(level, str | int | float) or not 0 < len(str(level)) <= 100 for level in levels):
            raise ValueError(f"the factor {factor!r}: a level is a text of 1 to 100 characters, or a number")
        if any(isinstance(level, float) and not math.isfinite(level) for level in levels):
            raise ValueError(f"the factor {factor!r}: a level should be a finite number")
        if any(re.search(r"[\[\],{}]", level) or level != level.strip() or CONTROL_CHARACTERS.search(level) for level in texts):
            raise ValueError(f"the factor {factor!r}: a level has no bracket, brace, comma, line break, or space at its ends")
        if len(set(texts)) < len(texts):
            raise ValueError(f"the factor {factor!r} has a level twice")
        if isinstance(levels, dict) and not all(isinstance(below, dict) for below in levels.values()):
            raise ValueError(f"the factor {factor!r}: below a level stand the keys that it sets, or {{}}")
    return value


class Family(Run):
    """One run, or with a grid one for each point of it."""

    like: str | None = None
    """Take what is not named here from this run."""
    grid: Annotated[Grid, PlainValidator(_grid), WithJsonSchema(GRID)] = {}
    """Factors and their levels: a list, or a mapping from level to the keys that it sets. Each combination is a run of its own. A factor
    that is a key of a run sets it; `{factor}` in the schedule, in `start` and in other texts stands for its level."""
    skip: list[dict[str, Any]] = []
    """Points of the grid that are not made. An entry names levels of some factors, one or a list; points that have all of these are left
    out."""
    shared: dict[str, Any] = {}
    """Levels at which points may be the same run whatever their other factors, such as n: 0; those that are the same are made once."""
    keep: Literal["all", "last", "none"] = "all"
    """Which checkpoints stay. `last`: the state that ends the run (`publish`); no other is written. `none`: none, once everything that is
    asked for and reads them is made; what reads them later trains the run again, and `snakemake -n` and `snakemake plan` tell it."""
