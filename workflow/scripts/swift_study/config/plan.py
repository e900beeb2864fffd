"""What a plan assumes."""

from pydantic import Field

from swift_study.config.base import Section


class Plan(Section):
    """What `snakemake plan` takes for granted where nothing is known before the run: assumptions, not measurements (docs/plan.md)."""

    targets: list[str] = Field(default=["all"], min_length=1)
    """What is planned: collections, studies and `all`."""
    gpu_memory_gb: float = Field(default=80, gt=0)
    """Memory of one GPU in GB of 10^9 bytes; the plan warns of what does not fit. An H100 or A100 of 80 GB."""
    overhead_gb: float = Field(default=2, ge=0)
    """GPU memory that no formula covers: CUDA's context, buffers of the communication, gaps. A usual figure, not measured here."""
    teraflops: float = Field(default=989, gt=0)
    """Peak of one GPU in bfloat16, 10^12 operations a second: an H100 SXM by its data sheet, without sparsity."""
    teraflops_float32: float = Field(default=67, gt=0)
    """The same in float32, where tensor cores are not used: an H100 SXM by its data sheet."""
    utilisation: float = Field(default=0.35, gt=0, le=1)
    """Share of the peak that training, gradients and likelihoods reach; reports on GPUs of this kind mostly give 0.3 to 0.5."""
    generation_utilisation: float = Field(default=0.02, gt=0, le=1)
    """Share of the peak that generation reaches, which waits for memory at every token. A cautious guess."""
    response_share: float = Field(default=0.5, gt=0, le=1)
    """Assumed length of a response, as a share of generation.max_new_tokens."""
    characters_per_token: float = Field(default=3.5, gt=0, le=100)
    """Where the model's tokenizer is not on this machine, and for teacher and judge. About right for English; Chinese has 1 to 2."""
    template_tokens: int = Field(default=12, ge=0, le=10**6)
    """Tokens that the chat template adds to an example, where the tokenizer is not on this machine."""
    teacher_reply_tokens: int = Field(default=150, ge=1, le=10**6)
    """Assumed length of a teacher's reply."""
    judge_reply_tokens: int = Field(default=60, ge=1, le=10**6)
    """Assumed length of a judge's reply: a sentence and a label."""
    hub_examples: int = Field(default=1000, ge=1, le=10**6)
    """Assumed examples of a hub data set that is not on this machine and has no `limit`."""
    hub_prompt_tokens: int = Field(default=150, ge=1, le=10**6)
    """Assumed length of the queries there."""
    hub_completion_tokens: int = Field(default=150, ge=1, le=10**6)
    """Assumed length of the answers there."""
    parameters: float | None = Field(default=None, gt=0)
    """Weights of the model, with the next five keys for a hub model that is not on this machine; a local model is looked at instead."""
    hidden_size: int | None = Field(default=None, ge=1)
    """Width of its hidden states."""
    intermediate_size: int | None = Field(default=None, ge=1)
    """Width of its MLP."""
    layers: int | None = Field(default=None, ge=1)
    """Number of its layers."""
    vocabulary: int | None = Field(default=None, ge=1)
    """Number of its tokens."""
    key_value_size: int | None = Field(default=None, ge=1)
    """Width of its keys, and of its values: key-value heads × size of a head; null: hidden_size."""
