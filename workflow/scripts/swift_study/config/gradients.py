"""The gradient engine."""

from typing import Literal, Self

from pydantic import Field, model_validator

from swift_study.config.base import Section, Seed
from swift_study.io.settings import CHANGES_NOTHING
from swift_study.patterns import compile_pattern


class Gradients(Section):
    scope: Literal["lora", "full"] = "lora"
    """Which weights' gradients: of the run's adapter, or of all the model's weights (an adapter is merged into these first)."""
    modules: str | None = None
    """A regular expression: only weights in whose names it is found, such as `mlp` or `layers\\.(10|11)\\.`; null takes the whole scope."""
    representation: Literal["gram", "exact", "sketch"] = "gram"
    """Stored vectors: `gram`, an isometric embedding of the panel (as many numbers as examples), `exact`, the raw gradient, or `sketch`, a
    random projection with an error bar, for pools of thousands."""
    sketch_dimensions: int = Field(default=8192, ge=64, le=2**24)
    """Numbers of a sketch, a power of two; four times as many halve the error."""
    sketch_seed: Seed = 17
    """Of the random projection. Sketches of different seeds are never compared."""
    shard: int = Field(default=1000, ge=1)
    """A pool is sketched so many examples at a time; a killed job goes on with the next shard."""
    by_module: bool = True
    """Also keep each weight's own inner products, for the tables by family and layer; not for sketches."""
    batch_size: int = Field(default=8, ge=1)
    """Examples in one forward and backward pass, at most; without a GPU also at most 1,024 tokens. The numbers do not depend on it."""
    memory_gb: float = Field(default=12, gt=0, le=1e6, json_schema_extra=CHANGES_NOTHING)
    """Memory that may be used, in GB of 10^9 bytes, the model included: of the GPU, or without one of the machine. With less, layers are
    taken in groups, which together cost one forward pass more; the numbers do not depend on it."""
    host_memory_gb: float = Field(default=0, ge=0, le=1e6, json_schema_extra=CHANGES_NOTHING)
    """On a GPU: keep what is gathered for the inner products in the machine's memory, up to so many GB; 0 keeps it on the GPU."""
    include_step_0: bool = False
    """Also before the first step, where LoRA's B is zero and only B's gradient is left; shown apart, never in a verdict."""
    certificate_examples: int = Field(default=4, ge=2)
    """So many examples are computed again alone, and in float64, for the numerics certificate."""
    tolerance: float = Field(default=1e-3, gt=0)
    """Largest error of an inner product, relative to the two norms, that the certificate lets pass."""

    @model_validator(mode="after")
    def _usable(self) -> Self:
        if self.sketch_dimensions & (self.sketch_dimensions - 1):
            raise ValueError(f"gradients.sketch_dimensions = {self.sketch_dimensions} is not a power of two")
        if self.modules is not None:
            try:
                compile_pattern(self.modules)
            except ValueError as error:
                raise ValueError(f"gradients.modules {self.modules!r} is not a regular expression: {error}") from error
        return self
